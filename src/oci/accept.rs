//! The `Accept` headers of a request for a manifest.
//!
//! Quality values are ignored, as registries do: clients list what they understand, and the registry has one manifest to give.
//! `application/json` stands for itself only; some clients send it beside the types that they mean.

use super::media_type::MediaType;

/// The most bytes of all `Accept` headers together that are looked at. Clients send less than one KiB.
pub const ACCEPT_BYTES_MAX: usize = 8 * 1024;
/// The most types that are looked at. Clients list about ten.
pub const ACCEPT_TYPES_MAX: usize = 64;

/// The media types that a client takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accept {
    anything: bool,
    /// The part before the slash of each `type/*`.
    families: Vec<String>,
    types: Vec<MediaType>,
}

impl Accept {
    /// Takes whatever there is.
    pub fn everything() -> Self {
        Self {
            anything: true,
            ..Self::default()
        }
    }

    /// Reads all `Accept` headers of a request. What is no media type, or stands behind the caps, is skipped.
    pub fn parse<'a>(headers: impl Iterator<Item = &'a str>) -> Self {
        let mut accept = Self::default();
        let mut bytes = 0_usize;
        let items = headers.flat_map(|header| header.split(','));
        for item in items.take(ACCEPT_TYPES_MAX) {
            bytes = bytes.saturating_add(item.len()).saturating_add(1);
            if bytes > ACCEPT_BYTES_MAX {
                break;
            }
            let range = item.split(';').next().unwrap_or_default().trim();
            match range.split_once('/') {
                Some(("*", "*")) => accept.anything = true,
                Some((family, "*")) => accept.families.push(family.to_ascii_lowercase()),
                _ => accept.types.extend(MediaType::parse(range)),
            }
        }
        accept
    }

    /// Whether the client takes `media_type`. One that named nothing takes everything.
    pub fn takes(&self, media_type: &MediaType) -> bool {
        if self.anything || (self.families.is_empty() && self.types.is_empty()) {
            return true;
        }
        let family = media_type.as_str().split('/').next().unwrap_or_default();
        self.types.contains(media_type) || self.families.iter().any(|one| one == family)
    }
}
