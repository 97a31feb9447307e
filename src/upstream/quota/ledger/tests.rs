use super::*;

const WALL: Wall = Wall::from_ms(1_700_000_000_000);
const WINDOW: Duration = Duration::from_secs(21_600);

fn told(remaining: u64) -> Quota {
    Quota {
        limit: 100,
        remaining,
        window: Some(WINDOW),
        source: None,
    }
}

fn ledger(keep: u64, credentials: &[&str]) -> Ledger {
    let credentials = credentials.iter().map(|one| (*one).to_owned()).collect();
    Ledger::new(credentials, keep)
}

/// One account of which so much is left.
fn with(keep: u64, remaining: u64, now: Instant) -> Ledger {
    let mut ledger = ledger(keep, &["me"]);
    let head = ledger.enter(0, Cost::Head, None, now).unwrap();
    ledger.note(&head, told(remaining), now, WALL);
    ledger
}

fn pulls(ledger: &Ledger, now: Instant) -> bool {
    !ledger.candidates(Cost::Pull, None, now).is_empty()
}

#[test]
fn pulls_under_way_at_once_stop_at_what_is_kept() {
    let now = Instant::now();
    let mut ledger = with(10, 13, now);
    let entries: Vec<_> = (0..5)
        .filter_map(|_| ledger.enter(0, Cost::Pull, None, now))
        .collect();
    assert_eq!(entries.len(), 3);
    assert!(!pulls(&ledger, now));
    assert_eq!(ledger.retry_after(now), WINDOW);
    // What is free goes on.
    assert_eq!(ledger.candidates(Cost::Head, None, now), [0]);
    assert_eq!(ledger.candidates(Cost::Nothing, None, now), [0]);
    // Answers in another order than they were given: the lowest counts.
    for (entry, left) in entries.iter().zip([11, 10, 12]) {
        ledger.note(entry, told(left), now, WALL);
        ledger.settle(entry, false);
        assert!(!pulls(&ledger, now), "{left}");
    }
    // Somebody paid for more: a question from after all that may say so.
    let head = ledger.enter(0, Cost::Head, None, now).unwrap();
    ledger.note(&head, told(50), now, WALL);
    assert!(pulls(&ledger, now));
}

#[test]
fn what_may_have_been_counted_is() {
    let now = Instant::now();
    let mut ledger = with(10, 12, now);
    let absent = ledger.enter(0, Cost::Pull, None, now).unwrap();
    ledger.settle(&absent, false);
    let cut = ledger.enter(0, Cost::Pull, None, now).unwrap();
    ledger.settle(&cut, true);
    assert!(ledger.enter(0, Cost::Pull, None, now).is_some());
    assert!(ledger.enter(0, Cost::Pull, None, now).is_none());
}

#[test]
fn a_figure_older_than_its_window_is_none() {
    let now = Instant::now();
    let ledger = with(10, 3, now);
    assert!(!pulls(&ledger, now + WINDOW - Duration::from_secs(1)));
    assert!(pulls(&ledger, now + WINDOW));
    assert!(!ledger.shown(now + WINDOW)[0].is_current);
    // It was asked about when there was none; then again after it has grown old.
    assert_eq!(ledger.wants_probe(now + WINDOW), Some(0));
}

#[test]
fn an_earlier_run_is_believed_for_the_rest_of_its_window() {
    let now = Instant::now();
    let known = with(10, 3, now).shown(now);
    let restored = |age: i64| {
        let mut fresh = ledger(10, &["me"]);
        fresh.restore(&known, now, Wall::from_ms(WALL.as_ms() + age * 1000));
        fresh
    };
    assert!(!pulls(&restored(0), now));
    assert!(!pulls(&restored(21_599), now));
    assert!(pulls(&restored(21_600), now));
    // The clock went back: it is as young as can be, and no younger.
    assert!(!pulls(&restored(-9_999_999), now + WINDOW / 2));
    assert!(pulls(&restored(-9_999_999), now + WINDOW));
    // Others may have pulled since: it is asked about before it is used.
    assert_eq!(restored(0).wants_probe(now), Some(0));
    let mut other = ledger(10, &["somebody-else"]);
    other.restore(&known, now, WALL);
    assert!(pulls(&other, now));
}

