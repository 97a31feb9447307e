//! Why a pull does what it does: which repository a reference means and why, who may pull it by which rule, what each member knows of it,
//! and what a pull would do now. Asks no upstream and changes nothing; answers and the command line render the same [`Explanation`].

use serde_json::{Value, json};

use super::catalog::Snapshot;
use super::image::Repository;
use super::key::Key;
use super::quotas::QuotaLine;
use super::resolve::{Ask, Chosen, Unresolved, choose, resolve};
use super::virtuals::Standing;
use super::{Error, Target};
use crate::auth::{Auth, Identity, Right};
use crate::cache::Explained;
use crate::oci::reference::ReferenceError;
use crate::oci::{Digest, Name, Reference};
use crate::overlay::{self, Local};
use crate::upstream::BreakerState;

/// What a reference without a tag means.
const LATEST: &str = "latest";

/// What is to be explained.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// `[host or key/]name[:tag][@digest]`, as clients write it.
    pub image: String,
    /// The `?ns=` that a client would send.
    pub namespace: Option<String>,
    /// Who pulls; nobody in particular.
    pub user: Option<String>,
    /// Names of this mirror that may stand before the image.
    pub own_hosts: Vec<String>,
}

/// Why nothing is explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// It means no repository, or no image.
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
    /// Its tag or digest is none.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The repository is configured and cannot be used.
    #[error(
        "the repository `{0}` cannot be used as it is configured; the log of the start says why"
    )]
    LeftOut(Key),
    /// The index could not be read.
    #[error(transparent)]
    Failed(#[from] Error),
}

/// Why a reference means a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The host before it is bound to one repository.
    Bound,
    /// `?ns=` names a host that it serves.
    Namespace,
    /// Its key stands before the image.
    Key,
    /// A host that it serves stands before the image.
    Host,
    /// `mirror.default` names it.
    Default,
}

/// What one repository knows.
#[derive(Debug)]
pub enum State {
    /// A local one: what it has.
    Local(Option<Digest>),
    /// A remote: what is known here, and what a pull would do.
    Remote(Box<Explained>),
    /// It is not asked.
    NotAsked(&'static str),
}

/// Who may pull.
#[derive(Debug)]
pub struct Access {
    /// Who asks.
    pub user: String,
    /// Whether the users file has them; issuers and certificates may know others.
    pub is_known: bool,
    /// Whether they may.
    pub may_pull: bool,
    /// The place of the rule that says so among `[[auth.allow]]`, from 1; none without `[auth]`.
    pub rule: Option<usize>,
}

/// The whole answer.
#[derive(Debug)]
pub struct Explanation {
    /// Which repository and image it means.
    pub target: Target,
    /// Which tag or digest.
    pub reference: Reference,
    /// Why that repository.
    pub by: By,
    /// `remote`, `local` or `virtual`.
    pub kind: &'static str,
    /// Who may pull it.
    pub access: Access,
    /// What each repository behind it knows, in the order in which they are asked; those that are not asked last.
    pub members: Vec<(Key, State)>,
    /// Whose answer a pull would get, as far as that can be told without asking.
    pub answers: Option<Key>,
    /// What is left of the quotas of the remotes among them.
    pub quotas: Vec<QuotaLine>,
}

impl By {
    /// Its name in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bound => "bind",
            Self::Namespace => "ns",
            Self::Key => "key",
            Self::Host => "host",
            Self::Default => "default",
        }
    }
}

/// What a reference means.
pub(super) struct Meant<'a> {
    pub(super) target: Target,
    pub(super) reference: Reference,
    pub(super) by: By,
    pub(super) repository: &'a Repository,
}

