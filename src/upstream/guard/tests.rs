use std::net::IpAddr;

use super::{Class, Facts, Purpose, Written, check};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

const NOTHING: Facts<'static> = Facts {
    written: Written::AsName,
    allowed: &[],
    is_token_host: false,
    own_is_private: false,
};

#[test]
fn classes() {
    use Class::{LinkLocal, Loopback, Multicast, Private, Public, Reserved, Shared, Unspecified};
    for (text, class) in [
        ("1.1.1.1", Public),
        ("172.15.255.255", Public),
        ("172.32.0.0", Public),
        ("192.0.1.1", Public),
        ("100.63.255.255", Public),
        ("100.128.0.0", Public),
        ("223.255.255.255", Public),
        ("10.0.0.1", Private),
        ("172.16.0.0", Private),
        ("172.31.255.255", Private),
        ("192.168.1.1", Private),
        ("127.0.0.1", Loopback),
        ("127.255.255.254", Loopback),
        ("100.64.0.1", Shared),
        ("100.127.255.255", Shared),
        ("169.254.169.254", LinkLocal),
        ("169.254.0.1", LinkLocal),
        ("100.100.100.200", LinkLocal),
        ("192.0.0.192", LinkLocal),
        ("168.63.129.16", LinkLocal),
        ("224.0.0.1", Multicast),
        ("239.255.255.255", Multicast),
        ("0.0.0.0", Unspecified),
        ("0.1.2.3", Unspecified),
        ("192.0.2.1", Reserved),
        ("198.18.0.1", Reserved),
        ("198.51.100.1", Reserved),
        ("203.0.113.9", Reserved),
        ("240.0.0.1", Reserved),
        ("255.255.255.255", Reserved),
        ("::", Unspecified),
        ("::1", Loopback),
        ("::127.0.0.1", Loopback),
        ("::ffff:127.0.0.1", Loopback),
        ("::ffff:0.0.0.0", Unspecified),
        ("::ffff:169.254.169.254", LinkLocal),
        ("::ffff:10.1.2.3", Private),
        ("::ffff:8.8.8.8", Public),
        ("::ffff:0:127.0.0.1", Loopback),
        ("64:ff9b::a9fe:a9fe", LinkLocal),
        ("64:ff9b::7f00:1", Loopback),
        ("64:ff9b::808:808", Public),
        ("64:ff9b:1::a9fe:a9fe", Reserved),
        ("2002:a9fe:a9fe::1", LinkLocal),
        ("2002:7f00:1::", Loopback),
        ("2002:808:808::", Public),
        ("2001:0:1:2:3:4:5601:5601", LinkLocal),
        ("2001:db8::1", Reserved),
        ("2001:2::1", Reserved),
        ("2001:4860:4860::8888", Public),
        ("2600::1", Public),
        ("fe80::1", LinkLocal),
        ("febf::1", LinkLocal),
        ("fec0::1", Reserved),
        ("fc00::1", Private),
        ("fd12:3456::1", Private),
        ("fd00:ec2::254", LinkLocal),
        ("ff02::1", Multicast),
        ("100::1", Reserved),
        ("4000::1", Reserved),
    ] {
        assert_eq!(Class::of(ip(text)), class, "{text}");
    }
}

#[test]
fn the_configured_upstream() {
    for text in ["127.0.0.1", "169.254.169.254", "0.0.0.0", "10.0.0.1", "::1"] {
        let literal = Facts {
            written: Written::Literally,
            ..NOTHING
        };
        assert_eq!(check(ip(text), Purpose::Own, literal), Ok(()), "{text}");
    }
    for (text, fine) in [
        ("127.0.0.1", true),
        ("10.0.0.1", true),
        ("fd00::1", true),
        ("100.64.0.1", true),
        ("1.1.1.1", true),
        ("169.254.169.254", false),
        ("::ffff:169.254.169.254", false),
        ("fd00:ec2::254", false),
        ("fe80::1", false),
        ("0.0.0.0", false),
        ("::", false),
        ("224.0.0.1", false),
    ] {
        assert_eq!(
            check(ip(text), Purpose::Own, NOTHING).is_ok(),
            fine,
            "{text}"
        );
    }
}

