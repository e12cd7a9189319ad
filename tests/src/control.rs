//! A control plane as a process, on a TCP port of the loopback address.

use std::net::SocketAddr;
use std::process::Command;

use tempfile::TempDir;

use crate::http;
use crate::http::Answer;
use crate::process::Process;
use crate::process::binary;

/// A running control plane.
#[derive(Debug)]
pub struct Control {
    /// The process.
    pub process: Process,
    /// Where it listens.
    pub address: SocketAddr,
    _dir: TempDir,
}

impl Control {
    /// Starts a control plane without authentication for these clusters: each an ID and the
    /// addresses of its login nodes.
    pub fn start<A: AsRef<str>>(clusters: &[(&str, &[A])]) -> Self {
        Self::with(clusters, "")
    }

    /// The same with more lines of configuration (whole tables).
    pub fn with<A: AsRef<str>>(clusters: &[(&str, &[A])], more: &str) -> Self {
        let mut text = format!("auth = \"none\"\n[server]\nlisten = [\"127.0.0.1:0\"]\n{more}\n");
        for (id, nodes) in clusters {
            let nodes: Vec<String> = nodes
                .iter()
                .map(|node| format!("{:?}", node.as_ref()))
                .collect();
            text += &format!(
                "[[clusters]]\nid = {id:?}\naccount = \"1000000000000001\"\nlogin_nodes = [{}]\n",
                nodes.join(", ")
            );
        }
        let dir = TempDir::new().expect("directory of the control plane");
        let config = dir.path().join("control.toml");
        std::fs::write(&config, text).expect("configuration file");
        let mut process = Process::start(
            Command::new(binary("sifter-control"))
                .arg("serve")
                .arg("--config")
                .arg(&config),
            &dir.path().join("control.log"),
        );
        let address = process.tcp_listener();
        Self {
            process,
            address,
            _dir: dir,
        }
    }

    /// `ListContainerImages` with these parameters behind action and version.
    pub fn list(&self, parameters: &str) -> Answer {
        let target =
            format!("/?Action=ListContainerImages&Version=2018-04-12&Format=JSON&{parameters}");
        http::get(self.address, &target).expect("an answer of the control plane")
    }
}
