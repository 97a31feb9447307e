//! Who somebody is, and the most that their token lets them do. Pure.

use std::borrow::Cow;
use std::sync::Arc;

use super::api_tokens::ApiToken;
use super::pattern;
use super::policy::{Right, Rights};
use super::users::is_user_name;
use crate::clock::Wall;

/// What a token grants of one image; `catalog` is for lists of images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The repository key.
    pub key: String,
    /// The image.
    pub image: String,
    /// What may be done.
    pub may: Rights,
}

/// Who vouches for somebody that stands in no users file, and what was said of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voucher {
    /// What tells this voucher from every other, and from itself when it is told something else.
    pub mark: String,
    /// The groups, in the form that rules name them in.
    pub groups: Vec<String>,
    /// When it ends.
    pub until: Option<Wall>,
}

/// Somebody, or nobody in particular.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    name: Option<Arc<str>>,
    /// `None`: the users file.
    voucher: Option<Arc<Voucher>>,
    /// `None`: whatever the rules say.
    grants: Option<Arc<[Grant]>>,
    /// Whoever owns the process: no rule is about them, and none limits them.
    is_owner: bool,
    /// What they logged in with, where that was an API token: its scope limits whatever else they may.
    api_token: Option<Arc<ApiToken>>,
}

/// What the owner of the process is called in records; no user can have this name.
const OWNER: &str = "(owner)";

/// What stands between a user's name and that of the API token they logged in with, where both are shown.
const BY_TOKEN: &str = " (token ";

/// Whether whoever records show so is one of these: a user by name, whatever they logged in with, or by a pattern where others vouch for the
/// name.
pub fn is_shown_as(shown: &str, names: &[String]) -> bool {
    let by_token = shown.split_once(BY_TOKEN).map(|(user, _)| user);
    // Others may vouch for any text.
    let user = by_token.filter(|user| is_user_name(user)).unwrap_or(shown);
    let is = |name: &String| name == user || pattern::names(name, user);
    names.iter().any(is)
}

/// The key of a grant that is about no repository.
const NO_KEY: &str = "";
/// What the list of images is called in scopes.
const CATALOG: &str = "catalog";

impl Grant {
    /// Lists of images; what is in them the rules say.
    pub fn catalog() -> Self {
        Self {
            key: NO_KEY.to_owned(),
            image: CATALOG.to_owned(),
            may: Rights::default().with(Right::Pull),
        }
    }
}

impl Identity {
    /// Nobody in particular.
    pub const fn anonymous() -> Self {
        Self {
            name: None,
            voucher: None,
            grants: None,
            is_owner: false,
            api_token: None,
        }
    }

    /// Whoever owns the process, as the admin socket knows.
    pub fn owner() -> Self {
        Self {
            name: Some(OWNER.into()),
            grants: None,
            voucher: None,
            is_owner: true,
            api_token: None,
        }
    }

    /// A user.
    pub fn user(name: &str) -> Self {
        Self {
            name: Some(name.into()),
            voucher: None,
            grants: None,
            is_owner: false,
            api_token: None,
        }
    }

    /// The same, on somebody else's word.
    #[must_use]
    pub fn vouched_for(self, voucher: Voucher) -> Self {
        Self {
            voucher: Some(Arc::new(voucher)),
            ..self
        }
    }

    /// On whose word, where it is not the users file's.
    pub fn voucher(&self) -> Option<&Voucher> {
        self.voucher.as_deref()
    }

    /// The same, with a token that grants only this.
    #[must_use]
    pub fn limited_to(self, grants: Vec<Grant>) -> Self {
        Self {
            grants: Some(grants.into()),
            ..self
        }
    }

    /// The user's name.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The same, logged in with an API token.
    #[must_use]
    pub fn by_api_token(self, token: Arc<ApiToken>) -> Self {
        Self {
            api_token: Some(token),
            ..self
        }
    }

    /// The API token that they logged in with, at once or to be issued this one.
    pub fn api_token(&self) -> Option<&ApiToken> {
        self.api_token.as_deref()
    }

    /// The name for the log, with that of the API token.
    pub fn shown(&self) -> Cow<'_, str> {
        match &self.api_token {
            Some(token) => format!("{}{BY_TOKEN}{})", self.subject(), token.name).into(),
            None => self.subject().into(),
        }
    }

    /// Whether it is whoever owns the process.
    pub const fn is_owner(&self) -> bool {
        self.is_owner
    }

    /// The name in records: nobody is `anonymous`.
    pub fn subject(&self) -> &str {
        self.name().unwrap_or("anonymous")
    }

    /// Whether nobody in particular asks, and without a token.
    pub const fn is_unknown(&self) -> bool {
        self.name.is_none() && self.grants.is_none()
    }

    /// Whether no issued token limits what they may do.
    pub const fn is_whole(&self) -> bool {
        self.grants.is_none()
    }

    /// Whether the token, where there is one, is for lists of images.
    pub fn lists(&self) -> bool {
        self.is_whole() || self.grants(NO_KEY, Some(CATALOG), Right::Pull)
    }

    /// Whether the token, where there is one, grants this; without an image: of any.
    pub fn grants(&self, key: &str, image: Option<&str>, right: Right) -> bool {
        self.grants.as_ref().is_none_or(|grants| {
            grants.iter().any(|grant| {
                grant.key == key
                    && image.is_none_or(|image| image == grant.image)
                    && grant.may.has(right)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_shown_is_found_by_name() {
        for (shown, name, expected) in [
            ("ada", "ada", true),
            ("ada (token ci)", "ada", true),
            ("ada (token ci)", "ada (token ci)", false),
            ("ada", "ad", false),
            ("anonymous", "anonymous", true),
            ("oidc:repo:org/app:x", "oidc:repo:org/*:x", true),
            ("oidc:repo:org/app:x", "oidc:other/**", false),
            // A name that somebody vouches for is no user's, whatever stands in it.
            ("oidc:a (token b)", "oidc:a", false),
        ] {
            let found = is_shown_as(shown, &[name.to_owned()]);
            assert_eq!(found, expected, "{shown} {name}");
        }
        assert!(!is_shown_as("ada", &[]));
    }
}
