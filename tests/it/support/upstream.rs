//! A scripted registry on a real socket, HTTP/1.1 by hand so that every byte can be wrong. Its log is what tests count at.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::image::{Content, Image};

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    /// What came behind the head, of the length that it says.
    pub body: String,
    /// The client's end of the connection it came on.
    pub peer: SocketAddr,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// What happens to a request instead of, or on top of, the usual answer.
#[derive(Debug, Clone, Default)]
pub struct Act {
    pub status: Option<u16>,
    pub headers: Vec<(String, String)>,
    /// Another body than the stored one.
    pub body: Option<Bytes>,
    /// Flips the byte at this place of the whole content.
    pub wrong_byte: Option<usize>,
    /// Closes after so many bytes of the body.
    pub cut: Option<usize>,
    /// Stands still after so many bytes of the body, with the connection open.
    pub stall: Option<usize>,
    /// Waits after so many bytes of the body until the gate opens.
    pub gate: Option<(usize, Gate)>,
    /// Answers a `Range` with 200 and everything.
    pub ignore_range: bool,
    /// Answers a `Range` with a part that begins so much later.
    pub shift_range: u64,
    /// Announces this length.
    pub declared: Option<u64>,
    /// No length: the end of the connection is the end of the body.
    pub no_length: bool,
    /// Never answers.
    pub silent: bool,
    /// Closes the connection instead of answering.
    pub hang_up: bool,
    /// Leaves out `Docker-Content-Digest`.
    pub no_digest: bool,
}

impl Act {
    pub fn status(status: u16) -> Self {
        Self {
            status: Some(status),
            body: Some(Bytes::from_static(b"{\"errors\":[]}")),
            ..Self::default()
        }
    }

    pub fn redirect(status: u16, to: &str) -> Self {
        Self {
            headers: vec![("Location".to_owned(), to.to_owned())],
            ..Self::status(status)
        }
    }
}

/// Holds bodies until it is opened.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    pub fn closed() -> Self {
        Self(Arc::new(watch::channel(false).0))
    }

    pub fn open(&self) {
        self.0.send_replace(true);
    }

    async fn pass(&self) {
        self.0.subscribe().wait_for(|open| *open).await.unwrap();
    }
}

#[derive(Debug)]
struct Script {
    method: String,
    path: String,
    act: Act,
    times: usize,
}

#[derive(Debug, Default)]
struct State {
    manifests: HashMap<(String, String), Content>,
    blobs: HashMap<String, Bytes>,
    lists: HashMap<String, Content>,
    scripts: Vec<Script>,
    log: Vec<Seen>,
    /// `user:password` that the token service wants; empty: anonymous.
    login: Option<String>,
    realm: Option<String>,
    /// Logins that the token service takes besides.
    others: Vec<String>,
    black: bool,
    /// Pulls that every account is granted, as at Docker Hub, and how many it has used.
    granted: Option<u64>,
    used: HashMap<String, u64>,
}

/// A registry that does what it is told.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    running: Option<JoinHandle<()>>,
}

impl Upstream {
    /// Starts on a free port.
    pub async fn start() -> Self {
        let mut upstream = Self {
            address: "127.0.0.1:0".parse().unwrap(),
            state: Arc::default(),
            running: None,
        };
        upstream.listen().await;
        upstream
    }

