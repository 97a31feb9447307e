use std::time::Duration;

use tokio::time::Instant;

use super::{Breaker, BreakerState};

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn opened(now: Instant) -> Breaker {
    let breaker = Breaker::default();
    for nth in 1..=3 {
        assert_eq!(breaker.admit(now).unwrap().failed(now, None), nth == 3);
    }
    breaker
}

#[test]
fn three_failures_in_a_row_open_it() {
    let now = Instant::now();
    let breaker = Breaker::default();
    for _ in 0..5 {
        breaker.admit(now).unwrap().failed(now, None);
        breaker.admit(now).unwrap().failed(now, None);
        breaker.admit(now).unwrap().worked();
    }
    assert_eq!(breaker.state(now), BreakerState::Closed);
    let breaker = opened(now);
    assert_eq!(breaker.admit(now).unwrap_err(), secs(5));
    assert_eq!(breaker.state(now + secs(2)), BreakerState::Open(secs(3)));
    assert_eq!(breaker.state(now + secs(5)), BreakerState::HalfOpen);
}

#[test]
fn one_trial_at_a_time_decides() {
    let now = Instant::now();
    let breaker = opened(now);
    let then = now + secs(5);
    let trial = breaker.admit(then).unwrap();
    assert!(breaker.admit(then).is_err());
    // A client that left says nothing; the next one tries.
    drop(trial);
    let trial = breaker.admit(then).unwrap();
    trial.worked();
    assert_eq!(breaker.state(then), BreakerState::Closed);
    assert!(breaker.admit(then).is_ok());
}

#[test]
fn pauses_double_up_to_a_minute() {
    let mut now = Instant::now();
    let breaker = opened(now);
    for pause in [5, 10, 20, 40, 60, 60] {
        assert_eq!(breaker.state(now), BreakerState::Open(secs(pause)));
        now += secs(pause);
        assert!(breaker.admit(now).unwrap().failed(now, None));
    }
    now += secs(60);
    breaker.admit(now).unwrap().worked();
    for _ in 0..3 {
        breaker.admit(now).unwrap().failed(now, None);
    }
    assert_eq!(breaker.state(now), BreakerState::Open(secs(5)));
}

#[test]
fn latecomers_neither_close_it_nor_prolong_it() {
    let now = Instant::now();
    let breaker = Breaker::default();
    let (early, late) = (breaker.admit(now).unwrap(), breaker.admit(now).unwrap());
    for _ in 0..3 {
        breaker.admit(now).unwrap().failed(now, None);
    }
    early.worked();
    assert!(!late.failed(now + secs(1), None));
    assert_eq!(breaker.state(now + secs(1)), BreakerState::Open(secs(4)));
}

#[test]
fn what_fails_for_one_image_does_not_open_it() {
    let now = Instant::now();
    let breaker = Breaker::default();
    for _ in 0..20 {
        assert!(!breaker.admit(now).unwrap().failed(now, Some("broken")));
    }
    assert_eq!(breaker.state(now), BreakerState::Closed);
    // Another image fails too: it is the upstream.
    assert!(breaker.admit(now).unwrap().failed(now, Some("other")));
    let breaker = Breaker::default();
    for _ in 0..3 {
        breaker.admit(now).unwrap().failed(now, Some("broken"));
    }
    assert!(breaker.admit(now).unwrap().failed(now, None));
}
