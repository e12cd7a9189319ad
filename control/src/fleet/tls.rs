//! Certificates for the connections to the agents.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use tonic::transport::Certificate;
use tonic::transport::ClientTlsConfig;
use tonic::transport::Endpoint;
use tonic::transport::Identity;

use crate::config::AgentTls;

/// Why the certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AgentTlsError {
    /// A file cannot be read.
    #[error("[agent_tls]: cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The files are not what they should be, or do not fit together.
    #[error("[agent_tls]: {}, {} and {} cannot be used together", files.ca.display(), files.cert.display(), files.key.display())]
    Unusable {
        /// The files.
        files: Box<AgentTls>,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
}

/// Reads the files and checks that a connection could be made with them.
pub fn load(files: &AgentTls) -> Result<ClientTlsConfig, AgentTlsError> {
    let read = |path: &Path| {
        fs::read(path).map_err(|source| AgentTlsError::Read {
            path: path.to_owned(),
            source,
        })
    };
    let mut config = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read(&files.ca)?))
        .identity(Identity::from_pem(read(&files.cert)?, read(&files.key)?));
    if let Some(name) = &files.server_name {
        config = config.domain_name(name);
    }
    Endpoint::from_static("https://localhost")
        .tls_config(config.clone())
        .map_err(|source| AgentTlsError::Unusable {
            files: Box::new(files.clone()),
            source,
        })?;
    Ok(config)
}