#[test]
fn elsewhere_only_public_addresses() {
    for purpose in [Purpose::Token, Purpose::Redirect, Purpose::Foreign] {
        for written in [Written::AsName, Written::Literally] {
            let facts = Facts { written, ..NOTHING };
            for text in ["1.1.1.1", "2600::1", "64:ff9b::101:101"] {
                assert_eq!(check(ip(text), purpose, facts), Ok(()), "{text}");
            }
            for text in [
                "127.0.0.1",
                "127.0.0.2",
                "10.0.0.1",
                "192.168.0.1",
                "100.64.0.1",
                "169.254.169.254",
                "0.0.0.0",
                "::",
                "::1",
                "fd00::1",
                "fd00:ec2::254",
                "::ffff:127.0.0.1",
                "64:ff9b::a9fe:a9fe",
                "2002:7f00:1::",
                "224.0.0.1",
                "198.18.0.1",
            ] {
                assert!(check(ip(text), purpose, facts).is_err(), "{text}");
            }
        }
    }
}

#[test]
fn what_lifts_the_ban() {
    let allowed = ["10.0.0.0/8", "127.0.0.0/8"].map(|net| net.parse().unwrap());
    let listed = Facts {
        allowed: &allowed,
        ..NOTHING
    };
    for purpose in [Purpose::Token, Purpose::Redirect, Purpose::Foreign] {
        assert!(check(ip("10.1.1.1"), purpose, listed).is_ok());
        assert!(check(ip("::ffff:10.1.1.1"), purpose, listed).is_ok());
        assert!(check(ip("127.0.0.2"), purpose, listed).is_ok());
        assert!(check(ip("192.168.1.1"), purpose, listed).is_err());
    }
    // A wide network is no leave for metadata services, nor for what is no destination at all.
    let wide = ["0.0.0.0/0", "::/0"].map(|net| net.parse().unwrap());
    let listed = Facts {
        allowed: &wide,
        ..NOTHING
    };
    assert!(check(ip("192.168.1.1"), Purpose::Redirect, listed).is_ok());
    for text in ["169.254.169.254", "fd00:ec2::254", "0.0.0.0", "224.0.0.1"] {
        assert!(
            check(ip(text), Purpose::Redirect, listed).is_err(),
            "{text}"
        );
    }
    let narrow = ["169.254.10.0/24"].map(|net| net.parse().unwrap());
    let listed = Facts {
        allowed: &narrow,
        ..NOTHING
    };
    assert!(check(ip("169.254.10.1"), Purpose::Redirect, listed).is_ok());

    // token_hosts: an address that is written there is meant; a name that leads inside is not.
    let named = Facts {
        is_token_host: true,
        ..NOTHING
    };
    let literal = Facts {
        written: Written::Literally,
        ..named
    };
    assert!(check(ip("127.0.0.1"), Purpose::Token, literal).is_ok());
    assert!(check(ip("127.0.0.1"), Purpose::Redirect, literal).is_err());
    assert!(check(ip("127.0.0.1"), Purpose::Token, named).is_err());

    // A private registry's neighbours.
    let private = Facts {
        own_is_private: true,
        ..NOTHING
    };
    for purpose in [Purpose::Token, Purpose::Redirect] {
        assert!(check(ip("10.0.0.9"), purpose, private).is_ok());
        assert!(check(ip("fd12::9"), purpose, private).is_ok());
        for text in [
            "127.0.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "fd00:ec2::254",
        ] {
            assert!(check(ip(text), purpose, private).is_err(), "{text}");
        }
    }
    for text in ["10.0.0.9", "fd12::9", "127.0.0.1"] {
        assert!(
            check(ip(text), Purpose::Foreign, private).is_err(),
            "{text}"
        );
        assert!(
            check(ip(text), Purpose::Foreign, literal).is_err(),
            "{text}"
        );
    }
}
