//! `sifter-control policy check`: what would the policies say, and why?

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use jiff::Timestamp;

use crate::api::ApiError;
use crate::auth;
use crate::auth::keys::KeyError;
use crate::auth::keys::KeySource;
use crate::auth::policy::Context;
use crate::auth::policy::Decision;
use crate::auth::policy::Policy;
use crate::auth::policy::PolicyError;
use crate::auth::policy::Request;
use crate::auth::policy::decide;
use crate::config::DEFAULT_REGION;

/// The policies do not allow it.
const EXIT_DENIED: u8 = 1;

/// Explain RAM policies
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Say whether a request would be allowed, and which statements decide it
    ///
    /// Ends with 0 if it is allowed, 1 if it is denied, 78 if the policies cannot be read.
    Check(CheckArgs),
}

#[derive(Debug, clap::Args)]
struct CheckArgs {
    /// File or directory of access keys, as the server has it; needs --access-key-id.
    #[arg(
        long,
        value_name = "FILE",
        requires = "access_key_id",
        required_unless_present = "document"
    )]
    keys: Option<String>,
    /// A policy document to try instead of those of a key; needs --account or --resource.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["keys", "access_key_id"],
        requires = "owner"
    )]
    document: Option<PathBuf>,
    /// The access key that would ask.
    #[arg(long, value_name = "ID")]
    access_key_id: Option<String>,
    /// What would be done.
    #[arg(long, value_name = "ACTION", default_value = auth::LIST_ACTION)]
    action: String,
    /// Region of the cluster; default: that of clusters for which none is configured.
    #[arg(long, value_name = "REGION", default_value = DEFAULT_REGION)]
    region: String,
    /// Account of the cluster; default: that of the key.
    #[arg(long, value_name = "ACCOUNT", group = "owner")]
    account: Option<String>,
    /// The resource as a whole, instead of region and account.
    #[arg(long, value_name = "ARN", conflicts_with_all = ["region", "account"], group = "owner")]
    resource: Option<String>,
    /// Where the request would come from (acs:SourceIp).
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    source_ip: IpAddr,
    /// Whether it would come over TLS (acs:SecureTransport).
    #[arg(long)]
    secure_transport: bool,
    /// When (acs:CurrentTime); default: now.
    #[arg(long, value_name = "TIME")]
    time: Option<Timestamp>,
    /// More condition keys.
    #[arg(long = "context", value_name = "KEY=VALUE", value_parser = pair)]
    context: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| "write KEY=VALUE".to_owned())
}

#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error("no access key {0:?}")]
    NoSuchKey(String),
    #[error(
        "access key {0:?} is inactive: whatever its policies say, it is refused (InvalidAccessKeyId.Inactive)"
    )]
    Inactive(String),
    #[error(
        "access key {0:?} is over since {1}: whatever its policies say, it is refused (InvalidSecurityToken.Expired)"
    )]
    Expired(String, Timestamp),
    #[error("cannot read {}", .0.display())]
    Document(PathBuf, #[source] std::io::Error),
    #[error("{}", .0.display())]
    Policy(PathBuf, #[source] PolicyError),
    #[error(transparent)]
    Explain(#[from] ApiError),
}

pub(super) fn run(args: Args) -> ExitCode {
    let What::Check(args) = args.what;
    match check(&args) {
        Ok((resource, context, decision)) => {
            let code = if decision.is_allowed() {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(EXIT_DENIED)
            };
            super::answer(explanation(&args, &resource, &context, &decision), code)
        }
        Err(error @ (CheckError::Inactive(_) | CheckError::Expired(..))) => {
            super::fail(&error, EXIT_DENIED)
        }
        Err(error) => super::fail(&error, super::EXIT_CONFIG),
    }
}

fn check(args: &CheckArgs) -> Result<(String, Context, Decision), CheckError> {
    let now = args.time.unwrap_or_else(Timestamp::now);
    let context = args.context.iter().fold(
        Context::new(args.source_ip, args.secure_transport, now),
        |context, (key, value)| context.with(key, value),
    );
    let resource = |of_key: &str| match &args.resource {
        Some(resource) => resource.clone(),
        None => {
            let account = args.account.as_deref().unwrap_or(of_key);
            auth::listing_resource(&args.region, account)
        }
    };
    if let Some(path) = &args.document {
        let text =
            std::fs::read_to_string(path).map_err(|e| CheckError::Document(path.clone(), e))?;
        let policy =
            Policy::parse("document", &text).map_err(|e| CheckError::Policy(path.clone(), e))?;
        // Without a key the account has been named.
        let resource = resource("");
        let request = Request {
            action: &args.action,
            resource: &resource,
            context: &context,
        };
        let decision = decide([&policy].into_iter(), &request);
        return Ok((resource, context, decision));
    }
    let ring = KeySource::new(args.keys.as_deref().unwrap_or_default())?.load()?;
    let id = args.access_key_id.as_deref().unwrap_or_default();
    let key = ring
        .get(id)
        .ok_or_else(|| CheckError::NoSuchKey(id.to_owned()))?;
    if !key.active {
        return Err(CheckError::Inactive(id.to_owned()));
    }
    if let Some(end) = key.expires.filter(|end| *end <= now) {
        return Err(CheckError::Expired(id.to_owned(), end));
    }
    let resource = resource(&key.account_id);
    let decision = auth::explain(key, &args.action, &resource, &context)?;
    Ok((resource, context, decision))
}

fn explanation(args: &CheckArgs, resource: &str, context: &Context, decision: &Decision) -> String {
    let mut lines = vec![
        format!("action    {}", args.action),
        format!("resource  {resource}"),
    ];
    for (key, value) in context.entries() {
        lines.push(format!("context   {key} = {value}"));
    }
    for trace in &decision.trace {
        lines.push(format!(
            "{:?}  {}: {}",
            trace.effect, trace.statement, trace.outcome
        ));
    }
    lines.push(format!("{}\n", decision.verdict));
    lines.join("\n")
}