#[test]
fn the_account_with_most_left_goes_first() {
    let now = Instant::now();
    let mut ledger = ledger(10, &["a", "b", "c"]);
    let note = |ledger: &mut Ledger, account, left| {
        let entry = ledger.enter(account, Cost::Head, None, now).unwrap();
        ledger.note(&entry, told(left), now, WALL);
    };
    assert_eq!(ledger.candidates(Cost::Pull, None, now), [0, 1, 2]);
    note(&mut ledger, 0, 40);
    assert_eq!(ledger.candidates(Cost::Pull, None, now), [1, 2, 0]);
    note(&mut ledger, 1, 60);
    note(&mut ledger, 2, 10);
    assert_eq!(ledger.candidates(Cost::Pull, None, now), [1, 0]);
    assert_eq!(ledger.candidates(Cost::Nothing, None, now), [1, 0, 2]);
    // Pulls under way count.
    for _ in 0..21 {
        ledger.enter(1, Cost::Pull, None, now).unwrap();
    }
    assert_eq!(ledger.candidates(Cost::Pull, None, now), [0, 1]);
}

#[test]
fn nothing_kept_refuses_nothing() {
    let now = Instant::now();
    let mut ledger = with(0, 0, now);
    assert!(pulls(&ledger, now));
    assert!(ledger.promise("d", 99, now));
    assert_eq!(ledger.wants_probe(now), None);
}

#[test]
fn what_is_promised_is_kept_for_it() {
    let now = Instant::now();
    let mut ledger = with(10, 12, now);
    assert!(!ledger.promise("index", 3, now));
    assert!(ledger.promise("index", 2, now));
    assert!(ledger.promise("index", 2, now), "once for all who ask");
    assert!(!ledger.promise("other", 1, now));
    assert!(!pulls(&ledger, now));
    assert_eq!(ledger.candidates(Cost::Pull, Some("index"), now), [0]);
    let index = ledger.enter(0, Cost::Pull, Some("index"), now).unwrap();
    ledger.note(&index, told(11), now, WALL);
    ledger.settle(&index, false);
    // Its children get what is left of it, once.
    ledger.pass_on("index", vec!["amd64".to_owned(), "arm64".to_owned()], now);
    assert!(!pulls(&ledger, now));
    assert!(ledger.enter(0, Cost::Pull, Some("index"), now).is_none());
    assert!(ledger.enter(0, Cost::Pull, Some("arm64"), now).is_some());
    assert!(ledger.enter(0, Cost::Pull, Some("amd64"), now).is_none());
    // Nobody came for it.
    let mut ledger = with(10, 11, now);
    assert!(ledger.promise("d", 1, now));
    assert!(!pulls(&ledger, now));
    assert!(pulls(&ledger, now + PROMISED_FOR));
}

#[test]
fn what_is_free_is_asked_before_a_pull_is_decided() {
    let now = Instant::now();
    let mut ledger = ledger(10, &["a", "b"]);
    assert_eq!(ledger.wants_probe(now), Some(0));
    ledger.probed(0, now);
    // It told nothing, and is not asked again for every pull.
    assert_eq!(ledger.wants_probe(now), None);
    assert_eq!(ledger.wants_probe(now + PROBE_AGAIN), Some(0));
    // Others pull at the same expense: what was told a while ago may not be so any more.
    let ledger = with(10, 90, now);
    assert_eq!(ledger.wants_probe(now), None);
    assert_eq!(ledger.wants_probe(now + PROBE_AGAIN), Some(0));
    let mut ledger = with(10, 10, now);
    assert_eq!(ledger.wants_probe(now), Some(0));
    ledger.probed(0, now);
    assert_eq!(ledger.wants_probe(now), None);
    assert_eq!(ledger.wants_probe(now + PROBE_AGAIN), Some(0));
}

#[test]
fn heads_that_turn_out_to_cost_are_kept_back_too() {
    let now = Instant::now();
    let mut ledger = with(10, 15, now);
    for left in [14, 13, 12] {
        let head = ledger.enter(0, Cost::Head, None, now).unwrap();
        ledger.note(&head, told(left), now, WALL);
        ledger.settle(&head, false);
    }
    let first = ledger.enter(0, Cost::Head, None, now).unwrap();
    let second = ledger.enter(0, Cost::Head, None, now).unwrap();
    assert!(ledger.candidates(Cost::Head, None, now).is_empty());
    ledger.note(&first, told(11), now, WALL);
    ledger.note(&second, told(10), now, WALL);
    ledger.settle(&first, false);
    ledger.settle(&second, false);
    assert!(ledger.candidates(Cost::Head, None, now).is_empty());
    assert_eq!(ledger.wants_probe(now), None);
    // Where one pull makes the difference, HEADs are not to blame.
    let mut ledger = with(10, 90, now);
    for left in [89, 88, 87, 86] {
        let pull = ledger.enter(0, Cost::Pull, None, now).unwrap();
        let head = ledger.enter(0, Cost::Head, None, now).unwrap();
        ledger.note(&pull, told(left), now, WALL);
        ledger.settle(&pull, false);
        ledger.note(&head, told(left), now, WALL);
    }
    assert!(!ledger.accounts[0].heads_cost());
}
