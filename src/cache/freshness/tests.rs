use std::time::Duration;

use super::super::config::{Config, DeletedUpstream};
use super::{Decision, Known, decide, loaded_age, may_serve_gone, may_serve_stale};

const SECOND: Duration = Duration::from_secs(1);

fn config() -> Config {
    Config {
        tag_ttl: 10 * SECOND,
        negative_ttl: 3 * SECOND,
        stale_if_error: 100 * SECOND,
        ..Config::default()
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the table has rows where nothing is known"
)]
fn known(age: u32, gone: Option<u32>) -> Option<Known> {
    Some(Known {
        age: age * SECOND,
        gone: gone.map(|gone| gone * SECOND),
    })
}

#[test]
fn every_row_of_the_table() {
    let keep = config();
    let forget = Config {
        deleted_upstream: DeletedUpstream::Forget,
        ..config()
    };
    let offline = Config {
        offline: true,
        ..config()
    };
    let table = [
        (known(0, None), &keep, Decision::Fresh { left: 10 * SECOND }),
        (known(9, None), &keep, Decision::Fresh { left: SECOND }),
        (known(10, None), &keep, Decision::Revalidate),
        (known(1_000, None), &keep, Decision::Revalidate),
        (None, &keep, Decision::Fetch),
        (known(20, Some(1)), &keep, Decision::Gone),
        (known(20, Some(3)), &keep, Decision::Revalidate),
        (known(101, Some(1)), &keep, Decision::Absent),
        (known(20, Some(1)), &forget, Decision::Absent),
        (known(1, Some(0)), &forget, Decision::Absent),
        (known(1_000_000, None), &offline, Decision::Offline),
        (known(1, Some(1)), &offline, Decision::Offline),
        (None, &offline, Decision::Unreachable),
    ];
    for (known, config, expected) in table {
        assert_eq!(
            decide(known, config),
            expected,
            "{known:?} under {config:?}"
        );
    }
}

#[test]
fn a_ttl_of_zero_asks_every_time() {
    let config = Config {
        tag_ttl: Duration::ZERO,
        ..config()
    };
    assert_eq!(decide(known(0, None), &config), Decision::Revalidate);
}

#[test]
fn stale_is_bounded() {
    let keep = config();
    let forget = Config {
        deleted_upstream: DeletedUpstream::Forget,
        ..config()
    };
    let old = known(100, None).unwrap();
    let too_old = known(101, None).unwrap();
    assert!(may_serve_stale(old, &keep) && !may_serve_stale(too_old, &keep));
    assert!(
        may_serve_gone(old, &keep)
            && !may_serve_gone(too_old, &keep)
            && !may_serve_gone(old, &forget)
    );
}

#[test]
fn a_clock_that_stepped_back_costs_one_question() {
    let config = config();
    let age = loaded_age(Duration::ZERO, true, &config);
    assert_eq!(
        decide(Some(Known { age, gone: None }), &config),
        Decision::Revalidate
    );
    assert!(may_serve_stale(Known { age, gone: None }, &config));
}
