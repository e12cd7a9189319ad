//! The server under test, from a configuration file as a site would write it.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use sifter_control::config::Settings;
use sifter_control::server;
use sifter_control::server::Running;
use tempfile::TempDir;

use super::client;
use super::client::Answer;

/// The cluster that most tests ask for.
pub const CLUSTER: &str = "ehpc-test";

/// A running control plane.
pub struct Control {
    pub running: Arc<Running>,
    pub address: SocketAddr,
    pub config: PathBuf,
    dir: TempDir,
}

impl Control {
    /// A control plane whose cluster has these login nodes.
    pub async fn over(nodes: &[String]) -> Self {
        Self::with("", nodes).await
    }

    /// The same with more tables in the configuration.
    pub async fn with(tables: &str, nodes: &[String]) -> Self {
        Self::start(
            TempDir::new().unwrap(),
            &config(tables, &[(CLUSTER, nodes)]),
        )
        .await
    }

    /// A control plane with this configuration, in a directory that may hold more files.
    pub async fn start(dir: TempDir, config_text: &str) -> Self {
        let config = dir.path().join("config.toml");
        fs::write(&config, config_text).unwrap();
        let settings = Settings::load(&config).unwrap_or_else(|error| panic!("{error}"));
        let running = server::start(settings, Some(config.clone())).await;
        let running = running.unwrap_or_else(|error| panic!("{error}"));
        Self {
            address: running.addresses[0],
            running: Arc::new(running),
            config,
            dir,
        }
    }

    /// The directory of the configuration.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Whether this is in the metrics.
    pub async fn shows(&self, line: &str) -> bool {
        client::get(self.address, "/metrics")
            .await
            .body
            .contains(line)
    }

    /// Asks for the cluster's images, with more parameters.
    pub async fn list(&self, parameters: &str) -> Answer {
        client::list(self.address, &format!("ClusterId={CLUSTER}&{parameters}")).await
    }
}

/// A configuration without authentication.
pub fn config(tables: &str, clusters: &[(&str, &[String])]) -> String {
    let mut text = "auth = \"none\"\n".to_owned();
    if !tables.contains("[server]") {
        text += "[server]\nlisten = [\"127.0.0.1:0\"]\n";
    }
    text += tables;
    for (id, nodes) in clusters {
        text += &format!("\n[[clusters]]\nid = {id:?}\nlogin_nodes = {nodes:?}\n");
    }
    text
}
