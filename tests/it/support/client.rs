//! An HTTP client for tests: a connection per request unless asked otherwise, every header under control, bodies
//! read as far as the test wants, and a broken transfer told apart from a clean end.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::image::hex;
use super::{patience, secrets};

/// Every manifest type that a modern client takes, as containerd sends them.
pub const ACCEPT_ALL: &str = "application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json, */*";

/// The longest body that is searched for secrets.
const CHECKED_MAX: usize = 128 << 10;

/// Talks to one address.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    address: SocketAddr,
    h2: bool,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// `Err` when the transfer broke: the body is then what came before.
    pub end: Result<(), String>,
}

/// An answer whose body is still coming.
#[derive(Debug)]
pub struct Open {
    pub status: StatusCode,
    pub headers: HeaderMap,
    body: Incoming,
    rest: Bytes,
    _connection: Abort,
}

#[derive(Debug)]
struct Abort(tokio::task::JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Client {
    /// HTTP/1.1.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, h2: false }
    }

    /// HTTP/2 in clear text, by prior knowledge.
    pub fn h2c(address: SocketAddr) -> Self {
        Self { address, h2: true }
    }

    /// `GET` to the end.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[]).await
    }

    /// `GET` of a manifest, accepting all types.
    pub async fn manifest(&self, name: &str, reference: &str) -> Answer {
        let path = format!("/v2/{name}/manifests/{reference}");
        self.send(Method::GET, &path, &[("accept", ACCEPT_ALL)])
            .await
    }

    /// `GET` of a blob.
    pub async fn blob(&self, name: &str, digest: &str) -> Answer {
        self.get(&format!("/v2/{name}/blobs/{digest}")).await
    }

    /// `GET` with a `Range` header.
    pub async fn range(&self, path: &str, range: &str) -> Answer {
        self.send(Method::GET, path, &[("range", range)]).await
    }

    /// `HEAD`, accepting all types.
    pub async fn head(&self, path: &str) -> Answer {
        self.send(Method::HEAD, path, &[("accept", ACCEPT_ALL)])
            .await
    }

    /// Any request without a body, to the end. Panics when no answer begins, or it stays open beyond patience.
    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.try_open(method, path, headers, Bytes::new())
            .await
            .expect("no answer")
            .finish()
            .await
    }

    /// Any request with a body, to the end.
    pub async fn send_body(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Answer {
        let mut tries = 0;
        loop {
            tries += 1;
            let tried = self
                .try_open(method.clone(), path, headers, body.clone())
                .await;
            match tried {
                Ok(open) => return open.finish().await,
                // An answer that comes before a large body has gone may be lost with the connection; clients ask again.
                Err(error) if error.contains("BodyWrite") && body.len() > 1 << 20 && tries < 5 => {}
                Err(error) => panic!("no answer: {error}"),
            }
        }
    }

    /// `GET` until the headers are there.
    pub async fn open(&self, path: &str) -> Open {
        self.try_open(Method::GET, path, &[], Bytes::new())
            .await
            .expect("no answer")
    }

    /// As [`Client::send`], until the headers are there; an error when they never come.
    pub async fn try_open(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Open, String> {
        timeout(patience(), self.begin(method, path, headers, body))
            .await
            .map_err(|_| "no answer began".to_owned())?
    }

    async fn begin(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Open, String> {
        let stream = TcpStream::connect(self.address)
            .await
            .map_err(|error| error.to_string())?;
        stream
            .set_nodelay(true)
            .map_err(|error| error.to_string())?;
        // Whoever leaves early leaves as clients do that have unread bytes: with a reset.
        stream
            .set_zero_linger()
            .map_err(|error| error.to_string())?;
        let io = TokioIo::new(stream);
        let uri = if self.h2 {
            format!("http://{}{path}", self.address)
        } else {
            path.to_owned()
        };
        let mut request = Request::builder().method(method).uri(uri);
        if !self.h2
            && !headers
                .iter()
                .any(|(name, _)| name.eq_ignore_ascii_case("host"))
        {
            request = request.header("host", self.address.to_string());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| error.to_string())?;
        let (response, connection) = if self.h2 {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io)
                .await
                .map_err(|error| error.to_string())?;
            let connection = tokio::spawn(async { drop(connection.await) });
            (sender.send_request(request).await, connection)
        } else {
            let (mut sender, connection) = http1::handshake(io)
                .await
                .map_err(|error| error.to_string())?;
            let connection = tokio::spawn(async { drop(connection.await) });
            (sender.send_request(request).await, connection)
        };
        let connection = Abort(connection);
        let (parts, body) = response.map_err(|error| format!("{error:?}"))?.into_parts();
        Ok(Open {
            status: parts.status,
            headers: parts.headers,
            body,
            rest: Bytes::new(),
            _connection: connection,
        })
    }
}

impl Answer {
    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Status 200 and a clean end with exactly these bytes.
    pub fn is(&self, bytes: &[u8]) -> bool {
        self.status == StatusCode::OK && self.end.is_ok() && self.body == bytes
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("the body is no JSON")
    }

    /// The first error code of an error envelope.
    pub fn code(&self) -> String {
        self.json()["errors"][0]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

impl Open {
    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The next bytes as they come; `None` at a clean end, an error where the transfer broke.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, String> {
        if !self.rest.is_empty() {
            return Ok(Some(std::mem::take(&mut self.rest)));
        }
        loop {
            let frame = timeout(patience(), self.body.frame())
                .await
                .expect("the body stands still");
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(format!("{error:?}")),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// Whether nothing comes for `quiet`: the way to see that bytes are held back.
    pub async fn silent_for(&mut self, quiet: Duration) -> bool {
        assert!(self.rest.is_empty(), "bytes are waiting");
        match timeout(quiet, self.body.frame()).await {
            Err(_) => true,
            Ok(Some(Ok(frame))) => {
                self.rest = frame.into_data().unwrap_or_default();
                false
            }
            Ok(_) => false,
        }
    }

    /// Exactly `count` bytes; panics where the body ends or breaks before.
    pub async fn take(&mut self, count: usize) -> Bytes {
        let mut taken = BytesMut::with_capacity(count.min(1 << 20));
        while taken.len() < count {
            let mut chunk = self
                .chunk()
                .await
                .expect("the transfer broke")
                .expect("the body ended");
            self.rest = chunk.split_off(chunk.len().min(count - taken.len()));
            taken.extend_from_slice(&chunk);
        }
        taken.freeze()
    }

    /// All that comes until nothing has come for `quiet`, or the end.
    pub async fn take_until_silent(&mut self, quiet: Duration) -> Bytes {
        let mut taken = BytesMut::from(&std::mem::take(&mut self.rest)[..]);
        while let Ok(Some(Ok(frame))) = timeout(quiet, self.body.frame()).await {
            taken.extend_from_slice(&frame.into_data().unwrap_or_default());
        }
        taken.freeze()
    }

    /// The rest of the body.
    pub async fn finish(mut self) -> Answer {
        let mut body = BytesMut::new();
        let end = loop {
            match self.chunk().await {
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        // Longer ones are content.
        if body.len() <= CHECKED_MAX
            && let Some(form) = secrets::marker_in(&body)
        {
            panic!("a secret stands in an answer, {form}: {body:?}");
        }
        Answer {
            status: self.status,
            headers: self.headers,
            body: body.freeze(),
            end,
        }
    }

    /// Reads to the end and compares on the way, keeping nothing: for big bodies and many clients.
    pub async fn matches(mut self, expected: &[u8]) -> Result<(), String> {
        let mut at = 0;
        while let Some(chunk) = self.chunk().await? {
            let end = at + chunk.len();
            if expected.get(at..end) != Some(&chunk[..]) {
                return Err(format!("other bytes at {at}..{end}"));
            }
            at = end;
        }
        if at == expected.len() {
            Ok(())
        } else {
            Err(format!(
                "a clean end after {at} of {} bytes",
                expected.len()
            ))
        }
    }

    /// Reads to the end: the SHA-256 digest and the length.
    pub async fn digest(mut self) -> Result<(String, u64), String> {
        let (mut hash, mut length) = (Sha256::new(), 0);
        while let Some(chunk) = self.chunk().await? {
            hash.update(&chunk);
            length += chunk.len() as u64;
        }
        Ok((format!("sha256:{}", hex(&hash.finalize())), length))
    }
}
