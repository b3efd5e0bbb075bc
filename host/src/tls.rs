//! Whom connections over TLS trust.

use std::io;
use std::sync::Arc;

use hyper_rustls::ConfigBuilderExt as _;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

/// Trusts what the system trusts.
///
/// # Errors
///
/// When the system has no certificates, or they cannot be read.
pub(crate) async fn trusting_the_system() -> io::Result<ClientConfig> {
    // Reads a few hundred files.
    let read = tokio::task::spawn_blocking(|| Ok(builder()?.with_native_roots()?.with_no_client_auth()));
    read.await.map_err(io::Error::other).flatten()
}

/// Trusts these certificates.
///
/// # Errors
///
/// When no protocol is left that both sides could speak.
pub(crate) fn trusting(roots: RootCertStore) -> io::Result<ClientConfig> {
    Ok(builder()?.with_root_certificates(roots).with_no_client_auth())
}

/// The certificates of a PEM text.
///
/// # Errors
///
/// When there is none in it, or one cannot be read.
pub(crate) fn roots(pem: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("there is none in it".to_owned()) } else { Ok(roots) }
}

fn builder() -> io::Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)
}
