//! Where images are pushed to: a registry, and under which names. Pure.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::{Host, Url};

use crate::bundle::list::{Image, Place, is_host};
use crate::oci::{Name, Reference, Tag};
use crate::secret::Secret;

/// Where Docker Hub takes pushes.
const HUB: &str = "registry-1.docker.io";

/// A registry that is pushed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// Its host, with its port if that is not the usual one.
    pub registry: String,
    /// What images are called there.
    pub naming: Naming,
    /// No TLS, whatever the host.
    #[serde(default)]
    pub plain_http: bool,
    /// Other hosts whose token service may see the login.
    #[serde(default)]
    pub token_hosts: Vec<String>,
    /// What to log in with.
    #[serde(default)]
    pub login: Option<Account>,
}

/// A login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// The user name; `<token>` marks the password as an identity token.
    pub username: String,
    /// The password.
    #[serde(serialize_with = "expose", deserialize_with = "secret")]
    pub password: Secret,
    /// Whether it was named for this, so that it counts before what a remote with that host is configured with.
    pub is_explicit: bool,
}

/// What images are called at the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Naming {
    /// The one image is called so.
    As {
        /// Its name.
        name: String,
        /// Its tag; where there is none, what it was asked for by.
        tag: Option<String>,
    },
    /// As here, behind this.
    Below(Option<String>),
}

/// Why a destination is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{written}` is no place to push to: {problem}")]
pub struct DestinationError {
    written: String,
    problem: String,
}

/// Over the admin socket alone, which is its owner's.
fn expose<S: Serializer>(secret: &Secret, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(secret.expose())
}

fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
    String::deserialize(from).map(Secret::new)
}

impl Destination {
    /// One image: `registry.example.com/team/app:1`.
    pub fn image(written: &str) -> Result<Self, DestinationError> {
        let wrong = |problem: String| DestinationError {
            written: written.to_owned(),
            problem,
        };
        let first = written.split('/').next().unwrap_or_default();
        if first == written || !is_host(first) {
            return Err(wrong(
                "write it like registry.example.com/team/app:1, with the host".to_owned(),
            ));
        }
        let image = Image::parse(written).map_err(|error| wrong(error.to_string()))?;
        if image.digest.is_some() {
            return Err(wrong(
                "a digest says what is pushed, not where to; leave it out".to_owned(),
            ));
        }
        let place =
            Place::of(&image.name, &|_head| false).map_err(|error| wrong(error.to_string()))?;
        Ok(Self::at(
            place.head(),
            Naming::As {
                name: place.name().to_string(),
                tag: image.tag.map(|tag| tag.to_string()),
            },
        ))
    }

    /// A registry, or a part of it: `registry.example.com/mirror`.
    pub fn below(written: &str) -> Result<Self, DestinationError> {
        let wrong = |problem: &str| DestinationError {
            written: written.to_owned(),
            problem: problem.to_owned(),
        };
        let bare = written.trim_end_matches('/');
        let (host, prefix) = match bare.split_once('/') {
            Some((host, prefix)) => (host, Some(prefix)),
            None => (bare, None),
        };
        let usual = "write it like registry.example.com or registry.example.com/mirror";
        if !is_host(host) || Url::parse(&format!("https://{host}/")).is_err() {
            return Err(wrong(usual));
        }
        if prefix.is_some_and(|prefix| Name::parse(prefix).is_err()) {
            return Err(wrong(usual));
        }
        Ok(Self::at(host, Naming::Below(prefix.map(str::to_owned))))
    }

    fn at(host: &str, naming: Naming) -> Self {
        let is_hub = matches!(host, "docker.io" | "index.docker.io");
        Self {
            registry: if is_hub { HUB } else { host }.to_owned(),
            naming,
            plain_http: false,
            token_hosts: Vec::new(),
            login: None,
        }
    }

