//! docs/grpcurl.md: every command in it is run, as it stands there, against a real agent, over all
//! three ways that it describes; every RPC that an agent serves has an entry for each.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use sifter_tests::agent::Agent;
use sifter_tests::agent::Options;
use sifter_tests::grpcurl::Grpcurl;
use sifter_tests::grpcurl::Transport;
use sifter_tests::images;
use sifter_tests::skip;
use sifter_tests::workspace;
use tempfile::TempDir;

/// What the document calls the places of an installed agent.
const SOCKET: &str = "/run/sifter/agent.sock";
const LOOPBACK: &str = "127.0.0.1:7430";
const REMOTE: &str = "login1.example.org:7430";
const CERTIFICATES: &str = "/etc/sifter-control/tls";
const IMAGES: &str = "/opt/images";

/// Services that reflection does not tell of by name in every release of grpcurl, but that are there.
const REFLECTION: [&str; 2] = [
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// Commands of the document that belong together, and what it says that they print.
#[derive(Debug)]
struct Recipe {
    line: usize,
    commands: String,
    output: Option<String>,
}

/// The recipes of a Markdown text: blocks of `sh`, and the block right after.
fn recipes(text: &str) -> Vec<Recipe> {
    let mut recipes: Vec<Recipe> = Vec::new();
    let mut open: Option<(String, usize, String)> = None;
    for (number, line) in text.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(kind)) => open = Some((kind.to_owned(), number + 1, String::new())),
            (None, None) => {}
            (Some((_, _, body)), None) => {
                body.push_str(line);
                body.push('\n');
            }
            (Some(_), Some(_)) => {
                let (kind, line, body) = open.take().unwrap();
                match (kind.as_str(), recipes.last_mut()) {
                    ("sh", _) => recipes.push(Recipe {
                        line,
                        commands: body,
                        output: None,
                    }),
                    ("json" | "text", Some(last)) => last.output = Some(body),
                    _ => {}
                }
            }
        }
    }
    assert!(open.is_none(), "a block is not closed");
    recipes
}

impl Recipe {
    /// The code with which the document says that it ends.
    fn refused_with(&self) -> Option<&str> {
        let line = self.output.as_ref()?.lines();
        line.filter_map(|line| line.trim().strip_prefix("Code: "))
            .next()
    }

    /// The names of fields in what the document shows, and of the error.
    fn shown(&self) -> BTreeSet<String> {
        let lines = self.output.iter().flat_map(|output| output.lines());
        lines
            .filter_map(|line| {
                let line = line.trim();
                let field = line
                    .split_once("\":")
                    .filter(|(name, _)| name.starts_with('"'));
                match field {
                    Some((name, _)) => Some(format!("{name}\":")),
                    None => line.starts_with("Code: ").then(|| line.to_owned()),
                }
            })
            .collect()
    }
}

/// An agent as docs/install.md makes it: a socket, a loopback port, and a port with mutual TLS.
struct Installed {
    agent: Agent,
    remote: u16,
    directory: PathBuf,
    grpcurl: PathBuf,
    _dir: TempDir,
}

impl Installed {
    fn start(grpcurl: &Grpcurl) -> Self {
        let dir = TempDir::new().expect("directory of the certificates");
        let enroll = |arguments: &[&str]| {
            let output = Command::new("bash")
                .arg(workspace().join("deploy/enroll.sh"))
                .arg("--dir")
                .arg(dir.path())
                .args(arguments)
                .output()
                .expect("enroll.sh can be run");
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
        };
        enroll(&["ca"]);
        enroll(&["agent", "login1.example.org", "127.0.0.1"]);
        enroll(&["control", "control.example.org"]);
        let at = |name: &str| dir.path().join(name).display().to_string();
        let certificates = dir.path().join("control.example.org");
        std::fs::copy(at("ca.pem"), certificates.join("ca.pem")).expect("the authority");
        // The last address that is told is the one that counts in `Agent`.
        let agent = Agent::ready(Options::config(&format!(
            "[tls]\ncert = '{}'\nkey = '{}'\nclient_ca = '{}'\nallow = ['control.example.org']\n\
             [[root]]\npath = '{}'\ninterval = '1s'\n",
            at("login1.example.org/agent.pem"),
            at("login1.example.org/agent.key"),
            at("ca.pem"),
            images::dir().display(),
        )).listen("tls:127.0.0.1:0"));
        let directory = agent.socket.parent().expect("its directory").to_owned();
        symlink(certificates, directory.join("tls")).expect("a link to the certificates");
        let remote = agent
            .addresses()
            .iter()
            .find_map(|address| address.strip_prefix("tls:127.0.0.1:"))
            .expect("an address with TLS")
            .parse()
            .expect("a port");
        Self {
            agent,
            remote,
            directory,
            grpcurl: grpcurl.path().to_owned(),
            _dir: dir,
        }
    }

