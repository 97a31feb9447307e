//! The server over real loopback sockets, with small limits. `support` has the handler and the raw client.

mod accept;
mod bodies;
mod chunked;
mod clients;
mod drain;
mod framing;
mod http2;
mod screen;
mod slow;
mod support;
mod tls;
