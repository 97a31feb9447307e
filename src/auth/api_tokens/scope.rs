//! What an API token is asked to be: its name, its user, what it may where, until when. Pure.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::auth::policy::{On, Right, Rights};
use crate::auth::users::is_user_name;

/// How long a token counts of which nothing else is said.
pub const EXPIRES_DEFAULT: Duration = Duration::from_secs(90 * 24 * 3600);
/// The longest, short of for ever.
const EXPIRES_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
/// The longest name of a token.
const NAME_MAX: usize = 64;
/// The most places that one token is for.
const PLACES_MAX: usize = 64;
/// The longest of them.
const PLACE_MAX: usize = 512;
/// A token for everything that its user may.
const EVERYWHERE: &str = "*";
/// One that counts until it is revoked.
const NEVER: &str = "never";

/// The most that may be done with a token; its user's rights go on top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// As they were written.
    places: Vec<String>,
    on: Vec<On>,
    may: Rights,
}

/// A token that somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) user: String,
    pub(super) scope: Scope,
    /// `None`: until it is revoked.
    pub(super) lasts: Option<Duration>,
}

/// The same as JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent {
    name: String,
    user: String,
    may: Option<Vec<String>>,
    on: Option<Vec<String>>,
    /// Seconds, or `never`.
    expires_in: Option<Value>,
}

impl Scope {
    /// Reads places as rules name them, and names of rights.
    pub(super) fn parse(places: Vec<String>, may: &[String]) -> Result<Self, String> {
        if places.is_empty() || places.len() > PLACES_MAX {
            return Err(format!("on: a token is for 1 to {PLACES_MAX} places"));
        }
        if places.iter().any(|place| place.len() > PLACE_MAX) {
            return Err(format!("on: a place has at most {PLACE_MAX} bytes"));
        }
        let on = places.iter().map(|place| On::parse(place));
        let on = on.collect::<Result<_, _>>();
        let rights = may.iter().map(|right| Right::parse(right));
        let rights = rights.collect::<Result<Rights, _>>();
        let rights = rights.map_err(|error| format!("may: {error}"))?;
        if rights.is_empty() {
            return Err("may: name at least one right".to_owned());
        }
        Ok(Self {
            on: on.map_err(|error| format!("on: {error}"))?,
            places,
            may: rights,
        })
    }

    /// The places, as they were written.
    pub fn places(&self) -> &[String] {
        &self.places
    }

    /// What may be done there, by name.
    pub fn rights(&self) -> Vec<&'static str> {
        self.may.iter().map(Right::as_str).collect()
    }

    /// Whether this may be done with an image of a repository; without an image: with any of it.
    pub fn allows(&self, key: &str, image: Option<&str>, right: Right) -> bool {
        self.may.has(right) && self.on.iter().any(|on| on.is(key, image))
    }

    /// Whether this may be done with every image of a repository.
    pub fn allows_all(&self, key: &str, right: Right) -> bool {
        let whole = |on: &On| on.images.is_none() && on.is(key, None);
        self.may.has(right) && self.on.iter().any(whole)
    }

    /// Whether the mirror itself may be administered.
    pub fn administers(&self) -> bool {
        let whole = |on: &On| on.key.is_none() && on.images.is_none();
        self.may.has(Right::Admin) && self.on.iter().any(whole)
    }
}

impl Wanted {
    /// Reads what was sent; the error says which field is wrong.
    pub(super) fn read(sent: &Value) -> Result<Self, String> {
        if !sent.is_object() {
            return Err("a token is described by a JSON object with name and user".to_owned());
        }
        let sent = Sent::deserialize(sent).map_err(|error| error.to_string())?;
        if !is_token_name(&sent.name) {
            return Err(format!(
                "name: `{}` is no name for a token: letters, digits and . _ -, at most {NAME_MAX}",
                sent.name.escape_debug()
            ));
        }
        if !is_user_name(&sent.user) {
            return Err("user: name a user".to_owned());
        }
        let lasts = match sent.expires_in {
            None => Some(EXPIRES_DEFAULT),
            Some(Value::String(text)) if text == NEVER => None,
            Some(number) => {
                let seconds = number.as_u64();
                let seconds =
                    seconds.filter(|seconds| (1..=EXPIRES_MAX.as_secs()).contains(seconds));
                let seconds = seconds
                    .ok_or("expires_in: a number of seconds, of at most ten years, or \"never\"")?;
                Some(Duration::from_secs(seconds))
            }
        };
        let all = || Right::ALL.map(|right| right.as_str().to_owned()).to_vec();
        let places = sent.on.unwrap_or_else(|| vec![EVERYWHERE.to_owned()]);
        Ok(Self {
            scope: Scope::parse(places, &sent.may.unwrap_or_else(all))?,
            name: sent.name,
            user: sent.user,
            lasts,
        })
    }
}

