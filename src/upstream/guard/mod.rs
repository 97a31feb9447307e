//! Which addresses may be dialled (RELIABILITY P30, C5, C6, R5, R6).
//!
//! Pure. It is asked at connect, with every address that the name has resolved to, so that neither an odd spelling nor a name that
//! changes its mind gets around it. It must not know of URLs beyond the form of the host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Why somebody is dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    /// The configured upstream: same scheme, host and port.
    Own,
    /// A token service elsewhere.
    Token,
    /// The target of a redirect elsewhere.
    Redirect,
    /// A URL that a manifest names, and what it redirects to.
    Foreign,
}

/// How the host of a URL is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// As an address, or as `localhost`.
    Literally,
    /// As a name for the resolver.
    AsName,
}

/// What is known besides the address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    /// How the host is written.
    pub(super) written: Written,
    /// The networks of `allow_addresses`.
    pub(super) allowed: &'a [IpNet],
    /// Whether `token_hosts` names the host.
    pub(super) is_token_host: bool,
    /// Whether the upstream itself was found at a private address.
    pub(super) own_is_private: bool,
}

/// What an address is for, by the registries of special addresses (RFC 6890 and later).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Class {
    /// Anybody's.
    Public,
    /// RFC 1918, unique local.
    Private,
    /// This machine.
    Loopback,
    /// Carrier-grade NAT.
    Shared,
    /// Link-local, and the places where clouds hand out credentials.
    LinkLocal,
    Multicast,
    /// `0.0.0.0/8` and `::`, which systems take for this machine.
    Unspecified,
    /// Documentation, benchmarking, the future.
    Reserved,
}

impl Class {
    /// The class of `address`; what an IPv6 form embeds counts as what is embedded.
    pub(super) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        match address.octets() {
            [0, ..] => Self::Unspecified,
            [127, ..] => Self::Loopback,
            // AWS and everyone's, Oracle's, Azure's, Alibaba's place for machine credentials.
            [169, 254, ..] | [192, 0, 0, 192] | [168, 63, 129, 16] | [100, 100, 100, 200] => {
                Self::LinkLocal
            }
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Self::Private,
            [100, 64..=127, ..] => Self::Shared,
            [224..=239, ..] => Self::Multicast,
            [192, 0, 0 | 2, _]
            | [192, 88, 99, _]
            | [198, 18 | 19, ..]
            | [198, 51, 100, _]
            | [203, 0, 113, _]
            | [240..=255, ..] => Self::Reserved,
            _ => Self::Public,
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        let embedded = |high: u16, low: u16| {
            let [a, b] = high.to_be_bytes();
            let [c, d] = low.to_be_bytes();
            Self::of_v4(Ipv4Addr::new(a, b, c, d))
        };
        match address.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0] => Self::Unspecified,
            [0, 0, 0, 0, 0, 0, 0, 1] => Self::Loopback,
            // v4-compatible, v4-mapped, v4-translated (SIIT), NAT64
            [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
            | [0, 0, 0, 0, 0xffff, 0, high, low]
            | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
            // 6to4
            | [0x2002, high, low, ..] => embedded(high, low),
            // Teredo: the client's address is written inverted
            [0x2001, 0, _, _, _, _, high, low] => embedded(!high, !low),
            // AWS's place for machine credentials over IPv6
            [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] | [0xfe80..=0xfebf, ..] => Self::LinkLocal,
            [0xfc00..=0xfdff, ..] => Self::Private,
            [0xff00..=0xffff, ..] => Self::Multicast,
            [0x2001, 0x1..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Self::Reserved,
            [0x2000..=0x3fff, ..] => Self::Public,
            // Local-use NAT64 (64:ff9b:1::/48), discard, site-local, everything unassigned
            _ => Self::Reserved,
        }
    }

    /// The name in messages.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
            Self::Loopback => "loopback",
            Self::Shared => "carrier-grade NAT",
            Self::LinkLocal => "link-local or metadata",
            Self::Multicast => "multicast",
            Self::Unspecified => "unspecified",
            Self::Reserved => "reserved",
        }
    }
}

/// Whether `address` may be dialled; the class says why not.
pub(super) fn check(address: IpAddr, purpose: Purpose, facts: Facts<'_>) -> Result<(), Class> {
    let class = Class::of(address);
    let fine = match purpose {
        Purpose::Own => match facts.written {
            // Whoever configures an address means it.
            Written::Literally => true,
            Written::AsName => !matches!(
                class,
                Class::LinkLocal | Class::Multicast | Class::Unspecified
            ),
        },
        // A manifest is anybody's word: that the upstream is inside too does not make it a neighbour's.
        Purpose::Foreign => class == Class::Public || is_listed(address, class, facts.allowed),
        Purpose::Token | Purpose::Redirect => {
            class == Class::Public
                || is_listed(address, class, facts.allowed)
                || (class == Class::Private && facts.own_is_private)
                || (purpose == Purpose::Token
                    && facts.is_token_host
                    && facts.written == Written::Literally)
        }
    };
    if fine { Ok(()) } else { Err(class) }
}

/// Whether `allow_addresses` lifts the ban. A wide network does not open what only a narrow one can mean: `0.0.0.0/0` is no leave to
/// ask for a cloud's credentials.
fn is_listed(address: IpAddr, class: Class, allowed: &[IpNet]) -> bool {
    let address = address.to_canonical();
    allowed.iter().any(|net| {
        net.contains(&address)
            && match class {
                Class::Multicast | Class::Unspecified => false,
                Class::LinkLocal => {
                    Class::of(net.network()) == class && Class::of(net.broadcast()) == class
                }
                Class::Public
                | Class::Private
                | Class::Loopback
                | Class::Shared
                | Class::Reserved => true,
            }
    })
}

#[cfg(test)]
mod tests;
