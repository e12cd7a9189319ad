//! Certificates for the connections to the agents.

use sifter_tls::Authorities;
use sifter_tls::Held;
use sifter_tls::Identity;
use sifter_tls::TlsError;
use tonic::transport::Certificate;
use tonic::transport::ClientTlsConfig;
use tonic::transport::Endpoint;

use crate::config::AgentTls;

/// Why the certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AgentTlsError {
    /// A file cannot be used, or they do not fit together.
    #[error(transparent)]
    Files(#[from] TlsError),
    /// No connection could be made with them.
    #[error("[agent_tls]: the files and the server_name cannot be used together")]
    Unusable(#[source] tonic::transport::Error),
}

/// Reads the files and checks that a connection could be made with them.
pub fn load(files: &AgentTls) -> Result<(ClientTlsConfig, Vec<Held>), AgentTlsError> {
    let authorities = Authorities::read("agent_tls.ca", &files.ca)?;
    let identity = Identity::read(
        ("agent_tls.cert", &files.cert),
        ("agent_tls.key", &files.key),
    )?;
    let mut config = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(authorities.pem))
        .identity(tonic::transport::Identity::from_pem(
            identity.cert_pem,
            identity.key_pem,
        ));
    if let Some(name) = &files.server_name {
        config = config.domain_name(name);
    }
    Endpoint::from_static("https://localhost")
        .tls_config(config.clone())
        .map_err(AgentTlsError::Unusable)?;
    let [cert, key] = identity.held;
    Ok((config, vec![authorities.held, cert, key]))
}