    /// Its base URL: without TLS only where that is asked for, or on this machine.
    pub fn url(&self) -> Result<Url, DestinationError> {
        let parse = |scheme: &str| Url::parse(&format!("{scheme}://{}/", self.registry));
        let wrong = |error: url::ParseError| DestinationError {
            written: self.registry.clone(),
            problem: error.to_string(),
        };
        let url = parse("https").map_err(wrong)?;
        let is_here = match url.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => false,
        };
        if self.plain_http || is_here {
            parse("http").map_err(wrong)
        } else {
            Ok(url)
        }
    }

    /// What an image is called there: its name, and the tag if it gets one.
    pub fn place(
        &self,
        name: &Name,
        reference: &Reference,
    ) -> Result<(Name, Option<Tag>), DestinationError> {
        let wrong = |written: &str, problem: String| DestinationError {
            written: written.to_owned(),
            problem,
        };
        let own = match reference {
            Reference::Tag(tag) => Some(tag.clone()),
            Reference::Digest(_) => None,
        };
        let (name, tag) = match &self.naming {
            Naming::As { name, tag } => (name.clone(), tag.as_deref()),
            Naming::Below(Some(prefix)) => (format!("{prefix}/{name}"), None),
            Naming::Below(None) => (name.to_string(), None),
        };
        let tag = match tag {
            Some(tag) => {
                let parsed = Tag::parse(tag);
                Some(parsed.map_err(|error| wrong(tag, error.to_string()))?)
            }
            None => own,
        };
        let parsed = Name::parse(&name).map_err(|error| wrong(&name, error.to_string()))?;
        Ok((parsed, tag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;

    #[test]
    fn destinations() {
        let at = |written: &str, image: &str| {
            let to = Destination::image(written).or_else(|_| Destination::below(written));
            let to = to.map_err(|error| error.to_string())?;
            let (name, reference) = image.split_once('@').unwrap();
            let (name, tag) = to
                .place(
                    &Name::parse(name).unwrap(),
                    &Reference::parse(reference).unwrap(),
                )
                .map_err(|error| error.to_string())?;
            let tag = tag.map_or_else(String::new, |tag| format!(":{tag}"));
            Ok::<_, String>(format!("{}v2/{name}{tag}", to.url().unwrap()))
        };
        let digest = Digest::of(b"x").to_string();
        for (written, image, expected) in [
            (
                "r.example/team/app:2",
                "library/a@1",
                "https://r.example/v2/team/app:2",
            ),
            (
                "r.example/team/app",
                "library/a@1",
                "https://r.example/v2/team/app:1",
            ),
            (
                "127.0.0.1:5000/app:2",
                "library/a@1",
                "http://127.0.0.1:5000/v2/app:2",
            ),
            (
                "[::1]:5000/app:2",
                "library/a@1",
                "http://[::1]:5000/v2/app:2",
            ),
            (
                "localhost:5000",
                "library/a@1",
                "http://localhost:5000/v2/library/a:1",
            ),
            (
                "docker.io/team/app:2",
                "a/b@1",
                "https://registry-1.docker.io/v2/team/app:2",
            ),
            ("r.example:5000", "a/b@1", "https://r.example:5000/v2/a/b:1"),
        ] {
            assert_eq!(at(written, image).unwrap(), expected, "{written}");
        }
        let untagged = at("r.example/team/app", &format!("a/b@{digest}"));
        assert_eq!(untagged.unwrap(), "https://r.example/v2/team/app");
        let below = Destination::below("r.example/mirror/").unwrap();
        let (name, _) = below
            .place(
                &Name::parse("a/b").unwrap(),
                &Reference::parse("1").unwrap(),
            )
            .unwrap();
        assert_eq!(name.as_str(), "mirror/a/b");
        for written in [
            "",
            "app:1",
            "team/app:1",
            "r.example/",
            "https://r.example/a",
        ] {
            assert!(Destination::image(written).is_err(), "{written}");
        }
        assert!(Destination::image(&format!("r.example/a@{digest}")).is_err());
        for written in [
            "",
            "mirror",
            "r.example/UPPER",
            "r.example/a:1",
            "a b.example",
        ] {
            assert!(Destination::below(written).is_err(), "{written}");
        }
        let told = Destination {
            plain_http: true,
            login: Some(Account {
                username: "me".to_owned(),
                password: Secret::new("s3cret-canary"),
                is_explicit: true,
            }),
            ..Destination::below("r.example").unwrap()
        };
        assert_eq!(told.url().unwrap().as_str(), "http://r.example/");
        assert!(!format!("{told:?}").contains("canary"));
        let text = serde_json::to_string(&told).unwrap();
        assert_eq!(serde_json::from_str::<Destination>(&text).unwrap(), told);
    }
}
