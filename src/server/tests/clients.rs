//! Certificates of clients: whose count, for whom, and what becomes of them at a reload. Real handshakes, with both versions of TLS.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use super::support::{Running, get_last, limits, listener, start_with};
use crate::server::{
    CertificatePair, ClientCertificates, ClientUser, ListenerConfig, Server, check_certificates,
};

/// Who signs certificates of clients.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    fn sign(&self, params: &CertificateParams) -> Shown {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Shown {
            certificate: certificate.der().clone(),
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        }
    }

    fn client(&self, name: &str) -> Shown {
        self.sign(&client(name))
    }
}

/// A client's certificate with its key.
struct Shown {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

/// What a good certificate of a client says.
fn client(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// A mirror's own certificate.
fn own(dir: &Path) -> CertificatePair {
    let made = rcgen::generate_simple_self_signed(vec!["mirror".to_owned()]).unwrap();
    let pair = CertificatePair {
        certificate: dir.join("mirror.pem"),
        key: dir.join("mirror.key"),
    };
    std::fs::write(&pair.certificate, made.cert.pem()).unwrap();
    std::fs::write(&pair.key, made.signing_key.serialize_pem()).unwrap();
    pair
}

struct Site {
    pair: CertificatePair,
    ca: PathBuf,
    server: Running,
    _dir: TempDir,
}

impl Site {
    async fn start(authority: &Authority, required: bool, user: ClientUser) -> Self {
        let dir = TempDir::new().unwrap();
        let (pair, ca) = (own(dir.path()), dir.path().join("clients.pem"));
        std::fs::write(&ca, &authority.pem).unwrap();
        let clients = Some(ClientCertificates {
            ca: ca.clone(),
            required,
            user,
        });
        let listener = ListenerConfig {
            clients,
            ..listener(Some(vec![pair.clone()]), 0)
        };
        Self {
            pair,
            ca,
            server: start_with(vec![listener], limits()).await,
            _dir: dir,
        }
    }

    fn client(
        &self,
        shown: Option<&Shown>,
        version: &'static SupportedProtocolVersion,
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let own = CertificateDer::from_pem_file(&self.pair.certificate).unwrap();
        roots.add(own).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        let config = match shown {
            None => builder.with_no_client_auth(),
            Some(shown) => builder
                .with_client_auth_cert(vec![shown.certificate.clone()], shown.key.clone_key())
                .unwrap(),
        };
        Arc::new(config)
    }

    /// Whom the server takes one for; `None`: the handshake failed.
    async fn ask(&self, config: &Arc<ClientConfig>) -> Option<(String, HandshakeKind)> {
        let name = ServerName::try_from("mirror").unwrap();
        let connector = TlsConnector::from(Arc::clone(config));
        let socket = self.server.connect().await;
        let mut stream = connector.connect(name, socket).await.ok()?;
        // With TLS 1.3 the client has done before the server judges.
        stream.write_all(get_last("/who").as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let kind = stream.get_ref().1.handshake_kind().unwrap();
        let (_, who) = answer.split_once("\r\n\r\n")?;
        Some((who.to_owned(), kind))
    }

    async fn who(&self, shown: Option<&Shown>) -> Option<String> {
        let mut found = Vec::new();
        for version in [&TLS12, &TLS13] {
            let asked = self.ask(&self.client(shown, version)).await;
            found.push(asked.map(|(who, _)| who));
        }
        assert_eq!(found[0], found[1], "whatever the version");
        found.remove(0)
    }
}

#[tokio::test]
async fn a_certificate_of_the_authority_names_its_client() {
    let (authority, other) = (Authority::new(), Authority::new());
    let site = Site::start(&authority, false, ClientUser::CommonName).await;
    assert_eq!(site.who(None).await.as_deref(), Some("-"));
    let ada = authority.client("ada");
    assert_eq!(site.who(Some(&ada)).await.as_deref(), Some("ada"));
    // Verified, and yet nobody in particular: no name, and one that is too long.
    let mut params = client("");
    let unit = DnType::OrganizationalUnitName;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(unit, "ada");
    let nobody = authority.sign(&params);
    assert_eq!(site.who(Some(&nobody)).await.as_deref(), Some("-"));
    let long = authority.client(&"x".repeat(600));
    assert_eq!(site.who(Some(&long)).await.as_deref(), Some("-"));

    let refused = |change: fn(&mut CertificateParams)| {
        let mut params = client("ada");
        change(&mut params);
        authority.sign(&params)
    };
    for (what, shown) in [
        ("another authority's", other.client("ada")),
        (
            "over",
            refused(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 2)),
        ),
        (
            "not begun",
            refused(|params| params.not_before = rcgen::date_time_ymd(2999, 1, 1)),
        ),
        (
            "a server's",
            refused(|params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            }),
        ),
        (
            "nobody's in particular",
            refused(|params| params.extended_key_usages = Vec::new()),
        ),
        (
            "for anything",
            refused(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any]),
        ),
        (
            "an authority",
            refused(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        ),
        ("signed by itself", {
            let key = KeyPair::generate().unwrap();
            let certificate = client("ada").self_signed(&key).unwrap();
            Shown {
                certificate: certificate.der().clone(),
                key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            }
        }),
    ] {
        assert_eq!(site.who(Some(&shown)).await, None, "{what}");
    }
}

#[tokio::test]
async fn the_name_is_what_is_configured() {
    let authority = Authority::new();
    let mut params = client("ada");
    params.subject_alt_names = vec![
        SanType::DnsName("build.example".try_into().unwrap()),
        SanType::DnsName("other.example".try_into().unwrap()),
        SanType::Rfc822Name("ada@example.com".try_into().unwrap()),
        SanType::URI("spiffe://example/ci".try_into().unwrap()),
    ];
    let (full, bare) = (authority.sign(&params), authority.client("ada"));
    for (user, of_full, of_bare) in [
        (ClientUser::CommonName, "ada", "ada"),
        (ClientUser::Dns, "build.example", "-"),
        (ClientUser::Email, "ada@example.com", "-"),
        (ClientUser::Uri, "spiffe://example/ci", "-"),
    ] {
        let site = Site::start(&authority, false, user).await;
        assert_eq!(site.who(Some(&full)).await.as_deref(), Some(of_full));
        assert_eq!(site.who(Some(&bare)).await.as_deref(), Some(of_bare));
    }
}

#[tokio::test]
async fn without_one_nobody_comes_in_where_it_is_required() {
    let authority = Authority::new();
    let site = Site::start(&authority, true, ClientUser::CommonName).await;
    assert_eq!(site.who(None).await, None);
    let ada = authority.client("ada");
    assert_eq!(site.who(Some(&ada)).await.as_deref(), Some("ada"));
}

#[tokio::test]
async fn every_connection_shows_it_anew() {
    let authority = Authority::new();
    let site = Site::start(&authority, false, ClientUser::CommonName).await;
    let ada = authority.client("ada");
    for version in [&TLS12, &TLS13] {
        let config = site.client(Some(&ada), version);
        for _ in 0..3 {
            let (who, kind) = site.ask(&config).await.unwrap();
            assert_eq!(who, "ada");
            assert!(!matches!(kind, HandshakeKind::Resumed), "{version:?}");
        }
    }
}

#[tokio::test]
async fn authorities_are_replaced_by_a_reload_and_broken_ones_are_not() {
    let (first, second) = (Authority::new(), Authority::new());
    let site = Site::start(&first, false, ClientUser::CommonName).await;
    let (ada, bob) = (first.client("ada"), second.client("bob"));
    assert_eq!(site.who(Some(&bob)).await, None);
    std::fs::write(&site.ca, "no certificate").unwrap();
    let error = site.server.reload.reload().await.unwrap_err().to_string();
    assert!(
        error.contains("clients.pem: no certificate in it"),
        "{error}"
    );
    assert_eq!(site.who(Some(&ada)).await.as_deref(), Some("ada"));
    std::fs::write(&site.ca, format!("{}{}", first.pem, second.pem)).unwrap();
    site.server.reload.reload().await.unwrap();
    assert_eq!(site.who(Some(&ada)).await.as_deref(), Some("ada"));
    assert_eq!(site.who(Some(&bob)).await.as_deref(), Some("bob"));
    std::fs::write(&site.ca, &second.pem).unwrap();
    site.server.reload.reload().await.unwrap();
    assert_eq!(site.who(Some(&ada)).await, None);
    assert_eq!(site.who(Some(&bob)).await.as_deref(), Some("bob"));
}

#[tokio::test]
async fn a_broken_authority_is_named_at_the_start() {
    let dir = TempDir::new().unwrap();
    let pair = own(dir.path());
    let ca = dir.path().join("clients.pem");
    for (text, says) in [
        (None, "clients.pem: No such file"),
        (Some(""), "clients.pem: no certificate in it"),
        (
            Some("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"),
            "clients.pem: not valid PEM",
        ),
        (
            Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            "clients.pem: ",
        ),
    ] {
        if let Some(text) = text {
            std::fs::write(&ca, text).unwrap();
        }
        let clients = ClientCertificates {
            ca: ca.clone(),
            required: false,
            user: ClientUser::CommonName,
        };
        let checked = check_certificates(std::slice::from_ref(&pair), Some(&clients));
        let error = checked.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        let config = crate::server::Config {
            listeners: vec![ListenerConfig {
                clients: Some(clients),
                ..listener(Some(vec![pair.clone()]), 0)
            }],
            limits: limits(),
        };
        let error = Server::bind(config, Arc::default()).await.unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
}
