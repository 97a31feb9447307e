//! Which addresses may be dialled. Pure; the connector asks for every address after DNS, on every hop.
//!
//! An operator who configures an upstream at an inside address means it. A realm or a redirect that names an inside address is upstream's
//! word alone, and that is not enough (RELIABILITY P30).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Why an address is dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The configured upstream itself: same scheme, host and port.
    Own,
    /// Its token service.
    Token,
    /// Where it redirects to.
    Redirect,
}

/// What kind of address it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Reachable from anywhere.
    Public,
    /// RFC 1918, RFC 4193, RFC 6598.
    Private,
    /// This machine.
    Loopback,
    /// Link-local, metadata, multicast, unspecified, reserved: nobody's registry.
    Never,
}

/// What the decision needs to know.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The host stands in the URL as an address, or as `localhost`.
    pub literal: bool,
    /// The host is written in `token_hosts`.
    pub declared: bool,
    /// The upstream itself is at a private address.
    pub upstream_is_private: bool,
    /// `allow_addresses`.
    pub allowed: &'a [IpNet],
}

/// Whether `address` may be dialled.
pub fn may_dial(address: IpAddr, purpose: Purpose, facts: &Facts<'_>) -> bool {
    let address = embedded(address);
    if facts.allowed.iter().any(|net| net.contains(&address)) {
        return true;
    }
    match (classify(address), purpose) {
        (Class::Public, _) | (Class::Private | Class::Loopback, Purpose::Own) => true,
        (Class::Private, Purpose::Token | Purpose::Redirect) if facts.upstream_is_private => true,
        (Class::Private | Class::Loopback, Purpose::Token) => facts.declared && facts.literal,
        (Class::Private | Class::Loopback, Purpose::Redirect) => false,
        (Class::Never, purpose) => {
            purpose == Purpose::Own
                && facts.literal
                && !address.is_unspecified()
                && !address.is_multicast()
        }
    }
}

/// The class of an address, forms that embed an IPv4 address counted as that.
pub fn classify(address: IpAddr) -> Class {
    match embedded(address) {
        IpAddr::V4(v4) => classify_v4(v4),
        IpAddr::V6(v6) => classify_v6(v6),
    }
}

fn classify_v4(v4: Ipv4Addr) -> Class {
    match v4.octets() {
        [127, ..] => Class::Loopback,
        // 100.100.100.200 is a cloud's metadata service inside the shared range, so it is looked at first.
        [100, 100, 100, 200]
        | [0 | 224..=255, ..]
        | [169, 254, ..]
        | [192, 0, 0 | 2, _]
        | [198, 18 | 19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => Class::Never,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Class::Private,
        _ => Class::Public,
    }
}

fn classify_v6(v6: Ipv6Addr) -> Class {
    let segments = v6.segments();
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 1] => Class::Loopback,
        // fd00:ec2::254 is a cloud's metadata service.
        [0xfd00, 0x0ec2, ..] => Class::Never,
        [first, ..] if first & 0xfe00 == 0xfc00 => Class::Private,
        [first, ..]
            if first & 0xe000 == 0x2000
                && first != 0x2002
                && !(first == 0x2001
                    && segments
                        .get(1)
                        .is_some_and(|second| *second == 0x0db8 || *second == 0)) =>
        {
            Class::Public
        }
        _ => Class::Never,
    }
}

/// The IPv4 address inside a mapped, compatible, NAT64 or 6to4 address; any other as it is.
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0x0064, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => v4(high, low),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => v4(high, low),
        _ => address,
    }
}
