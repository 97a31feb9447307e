//! Whether a digest that upstream shows may be served: the rules of one remote, and the decision. Pure: what is known is an argument.
//!
//! What the rules need is gathered step by step, the cheap before the dear: [`decide`] says what it has to know next. What is *about* an
//! image (signatures, attestations, SBOMs) is held to neither age nor signature, or nobody could verify what they got; but only where it
//! is nothing that a runtime would unpack, since what a tag is called is anybody's choice.

use std::fmt;
use std::time::Duration;

use super::cosign::PublicKey;
use crate::clock::Wall;
use crate::globs::Globs;
use crate::oci::manifest::Manifest;
use crate::oci::{Descriptor, Digest, ManifestKind, Name, Tag};

/// Media types that runtimes unpack or run begin so.
const RUNNABLE: [&str; 4] = [
    "application/vnd.oci.image.layer.",
    "application/vnd.docker.image.rootfs.",
    "application/vnd.wasm.",
    "application/wasm",
];
/// Media types of layers that are statements about an image; beside a `subject`, what shows that a manifest is about another.
pub(super) const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const DSSE: &str = "application/vnd.dsse.envelope.v1+json";

/// What a new digest has to fulfil. The default admits everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    /// For how long it must have been known here.
    pub min_age: Duration,
    /// The images that may be pulled; none: all.
    pub allow: Globs,
    /// The images that may not, whatever `allow` says.
    pub deny: Globs,
    /// The most that configuration and layers may add up to, in bytes.
    pub max_size: Option<u64>,
    /// Whose signature it must have.
    pub cosign_key: Option<PublicKey>,
}

impl Rules {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        let Self {
            min_age,
            allow,
            deny,
            max_size,
            cosign_key,
        } = self;
        min_age.is_zero()
            && allow.is_empty()
            && deny.is_empty()
            && max_size.is_none()
            && cosign_key.is_none()
    }

    /// What an admission is tied to: under another key or size it is judged anew. Patterns are asked each time, and age only grows.
    pub(super) fn terms(&self) -> String {
        let key = self.cosign_key.as_ref().map(PublicKey::fingerprint);
        let size = self.max_size.map(|size| size.to_string());
        let none = || "-".to_owned();
        format!(
            "rules {} {}",
            key.unwrap_or_else(none),
            size.unwrap_or_else(none)
        )
    }

    /// What the patterns say of a name.
    pub(super) fn refuses_name(&self, name: &Name) -> Option<Rule> {
        if self.deny.is_match(name.as_str()) {
            return Some(Rule::Deny);
        }
        let is_allowed = self.allow.is_empty() || self.allow.is_match(name.as_str());
        (!is_allowed).then_some(Rule::Allow)
    }
}

/// How a digest was come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// A tag means it.
    Tag,
    /// A tag that says that it is about another digest: `sha256-<hex>.sig`, `.att`, `.sbom`, or the list of referrers.
    AboutTag,
    /// By itself.
    Digest,
}

impl Asked {
    pub(super) fn by(tag: &Tag) -> Self {
        let is_about = tag
            .as_str()
            .split_once('-')
            .is_some_and(|(algorithm, rest)| {
                let hex = rest.split_once('.').map_or(rest, |(hex, _)| hex);
                let suffix = rest.strip_prefix(hex).unwrap_or_default();
                matches!(algorithm, "sha256" | "sha512")
                    && hex.len() == 64
                    && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
                    && matches!(suffix, "" | ".sig" | ".att" | ".sbom")
            });
        if is_about { Self::AboutTag } else { Self::Tag }
    }

    /// A word that keeps them apart in keys.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Tag => "tag",
            Self::AboutTag => "about",
            Self::Digest => "digest",
        }
    }
}

/// What a manifest says, as far as rules ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    /// What everything that it points to adds up to; of an index, its manifests.
    pub(super) size: u64,
    /// Whether it says by itself that it is about another manifest, and cannot be run.
    is_attachment: bool,
    /// Whether a runtime could unpack it, or what it lists.
    is_runnable: bool,
    is_index: bool,
}

impl Facts {
    pub(super) fn of(manifest: &Manifest) -> Self {
        let parts = manifest.config().into_iter().chain(manifest.layers());
        let size = parts
            .chain(manifest.children())
            .fold(0_u64, |sum, part| sum.saturating_add(part.size()));
        let runs = |media_type: &str| RUNNABLE.iter().any(|begin| media_type.starts_with(begin));
        let mut layers = manifest.layers().iter().map(Descriptor::media_type);
        let is_index = manifest.kind() == ManifestKind::Index;
        // One without layers has nothing to unpack, and nothing to say either.
        let is_runnable = is_index || manifest.layers().is_empty() || layers.any(runs);
        let states = |media_type: &str| matches!(media_type, SIMPLE_SIGNING | DSSE);
        let mut layers = manifest.layers().iter();
        let says_so =
            manifest.subject().is_some() || layers.all(|layer| states(layer.media_type()));
        Self {
            size,
            is_attachment: says_so && !is_runnable,
            is_runnable,
            is_index,
        }
    }