/// Finds out what a reference means, as a pull would.
pub(super) fn meant<'a>(
    there: &'a Snapshot,
    question: &Question,
) -> Result<Meant<'a>, ExplainError> {
    let definitions = there.definitions();
    let (named, reference) = parse(&question.image)?;
    let own = named.split_once('/').filter(|(first, _)| {
        let is_own = |own: &String| own.eq_ignore_ascii_case(first);
        question.own_hosts.iter().any(is_own)
    });
    let named = own.map_or(named, |(_, rest)| rest);
    // As clients of that Host would ask.
    let bound = named.split_once('/').and_then(|(first, rest)| {
        let key = there.hosts().get(&first.to_ascii_lowercase())?;
        Some((key, rest))
    });
    let named = bound.map_or(named, |(_, rest)| rest);
    let namespaces: Vec<String> = question.namespace.iter().cloned().collect();
    let chosen = choose(
        definitions,
        &Ask {
            bound: bound.map(|(key, _)| key),
            prefix: None,
            namespaces: &namespaces,
            own_hosts: &question.own_hosts,
        },
    )?;
    let target = resolve(definitions, &chosen, named)?;
    let first = named.split_once('/').map(|(first, _)| first);
    let by = match (&chosen, first) {
        (Chosen::Repository(_), _) => By::Bound,
        (Chosen::Namespace(..), _) => By::Namespace,
        (Chosen::Nothing, Some(first)) if definitions.by_key(first).is_some() => By::Key,
        (Chosen::Nothing, Some(first)) if definitions.by_host(first).is_some() => By::Host,
        (Chosen::Nothing, _) => By::Default,
    };
    let Some(repository) = there.get(&target.key) else {
        return Err(ExplainError::LeftOut(target.key));
    };
    Ok(Meant {
        target,
        reference,
        by,
        repository,
    })
}

/// Explains what a pull would do.
pub async fn explain(
    there: &Snapshot,
    auth: Option<&Auth>,
    question: &Question,
) -> Result<Explanation, ExplainError> {
    let Meant {
        target,
        reference,
        by,
        repository,
    } = meant(there, question)?;
    let name = &target.name;
    let (kind, members) = match repository {
        Repository::Local(_) => (
            "local",
            vec![(target.key.clone(), Standing::Asked(repository))],
        ),
        Repository::Remote(_) => (
            "remote",
            vec![(target.key.clone(), Standing::Asked(repository))],
        ),
        Repository::Virtual(several) => ("virtual", several.standing(name, &reference).await?),
    };
    let mut explained = Vec::new();
    for (key, standing) in members {
        let state = match standing {
            Standing::NotAsked(why) => State::NotAsked(why),
            Standing::Asked(repository) => state(repository, name, &reference).await?,
        };
        explained.push((key, state));
    }
    let answers = match repository {
        // It is the newest, which only asking tells.
        Repository::Virtual(several) if several.takes_newest(&reference) => None,
        Repository::Local(_) | Repository::Remote(_) | Repository::Virtual(_) => explained
            .iter()
            .find(|(_, state)| state.may_answer())
            .map(|(key, _)| key.clone()),
    };
    let is_shown = |line: &QuotaLine| {
        let mut keys = explained.iter().map(|(key, _)| key.as_str());
        keys.any(|key| key == line.repository)
    };
    Ok(Explanation {
        access: access(auth, &target, question.user.as_deref()),
        quotas: there.quotas().into_iter().filter(is_shown).collect(),
        members: explained,
        target,
        reference,
        by,
        kind,
        answers,
    })
}

/// The name with what stands before it, and the tag or digest.
fn parse(image: &str) -> Result<(&str, Reference), ReferenceError> {
    if let Some((name, digest)) = image.split_once('@') {
        // A tag beside a digest says nothing.
        let tagged = name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'));
        let name = tagged.map_or(name, |(name, _)| name);
        return Ok((name, Reference::parse(digest)?));
    }
    let tagged = image.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'));
    let (name, tag) = tagged.unwrap_or((image, LATEST));
    Ok((name, Reference::parse(tag)?))
}

async fn state(
    repository: &Repository,
    name: &Name,
    reference: &Reference,
) -> Result<State, Error> {
    Ok(match repository {
        Repository::Local(local) => State::Local(held(local, name, reference).await?),
        Repository::Remote(remote) => {
            State::Remote(Box::new(remote.explain(name, reference).await?))
        }
        // They are replaced by their members.
        Repository::Virtual(_) => State::NotAsked("it is virtual itself"),
    })
}

async fn held(local: &Local, name: &Name, reference: &Reference) -> Result<Option<Digest>, Error> {
    match reference {
        Reference::Tag(tag) => match local.tag(name, tag).await {
            Ok(digest) => Ok(Some(digest)),
            Err(overlay::Error::ManifestUnknown) => Ok(None),
            Err(error) => Err(error.into()),
        },
        Reference::Digest(digest) => {
            let has = local.has(name, digest).await?;
            Ok(has.then(|| digest.clone()))
        }
    }
}

