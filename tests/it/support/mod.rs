//! The parts that tests are made of. Nothing here knows what a test asserts.
//!
//! * [`Mirror`]: the real binary, with a data directory, a generated configuration, logs, and a check on drop.
//! * [`Upstream`]: a scripted registry on a real socket; its log is what tests count at. [`Act`] says what happens to a
//!   request, [`Gate`] holds a body at a byte.
//! * [`image`]: images made by seed, as (digest, media type, bytes).
//! * [`Client`]: an HTTP client that shows everything, and [`raw`] for what no client would send.
//! * [`Canary`]: a listener that nobody should ever talk to.
//! * [`secrets`]: what every secret of a test contains, and the search for it in whatever the mirror says.
//! * [`Walkthrough`]: the marked shell blocks of a document, run as they stand there.
//!
//! Nothing sleeps to wait for something: `eventually!` (async) and [`wait_until`] (not) poll with one patience.
#![allow(
    dead_code,
    unused_imports,
    reason = "shared by two test binaries, neither of which uses all of it"
)]

pub mod canary;
pub mod client;
pub mod image;
pub mod issuer;
pub mod mirror;
pub mod plain_http;
pub mod push;
pub mod raw;
pub mod secrets;
pub mod secure;
pub mod signer;
pub mod tls;
pub mod upstream;
pub mod walkthrough;

use std::net::TcpListener;
use std::time::{Duration, Instant};

pub use canary::Canary;
pub use client::{Answer, Client, Open};
pub use image::{Content, Flavour, Image};
pub use issuer::Issuer;
pub use mirror::{Mirror, Remote};
pub use secure::Secure;
pub use upstream::{Act, Gate, Seen, Upstream};
pub use walkthrough::Walkthrough;

/// How long anything may take that is bound to happen: the one knob, in seconds, is `ROADSTEAD_TEST_PATIENCE`.
pub fn patience() -> Duration {
    let seconds = std::env::var("ROADSTEAD_TEST_PATIENCE")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(30);
    Duration::from_secs(seconds)
}

/// Between two looks at a condition.
pub const GLANCE: Duration = Duration::from_millis(10);

/// Waits, in an async test, until the expression holds; panics with the expression when patience runs out.
#[macro_export]
macro_rules! eventually {
    ($condition:expr $(,)?) => { $crate::eventually!($condition, "{}", stringify!($condition)) };
    ($condition:expr, $($message:tt)+) => {{
        let deadline = std::time::Instant::now() + $crate::support::patience();
        while !$condition {
            assert!(std::time::Instant::now() < deadline, "patience ran out: {}", format!($($message)+));
            tokio::time::sleep($crate::support::GLANCE).await;
        }
    }};
}

/// Waits, blocking the thread, until `condition` holds; false when patience ran out.
#[must_use]
pub fn wait_until(mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience();
    while !condition() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(GLANCE);
    }
    true
}

/// A port that was free a moment ago. For programs that cannot be told port 0; everything of ours binds port 0.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}
