//! Certificates of the HTTP side, read again when they change.
//!
//! The whole rustls configuration is swapped: handshakes under way finish with the old one.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use sifter_tls::Held;
use sifter_tls::Identity;
use sifter_tls::TlsError;

use crate::config::ServerTls;

/// The certificate in use.
#[derive(Debug)]
pub(super) struct Certificate {
    files: ServerTls,
    config: ArcSwap<ServerConfig>,
}

impl Certificate {
    /// Reads the certificate for the first time.
    pub(super) fn load(files: &ServerTls) -> Result<(Self, Vec<Held>), TlsError> {
        let (config, held) = read(files)?;
        let config = ArcSwap::from_pointee(config);
        let files = files.clone();
        Ok((Self { files, config }, held))
    }

    /// Reads the certificate again; on failure the one in use stays.
    pub(super) fn reload(&self) -> Result<Vec<Held>, TlsError> {
        let (config, held) = read(&self.files)?;
        self.config.store(Arc::new(config));
        Ok(held)
    }

    /// The configuration for the next handshake.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }
}

fn read(files: &ServerTls) -> Result<(ServerConfig, Vec<Held>), TlsError> {
    let identity = Identity::read(("server.cert", &files.cert), ("server.key", &files.key))?;
    let config = identity.server(WebPkiClientVerifier::no_client_auth(), b"http/1.1")?;
    Ok((config, identity.held.into()))
}
