//! Strict JSON: what other parsers let through is refused, all else is read as `serde_json` reads it.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;

use crate::oci::json::{Fields, JSON_DEPTH_MAX, JSON_VALUES_MAX, parse};

fn refused(bytes: &[u8]) -> &'static str {
    parse(bytes)
        .expect_err(&String::from_utf8_lossy(bytes))
        .as_str()
}

#[test]
fn read() {
    for text in [
        "{}",
        "[]",
        "null",
        " {\n} \r\n\t",
        r#"{"a":[1,-1,1.5,1e3,true,null,"x"]}"#,
        r#""]]]{{{\"[""#,
        "0",
        "18446744073709551615",
        "-9223372036854775808",
        r#"{"a":{"b":1},"b":1}"#,
        r#"{"":0," ":0}"#,
        r#""\u00e9\ud83d\ude00""#,
    ] {
        assert_eq!(
            parse(text.as_bytes()),
            Ok(serde_json::from_str(text).unwrap()),
            "{text}"
        );
    }
}

#[test]
fn not_json() {
    let cases: [&[u8]; 22] = [
        b"",
        b" ",
        b"{",
        b"}",
        b"{}{}",
        b"{} x",
        b"{},",
        b"{}\0",
        b"[1,]",
        b"{\"a\":1,}",
        b"{'a':1}",
        b"{a:1}",
        b"1e999",
        b"-1e999",
        b"NaN",
        b"Infinity",
        b"-",
        b"01",
        b"+1",
        b"\"\n\"",
        b"\"\\ud800\"",
        b"// x\n{}",
    ];
    for bytes in cases {
        assert_eq!(
            refused(bytes),
            "it is not JSON",
            "{}",
            String::from_utf8_lossy(bytes)
        );
    }
    assert!(refused(b"\xef\xbb\xbf{}").contains("byte order mark"));
    assert!(refused(b"\xff\xfe{\0}\0").contains("UTF-8"));
    assert!(refused(b"{\"a\":\"\xc3\x28\"}").contains("UTF-8"));
    assert!(refused(b"{\"a\":\"\xed\xa0\x80\"}").contains("UTF-8"));
}

#[test]
fn keys_that_stand_twice() {
    for text in [
        r#"{"a":1,"a":1}"#,
        r#"{"a":1,"b":2,"\u0061":3}"#,
        r#"{"x":{"a":1,"a":2}}"#,
        r#"[[{"x":[{"a":1,"a":2}]}]]"#,
        r#"{"annotations":{"k":"1","k":"2"}}"#,
        r#"{"":1,"":2}"#,
    ] {
        assert!(refused(text.as_bytes()).contains("twice"), "{text}");
    }
}

#[test]
fn depth() {
    let nested = |open: &str, close: &str, depth: usize| {
        format!("{}{}", open.repeat(depth), close.repeat(depth))
    };
    assert!(parse(nested("[", "]", JSON_DEPTH_MAX).as_bytes()).is_ok());
    assert!(refused(nested("[", "]", JSON_DEPTH_MAX + 1).as_bytes()).contains("deep"));
    assert!(refused(nested("{\"a\":", "}", 100_000).as_bytes()).contains("deep"));
    assert!(refused("[".repeat(4_000_000).as_bytes()).contains("deep"));
    // Brackets in texts do not count, and an escaped quote does not end a text.
    let text = format!(r#"["{}","\"{}\\"]"#, "[".repeat(100), "{".repeat(100));
    assert!(parse(text.as_bytes()).is_ok());
    let wide = format!("[{}[]]", "[],".repeat(1000));
    assert!(parse(wide.as_bytes()).is_ok());
}

#[test]
fn many_values() {
    let list = |count: usize| format!("[{}0]", "0,".repeat(count - 2));
    assert!(parse(list(JSON_VALUES_MAX - 1).as_bytes()).is_ok());
    let begun = tokio::time::Instant::now();
    assert!(refused(list(2_000_000).as_bytes()).contains("many"));
    let keys: Vec<String> = (0..1_000_000)
        .map(|index| format!("\"{index}\":0"))
        .collect();
    assert!(refused(format!("{{{}}}", keys.join(",")).as_bytes()).contains("many"));
    // Generous: it takes milliseconds, and what is not linear takes minutes.
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn fields() {
    let open =
        |text: &str| Fields::open(serde_json::from_str(text).unwrap(), &["mediaType", "links"]);
    for text in [
        r#"{"MediaType":1}"#,
        r#"{"links":[],"LINKS":[]}"#,
        "{\"link\u{17f}\":1}",
        "{\"lin\u{212a}s\":1}",
    ] {
        assert!(open(text).unwrap_err().as_str().contains("case"), "{text}");
    }
    assert!(open("[]").is_err());
    let text = r#"{"media_type":1,"null":null,"empty":"","text":"x","texts":["a","b"],
        "bad":["a",1],"map":{"a":"b"},"badmap":{"a":null}}"#;
    let mut fields = open(text).unwrap();
    assert_eq!(fields.take("null"), None);
    assert_eq!(fields.take("missing"), None);
    assert_eq!(fields.text("empty"), Ok(None));
    assert_eq!(fields.text("text"), Ok(Some("x".to_owned())));
    assert!(fields.text("media_type").is_err());
    assert_eq!(
        fields.texts("texts"),
        Ok(vec!["a".to_owned(), "b".to_owned()])
    );
    assert!(fields.texts("bad").is_err());
    assert_eq!(fields.text_map("map").unwrap()["a"], "b");
    assert!(fields.text_map("badmap").is_err());
    assert_eq!(fields.list("missing"), Ok(None));
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn values_round_trip(value in value(), pretty: bool) {
        let text = if pretty { format!("{value:#}") } else { value.to_string() };
        prop_assert_eq!(parse(text.as_bytes()), Ok(value));
    }

    #[test]
    fn what_serde_json_refuses_is_refused(text in "[\\[\\]{}\",:\\\\0-9eu.ntrue -]{0,24}") {
        if let Ok(value) = parse(text.as_bytes()) {
            prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
    }
}