    async fn listen(&mut self) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).unwrap();
        let listener = socket.listen(1024).unwrap();
        self.address = listener.local_addr().unwrap();
        let (state, address) = (Arc::clone(&self.state), self.address);
        self.running = Some(tokio::spawn(accept(listener, state, address)));
    }

    /// Connections are refused from here on.
    pub async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            drop(running.await);
        }
    }

    /// Listens again on the same port.
    pub async fn restart(&mut self) {
        self.listen().await;
    }

    /// Accepts and never answers.
    pub fn black_hole(&self, black: bool) {
        self.state.lock().unwrap().black = black;
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Everything of an image, and its root under a tag.
    pub fn hold(&self, name: &str, tag: &str, image: &Image) {
        let mut state = self.state.lock().unwrap();
        for manifest in &image.manifests {
            state
                .manifests
                .insert((name.to_owned(), manifest.digest.clone()), manifest.clone());
        }
        state
            .manifests
            .insert((name.to_owned(), tag.to_owned()), image.root.clone());
        for blob in &image.blobs {
            state.blobs.insert(blob.digest.clone(), blob.bytes.clone());
        }
    }

    pub fn hold_blob(&self, blob: &Content) {
        self.state
            .lock()
            .unwrap()
            .blobs
            .insert(blob.digest.clone(), blob.bytes.clone());
    }

    /// An answer for a path of its own (lists).
    pub fn hold_path(&self, path: &str, content: &Content) {
        self.state
            .lock()
            .unwrap()
            .lists
            .insert(path.to_owned(), content.clone());
    }

    pub fn drop_tag(&self, name: &str, tag: &str) {
        self.state
            .lock()
            .unwrap()
            .manifests
            .remove(&(name.to_owned(), tag.to_owned()));
    }

    /// Wants a token for everything; the token service wants this login (`user:password`), or none.
    pub fn want_token(&self, login: Option<&str>, realm: Option<&str>) {
        let mut state = self.state.lock().unwrap();
        state.login = Some(login.unwrap_or_default().to_owned());
        state.realm = realm.map(str::to_owned);
    }

    /// The token service takes this login too (`user:password`).
    pub fn take_login(&self, login: &str) {
        self.state.lock().unwrap().others.push(login.to_owned());
    }

    /// Grants every account so many pulls in six hours and counts them as Docker Hub does: a GET of a manifest is one, a HEAD is none.
    pub fn grant(&self, pulls: u64) {
        self.state.lock().unwrap().granted = Some(pulls);
    }

    /// Somebody else uses pulls of an account (`anonymous`, or a user name).
    pub fn use_pulls(&self, account: &str, pulls: u64) {
        let mut state = self.state.lock().unwrap();
        *state.used.entry(account.to_owned()).or_default() += pulls;
    }

    /// How many pulls an account has used.
    pub fn used(&self, account: &str) -> u64 {
        let state = self.state.lock().unwrap();
        state.used.get(account).copied().unwrap_or_default()
    }

    /// The next `times` requests of `method` (empty: of any) whose path contains `path` go so.
    pub fn script(&self, method: &str, path: &str, times: usize, act: Act) {
        let script = Script {
            method: method.to_owned(),
            path: path.to_owned(),
            act,
            times,
        };
        self.state.lock().unwrap().scripts.push(script);
    }

    pub fn unscript(&self) {
        self.state.lock().unwrap().scripts.clear();
    }

    pub fn log(&self) -> Vec<Seen> {
        self.state.lock().unwrap().log.clone()
    }

    /// How many requests of `method` had `path` in their path.
    pub fn count(&self, method: &str, path: &str) -> usize {
        self.log()
            .iter()
            .filter(|seen| (method.is_empty() || seen.method == method) && seen.path.contains(path))
            .count()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
        }
    }
}

async fn accept(listener: TcpListener, state: Arc<Mutex<State>>, address: SocketAddr) {
    // Connections end with the listener.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let state = Arc::clone(&state);
        connections.spawn(async move { drop(converse(stream, state, address).await) });
    }
}

