//! `sifter-control call`: asks any server of the API, signed, and shows the answer.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;
use http::Method;
use http::StatusCode;
use hyper::body::Bytes;
use jiff::Timestamp;
use serde_json::Value;
use unicode_width::UnicodeWidthStr as _;
use uuid::Uuid;

use super::escape::clean;
use super::escape::indented;
use crate::auth::Generation;
use crate::auth::keys::KeyError;
use crate::auth::keys::KeySource;
use crate::auth::keys::Secret;
use crate::auth::sign;
use crate::auth::sign::Call;
use crate::auth::sign::Credentials;
use crate::call;
use crate::call::CallError;
use crate::call::Endpoint;

/// The server answered with an error.
const EXIT_API_ERROR: u8 = 3;

/// No answer, or none that can be read.
const EXIT_NO_ANSWER: u8 = 4;

/// Call an action of the API with a signed request
///
/// The access key comes from the environment (the names that the vendor's own clients use) or
/// from a file of keys. Ends with 0 after an answer, 3 after an error of the API, 4 without an
/// answer, 78 if it could not even ask.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the images of a cluster
    #[command(name = "ListContainerImages")]
    ListContainerImages(ListArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Where the API is: http://host:port or https://host:port.
    #[arg(long, value_name = "URL", env = "SIFTER_CONTROL_ENDPOINT")]
    endpoint: String,
    /// The cluster (ClusterId).
    #[arg(long, value_name = "ID")]
    cluster: Option<String>,
    /// The container type (ContainerType).
    #[arg(long, value_name = "TYPE")]
    container_type: Option<String>,
    /// The page, from 1 (PageNumber). Sent as given, like the next one.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    page_number: Option<String>,
    /// Rows a page, up to 50 (PageSize).
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    page_size: Option<String>,
    /// Generation of the signature.
    #[arg(long, value_enum, default_value_t = Signature::Acs3)]
    signature: Signature,
    /// GET sends parameters in the query, POST in a form body.
    #[arg(long, value_enum, default_value_t = HttpMethod::Get)]
    method: HttpMethod,
    /// How to show the answer.
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// The access key; with a file of keys, which of them.
    #[arg(long, value_name = "ID", env = "ALIBABA_CLOUD_ACCESS_KEY_ID")]
    access_key_id: Option<String>,
    /// File of keys, as the server has it; the secret is then not taken from the environment.
    #[arg(long, value_name = "FILE")]
    keys: Option<String>,
    /// Certificates (PEM) that the server's certificate must descend from; default: the system's.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Longest time to wait, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Signature {
    /// Header signature, HMAC-SHA256.
    Acs3,
    /// Query signature, HMAC-SHA1.
    V1,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum HttpMethod {
    Get,
    Post,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// One row an image.
    Table,
    /// All of the answer as it was served, indented.
    Json,
}

#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("{0} is not set: set it, or name a file with --keys")]
    NoKey(&'static str),
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error("the file has no key {0:?} with a secret")]
    NoSuchKey(String),
    #[error("the file has several keys: choose one with --access-key-id")]
    Ambiguous,
    #[error("key, token or host cannot be part of an HTTP header")]
    Header,
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("cannot start the runtime")]
    Runtime(#[source] std::io::Error),
    #[error("the answer is not JSON: is this the right endpoint? (HTTP {0})")]
    NotJson(StatusCode),
}

pub(super) fn run(args: Args) -> ExitCode {
    let Action::ListContainerImages(args) = args.action;
    match ask(&args) {
        Ok((status, body)) => show(&args, status, &body),
        Err(error) => {
            let code = match &error {
                AskError::Call(CallError::Endpoint(_)) => super::EXIT_CONFIG,
                AskError::Call(_) => EXIT_NO_ANSWER,
                _ => super::EXIT_CONFIG,
            };
            super::fail(&error, code)
        }
    }
}

fn ask(args: &ListArgs) -> Result<(StatusCode, Bytes), AskError> {
    let endpoint = Endpoint::parse(&args.endpoint)?;
    let credentials = credentials(args)?;
    let parameters = [
        ("ClusterId", &args.cluster),
        ("ContainerType", &args.container_type),
        ("PageNumber", &args.page_number),
        ("PageSize", &args.page_size),
    ];
    let call = Call {
        method: match args.method {
            HttpMethod::Get => Method::GET,
            HttpMethod::Post => Method::POST,
        },
        host: endpoint.authority(),
        parameters: parameters
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)))
            .collect(),
        now: Timestamp::now(),
        nonce: Uuid::new_v4().simple().to_string(),
    };
    let generation = match args.signature {
        Signature::Acs3 => Generation::Acs3,
        Signature::V1 => Generation::V1,
    };
    let signed = sign::sign(generation, &credentials, call).ok_or(AskError::Header)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(AskError::Runtime)?;
    let timeout = Duration::from_secs(args.timeout);
    Ok(runtime.block_on(call::send(&endpoint, args.ca.as_ref(), &signed, timeout))?)
}

