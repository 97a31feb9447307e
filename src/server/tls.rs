//! Certificates: read at start, chosen by SNI.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, ResolvesServerCertUsingSni};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use super::{BindError, CertificatePair};

/// By SNI; the first certificate for clients that send none or an unknown one.
#[derive(Debug)]
struct BySni {
    named: ResolvesServerCertUsingSni,
    first: Arc<CertifiedKey>,
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.named
            .resolve(hello)
            .or_else(|| Some(Arc::clone(&self.first)))
    }
}

/// TLS 1.2 and 1.3 with these certificates; HTTP/2 by ALPN.
pub(super) fn acceptor(pairs: &[CertificatePair]) -> Result<TlsAcceptor, BindError> {
    let mut named = ResolvesServerCertUsingSni::new();
    let mut first = None;
    for pair in pairs {
        let refused = |path: &Path, error: String| BindError::Certificate {
            path: path.to_owned(),
            error,
        };
        let chain = CertificateDer::pem_file_iter(&pair.certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| refused(&pair.certificate, error.to_string()))?;
        let Some(leaf) = chain.first().cloned() else {
            return Err(refused(
                &pair.certificate,
                "it holds no certificate in PEM form".to_owned(),
            ));
        };
        let key = PrivateKeyDer::from_pem_file(&pair.key)
            .map_err(|error| refused(&pair.key, error.to_string()))?;
        let key = aws_lc_rs::sign::any_supported_type(&key)
            .map_err(|error| refused(&pair.key, error.to_string()))?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|error| {
            refused(
                &pair.key,
                format!(
                    "it is not the key of {}: {error}",
                    pair.certificate.display()
                ),
            )
        })?;
        for name in dns_names(&leaf) {
            // A name that SNI cannot carry is only ever served as the first certificate.
            if let Err(error) = named.add(&name, certified.clone()) {
                tracing::debug!(name, %error, "a certificate's name is not used for SNI");
            }
        }
        first.get_or_insert_with(|| Arc::new(certified));
    }
    let first = first.ok_or_else(|| BindError::Certificate {
        path: "server.tls".into(),
        error: "no certificate is configured".to_owned(),
    })?;
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| BindError::Certificate {
                path: "server.tls".into(),
                error: error.to_string(),
            })?;
    let mut config = config
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(BySni { named, first }));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The DNS names of a certificate.
fn dns_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    webpki::EndEntityCert::try_from(certificate)
        .map(|leaf| leaf.valid_dns_names().map(str::to_owned).collect())
        .unwrap_or_default()
}
