//! TLS towards clients: what is served, and what SIGHUP does to it.

use crate::support::Secure;
use crate::support::tls::Authority;

#[tokio::test]
async fn certificates_are_replaced_on_sighup_and_bad_ones_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.localhost().write(dir.path(), "mirror");
    let mirror = Secure::start(dir.path(), "");
    crate::eventually!(mirror.ask(&authority).await.is_some());
    let (first, answer) = mirror.ask(&authority).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // Another authority's certificate is not ours.
    assert!(mirror.ask(&Authority::new()).await.is_none());

    authority.localhost().write(dir.path(), "mirror");
    assert_eq!(mirror.ask(&authority).await.unwrap().0, first);
    mirror.hang_up();
    crate::eventually!(
        mirror
            .ask(&authority)
            .await
            .is_some_and(|(now, _)| now != first)
    );
    let (second, _) = mirror.ask(&authority).await.unwrap();

    // A key of somebody else's: said in the log, and the pair in use stays.
    let stranger = Authority::new().localhost();
    std::fs::write(dir.path().join("mirror.key"), stranger.key).unwrap();
    mirror.hang_up();
    let log = || std::fs::read_to_string(dir.path().join("log")).unwrap();
    crate::eventually!(log().contains("the key does not belong to the certificate"));
    assert_eq!(mirror.ask(&authority).await.unwrap().0, second);
}