    fn is_about(self, asked: Asked) -> bool {
        match asked {
            Asked::Tag => false,
            // The list of referrers is an index; what it lists is judged by itself.
            Asked::AboutTag => self.is_index || !self.is_runnable,
            Asked::Digest => self.is_attachment,
        }
    }
}

/// What came of looking for signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signature {
    /// One of them is of the key, and of this digest.
    Verified,
    /// There are some, and none is.
    Wrong,
    /// There is none.
    Missing,
}

/// What is judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<'a> {
    pub(super) name: &'a Name,
    pub(super) asked: Asked,
    /// When upstream first showed it here.
    pub(super) first_seen: Wall,
    /// Whether something admitted contains it: then it is as old and as well signed as that.
    pub(super) is_vouched: bool,
    /// As far as they are known.
    pub(super) facts: Option<Facts>,
    pub(super) signature: Option<Signature>,
}

/// What [`decide`] comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// It may be served; `about`: as something about an image, which no other tag may mean by that.
    Admitted {
        about: bool,
    },
    Refused(Rule),
    /// The manifest has to be read first.
    NeedsFacts,
    /// Signatures have to be looked for first.
    NeedsSignature,
}

/// The rule that something was refused by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// A pattern of `deny` fits the image.
    Deny,
    /// No pattern of `allow` fits the image.
    Allow,
    /// It has not been known for long enough.
    MinAge {
        /// For how long it must have been.
        wanted: Duration,
        /// How much of that is left.
        left: Duration,
    },
    /// It is too large.
    MaxSize {
        /// How large it is, in bytes.
        size: u64,
        /// How large it may be.
        max: u64,
    },
    /// Nobody signed it.
    Unsigned,
    /// Somebody signed it, but not with the key.
    WrongSignature,
}

impl Rule {
    /// Its key in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
            Self::MinAge { .. } => "min_age",
            Self::MaxSize { .. } => "max_size",
            Self::Unsigned | Self::WrongSignature => "cosign_key",
        }
    }

    /// Whether it is about the name alone, whatever stands under it.
    pub const fn is_of_name(self) -> bool {
        matches!(self, Self::Deny | Self::Allow)
    }
}

impl fmt::Display for Rule {
    /// What is wrong, and what would admit it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deny => f.write_str("deny: a pattern denies images of this name"),
            Self::Allow => f.write_str("allow: no pattern allows images of this name"),
            Self::MinAge { wanted, left } => write!(
                f,
                "min_age: it must have been known here for {}, and will have been in {}",
                Span(*wanted),
                Span(*left)
            ),
            Self::MaxSize { size, max } => {
                write!(f, "max_size: it has {size} bytes of at most {max}")
            }
            Self::Unsigned => {
                f.write_str("cosign_key: it has no signature; sign it with the configured key")
            }
            Self::WrongSignature => f.write_str(
                "cosign_key: none of its signatures is of the configured key; sign it with that",
            ),
        }
    }
}

/// Something that is not served, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What.
    pub digest: Option<Digest>,
    /// Which rule it was.
    pub rule: Rule,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.digest {
            Some(digest) => write!(
                f,
                "this mirror does not admit {digest} by its rule {}",
                self.rule
            ),
            None => write!(
                f,
                "this mirror does not admit this by its rule {}",
                self.rule
            ),
        }
    }
}

/// A duration in its largest unit, rounded up: what is promised has come by then.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        let (unit, name) = match ms {
            0..=1_000 => (1, "ms"),
            1_001..=120_000 => (1_000, "s"),
            120_001..=7_200_000 => (60_000, "m"),
            _ => (3_600_000, "h"),
        };
        write!(f, "{}{name}", ms.div_ceil(unit))
    }
}

/// Decides, or says what it takes to.
pub(super) fn decide(rules: &Rules, candidate: &Candidate<'_>, now: Wall) -> Decision {
    if let Some(rule) = rules.refuses_name(candidate.name) {
        return Decision::Refused(rule);
    }
    let asks_more =
        !candidate.is_vouched && (rules.cosign_key.is_some() || !rules.min_age.is_zero());
    let about = match (candidate.facts, candidate.asked) {
        (Some(facts), asked) => facts.is_about(asked),
        (None, Asked::AboutTag | Asked::Digest) if asks_more => return Decision::NeedsFacts,
        (None, _) => false,
    };
    let asks_more = asks_more && !about;
    let left = rules
        .min_age
        .saturating_sub(now.since(candidate.first_seen));
    if asks_more && !left.is_zero() {
        let wanted = rules.min_age;
        return Decision::Refused(Rule::MinAge { wanted, left });
    }
    if let Some(max) = rules.max_size {
        match candidate.facts {
            None => return Decision::NeedsFacts,
            Some(Facts { size, .. }) if size > max => {
                return Decision::Refused(Rule::MaxSize { size, max });
            }
            Some(_) => {}
        }
    }
    if asks_more && rules.cosign_key.is_some() {
        match candidate.signature {
            None => return Decision::NeedsSignature,
            Some(Signature::Missing) => return Decision::Refused(Rule::Unsigned),
            Some(Signature::Wrong) => return Decision::Refused(Rule::WrongSignature),
            Some(Signature::Verified) => {}
        }
    }
    Decision::Admitted { about }
}

#[cfg(test)]
mod tests;
