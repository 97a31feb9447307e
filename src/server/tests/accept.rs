//! Listeners and the accept loop.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt as _;

use super::support::{
    eventually, get, get_last, limits, listener, read_to_end, read_until, start, start_with,
};
use crate::server::{BindError, Config, Limits, ListenerConfig, Server};

#[tokio::test]
async fn several_listeners_tell_their_addresses_and_roles() {
    let server = start_with(vec![listener(None, 3), listener(None, 4)], limits()).await;
    assert_eq!(server.addresses.len(), 2);
    for (address, role) in server.addresses.iter().zip([3, 4]) {
        assert_ne!(address.port(), 0);
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        socket
            .write_all(get_last("/host").as_bytes())
            .await
            .unwrap();
        let reply = read_to_end(&mut socket).await;
        assert!(
            reply.text().ends_with(&format!("mirror /host {role}")),
            "{}",
            reply.text()
        );
    }
}

#[tokio::test]
async fn a_taken_address_is_named() {
    let server = start(limits()).await;
    let config = Config {
        listeners: vec![ListenerConfig {
            address: server.address,
            ..listener(None, 0)
        }],
        limits: limits(),
    };
    let error = Server::bind(config, std::sync::Arc::default())
        .await
        .unwrap_err();
    assert!(matches!(error, BindError::Address { address, .. } if address == server.address));
    assert!(error.to_string().contains(&server.address.to_string()));
}

#[tokio::test]
async fn both_families_may_have_the_same_port() {
    // A port that is free for one family now; should another process take it in between, there is nothing to see.
    let Ok(probe) = std::net::TcpListener::bind("[::]:0") else {
        return;
    };
    let port = probe.local_addr().unwrap().port();
    drop(probe);
    let at = |ip: std::net::IpAddr| ListenerConfig {
        address: SocketAddr::from((ip, port)),
        ..listener(None, 0)
    };
    let listeners = vec![at([0, 0, 0, 0].into()), at([0_u16; 8].into())];
    let config = Config {
        listeners,
        limits: limits(),
    };
    match Server::bind(config, std::sync::Arc::default()).await {
        Ok(server) => assert_eq!(server.addresses().len(), 2),
        Err(BindError::Address { address, .. }) => {
            assert!(
                address.is_ipv4(),
                "somebody else may have taken it for IPv4"
            );
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn clients_beyond_the_limit_wait() {
    let server = start(Limits {
        max_connections: 1,
        ..limits()
    })
    .await;
    let mut first = server.connect().await;
    first.write_all(get("/hello").as_bytes()).await.unwrap();
    read_until(&mut first, "hello").await;
    let mut second = server.connect().await;
    second
        .write_all(get_last("/hello").as_bytes())
        .await
        .unwrap();
    first.write_all(get("/hello").as_bytes()).await.unwrap();
    read_until(&mut first, "hello").await;
    assert_eq!(server.seen().len(), 2, "the second is not served yet");
    drop(first);
    assert_eq!(read_to_end(&mut second).await.statuses(), [200]);
}

/// The limit on descriptors is the process's, so this runs in one of its own.
#[test]
fn the_accept_loop_survives_a_lack_of_descriptors() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "server::tests::accept::alone_without_descriptors",
        ])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

#[tokio::test]
#[ignore = "lowers the process's limit on descriptors; run by the test above"]
async fn alone_without_descriptors() {
    const CLIENTS: usize = 40;
    const LEFT: i64 = 8;
    let server = start(limits()).await;
    let before = getrlimit(Resource::Nofile);
    // The clients' own ends exist before the limit falls, so that what is
    // left is the server's alone, however many descriptors the process was
    // started with. The kernel gives the lowest free number: beyond the last
    // of these, none below it is free.
    let sockets: Vec<_> = (0..CLIENTS)
        .map(|_| tokio::net::TcpSocket::new_v4().unwrap())
        .collect();
    let highest = sockets.iter().map(AsRawFd::as_raw_fd).max().unwrap();
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(u64::try_from(i64::from(highest) + 1 + LEFT).unwrap()),
            maximum: before.maximum,
        },
    )
    .unwrap();
    let mut clients = Vec::new();
    for socket in sockets {
        clients.push(socket.connect(server.address).await.unwrap());
    }
    // Only as many as there was room for were accepted; the others wait.
    eventually!(server.metrics.connections.get() > 0);
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let accepted = server.metrics.connections.get();
    assert!(accepted > 0 && accepted <= LEFT, "{accepted}");
    clients.truncate(1);
    eventually!(server.metrics.connections.get() <= 1);
    assert_eq!(
        server
            .exchange(get_last("/hello").as_bytes())
            .await
            .statuses(),
        [200]
    );
}