fn is_token_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let begins = |byte: &u8| byte.is_ascii_alphanumeric();
    name.len() <= NAME_MAX && name.as_bytes().first().is_some_and(begins) && name.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn scope(places: &[&str], may: &[&str]) -> Result<Scope, String> {
        let text = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect();
        let may: Vec<String> = text(may);
        Scope::parse(text(places), &may)
    }

    #[test]
    fn what_a_scope_lets_through() {
        let images = scope(&["dev/team/**", "hub"], &["pull", "push"]).unwrap();
        for (key, image, right, allows) in [
            ("dev", Some("team/app"), Right::Push, true),
            ("dev", Some("team/app"), Right::Delete, false),
            ("dev", Some("other"), Right::Pull, false),
            ("dev", None, Right::Pull, true),
            ("hub", Some("other"), Right::Pull, true),
            ("prod", Some("team/app"), Right::Pull, false),
            ("prod", None, Right::Pull, false),
        ] {
            assert_eq!(
                images.allows(key, image, right),
                allows,
                "{key} {image:?} {right:?}"
            );
        }
        assert!(images.allows_all("hub", Right::Push) && !images.allows_all("hub", Right::Admin));
        assert!(!images.allows_all("dev", Right::Pull), "it has a pattern");
        assert!(!images.administers());
        let admin = scope(&["*"], &["admin"]).unwrap();
        assert!(admin.administers() && admin.allows_all("any", Right::Admin));
        assert!(!admin.allows("any", None, Right::Pull));
        for places in ["dev", "*/team/**"] {
            assert!(
                !scope(&[places], &["admin"]).unwrap().administers(),
                "{places}"
            );
        }
    }

    #[test]
    fn what_is_sent_is_read_strictly() {
        let read = |sent: Value| Wanted::read(&sent);
        let plain = read(json!({"name": "ci", "user": "ada"})).unwrap();
        assert_eq!(plain.lasts, Some(EXPIRES_DEFAULT));
        assert_eq!(plain.scope.places(), ["*"]);
        assert_eq!(
            plain.scope.rights(),
            ["pull", "push", "delete", "promote", "admin"]
        );
        let limited = json!({"name": "ci", "user": "ada", "may": ["pull"], "on": ["dev/a"], "expires_in": 60});
        let limited = read(limited).unwrap();
        assert_eq!(limited.lasts, Some(Duration::from_secs(60)));
        assert_eq!(
            (limited.scope.places(), limited.scope.rights()),
            (&["dev/a".to_owned()][..], vec!["pull"])
        );
        let for_ever = json!({"name": "ci", "user": "ada", "expires_in": "never"});
        assert_eq!(read(for_ever).unwrap().lasts, None);
        let with = |field: &str, value: Value| {
            let mut sent = json!({"name": "ci", "user": "ada"});
            sent[field] = value;
            read(sent)
        };
        for (field, value) in [
            ("name", json!("")),
            ("name", json!("-a")),
            ("name", json!("a/b")),
            ("name", json!("a\nb")),
            ("name", json!("a".repeat(NAME_MAX + 1))),
            ("expires_in", json!(0)),
            ("expires_in", json!(u64::MAX)),
            ("user", json!("anonymous")),
            ("user", json!("@ci")),
            ("user", json!("(owner)")),
            ("user", json!(1)),
            ("may", json!([])),
            ("may", json!(["write"])),
            ("may", json!("pull")),
            ("on", json!([])),
            ("on", json!(["/a"])),
            ("on", json!(["dev/[a"])),
            ("on", json!([format!("dev/{}", "a".repeat(PLACE_MAX))])),
            ("on", json!(vec!["dev"; PLACES_MAX + 1])),
            ("expires_in", json!(0)),
            ("expires_in", json!(-1)),
            ("expires_in", json!(1.5)),
            ("expires_in", json!("30d")),
            ("token", json!("rst_mine")),
        ] {
            assert!(with(field, value.clone()).is_err(), "{field} {value}");
        }
        assert!(with("name", json!("a".repeat(NAME_MAX))).is_ok());
        assert!(with("on", json!(vec!["dev"; PLACES_MAX])).is_ok());
    }
}
