//! `[[auth.oidc]]`: whose tokens are logins.

use std::collections::HashMap;

use toml::Spanned;
use url::Url;

use super::file;
use super::resolve::Reader;
use crate::auth::oidc::{Algorithm, Config, is_private};

/// The claim that says who it is, unless the file says otherwise.
const USER_CLAIM: &str = "sub";
/// What stands before that, unless the file says otherwise.
const USER_PREFIX: &str = "oidc:";
/// The longest prefix.
const PREFIX_MAX: usize = 64;
/// The longest issuer, audience and name of a claim.
const TEXT_MAX: usize = 1024;

/// Where names with a colon come from.
#[derive(Debug)]
pub(super) struct Names<'a> {
    pub(super) issuers: &'a [Config],
    /// Whether certificates of clients name users by URIs.
    pub(super) are_uris: bool,
}

impl Reader<'_> {
    pub(super) fn issuers(&mut self, written: Vec<file::Oidc>, realm: &str) -> Vec<Config> {
        let mut prefixes: HashMap<String, String> = HashMap::new();
        let mut issuers: Vec<Config> = Vec::new();
        for one in written {
            let (issuer, at) = (one.issuer.get_ref().clone(), one.issuer.span());
            if !is_issuer(&issuer) {
                self.problem(
                    at.clone(),
                    "auth.oidc.issuer is no issuer's URL",
                    "write it as tokens have it in `iss`, such as \"https://token.actions.githubusercontent.com\"; http:// only on loopback",
                );
            }
            if issuers.iter().any(|other| other.issuer == issuer) || issuer == realm {
                self.problem(
                    at.clone(),
                    format!("auth.oidc: `{issuer}` is there already"),
                    "write one [[auth.oidc]] for each issuer, and another auth.realm",
                );
            }
            let prefix = one
                .user_prefix
                .unwrap_or_else(|| Spanned::new(at, USER_PREFIX.to_owned()));
            if !is_prefix(prefix.get_ref()) {
                self.problem(
                    prefix.span(),
                    "auth.oidc.user_prefix is no prefix of names",
                    "write letters, digits and . _ - and one colon at the end, such as \"gitlab:\"",
                );
            }
            if let Some(other) = prefixes.insert(prefix.get_ref().clone(), issuer.clone()) {
                self.problem(
                    prefix.span(),
                    format!("auth.oidc: names of {other} begin with `{}` too", prefix.get_ref()),
                    "write a user_prefix of its own, such as \"gitlab:\", so that nobody is taken for another issuer's",
                );
            }
            let audience = self.text(
                one.audience,
                "audience",
                "the audience that jobs ask for, such as \"roadstead\"",
            );
            let user_claim = one.user_claim.map_or_else(
                || USER_CLAIM.to_owned(),
                |claim| self.text(claim, "user_claim", "the name of a claim, such as \"sub\""),
            );
            let groups_claim = one.groups_claim.map(|claim| {
                self.text(
                    claim,
                    "groups_claim",
                    "the name of a claim, such as \"groups\"",
                )
            });
            issuers.push(Config {
                audience,
                user_claim,
                user_prefix: prefix.into_inner(),
                groups_claim,
                require: one.require.into_iter().collect(),
                algorithms: self.algorithms(one.algorithms),
                ca: one.ca.map(|path| self.path(&path)),
                allow_addresses: self.networks(&one.allow_addresses, "auth.oidc.allow_addresses"),
                issuer,
            });
        }
        issuers
    }

    fn text(&mut self, written: Spanned<String>, key: &str, remedy: &str) -> String {
        let text = written.get_ref();
        if text.is_empty() || text.len() > TEXT_MAX {
            self.problem(
                written.span(),
                format!("auth.oidc.{key} is empty or too long"),
                format!("write {remedy}"),
            );
        }
        written.into_inner()
    }

    fn algorithms(&mut self, written: Option<Spanned<Vec<Spanned<String>>>>) -> Vec<Algorithm> {
        let Some(written) = written else {
            return Algorithm::USUAL.to_vec();
        };
        let remedy = "name some of RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 EdDSA";
        if written.get_ref().is_empty() {
            self.problem(written.span(), "auth.oidc.algorithms is empty", remedy);
        }
        let mut algorithms = Vec::new();
        for name in written.into_inner() {
            match Algorithm::parse(name.get_ref()) {
                Some(algorithm) => algorithms.push(algorithm),
                None => self.problem(
                    name.span(),
                    format!("auth.oidc.algorithms: `{}` is not taken", name.get_ref()),
                    remedy,
                ),
            }
        }
        algorithms
    }

    /// A name with a colon in a rule or a group has the prefix of an issuer, or nobody is ever called so.
    pub(super) fn outside(&mut self, text: &Spanned<String>, name: &str, names: &Names<'_>) {
        let is_group = text.get_ref().starts_with('@');
        if names.are_uris && !is_group && name.contains("://") {
            return;
        }
        let whose = names
            .issuers
            .iter()
            .find(|issuer| name.starts_with(&issuer.user_prefix));
        match whose {
            None => self.problem(
                text.span(),
                format!("auth: `{}` begins with no issuer's user_prefix", text.get_ref()),
                "write it with the user_prefix of an [[auth.oidc]], such as \"oidc:repo:org/app:**\"",
            ),
            Some(issuer) if is_group && issuer.groups_claim.is_none() => self.problem(
                text.span(),
                format!("auth: {} tells no groups", issuer.issuer),
                "write its groups_claim",
            ),
            Some(_) => {}
        }
    }
}

/// Whether this can be an issuer: a URL that can be asked in private, and that discovery can be hung on.
fn is_issuer(text: &str) -> bool {
    let Ok(url) = Url::parse(text) else {
        return false;
    };
    is_private(&url)
        && text.len() <= TEXT_MAX
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'\\')
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
}

fn is_prefix(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    text.len() <= PREFIX_MAX
        && text
            .strip_suffix(':')
            .is_some_and(|letters| !letters.is_empty() && letters.bytes().all(fits))
}