fn access(auth: Option<&Auth>, target: &Target, user: Option<&str>) -> Access {
    let identity = user.map_or_else(Identity::anonymous, Identity::user);
    let rule = auth.and_then(|auth| {
        let (key, image) = (target.key.as_str(), target.name.as_str());
        auth.rule_for(&identity, key, image, Right::Pull)
    });
    Access {
        user: identity.subject().to_owned(),
        is_known: user.is_none_or(|user| auth.is_some_and(|auth| auth.has_user(user))),
        may_pull: auth.is_none() || rule.is_some(),
        rule: rule.map(|place| place + 1),
    }
}

impl State {
    fn may_answer(&self) -> bool {
        match self {
            Self::Local(held) => held.is_some(),
            Self::Remote(explained) => explained.then.may_have_it(),
            Self::NotAsked(_) => false,
        }
    }

    /// What it would serve, as far as that is known.
    fn digest(&self) -> Option<&Digest> {
        match self {
            Self::Local(held) => held.as_ref(),
            Self::Remote(explained) => explained.served.as_ref(),
            Self::NotAsked(_) => None,
        }
    }

    /// As JSON.
    fn to_json(&self, key: &Key) -> Value {
        let key = key.as_str();
        match self {
            Self::Local(held) => json!({
                "repository": key,
                "kind": "local",
                "asked": true,
                "digest": held.as_ref().map(ToString::to_string),
                "then": if held.is_some() { "serve" } else { "absent" },
                "why": if held.is_some() { "it was pushed here" } else { "nothing of that name was pushed here" },
            }),
            Self::NotAsked(why) => json!({ "repository": key, "asked": false, "why": why }),
            Self::Remote(one) => {
                let (breaker, pause) = match one.breaker {
                    BreakerState::Closed => ("closed", None),
                    BreakerState::Open(left) => ("open", Some(left.as_secs())),
                    BreakerState::HalfOpen => ("half-open", None),
                };
                json!({
                    "repository": key,
                    "kind": "remote",
                    "asked": true,
                    "then": one.then.as_str(),
                    "why": one.then.sentence(),
                    "digest": one.served.as_ref().map(ToString::to_string),
                    "held_back": one.held_back.as_ref().map(ToString::to_string),
                    "cached": one.is_here,
                    "checked": one.checked.map(|at| at.to_string()),
                    "fresh_seconds": one.fresh_for.map(|left| left.as_secs()),
                    "gone_upstream": one.gone.map(|at| at.to_string()),
                    "pinned": one.is_pinned,
                    "refused": one.refusal,
                    "judged": one.is_judged,
                    "offline": one.is_offline,
                    "breaker": breaker,
                    "breaker_seconds": pause,
                    "credential": one.credential,
                })
            }
        }
    }
}

impl Explanation {
    /// What a pull would get, as far as that is known without asking.
    pub fn digest(&self) -> Option<&Digest> {
        let answers = self.answers.as_ref()?;
        let answer = self.members.iter().find(|(key, _)| key == answers);
        answer.and_then(|(_, state)| state.digest())
    }

    /// As JSON.
    pub fn to_json(&self) -> Value {
        let members = self.members.iter();
        let members: Vec<Value> = members.map(|(key, state)| state.to_json(key)).collect();
        let quotas: Vec<Value> = self.quotas.iter().map(QuotaLine::to_json).collect();
        json!({
            "repository": self.target.key.as_str(),
            "kind": self.kind,
            "chosen_by": self.by.as_str(),
            "image": self.target.name.as_str(),
            "reference": self.reference.to_string(),
            "access": {
                "user": self.access.user,
                "known": self.access.is_known,
                "may_pull": self.access.may_pull,
                "rule": self.access.rule,
            },
            "members": members,
            "answers": self.answers.as_ref().map(Key::as_str),
            "quotas": quotas,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_as_people_write_them() {
        let digest = Digest::of(b"x");
        for (text, name, reference) in [
            ("nginx", "nginx", "latest".to_owned()),
            ("nginx:1.27", "nginx", "1.27".to_owned()),
            ("a.example:5000/b", "a.example:5000/b", "latest".to_owned()),
            ("a.example:5000/b:2", "a.example:5000/b", "2".to_owned()),
            (&format!("b@{digest}"), "b", digest.to_string()),
            (&format!("h:1/b:2@{digest}"), "h:1/b", digest.to_string()),
        ] {
            let (parsed, found) = parse(text).unwrap();
            assert_eq!((parsed, found.to_string()), (name, reference), "{text}");
        }
        for wrong in ["nginx:", "nginx:-x", "b@sha256:12", "b@"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