    /// Runs commands as they stand in the document, with this agent's places for those of an
    /// installed one: relative ones, as the document need not quote its own.
    fn run(&self, commands: &str) -> Output {
        let mut commands = commands.to_owned();
        for (written, here) in [
            (SOCKET, "agent.sock".to_owned()),
            (LOOPBACK, self.agent.tcp.to_string()),
            (REMOTE, format!("127.0.0.1:{}", self.remote)),
            (CERTIFICATES, "tls".to_owned()),
            (IMAGES, images::dir().display().to_string()),
        ] {
            commands = commands.replace(written, &here);
        }
        let mut path = std::ffi::OsString::from(self.grpcurl.parent().unwrap_or(Path::new("")));
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        Command::new("bash")
            .args(["-e", "-o", "pipefail", "-c", &commands])
            .current_dir(&self.directory)
            .env("PATH", path)
            .stdin(Stdio::null())
            .output()
            .expect("bash can be run")
    }
}

fn document() -> Vec<Recipe> {
    let path = workspace().join("docs/grpcurl.md");
    recipes(&std::fs::read_to_string(path).expect("docs/grpcurl.md"))
}

/// So often a command is run again that shows something else.
const RUNS: usize = 10;

#[test]
fn every_command_does_what_the_document_says() {
    let grpcurl = match Grpcurl::find() {
        Ok(grpcurl) => grpcurl,
        Err(why) => return skip("every_command_does_what_the_document_says", &why),
    };
    let installed = Installed::start(&grpcurl);
    for recipe in document() {
        let shown = recipe.shown();
        let run = || {
            let output = installed.run(&recipe.commands);
            let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
            said.push_str(&String::from_utf8_lossy(&output.stderr));
            (output.status.success(), said)
        };
        let is_shown = |said: &str| shown.iter().all(|shown| said.contains(shown));
        let (mut succeeds, mut said) = run();
        // What the document shows is an agent at rest, and this one scans every second.
        for _ in 0..RUNS {
            if is_shown(&said) {
                break;
            }
            (succeeds, said) = run();
        }
        let place = format!("docs/grpcurl.md:{}", recipe.line);
        let whole = format!("{place}:\n{}\n{said}", recipe.commands);
        assert_eq!(succeeds, recipe.refused_with().is_none(), "{whole}");
        for shown in shown {
            assert!(said.contains(&shown), "{shown} is not printed: {whole}");
        }
    }
}

#[test]
fn every_rpc_has_an_entry_for_every_way() {
    let grpcurl = match Grpcurl::find() {
        Ok(grpcurl) => grpcurl,
        Err(why) => return skip("every_rpc_has_an_entry_for_every_way", &why),
    };
    let agent = Agent::ready(Options::roots([images::dir()]));
    let list = |rest: &[&str]| grpcurl.text(&agent, Transport::Unix, &[], rest);
    let mut methods: BTreeSet<String> = REFLECTION.map(str::to_owned).into();
    for service in list(&["list"]).lines() {
        for method in list(&["list", service]).lines() {
            let name = method.strip_prefix(service).expect("method of the service");
            methods.insert(format!("{service}/{}", name.trim_start_matches('.')));
        }
    }
    assert!(methods.len() >= 10, "{methods:?}");
    // Each line that asks something, with those that it goes on in.
    let commands: Vec<String> = document()
        .iter()
        .flat_map(|recipe| {
            let whole = recipe.commands.replace("\\\n", " ");
            whole.lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    for way in [SOCKET, LOOPBACK, REMOTE] {
        for method in &methods {
            assert!(
                commands
                    .iter()
                    .any(|command| command.contains(way) && command.contains(method)),
                "docs/grpcurl.md has no command with {way} and {method}"
            );
        }
    }
}

/// What the test above stands on: it would pass over a block that it does not recognise.
#[test]
fn recipes_are_commands_with_their_output() {
    let text = "a\n```sh\ncat \\\n  x\n```\nand\n```json\n{\n  \"aB\": 1,\n  …\n```\n```toml\nx\n```\n\
                ```sh\nfalse\n```\n```text\nERROR:\n  Code: NotFound\n```\n";
    let recipes = recipes(text);
    assert_eq!(recipes.len(), 2);
    assert_eq!(recipes[0].commands, "cat \\\n  x\n");
    assert_eq!(recipes[0].shown(), BTreeSet::from(["\"aB\":".to_owned()]));
    assert_eq!(recipes[0].refused_with(), None);
    assert_eq!(recipes[1].refused_with(), Some("NotFound"));
}
