//! Where chunked bodies end, whole and cut into single bytes.

use proptest::prelude::*;

use crate::server::chunked::{Broken, Chunked};

/// The length of the body that `bytes` begin with; `None` while it is not over.
fn end(bytes: &[u8]) -> Result<Option<usize>, Broken> {
    let mut whole = Chunked::new();
    let at_once = whole.advance(bytes).map(|at| whole.is_over().then_some(at));
    let mut pieces = Chunked::new();
    let mut bytewise = Ok(None);
    for (at, byte) in bytes.iter().enumerate() {
        match pieces.advance(&[*byte]) {
            Ok(_) if pieces.is_over() => {
                bytewise = Ok(Some(at + 1));
                break;
            }
            Ok(_) => {}
            Err(broken) => {
                bytewise = Err(broken);
                break;
            }
        }
    }
    assert_eq!(at_once, bytewise, "{bytes:?}");
    at_once
}

#[test]
fn ends() {
    let bodies: &[(&[u8], usize)] = &[
        (b"0\r\n\r\nGET", 5),
        (b"5\r\nhello\r\n0\r\n\r\nGET", 15),
        (b"0A;x=\"y\"\r\n0123456789\r\n00;z\r\n\r\n", 30),
        (b"1\r\na\r\n0\r\nTrailer: x\r\nOther: y\r\n\r\n", 33),
    ];
    for (bytes, length) in bodies {
        assert_eq!(
            end(bytes),
            Ok(Some(*length)),
            "{:?}",
            String::from_utf8_lossy(bytes)
        );
    }
    for bytes in [
        &b""[..],
        b"5\r\nhel",
        b"5\r\nhello",
        b"0\r\n",
        b"0\r\n\r",
        b"5",
    ] {
        assert_eq!(end(bytes), Ok(None), "{bytes:?}");
    }
}

#[test]
fn breaks() {
    for bytes in [
        // H8
        &b"1000000000000000000\r\n"[..],
        b"-1\r\n",
        b"0x1\r\n",
        b"1 \r\n",
        b" 1\r\n",
        b"\r\n",
        b"+1\r\n",
        b";x\r\n",
        // H10
        b"1\na\r\n0\r\n\r\n",
        b"1\r\na0\r\n\r\n",
        b"1\r\na\n0\r\n\r\n",
        b"1;x\ny\r\na\r\n",
        b"1;\x01\r\na\r\n",
        b"0\r\n\n",
        b"0\r\nX: y\n\r\n",
        b"0\r\n\r\r\n",
    ] {
        assert_eq!(
            end(bytes),
            Err(Broken),
            "{:?}",
            String::from_utf8_lossy(bytes)
        );
    }
    // H9: many chunks with an extension each
    let chunk = format!("1;{}\r\na\r\n", "x".repeat(1024));
    assert_eq!(end(chunk.repeat(15).as_bytes()), Ok(None));
    assert_eq!(end(chunk.repeat(17).as_bytes()), Err(Broken));
}

proptest! {
    #[test]
    fn never_past_the_end(bytes in proptest::collection::vec(prop_oneof![Just(b'0'), Just(b'1'), Just(b'\r'), Just(b'\n'), any::<u8>()], 0..64)) {
        if let Ok(Some(at)) = end(&bytes) {
            prop_assert!(at <= bytes.len());
        }
    }
}