fn credentials(args: &ListArgs) -> Result<Credentials, AskError> {
    if let Some(keys) = &args.keys {
        return from_file(keys, args.access_key_id.as_deref());
    }
    const SECRET: &str = "ALIBABA_CLOUD_ACCESS_KEY_SECRET";
    const TOKEN: &str = "ALIBABA_CLOUD_SECURITY_TOKEN";
    let id = args
        .access_key_id
        .clone()
        .ok_or(AskError::NoKey("ALIBABA_CLOUD_ACCESS_KEY_ID"))?;
    // Never an option: other users see the arguments of a process.
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    Ok(Credentials {
        access_key_id: id,
        secret: Secret::new(set(SECRET).ok_or(AskError::NoKey(SECRET))?),
        security_token: set(TOKEN),
    })
}

fn from_file(keys: &str, id: Option<&str>) -> Result<Credentials, AskError> {
    let ring = KeySource::new(keys)?.load()?;
    let key = match id {
        Some(id) => ring.get(id),
        None if ring.len() > 1 => return Err(AskError::Ambiguous),
        None => ring.iter().next(),
    };
    let missing = || AskError::NoSuchKey(id.unwrap_or_default().to_owned());
    let key = key.ok_or_else(missing)?;
    Ok(Credentials {
        access_key_id: key.id.clone(),
        secret: key.secret.clone().ok_or_else(missing)?,
        security_token: key.security_token.as_ref().map(|t| t.expose().to_owned()),
    })
}

fn show(args: &ListArgs, status: StatusCode, body: &[u8]) -> ExitCode {
    let not_json = || super::fail(&AskError::NotJson(status), EXIT_NO_ANSWER);
    let Ok(text) = std::str::from_utf8(body) else {
        return not_json();
    };
    let Ok(answer) = serde_json::from_str::<Value>(text) else {
        return not_json();
    };
    let code = if status.is_success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_API_ERROR)
    };
    match args.output {
        Output::Json => super::answer(format_args!("{}\n", indented(text)), code),
        Output::Table if status.is_success() => super::answer(table(&answer), code),
        Output::Table => {
            // The string to sign of the header signature has two lines.
            let text = |name: &str| clean(&answer[name].as_str().unwrap_or("-").replace('\n', " "));
            super::complain(format_args!(
                "{}: {} (HTTP {})\nrequest {}; see {}",
                text("Code"),
                text("Message"),
                status.as_u16(),
                text("RequestId"),
                text("Recommend")
            ));
            code
        }
    }
}

/// Columns of the table and the fields they show.
const COLUMNS: [(&str, &str); 7] = [
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("STATUS", "Status"),
    ("TYPE", "Type"),
    ("SYSTEM", "System"),
    ("UPDATED", "UpdateDateTime"),
    ("IMAGE ID", "ImageId"),
];

/// The images as aligned columns, and a line that says which part of the list this is.
fn table(answer: &Value) -> String {
    let none = Vec::new();
    let images = answer["Images"]["Images"].as_array().unwrap_or(&none);
    let mut rows: Vec<Vec<String>> = vec![COLUMNS.map(|(title, _)| title.to_owned()).into()];
    rows.extend(images.iter().map(|image| {
        COLUMNS
            .iter()
            .map(|(_, field)| clean(image[*field].as_str().unwrap_or_default()))
            .collect()
    }));
    let widths: Vec<usize> = (0..COLUMNS.len())
        .map(|column| {
            rows.iter()
                .map(|row| row[column].width())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    for row in rows {
        let line: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell}{}", " ".repeat(width - cell.width())))
            .collect();
        out.push_str(line.join("  ").trim_end());
        out.push('\n');
    }
    out.push_str(&format!(
        "page {}: {} of {}\n",
        answer["PageNumber"],
        images.len(),
        answer["TotalCount"]
    ));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn table_is_aligned_and_harmless() {
        let answer = json!({"PageNumber": 2, "PageSize": 3, "TotalCount": 12, "Images": {"Images": [
            {"Repository": "ubuntu", "Tag": "22.04", "Status": "READY", "Type": "singularity",
             "System": "one", "UpdateDateTime": "2026-01-02T03:04:05", "ImageId": "sha256:00"},
            {"Repository": "镜像", "Tag": "中", "Status": "READY", "Type": "singularity",
             "System": "one", "UpdateDateTime": "", "ImageId": "sha256:22"},
            {"Repository": "evil\u{1b}[2J\u{202e}", "Tag": "x", "Status": "READY",
             "Type": "singularity", "System": "one", "UpdateDateTime": "", "ImageId": "sha256:11"},
        ]}});
        assert_eq!(
            table(&answer),
            "REPOSITORY  TAG    STATUS  TYPE         SYSTEM  UPDATED              IMAGE ID\n\
             ubuntu      22.04  READY   singularity  one     2026-01-02T03:04:05  sha256:00\n\
             镜像        中     READY   singularity  one                          sha256:22\n\
             evil\u{fffd}[2J\u{fffd}   x      READY   singularity  one                          sha256:11\n\
             page 2: 3 of 12\n"
        );
    }
}
