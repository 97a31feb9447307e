//! Name lookup, and the race of a host's addresses (RFC 8305, without its memory).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::time::sleep;
use url::Host;

use super::ConnectError;
use crate::upstream::endpoint::Origin;

/// How long one address may take before the next one is tried beside it (RFC 8305, 5).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// All addresses of `origin`.
pub(super) async fn lookup(origin: &Origin) -> Result<Vec<SocketAddr>, ConnectError> {
    let port = origin.port();
    match origin.host() {
        Host::Ipv4(address) => Ok(vec![(*address, port).into()]),
        Host::Ipv6(address) => Ok(vec![(*address, port).into()]),
        Host::Domain(name) => tokio::net::lookup_host((name.as_str(), port))
            .await
            .map(Iterator::collect)
            .map_err(|_unknown| ConnectError::Lookup(origin.clone())),
    }
}

/// The first of the addresses that answers. Both families take turns, each address gets a head start (RFC 8305).
pub(super) async fn race(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut queue = taking_turns(addresses).into_iter();
    let mut running = FuturesUnordered::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        match queue.next() {
            Some(address) => running.push(TcpStream::connect(address)),
            None if running.is_empty() => return Err(last),
            None => {}
        }
        let is_last = queue.len() == 0;
        tokio::select! {
            done = running.next() => match done {
                Some(Ok(socket)) => return Ok(socket),
                Some(Err(error)) => last = error,
                None => {}
            },
            () = sleep(NEXT_ADDRESS), if !is_last => {}
        }
    }
}

/// IPv6 and IPv4 in turns, each in the resolver's order.
pub(super) fn taking_turns(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let (sixes, fours): (Vec<_>, Vec<_>) = addresses.into_iter().partition(SocketAddr::is_ipv6);
    let (mut sixes, mut fours) = (sixes.into_iter(), fours.into_iter());
    let mut queue = Vec::with_capacity(sixes.len() + fours.len());
    loop {
        let (six, four) = (sixes.next(), fours.next());
        if six.is_none() && four.is_none() {
            return queue;
        }
        queue.extend(six);
        queue.extend(four);
    }
}
