//! A listener that nobody should talk to: it counts connections and keeps what they said.

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
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
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
                std::thread::spawn(move || listen(stream, &log, index));
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

fn listen(mut stream: TcpStream, log: &Mutex<Vec<Vec<u8>>>, index: usize) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        let mut heard = log.lock().unwrap();
        heard[index].extend_from_slice(&buffer[..read]);
        let complete = heard[index].windows(4).any(|four| four == b"\r\n\r\n");
        drop(heard);
        if complete {
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi");
            return;
        }
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}
