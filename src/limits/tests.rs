use std::net::IpAddr;

use super::*;

fn client(number: u8) -> Client {
    Client::at(IpAddr::from([192, 0, 2, number]))
}

fn rate(seconds: u64, burst: u32) -> Rate {
    Rate {
        every: Duration::from_secs(seconds),
        burst: NonZeroU32::new(burst).unwrap(),
    }
}

#[tokio::test]
async fn nothing_is_counted_where_nothing_is_limited() {
    let limits = Limits::new(Config::default());
    for _ in 0..1000 {
        let entered = limits.enter(|| unreachable!(), Class::Blob).await;
        assert!(entered.unwrap().is_none());
    }
}

#[tokio::test]
async fn kinds_are_counted_apart() {
    let limits = Limits::new(Config {
        blob: Some(rate(100, 2)),
        login: Some(rate(100, 1)),
        ..Config::default()
    });
    let enter = async |number, class| limits.enter(|| client(number), class).await.map(drop);
    assert_eq!(enter(1, Class::Blob).await, Ok(()));
    assert_eq!(enter(1, Class::Blob).await, Ok(()));
    let limited = enter(1, Class::Blob).await.unwrap_err();
    assert_eq!(limited.what, "limits.blob");
    assert!(limited.retry_after > Duration::from_secs(90));
    assert_eq!(enter(1, Class::Manifest).await, Ok(()));
    assert_eq!(enter(2, Class::Blob).await, Ok(()));
    assert_eq!(limits.charge(&client(1), Class::Login), Ok(()));
    assert!(limits.charge(&client(1), Class::Login).is_err());
    // The same limits once more change nothing; others begin anew.
    let config = limits.current().config;
    limits.reload(config);
    assert!(enter(1, Class::Blob).await.is_err());
    limits.reload(Config {
        write: Some(rate(1, 1)),
        ..config
    });
    assert_eq!(enter(1, Class::Blob).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_place_is_free_again_when_both_bodies_are_gone() {
    let limits = Limits::new(Config {
        per_client: Budget {
            concurrent: NonZeroUsize::new(1),
            bandwidth: NonZeroU64::new(1 << 20),
            ..Budget::default()
        },
        ..Config::default()
    });
    let enter = async || limits.enter(|| client(1), Class::Write).await;
    let passage = enter().await.unwrap().unwrap();
    let request = passage.request(crate::body::chunks(http_body_util::Full::new(
        bytes::Bytes::from_static(b"request"),
    )));
    let answer = passage.answer(crate::body::Body::full("answer"));
    assert_eq!(http_body::Body::size_hint(&answer).exact(), Some(6));
    drop(answer);
    let late = enter().await.unwrap_err();
    assert_eq!(late.retry_after, PATIENCE);
    drop(request);
    assert!(enter().await.unwrap().is_some());
}

#[tokio::test]
async fn those_not_seen_for_longest_are_forgotten() {
    let limits = Limits::new(Config {
        blob: Some(rate(1000, 1)),
        ..Config::default()
    });
    let address = |number: u32| Client::at(IpAddr::from(number.to_be_bytes()));
    let most = u32::try_from(CLIENTS_MAX.get()).unwrap();
    for number in 0..=most {
        let entered = limits.enter(|| address(number), Class::Blob).await;
        assert!(entered.is_ok());
    }
    let counts = limits.current();
    assert_eq!(counts.clients.lock().unwrap().len(), CLIENTS_MAX.get());
    // The last one is known still, the first is not.
    let entered = limits.enter(|| address(most), Class::Blob).await;
    assert!(entered.is_err());
    assert!(limits.enter(|| address(0), Class::Blob).await.is_ok());
}

#[tokio::test]
async fn a_line_for_places_has_an_end() {
    let limits = Arc::new(Limits::new(Config {
        per_client: Budget {
            concurrent: NonZeroUsize::new(1),
            ..Budget::default()
        },
        ..Config::default()
    }));
    let held = limits.enter(|| client(1), Class::Blob).await.unwrap();
    let wait = || {
        let limits = Arc::clone(&limits);
        async move { limits.enter(|| client(1), Class::Blob).await }
    };
    let mut waiting: tokio::task::JoinSet<_> = (0..WAITING_MAX).map(|_| wait()).collect();
    let own = limits.current().own(&client(1));
    let (places, _) = own.places.as_ref().unwrap();
    // Itself, the one that has the place, and those that wait.
    while Arc::strong_count(places) < 2 + WAITING_MAX {
        tokio::task::yield_now().await;
    }
    let full = wait().await.unwrap_err();
    assert_eq!(full.what, "limits.per_client.concurrent");
    drop(held);
    while let Some(one) = waiting.join_next().await {
        assert!(one.unwrap().is_ok());
    }
}
