//! The secrets of all tests, and the search for them where none may ever be: logs, metrics, errors (RELIABILITY P43).
//!
//! Every password, token and credential that a test makes up contains [`MARKER`], so that one search finds all of them. What the mirror
//! makes itself, its tokens and keys, is known by its form or read from its files.

use std::path::Path;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

/// What every secret of a test contains.
pub const MARKER: &str = "s3cret-canary";

/// How a JWT begins: `{"typ":"JWT"` and `{"alg":"`, in base64.
const TOKENS: [&str; 2] = ["eyJ0eXAiOiJKV1Qi", "eyJhbGciOi"];
/// Shorter lines of a key file say nothing.
const KEY_LINE_MIN: usize = 24;

/// A secret of somebody's.
pub fn of(whose: &str) -> String {
    format!("{whose}-{MARKER}")
}

/// The form in which a test's secret stands in `bytes`: as it is, in base64 at any alignment, or behind percent signs.
pub fn marker_in(bytes: &[u8]) -> Option<&'static str> {
    let text = String::from_utf8_lossy(bytes);
    let lower = text.to_ascii_lowercase();
    if lower.contains(MARKER) {
        return Some("as it is");
    }
    if base64_forms().iter().any(|form| text.contains(form)) {
        return Some("in base64");
    }
    let hex: String = MARKER.bytes().map(|byte| format!("{byte:02x}")).collect();
    if lower.contains(&hex) {
        return Some("in hexadecimal digits");
    }
    if text.contains('%') && percent_decoded(&lower).contains(MARKER) {
        return Some("behind percent signs");
    }
    None
}

/// The same for what the mirror says of itself, where no token of its own may stand either.
pub fn secret_in(bytes: &[u8]) -> Option<&'static str> {
    let text = String::from_utf8_lossy(bytes);
    let is_token = TOKENS.iter().any(|form| text.contains(form));
    marker_in(bytes).or(is_token.then_some("a token"))
}

/// What the files below `directory` keep secret: lines of private keys, and the keys that tokens are signed with.
pub fn keys_below(directory: &Path) -> Vec<String> {
    let mut keys = Vec::new();
    for file in super::mirror::files(directory) {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".key") {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            keys.extend(text.lines().map(str::to_owned));
        } else if name == "token-keys.json" {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            let kept: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            for key in kept.as_array().into_iter().flatten() {
                keys.extend(key["secret"].as_str().map(str::to_owned));
            }
        }
    }
    keys.retain(|line| line.len() >= KEY_LINE_MIN && !line.starts_with("--"));
    keys
}

/// Panics where a line holds a secret. `place` is what the lines are.
pub fn assert_none<'a>(place: &str, lines: impl IntoIterator<Item = &'a str>, keys: &[String]) {
    for line in lines {
        if let Some(form) = secret_in(line.as_bytes()) {
            panic!("a secret stands in {place}, {form}: {line}");
        }
        let key = keys.iter().any(|key| line.contains(key.as_str()));
        assert!(!key, "a key stands in {place}: {line}");
    }
}

/// The characters of base64 that the marker alone decides, wherever in a text it begins.
fn base64_forms() -> &'static [String] {
    static FORMS: LazyLock<Vec<String>> = LazyLock::new(make_base64_forms);
    &FORMS
}

fn make_base64_forms() -> Vec<String> {
    let mut forms = Vec::new();
    for before in 0..3 {
        let text = [&[0; 2][..before], MARKER.as_bytes()].concat();
        let (first, last) = ((before * 8).div_ceil(6), text.len() * 8 / 6);
        for written in [STANDARD.encode(&text), URL_SAFE.encode(&text)] {
            forms.push(written[first..last].to_owned());
        }
    }
    forms
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let pair = text.get(at + 1..at + 3);
        let pair = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok());
        match (byte, pair) {
            (b'%', Some(pair)) => {
                decoded.push(pair);
                at += 3;
            }
            _ => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
