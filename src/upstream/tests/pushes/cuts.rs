//! Uploads that are cut, forgotten, or come to nothing.

use super::*;

#[tokio::test]
async fn a_cut_is_taken_up_where_the_registry_stands() {
    // The second chunk is cut after ten bytes, after none, and after all of them with the answer lost.
    for (fault, again) in [
        (Some(10), Some("PATCH 8388618-8388707")),
        (Some(0), Some("PATCH 8388608-8388707")),
        (None, None),
    ] {
        let registry = Registry::start(move |_, number| {
            (number == 2).then(|| fault.map_or(Fault::Lost, Fault::Cut))
        })
        .await;
        let text = content(CHUNK + 100);
        push(&upstream(&registry.server), &text).await.unwrap();
        assert_eq!(registry.blobs(), [text]);
        let mut expected = vec!["POST", "PATCH 0-8388607", "PATCH 8388608-8388707", "GET"];
        expected.extend(again);
        expected.push("PUT");
        assert_eq!(registry.asked(), expected);
    }
}

#[tokio::test]
async fn an_upload_that_is_cut_again_and_again_ends() {
    let registry =
        Registry::start(|seen, _| (seen.method == "PATCH").then_some(Fault::Cut(1))).await;
    let error = refusal(push(&upstream(&registry.server), &content(CHUNK + 1)).await);
    assert!(error.is_transient(), "{error}");
    // The breaker may be faster than the count.
    assert!(
        registry
            .server
            .seen()
            .iter()
            .filter(|seen| seen.method == "PATCH")
            .count()
            <= 6
    );
    assert!(registry.blobs().is_empty());
}

#[tokio::test]
async fn a_416_is_answered_by_asking_where_it_stands() {
    let registry = Registry::start(|_, number| {
        (number == 1)
            .then(|| Fault::Answer(reply("416 Range Not Satisfiable", &[("Range", "0-99")], "")))
    })
    .await;
    let text = content(CHUNK + 1);
    push(&upstream(&registry.server), &text).await.unwrap();
    assert_eq!(registry.blobs(), [text]);
    assert_eq!(
        registry.asked(),
        [
            "POST",
            "PATCH 0-8388607",
            "GET",
            "PATCH 0-8388607",
            "PATCH 8388608-8388608",
            "PUT"
        ]
    );
    let never = Registry::start(|seen, _| {
        (seen.method == "PATCH").then(|| Fault::Answer(reply("416 Range Not Satisfiable", &[], "")))
    })
    .await;
    refusal(push(&upstream(&never.server), &content(CHUNK + 1)).await);
    assert_eq!(
        never
            .asked()
            .iter()
            .filter(|asked| asked.starts_with("PATCH"))
            .count(),
        6,
        "RESUMES_MAX and the first"
    );
}

#[tokio::test]
async fn what_the_registry_forgot_is_begun_again_by_the_caller() {
    let gone = || Fault::Answer(reply("404 Not Found", &[], "{}"));
    for at in [2, 3] {
        let registry = Registry::start(move |_, number| (number == at).then(gone)).await;
        let error = refusal(push(&upstream(&registry.server), &content(CHUNK + 1)).await);
        assert_eq!(
            (error.kind(), error.status()),
            (Kind::Unavailable, Some(404)),
            "{error}"
        );
        assert_eq!(registry.asked().last().unwrap(), "DELETE");
    }
    // It has less than was acknowledged, or more than was sent.
    for (range, kind) in [
        ("0-99", Kind::Unavailable),
        ("0-99999999", Kind::BadAnswer),
        ("x", Kind::BadAnswer),
    ] {
        let registry = Registry::start(move |seen, number| match seen.method.as_str() {
            "GET" => Some(Fault::Answer(reply(
                "204 No Content",
                &[("Range", range)],
                "",
            ))),
            _ => (number == 2).then_some(Fault::Cut(0)),
        })
        .await;
        let error = refusal(push(&upstream(&registry.server), &content(CHUNK + 1)).await);
        assert_eq!(error.kind(), kind, "{range}: {error}");
        assert!(registry.blobs().is_empty());
    }
}

#[tokio::test]
async fn a_registry_that_takes_nothing_is_not_asked_for_ever() {
    let registry = Registry::start(|seen, _| {
        let nothing = || Fault::Answer(reply("202 Accepted", &[("Range", "0-0")], ""));
        (seen.method == "PATCH").then(nothing)
    })
    .await;
    let error = refusal(push(&upstream(&registry.server), &content(CHUNK + 1)).await);
    assert_eq!(error.kind(), Kind::BadAnswer, "{error}");
    assert_eq!(
        registry
            .asked()
            .iter()
            .filter(|asked| asked.starts_with("PATCH"))
            .count(),
        6
    );
}

#[tokio::test]
async fn a_close_that_is_cut_is_looked_up_and_else_done_once_more() {
    let done = Registry::start(|seen, _| (seen.method == "PUT").then_some(Fault::Lost)).await;
    push(&upstream(&done.server), "hello").await.unwrap();
    assert_eq!(done.asked(), ["POST", "PUT", "HEAD"]);
    assert_eq!(done.blobs(), ["hello"]);
    let cut = Registry::start(|_, number| (number == 1).then_some(Fault::Cut(3))).await;
    push(&upstream(&cut.server), "hello").await.unwrap();
    assert_eq!(
        cut.asked(),
        ["POST", "PUT", "HEAD", "GET", "PATCH 3-4", "PUT"]
    );
    assert_eq!(cut.blobs(), ["hello"]);
    let always = Registry::start(|seen, _| (seen.method == "PUT").then_some(Fault::Cut(0))).await;
    assert!(refusal(push(&upstream(&always.server), "hello").await).is_transient());
    assert_eq!(
        always
            .asked()
            .iter()
            .filter(|asked| *asked == "PUT")
            .count(),
        2
    );
}
