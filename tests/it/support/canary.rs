//! A listener that nobody should talk to, or tell a secret: it counts connections and keeps what they said, bodies and all.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Counts connections, keeps the bytes, and answers each with a plain 200, as a host that is fishing would.
#[derive(Debug)]
pub struct Canary {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
    stop: Arc<AtomicBool>,
}

impl Canary {
    /// Listens on a free port of 127.0.0.1.
    pub fn start() -> Self {
        Self::on("127.0.0.1:0")
    }

    /// Listens on `address`; the whole of 127.0.0.0/8 is there to be used.
    pub fn on(address: &str) -> Self {
        Self::answering(address, |_| {
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi".to_owned()
        })
    }

    /// One that wants a login, by any way there is, to whatever it is asked.
    pub fn luring(address: &str) -> Self {
        Self::answering(address, |own| {
            format!(
                "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer realm=\"http://{own}/token\",service=\"x\"\r\nwww-authenticate: Basic realm=\"x\"\r\nset-cookie: lure=1\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}"
            )
        })
    }

    fn answering(address: &str, answer: impl FnOnce(SocketAddr) -> String) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let answer: Arc<str> = answer(address).into();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (log, stopping) = (Arc::clone(&heard), Arc::clone(&stop));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopping.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                // Recorded before a byte is read: a connection alone is already a finding.
                let index = {
                    let mut heard = log.lock().unwrap();
                    heard.push(Vec::new());
                    heard.len() - 1
                };
                let log = Arc::clone(&log);
                let answer = Arc::clone(&answer);
                std::thread::spawn(move || listen(stream, &log, index, &answer));
            }
        });
        Self {
            address,
            heard,
            stop,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://ADDRESS`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many connections came.
    pub fn connections(&self) -> usize {
        self.heard.lock().unwrap().len()
    }

    /// What each connection said.
    pub fn heard(&self) -> Vec<Vec<u8>> {
        self.heard.lock().unwrap().clone()
    }

    /// Whether any connection said `needle` (upper or lower case).
    pub fn heard_any(&self, needle: &str) -> bool {
        let needle = needle.to_ascii_lowercase();
        self.heard().iter().any(|bytes| {
            String::from_utf8_lossy(bytes)
                .to_ascii_lowercase()
                .contains(&needle)
        })
    }
}

fn listen(mut stream: TcpStream, log: &Mutex<Vec<Vec<u8>>>, index: usize, answer: &str) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        let mut heard = log.lock().unwrap();
        heard[index].extend_from_slice(&buffer[..read]);
        let is_whole = is_whole(&heard[index]);
        drop(heard);
        if is_whole {
            let _ = stream.write_all(answer.as_bytes());
            return;
        }
    }
}

/// Whether a request is here with its body.
fn is_whole(heard: &[u8]) -> bool {
    let text = String::from_utf8_lossy(heard).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length = length.map_or(0, |length| length.trim().parse().unwrap_or(0));
    body.len() >= length
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}
