//! An issuer of tokens on a real socket: a discovery document, keys that change, a count of who asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::signer::Signer;
use super::tls;

/// A running issuer. Ends with the test.
#[derive(Debug, Clone)]
pub struct Issuer {
    url: String,
    inside: Arc<Mutex<Inside>>,
}

#[derive(Debug, Default)]
struct Inside {
    keys: Vec<Value>,
    /// Answers 503.
    is_down: bool,
    asked: Vec<String>,
}

impl Issuer {
    /// In the clear, on loopback.
    pub async fn start(keys: &[&Signer]) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), None, keys)
    }

    /// With this certificate.
    pub async fn start_tls(keys: &[&Signer], identity: &tls::Identity) -> Self {
        let chain = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![chain], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, Some(Arc::new(config).into()), keys)
    }

    fn on(listener: TcpListener, tls: Option<TlsAcceptor>, keys: &[&Signer]) -> Self {
        let address: SocketAddr = listener.local_addr().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let issuer = Self {
            url: format!("{scheme}://{address}"),
            inside: Arc::default(),
        };
        issuer.publish(keys);
        let answers = issuer.clone();
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (answers, tls) = (answers.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => answers.answer(socket).await,
                        Some(tls) => match tls.accept(socket).await {
                            Ok(socket) => answers.answer(socket).await,
                            Err(_refused) => None,
                        },
                    }
                });
            }
        });
        issuer
    }

    async fn answer(&self, mut socket: impl AsyncRead + AsyncWrite + Unpin) -> Option<()> {
        let mut head = Vec::new();
        while !head.windows(4).any(|four| four == b"\r\n\r\n") {
            if socket.read_buf(&mut head).await.ok()? == 0 {
                return None;
            }
        }
        let head = String::from_utf8(head).ok()?;
        let path = head.split(' ').nth(1)?.to_owned();
        let (status, body) = {
            let mut inside = self.inside.lock().unwrap();
            inside.asked.push(path.clone());
            match path.as_str() {
                _ if inside.is_down => ("503 Down", json!({})),
                "/.well-known/openid-configuration" => (
                    "200 OK",
                    json!({"issuer": self.url, "jwks_uri": format!("{}/keys", self.url)}),
                ),
                "/keys" => ("200 OK", json!({"keys": inside.keys})),
                _ => ("404 Not Found", json!({})),
            }
        };
        let body = body.to_string();
        let length = body.len();
        let text = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        );
        socket.write_all(text.as_bytes()).await.ok()?;
        socket.shutdown().await.ok()
    }

    /// What `iss` says.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Publishes these keys and no others.
    pub fn publish(&self, keys: &[&Signer]) {
        self.inside.lock().unwrap().keys = keys.iter().map(|key| key.jwk()).collect();
    }

    /// Answers 503, or answers again.
    pub fn be_down(&self, is_down: bool) {
        self.inside.lock().unwrap().is_down = is_down;
    }

    /// How often the keys were asked for.
    pub fn fetches(&self) -> usize {
        let inside = self.inside.lock().unwrap();
        inside.asked.iter().filter(|path| *path == "/keys").count()
    }

    /// How often anything was asked for.
    pub fn asked(&self) -> usize {
        self.inside.lock().unwrap().asked.len()
    }

    /// What a good token says, for an audience and a subject, for a minute.
    pub fn claims(&self, audience: &str, subject: &str) -> Value {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let now = now.as_secs();
        json!({"iss": self.url, "aud": audience, "sub": subject, "iat": now, "nbf": now, "exp": now + 60})
    }
}
