//! TLS towards upstreams: whom to trust.
//!
//! The system's certificate authorities, or Mozilla's where the system has none (an image built from nothing), and what `ca` adds.
//! There is no switch to trust nobody-knows-whom, and no client certificate to hand out (RELIABILITY C18).

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use super::config::BuildError;

/// Read once: an installation has hundreds of them and several upstreams.
static SYSTEM: OnceLock<Arc<RootCertStore>> = OnceLock::new();

/// The TLS set-up of one upstream. `protocols` are those of ALPN.
pub(super) fn config(
    ca: Option<&Path>,
    protocols: &[&[u8]],
) -> Result<Arc<ClientConfig>, BuildError> {
    let system = Arc::clone(SYSTEM.get_or_init(|| Arc::new(system())));
    let roots = match ca {
        None => system,
        Some(path) => Arc::new(with_authorities(&system, path)?),
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| BuildError::Tls(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

fn system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (added, _unusable) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

fn with_authorities(system: &RootCertStore, path: &Path) -> Result<RootCertStore, BuildError> {
    let wrong = |problem: String| BuildError::Ca {
        path: path.to_owned(),
        problem,
    };
    let mut roots = system.clone();
    let mut added = 0;
    let certificates =
        CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| wrong(error.to_string()))?;
        added += 1;
    }
    if added == 0 {
        return Err(wrong("there is no certificate in it".to_owned()));
    }
    Ok(roots)
}
