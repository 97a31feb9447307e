//! Certificates: read from PEM files, checked, chosen by SNI, replaced while running.
//!
//! Every error names the file. A reload that fails leaves the old certificates in use. No private key is ever logged: errors carry
//! paths and causes, never content.

use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ProducesTickets, ResolvesServerCert,
};
use rustls::sign::CertifiedKey;

use super::{CertificatePair, ClientCertificates, ClientUser, clients};

/// Why certificates could not be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read or holds no PEM of the right kind.
    #[error("{}: {cause}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The key belongs to another certificate, or is of a kind that cannot sign.
    #[error("{} and {}: {cause}", certificate.display(), key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong with them.
        cause: String,
    },
    /// TLS is asked for without a certificate.
    #[error("no certificate")]
    None,
    /// The TLS library refused the set-up.
    #[error("TLS cannot be set up: {0}")]
    Library(rustls::Error),
}

/// The certificates of one listener, shared by its connections and whoever reloads them.
pub(super) struct Certificates {
    pairs: Vec<CertificatePair>,
    clients: Option<ClientCertificates>,
    ticketer: Option<Arc<dyn ProducesTickets>>,
    current: RwLock<Arc<ServerConfig>>,
    /// The files as they were when they were last read, good or not.
    seen: Mutex<Vec<Stamp>>,
}

/// What tells one state of a file from another; what cannot be looked at has none. Links are followed, which is how secrets that are
/// mounted into containers change.
type Stamp = Option<(u64, u64, i64, i64)>;

/// What one connection is opened on.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pub(super) config: Arc<ServerConfig>,
    /// What in the client's certificate is its name.
    pub(super) user: Option<ClientUser>,
}

impl Certificates {
    /// Reads all pairs, and the authorities of clients. Blocks on the disk.
    pub(super) fn load(
        pairs: Vec<CertificatePair>,
        clients: Option<ClientCertificates>,
    ) -> Result<Arc<Self>, TlsError> {
        // Stateless resumption: a daemon that pulls twenty layers shakes hands fully once. Not where clients show certificates: those would
        // be believed again for as long as a ticket lasts, whatever became of them.
        let ticketer = match clients {
            None => Some(rustls::crypto::aws_lc_rs::Ticketer::new().map_err(TlsError::Library)?),
            Some(_) => None,
        };
        // Before they are read: a change in between is read once more, and not missed.
        let seen = Mutex::new(stamps(&pairs, clients.as_ref()));
        let current = RwLock::new(read(&pairs, clients.as_ref(), ticketer.as_ref())?);
        Ok(Arc::new(Self {
            pairs,
            clients,
            ticketer,
            current,
            seen,
        }))
    }

    /// Whether a file is another one since it was last read. Blocks on the disk.
    pub(super) fn has_changed(&self) -> bool {
        let now = stamps(&self.pairs, self.clients.as_ref());
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) != now
    }

    /// Reads everything again, and uses it from the next handshake on if all of it is good. Blocks on the disk.
    pub(super) fn reload(&self) -> Result<(), TlsError> {
        // Files that are no good are not read again before they change.
        let now = stamps(&self.pairs, self.clients.as_ref());
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = now;
        let fresh = read(&self.pairs, self.clients.as_ref(), self.ticketer.as_ref())?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// What the next connection is opened on.
    pub(super) fn current(&self) -> Terms {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Terms {
            config: Arc::clone(&current),
            user: self.clients.as_ref().map(|clients| clients.user),
        }
    }
}

fn stamps(pairs: &[CertificatePair], clients: Option<&ClientCertificates>) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
    };
    let own = pairs.iter().flat_map(|pair| [&pair.certificate, &pair.key]);
    let theirs = clients.iter().map(|clients| &clients.ca);
    own.chain(theirs).map(stamp).collect()
}

/// Reads what rustls needs to answer.
fn read(
    pairs: &[CertificatePair],
    clients: Option<&ClientCertificates>,
    ticketer: Option<&Arc<dyn ProducesTickets>>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let keys = Arc::new(Keys(read_all(pairs)?));
    let builder = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Library)?;
    let mut config = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => builder.with_client_cert_verifier(clients::verifier(clients)?),
    }
    .with_cert_resolver(keys);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    if let Some(ticketer) = ticketer {
        config.ticketer = Arc::clone(ticketer);
    } else {
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(Arc::new(config))
}

pub(super) fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

/// Certificates with their keys, of which SNI chooses.
#[derive(Debug)]
struct Keys(Arc<[Arc<CertifiedKey>]>);

impl ResolvesServerCert for Keys {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = &self.0;
        let usable =
            |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        let named = hello
            .server_name()
            .and_then(|name| ServerName::try_from(name).ok())
            .and_then(|name| {
                current
                    .iter()
                    .filter(usable)
                    .find(|key| covers(key, &name))
                    .cloned()
            });
        named.or_else(|| {
            current
                .iter()
                .find(usable)
                .or_else(|| current.first())
                .cloned()
        })
    }
}

fn covers(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    key.end_entity_cert()
        .and_then(ParsedCertificate::try_from)
        .is_ok_and(|certificate| rustls::client::verify_server_name(&certificate, name).is_ok())
}

fn read_all(pairs: &[CertificatePair]) -> Result<Arc<[Arc<CertifiedKey>]>, TlsError> {
    if pairs.is_empty() {
        return Err(TlsError::None);
    }
    pairs
        .iter()
        .map(|pair| read_pair(pair).map(Arc::new))
        .collect::<Result<Vec<_>, _>>()
        .map(Arc::from)
}

fn read_pair(pair: &CertificatePair) -> Result<CertifiedKey, TlsError> {
    let chain = CertificateDer::pem_file_iter(&pair.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(&pair.certificate, &error, "no certificate in it"))?;
    if chain.is_empty() {
        return Err(unreadable(
            &pair.certificate,
            &pem::Error::NoItemsFound,
            "no certificate in it",
        ));
    }
    let key = PrivateKeyDer::from_pem_file(&pair.key)
        .map_err(|error| unreadable(&pair.key, &error, "no private key in it"))?;
    let wrong = |cause: String| TlsError::Pair {
        certificate: pair.certificate.clone(),
        key: pair.key.clone(),
        cause,
    };
    // from_der also compares the key with the certificate.
    let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| {
        if matches!(error, rustls::Error::InconsistentKeys(_)) {
            wrong("the key does not belong to the certificate".to_owned())
        } else {
            wrong(error.to_string())
        }
    })?;
    Ok(certified)
}

pub(super) fn unreadable(file: &Path, error: &pem::Error, nothing: &str) -> TlsError {
    // The messages of the library say what a PEM file lacks in terms of its own types.
    let cause = if let pem::Error::Io(error) = error {
        error.to_string()
    } else if matches!(error, pem::Error::NoItemsFound) {
        nothing.to_owned()
    } else {
        "not valid PEM".to_owned()
    };
    TlsError::File {
        file: file.to_owned(),
        cause,
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates")
            .field("pairs", &self.pairs)
            .finish_non_exhaustive()
    }
}
