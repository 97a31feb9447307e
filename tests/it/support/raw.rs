//! Bytes on a socket, for requests that no HTTP library would send.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::patience;

/// Sends `bytes`, then reads until the other side closes. Panics when it stays open beyond patience.
pub async fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The other side may answer and close before it took everything: that is an answer, too.
    let _ = stream.write_all(bytes).await;
    read_to_end(&mut stream).await
}

/// Reads until the other side closes or resets.
pub async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let reading = async {
        let mut buffer = [0; 16 * 1024];
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            all.extend_from_slice(&buffer[..read]);
        }
    };
    timeout(patience(), reading)
        .await
        .expect("the connection stays open");
    all
}

/// Reads until `needle` has come; the bytes so far. Panics on end or when patience runs out.
pub async fn read_until(stream: &mut TcpStream, needle: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    let reading = async {
        while !all.windows(needle.len()).any(|window| window == needle) {
            all.push(stream.read_u8().await.expect("the connection ended early"));
        }
    };
    timeout(patience(), reading)
        .await
        .expect("what was waited for never came");
    all
}

/// The status code of an HTTP/1 answer; 0 when it is none.
pub fn status(answer: &[u8]) -> u16 {
    String::from_utf8_lossy(answer)
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .unwrap_or(0)
}
