//! The rules: who may do what, where. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::identity::Identity;
use super::pattern;
use crate::globs::Globs;

/// What can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Right {
    /// Read: manifests, blobs, lists, properties.
    Pull,
    /// Write content, tags, properties.
    Push,
    /// Delete.
    Delete,
    /// Be the target of a promotion.
    Promote,
    /// Tags' history, pins, roll-backs; with `on = ["*"]` the mirror itself.
    Admin,
}

/// Several rights.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Rights(u8);

/// Whom a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Everybody, logged in or not.
    Anonymous,
    /// Every user. Names with a colon are others' words, and who is anybody there is not meant: rules say their prefix.
    Everyone,
    /// One user, or with a colon in it: whoever an issuer or a certificate calls so, by a pattern.
    User(String),
    /// A group's members, or with a colon in it: those who an issuer says are in a group, by a pattern.
    Group(String),
}

/// What a rule is about: a repository, or images of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct On {
    /// The repository key; `None`: every repository, and the mirror itself.
    pub key: Option<String>,
    /// Of which images; `None`: all.
    pub images: Option<Globs>,
}

/// One rule. Rules only give; what none of them gives is not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Whom it is about.
    pub who: Vec<Who>,
    /// Where.
    pub on: Vec<On>,
    /// What they may do there.
    pub may: Rights,
}

/// All rules.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// The rules.
    pub rules: Vec<Rule>,
    /// Groups with their members.
    pub groups: BTreeMap<String, BTreeSet<String>>,
}

/// Why a text is no part of a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PolicyError(pub String);

impl Right {
    /// Every right.
    pub const ALL: [Self; 5] = [
        Self::Pull,
        Self::Push,
        Self::Delete,
        Self::Promote,
        Self::Admin,
    ];

    /// Its name in rules and tokens.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
            Self::Promote => "promote",
            Self::Admin => "admin",
        }
    }

    /// By its name.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let found = Self::ALL.into_iter().find(|right| right.as_str() == text);
        let wrong = || {
            PolicyError(format!(
                "`{text}` is no right: there are pull, push, delete, promote and admin"
            ))
        };
        found.ok_or_else(wrong)
    }

    const fn bit(self) -> u8 {
        match self {
            Self::Pull => 1,
            Self::Push => 2,
            Self::Delete => 4,
            Self::Promote => 8,
            Self::Admin => 16,
        }
    }
}

impl Rights {
    /// Whether this is one of them.
    pub const fn has(self, right: Right) -> bool {
        self.0 & right.bit() != 0
    }

    /// With another.
    #[must_use]
    pub const fn with(self, right: Right) -> Self {
        Self(self.0 | right.bit())
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Right> {
        Right::ALL.into_iter().filter(move |right| self.has(*right))
    }
}

impl FromIterator<Right> for Rights {
    fn from_iter<I: IntoIterator<Item = Right>>(rights: I) -> Self {
        rights.into_iter().fold(Self::default(), Self::with)
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl Who {
    /// `anonymous`, `*`, `@group` or a user's name.
    pub fn parse(text: &str) -> Self {
        match (text, text.strip_prefix('@')) {
            ("anonymous", _) => Self::Anonymous,
            ("*", _) => Self::Everyone,
            (_, Some(group)) => Self::Group(group.to_owned()),
            (user, None) => Self::User(user.to_owned()),
        }
    }

    fn is(&self, identity: &Identity, groups: &BTreeMap<String, BTreeSet<String>>) -> bool {
        let means = |user: &String, name: &str| user == name || pattern::names(user, name);
        match (self, identity.name()) {
            (Self::Anonymous, _) => true,
            (Self::Everyone, Some(name)) => !name.contains(':'),
            (Self::User(user), Some(name)) => means(user, name),
            (Self::Group(group), Some(_)) if group.contains(':') => {
                let said = identity.voucher().map(|voucher| &voucher.groups);
                let said = said.into_iter().flatten();
                said.into_iter().any(|said| pattern::names(group, said))
            }
            (Self::Group(group), Some(name)) => groups.get(group).is_some_and(|members| {
                // Patterns are for names with a prefix alone.
                let fits = |member: &String| pattern::names(member, name);
                members.contains(name) || name.contains(':') && members.iter().any(fits)
            }),
            (Self::Everyone | Self::User(_) | Self::Group(_), None) => false,
        }
    }
}

impl On {
    /// `*`, `<key>` or `<key>/<image glob>`.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let (key, images) = match text.split_once('/') {
            Some((key, images)) => (key, Some(images)),
            None => (text, None),
        };
        let images = images.map(|images| Globs::parse(&[images])).transpose();
        let images = images.map_err(|error| PolicyError(error.to_string()))?;
        if key.is_empty() {
            return Err(PolicyError(format!("`{text}` names no repository")));
        }
        Ok(Self {
            key: (key != "*").then(|| key.to_owned()),
            images,
        })
    }

