//! The real binary behind TLS, with certificates of a private authority.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::mirror::peak_memory;
use super::tls::{Authority, Identity};
use super::{free_port, secrets};

/// A mirror that speaks TLS alone.
#[derive(Debug)]
pub struct Secure {
    child: Child,
    port: u16,
    dir: PathBuf,
}

impl Secure {
    /// `host:port`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts with `mirror.crt` and `mirror.key` of `dir`; `more` is appended to the configuration.
    pub fn start(dir: &Path, more: &str) -> Self {
        Self::start_with(dir, "", more)
    }

    /// The same with more in `server.tls`.
    pub fn start_with(dir: &Path, tls: &str, more: &str) -> Self {
        let port = free_port();
        let config = format!(
            "[server]\nlisten = \"127.0.0.1:{port}\"\ntls = {{ certificate = \"mirror.crt\", key = \"mirror.key\"{tls} }}\n{more}"
        );
        std::fs::write(dir.join("mirror.toml"), config).unwrap();
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_roadstead"))
            .args(["serve", "--log-format", "json", "-c"])
            .arg(dir.join("mirror.toml"))
            .arg("--data")
            .arg(dir.join("data"))
            .env_remove("RUST_LOG")
            .stderr(log)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let dir = dir.to_owned();
        Self { child, port, dir }
    }

    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// Peak resident memory in bytes.
    pub fn peak_memory(&self) -> u64 {
        peak_memory(self.child.id())
    }

    pub fn hang_up(&self) {
        let done = Command::new("kill")
            .args(["-HUP", &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(done.success());
    }

    /// The certificate that is shown now, and the status of `GET /v2/`; `None` where the handshake fails.
    pub async fn ask(&self, authority: &Authority) -> Option<(Vec<u8>, String)> {
        self.request(authority, None, "GET /v2/", "").await
    }

    /// The same for any request without a body, with a client's certificate and more headers, each line ended.
    pub async fn request(
        &self,
        authority: &Authority,
        client: Option<&Identity>,
        line: &str,
        headers: &str,
    ) -> Option<(Vec<u8>, String)> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap();
        roots.add(root).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots);
        let config = match client {
            None => config.with_no_client_auth(),
            Some(client) => {
                let chain = CertificateDer::from_pem_slice(client.certificate.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(client.key.as_bytes()).unwrap();
                config.with_client_auth_cert(vec![chain], key).unwrap()
            }
        };
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .ok()?;
        let shown = stream.get_ref().1.peer_certificates()?.first()?.to_vec();
        let text = format!(
            "{line} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\nconnection: close\r\n{headers}\r\n"
        );
        stream.write_all(text.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        Some((shown, String::from_utf8_lossy(&answer).into_owned()))
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            return;
        }
        let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        secrets::assert_none("the log", log.lines(), &secrets::keys_below(&self.dir));
    }
}
