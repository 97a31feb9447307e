//! Whom requests are counted for. Pure.

use std::net::IpAddr;
use std::sync::Arc;

use crate::address::network;

/// A user, wherever they are; or, of those who are not logged in, an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Client {
    /// Somebody by name.
    User(Arc<str>),
    /// An address; of IPv6 its /64, which one client has all of.
    Address(IpAddr),
}

impl Client {
    /// Whoever has this address.
    pub fn at(address: IpAddr) -> Self {
        Self::Address(network(address))
    }
}