async fn converse(
    mut stream: TcpStream,
    state: Arc<Mutex<State>>,
    address: SocketAddr,
) -> std::io::Result<()> {
    let peer = stream.peer_addr()?;
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        buffer.drain(..end + 4);
        let mut lines = head.lines();
        let mut first = lines.next().unwrap_or_default().split(' ');
        let (method, path) = (
            first.next().unwrap_or_default().to_owned(),
            first.next().unwrap_or_default().to_owned(),
        );
        // A client that takes this for its proxy sends whole URLs.
        let path = match path.strip_prefix("http://") {
            Some(rest) => rest[rest.find('/').unwrap_or(rest.len())..].to_owned(),
            None => path,
        };
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        let mut seen = Seen {
            method,
            path,
            headers,
            body: String::new(),
            peer,
        };
        let length = seen.header("content-length");
        let length = length.map_or(0, |length| length.parse().unwrap_or(0));
        while buffer.len() < length {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        let body: Vec<u8> = buffer.drain(..length).collect();
        seen.body = String::from_utf8_lossy(&body).into_owned();
        let (answer, act, black) = {
            let mut state = state.lock().unwrap();
            state.log.push(seen.clone());
            let act = state.act(&seen);
            let mut answer = state.answer(&seen, address);
            state.count_pull(&seen, &act, &mut answer);
            (answer, act, state.black)
        };
        if black || act.silent {
            std::future::pending::<()>().await;
        }
        if act.hang_up {
            return Ok(());
        }
        if !send(&mut stream, &seen, answer, &act).await? {
            return Ok(());
        }
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Bytes,
    ranged: bool,
}

impl State {
    fn act(&mut self, seen: &Seen) -> Act {
        let fits = |script: &&mut Script| {
            script.times > 0
                && (script.method.is_empty() || script.method == seen.method)
                && seen.path.contains(&script.path)
        };
        match self.scripts.iter_mut().find(fits) {
            Some(script) => {
                script.times -= 1;
                script.act.clone()
            }
            None => Act::default(),
        }
    }

    fn count_pull(&mut self, seen: &Seen, act: &Act, answer: &mut Answer) {
        let Some(granted) = self.granted else {
            return;
        };
        let is_given = answer.status == 200 && act.status.is_none_or(|status| status == 200);
        if !is_given || !seen.path.contains("/manifests/") {
            return;
        }
        let shown = seen.header("authorization").unwrap_or_default();
        let account = shown.split_once('@').map_or("anonymous", |(_, user)| user);
        let used = self.used.entry(account.to_owned()).or_default();
        if seen.method == "GET" && *used >= granted {
            answer.status = 429;
            answer.body = Bytes::from_static(
                b"{\"errors\":[{\"code\":\"TOOMANYREQUESTS\",\"message\":\"You have reached your pull rate limit.\"}]}",
            );
        } else if seen.method == "GET" {
            *used += 1;
        }
        let left = granted.saturating_sub(*used);
        answer.headers.extend([
            ("ratelimit-limit".to_owned(), format!("{granted};w=21600")),
            ("ratelimit-remaining".to_owned(), format!("{left};w=21600")),
            ("docker-ratelimit-source".to_owned(), account.to_owned()),
        ]);
    }

    fn answer(&self, seen: &Seen, address: SocketAddr) -> Answer {
        let error = |status: u16, headers: Vec<(String, String)>| Answer {
            status,
            headers,
            body: Bytes::from_static(b"{\"errors\":[{\"code\":\"UNKNOWN\"}]}"),
            ranged: false,
        };
        let bare = seen.path.split('?').next().unwrap_or_default();
        if bare == "/token" {
            let wanted = self.login.clone().unwrap_or_default();
            let sent = seen.header("authorization").unwrap_or_default();
            let other = self
                .others
                .iter()
                .find(|login| sent == format!("Basic {}", base64(login)));
            let user = other
                .map(|login| format!("@{}", login.split(':').next().unwrap_or_default()))
                .unwrap_or_default();
            if other.is_none() && !wanted.is_empty() && sent != format!("Basic {}", base64(&wanted))
            {
                return error(401, vec![]);
            }
            let scope = seen
                .path
                .split("scope=")
                .nth(1)
                .unwrap_or_default()
                .split('&')
                .next()
                .unwrap_or_default();
            let body = format!(
                "{{\"token\":\"T.{}{user}\",\"expires_in\":300}}",
                scope.replace('%', ".")
            );
            return Answer {
                status: 200,
                headers: vec![],
                body: body.into(),
                ranged: false,
            };
        }
        if self.login.is_some()
            && !seen
                .header("authorization")
                .is_some_and(|sent| sent.starts_with("Bearer T.repository"))
        {
            let realm = self
                .realm
                .clone()
                .unwrap_or_else(|| format!("http://{address}/token"));
            let challenge = format!(
                "Bearer realm=\"{realm}\",service=\"scripted\",scope=\"repository:other/image:pull,push\""
            );
            return error(401, vec![("WWW-Authenticate".to_owned(), challenge)]);
        }
        if bare == "/v2/" {
            return Answer {
                status: 200,
                headers: vec![],
                body: Bytes::from_static(b"{}"),
                ranged: false,
            };
        }
        if let Some(list) = self.lists.get(&seen.path).or_else(|| self.lists.get(bare)) {
            return Answer {
                status: 200,
                headers: vec![("Content-Type".to_owned(), list.media_type.clone())],
                body: list.bytes.clone(),
                ranged: false,
            };
        }
        let Some(path) = bare.strip_prefix("/v2/") else {
            return error(404, vec![]);
        };
        if let Some((name, reference)) = path.split_once("/manifests/") {
            return match self.manifests.get(&(name.to_owned(), reference.to_owned())) {
                Some(content) => Answer {
                    status: 200,
                    headers: vec![
                        ("Content-Type".to_owned(), content.media_type.clone()),
                        ("Docker-Content-Digest".to_owned(), content.digest.clone()),
                    ],
                    body: content.bytes.clone(),
                    ranged: false,
                },
                None => error(404, vec![]),
            };
        }
        if let Some((_, digest)) = path.split_once("/blobs/") {
            return match self.blobs.get(digest) {
                Some(bytes) => Answer {
                    status: 200,
                    headers: vec![(
                        "Content-Type".to_owned(),
                        "application/octet-stream".to_owned(),
                    )],
                    body: bytes.clone(),
                    ranged: true,
                },
                None => error(404, vec![]),
            };
        }
        error(404, vec![])
    }
}

/// Sends an answer; says whether the connection goes on.
async fn send(
    stream: &mut TcpStream,
    seen: &Seen,
    answer: Answer,
    act: &Act,
) -> std::io::Result<bool> {
    let mut body = act.body.clone().unwrap_or(answer.body);
    if let Some(at) = act.wrong_byte {
        let mut bytes = body.to_vec();
        bytes[at] ^= 0xff;
        body = bytes.into();
    }
    let mut status = act.status.unwrap_or(answer.status);
    let mut extra = String::new();
    let range = seen
        .header("range")
        .filter(|_| answer.ranged && status == 200 && !act.ignore_range);
    if let Some((start, end)) = range
        .and_then(|range| range.strip_prefix("bytes="))
        .and_then(|range| range.split_once('-'))
    {
        let total = body.len();
        let start = start.parse::<usize>().unwrap() + usize::try_from(act.shift_range).unwrap();
        let end = end
            .parse::<usize>()
            .map_or(total, |end| (end + 1).min(total));
        if start >= total {
            status = 416;
            body = Bytes::new();
        } else {
            status = 206;
            body = body.slice(start..end);
            extra = format!("Content-Range: bytes {start}-{}/{total}\r\n", end - 1);
        }
    }
    let mut head = format!("HTTP/1.1 {status} X\r\n{extra}");
    for (name, value) in act
        .headers
        .iter()
        .chain(&answer.headers)
        .filter(|(name, _)| !(act.no_digest && name == "Docker-Content-Digest"))
    {
        // What the script says replaces what the registry says.
        if act.headers.iter().any(|(own, _)| own == name)
            && !act.headers.contains(&(name.clone(), value.clone()))
        {
            continue;
        }
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if act.no_length {
        head.push_str("Connection: close\r\n");
    } else {
        head.push_str(&format!(
            "Content-Length: {}\r\n",
            act.declared.unwrap_or(body.len() as u64)
        ));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await?;
    if seen.method == "HEAD" {
        return Ok(true);
    }
    let mut sent = 0;
    while sent < body.len() {
        let mut to = (sent + 64 * 1024).min(body.len());
        for stop in [act.cut, act.stall, act.gate.as_ref().map(|(at, _)| *at)]
            .into_iter()
            .flatten()
        {
            if sent < stop {
                to = to.min(stop);
            }
        }
        stream.write_all(&body[sent..to]).await?;
        sent = to;
        stream.flush().await?;
        if act.cut == Some(sent) {
            return Ok(false);
        }
        if act.stall == Some(sent) {
            std::future::pending::<()>().await;
        }
        if let Some((at, gate)) = &act.gate
            && *at == sent
        {
            gate.pass().await;
        }
    }
    if act
        .declared
        .is_some_and(|declared| declared != body.len() as u64)
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
        return Ok(false);
    }
    Ok(!act.no_length && act.cut.is_none())
}

fn base64(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in text.as_bytes().chunks(3) {
        let word = group
            .iter()
            .fold(0u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - group.len()));
        for place in 0..4 {
            out.push(if place <= group.len() {
                LETTERS[(word >> (18 - 6 * place) & 63) as usize] as char
            } else {
                '='
            });
        }
    }
    out
}
