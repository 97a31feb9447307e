//! The list of manifests that are about another one (distribution-spec, "Listing Referrers", "Referrers Tag Schema").
//!
//! The list has the shape of an OCI index, whether the referrers API serves it or the fallback tag. It is read more leniently
//! than a manifest: it is nobody's content, has no digest to keep, and is rendered anew before a client sees it.

use serde_json::json;

use super::descriptor::Descriptor;
use super::digest::Digest;
use super::json::{self, Fields, Malformed};
use super::manifest::{MANIFEST_MAX, ManifestError, capped, descriptors};
use super::media_type::{DOCKER_LIST, OCI_INDEX};
use super::tag::Tag;

/// The most entries one list may have.
pub const REFERRERS_MAX: usize = 1000;

/// Which of them are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Selection {
    /// None.
    #[default]
    None,
    /// All.
    All,
    /// Those of these artifact types.
    Types(Vec<String>),
}

impl Selection {
    /// Whether one of this artifact type is wanted. A type stands for what follows it behind `+`, `/` or `.` as well.
    pub fn takes(&self, artifact_type: Option<&str>) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Types(types) => artifact_type.is_some_and(|found| {
                types.iter().any(|wanted| {
                    found
                        .strip_prefix(wanted.as_str())
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', '/', '.']))
                })
            }),
        }
    }
}

/// The tag under which pushers keep the list when a registry has no referrers API: `sha256-<64 hex>`.
pub fn fallback_tag(subject: &Digest) -> Tag {
    Tag::of_subject(subject)
}

/// Reads a list. `schemaVersion` and `mediaType` may be missing; if there, they must be those of an index.
pub fn parse_index(bytes: &[u8]) -> Result<Vec<Descriptor>, ManifestError> {
    if bytes.len() > MANIFEST_MAX {
        return Err(ManifestError::TooLarge);
    }
    let known = [
        "schemaVersion",
        "mediaType",
        "manifests",
        "config",
        "layers",
    ];
    let mut fields = Fields::open(json::parse(bytes)?, &known)?;
    let type_fits = fields
        .text("mediaType")?
        .is_none_or(|text| text == OCI_INDEX || text == DOCKER_LIST);
    if !type_fits || fields.take("config").is_some() || fields.take("layers").is_some() {
        return Err(ManifestError::Unsupported);
    }
    if fields
        .take("schemaVersion")
        .is_some_and(|version| version != 2)
    {
        return Err(Malformed::new("its schemaVersion is not 2").into());
    }
    Ok(descriptors(capped(
        &mut fields,
        "manifests",
        REFERRERS_MAX,
    )?)?)
}

/// The OCI index that lists `list`, in its order.
pub fn render_index(list: &[Descriptor]) -> Vec<u8> {
    let manifests: Vec<_> = list.iter().map(Descriptor::to_value).collect();
    json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests })
        .to_string()
        .into_bytes()
}