    /// Whether it is about a repository, or images of it.
    fn is_of(&self, key: &str) -> bool {
        self.key.as_deref().is_none_or(|own| own == key)
    }

    /// Whether it is about an image of a repository; without an image: about any of it.
    pub fn is(&self, key: &str, image: Option<&str>) -> bool {
        self.is_of(key)
            && match (&self.images, image) {
                (None, _) | (_, None) => true,
                (Some(images), Some(image)) => images.is_match(image),
            }
    }
}

impl Policy {
    /// The rules that give somebody a right, of those that are about some repository. That comes first: of many rules few are, and it is
    /// cheaper to see than who is in a group.
    fn rules_for<'a>(
        &'a self,
        identity: &'a Identity,
        right: Right,
        is_about: impl Fn(&On) -> bool + 'a,
    ) -> impl Iterator<Item = &'a Rule> {
        self.rules.iter().filter(move |rule| {
            let is = |who: &Who| who.is(identity, &self.groups);
            rule.may.has(right) && rule.on.iter().any(&is_about) && rule.who.iter().any(is)
        })
    }

    /// Whether somebody may do something with an image of a repository; without an image: with any of it.
    pub fn decide(
        &self,
        identity: &Identity,
        key: &str,
        image: Option<&str>,
        right: Right,
    ) -> bool {
        let mut rules = self.rules_for(identity, right, |on| on.is_of(key));
        identity.is_owner() || rules.any(|rule| rule.on.iter().any(|on| on.is(key, image)))
    }

    /// The place of the first rule that gives this.
    pub fn rule_for(
        &self,
        identity: &Identity,
        key: &str,
        image: Option<&str>,
        right: Right,
    ) -> Option<usize> {
        self.rules.iter().position(|rule| {
            let is = |who: &Who| who.is(identity, &self.groups);
            rule.may.has(right)
                && rule.on.iter().any(|on| on.is(key, image))
                && rule.who.iter().any(is)
        })
    }

    /// Whether somebody may do something with every image of a repository.
    pub fn decide_all(&self, identity: &Identity, key: &str, right: Right) -> bool {
        let whole = |on: &On| on.images.is_none() && on.is_of(key);
        identity.is_owner() || self.rules_for(identity, right, whole).next().is_some()
    }

    /// Whether somebody may administer the mirror itself.
    pub fn administers(&self, identity: &Identity) -> bool {
        let whole = |on: &On| on.key.is_none() && on.images.is_none();
        let mut rules = self.rules_for(identity, Right::Admin, whole);
        identity.is_owner() || rules.next().is_some()
    }

    /// Whether any rule is about this one in particular.
    pub fn knows(&self, identity: &Identity) -> bool {
        let is = |who: &Who| *who != Who::Anonymous && who.is(identity, &self.groups);
        self.rules.iter().any(|rule| rule.who.iter().any(is))
    }

    /// Whom a word means where records are asked for somebody: `@group` the members of one, else a user and the members of a group of that
    /// name. `None` where there is no such group. Who is in a group of an issuer is in its tokens alone, and not known later.
    pub fn meant(&self, word: &str) -> Option<Vec<String>> {
        let members = |group: &str| self.groups.get(group).map(|all| all.iter().cloned());
        if let Some(group) = word.strip_prefix('@') {
            return members(group).map(Iterator::collect);
        }
        let user = std::iter::once(word.to_owned());
        Some(user.chain(members(word).into_iter().flatten()).collect())
    }

    /// Whether any rule is about a group of an issuer.
    pub fn names_group(&self, group: &str) -> bool {
        let is = |who: &Who| matches!(who, Who::Group(named) if pattern::names(named, group));
        self.rules.iter().any(|rule| rule.who.iter().any(is))
    }

    /// Whether any rule is about people who are logged in.
    pub fn has_logins(&self) -> bool {
        let needs = |who: &Who| *who != Who::Anonymous;
        self.rules.iter().any(|rule| rule.who.iter().any(needs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Voucher;

    fn policy() -> Policy {
        let rule = |who: &[&str], on: &[&str], may: &[&str]| Rule {
            who: who.iter().map(|who| Who::parse(who)).collect(),
            on: on.iter().map(|on| On::parse(on).unwrap()).collect(),
            may: may
                .iter()
                .map(|right| Right::parse(right).unwrap())
                .collect(),
        };
        Policy {
            rules: vec![
                rule(&["anonymous"], &["hub/library/**"], &["pull"]),
                rule(&["*"], &["hub"], &["pull"]),
                rule(&["@ci"], &["dev/team/*", "stage"], &["pull", "push"]),
                rule(&["release"], &["prod"], &["pull", "promote", "delete"]),
                rule(&["root"], &["*"], &["pull", "admin"]),
                rule(&["keeper"], &["hub"], &["admin"]),
            ],
            groups: BTreeMap::from([("ci".to_owned(), BTreeSet::from(["builder".to_owned()]))]),
        }
    }

    #[test]
    fn who_may_do_what_where() {
        let policy = policy();
        let decide = |who: &str, key: &str, image: Option<&str>, right: Right| {
            let identity = if who.is_empty() {
                Identity::anonymous()
            } else {
                Identity::user(who)
            };
            policy.decide(&identity, key, image, right)
        };
        for (who, key, image, right, expected) in [
            ("", "hub", Some("library/nginx"), Right::Pull, true),
            ("", "hub", Some("library/a/b"), Right::Pull, true),
            ("", "hub", Some("team/app"), Right::Pull, false),
            ("", "hub", None, Right::Pull, true),
            ("", "hub", Some("library/nginx"), Right::Push, false),
            ("", "dev", Some("team/app"), Right::Pull, false),
            ("", "dev", None, Right::Pull, false),
            // Who is logged in has what everybody has, and what everybody who is logged in has.
            ("nobody", "hub", Some("library/nginx"), Right::Pull, true),
            ("nobody", "hub", Some("team/app"), Right::Pull, true),
            ("nobody", "dev", Some("team/app"), Right::Pull, false),
            ("builder", "dev", Some("team/app"), Right::Push, true),
            ("builder", "dev", Some("team/a/b"), Right::Push, false),
            ("builder", "dev", Some("other/app"), Right::Push, false),
            ("builder", "stage", Some("other/app"), Right::Push, true),
            ("builder", "stage", Some("other/app"), Right::Delete, false),
            // A user who is called like a group is not in it.
            ("ci", "stage", Some("other/app"), Right::Push, false),
            ("@ci", "stage", Some("other/app"), Right::Push, false),
            ("release", "prod", Some("a"), Right::Promote, true),
            ("release", "prod", Some("a"), Right::Push, false),
            ("root", "anything", Some("a"), Right::Pull, true),
            ("root", "anything", Some("a"), Right::Admin, true),
            ("root", "anything", Some("a"), Right::Push, false),
            // Names of rules' words are no users' names.
            ("*", "hub", Some("team/app"), Right::Push, false),
            ("keeper", "hub", Some("team/app"), Right::Admin, true),
        ] {
            assert_eq!(
                decide(who, key, image, right),
                expected,
                "{who} {key} {image:?} {right:?}"
            );
        }
        let user = Identity::user;
        assert!(policy.administers(&user("root")) && !policy.administers(&user("keeper")));
        assert!(policy.decide_all(&user("nobody"), "hub", Right::Pull));
        assert!(!policy.decide_all(&Identity::anonymous(), "hub", Right::Pull));
        assert!(!policy.decide_all(&user("builder"), "dev", Right::Push));
        // Whoever owns the process is no user of any rule, and may everything.
        let owner = Identity::owner();
        assert!(policy.administers(&owner) && policy.decide_all(&owner, "dev", Right::Delete));
        assert!(policy.decide(&owner, "prod", Some("a"), Right::Push));
        assert!(!policy.administers(&user(owner.subject())));
        assert!(!crate::auth::is_user_name(owner.subject()));
        assert!(policy.has_logins() && !Policy::default().has_logins());
    }

    #[test]
    fn a_word_means_a_user_a_group_or_both() {
        let policy = policy();
        let meant = |word: &str| policy.meant(word);
        let all = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(meant("@ci"), all(&["builder"]));
        assert_eq!(meant("ci"), all(&["ci", "builder"]));
        assert_eq!(meant("ada"), all(&["ada"]));
        assert_eq!(meant("@ada"), None);
    }

    #[test]
    fn names_of_issuers_and_users_are_told_apart() {
        let rule = |who: &str| Rule {
            who: vec![Who::parse(who)],
            on: vec![On::parse("dev").unwrap()],
            may: Rights::default().with(Right::Pull),
        };
        let issued = |name: &str, groups: &[&str]| {
            Identity::user(name).vouched_for(Voucher {
                mark: "m".to_owned(),
                groups: groups.iter().map(|group| (*group).to_owned()).collect(),
                until: None,
            })
        };
        let main = issued("oidc:repo:org/app:ref:refs/heads/main", &["oidc:ops"]);
        for (who, identity, expected) in [
            ("oidc:repo:org/app:ref:refs/heads/main", &main, true),
            ("oidc:repo:org/*:ref:refs/heads/main", &main, true),
            ("oidc:repo:org/**", &main, true),
            ("oidc:repo:org/*", &main, false),
            ("other:repo:org/**", &main, false),
            ("oidc:**", &Identity::user("ada"), false),
            // Whoever may get a token of an issuer is no user of this mirror.
            ("*", &main, false),
            ("*", &Identity::user("ada"), true),
            // A group of the file is none of an issuer, and the other way round.
            ("@oidc:ops", &main, true),
            ("@oidc:*", &main, true),
            ("@ops", &main, false),
            ("@ops", &Identity::user("ada"), true),
            ("@oidc:ops", &Identity::user("ada"), false),
            ("@oidc:ops", &issued("oidc:x", &["ops"]), false),
            ("@oidc:ops", &issued("oidc:x", &["other:ops"]), false),
            ("@ops", &issued("oidc:x", &["ops"]), false),
            ("@jobs", &main, true),
            ("@jobs", &issued("oidc:repo:org/other:x", &[]), false),
        ] {
            let policy = Policy {
                rules: vec![rule("anonymous"), rule(who)],
                groups: BTreeMap::from([
                    ("ops".to_owned(), BTreeSet::from(["ada".to_owned()])),
                    (
                        "jobs".to_owned(),
                        BTreeSet::from(["oidc:repo:org/app:**".to_owned()]),
                    ),
                ]),
            };
            assert_eq!(policy.knows(identity), expected, "{who} {identity:?}");
        }
    }

    #[test]
    fn what_is_no_rule() {
        assert!(Right::parse("write").is_err() && Right::parse("Pull").is_err());
        assert!(On::parse("").is_err() && On::parse("/a").is_err() && On::parse("a/[x").is_err());
        let rights: Rights = Right::ALL.into_iter().collect();
        assert!(Right::ALL.into_iter().all(|right| rights.has(right)));
        assert!(Rights::default().is_empty());
    }
}
