//! What a mirror asks a registry for: manifests, heads of blobs, tag lists, referrers.

use std::collections::HashSet;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, ETAG, LINK};
use http::{HeaderMap, HeaderValue, Method, Response};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde_json::Value;
use url::Url;

use super::Upstream;
use super::error::{Error, Kind};
use super::hops::Hops;
use super::send::{Ask, Permits};
use crate::oci::descriptor::Descriptor;
use crate::oci::manifest::MANIFEST_MAX;
use crate::oci::media_type::{MANIFEST_ACCEPT, OCI_INDEX};
use crate::oci::{Digest, MediaType, Name, Reference, Tag, link, path, referrers};
use crate::telemetry::RepositoryLabels;

/// The most pages of a list that are followed (RELIABILITY P38).
pub(super) const PAGES_MAX: usize = 100;
/// The most bytes of one page of a list.
pub(super) const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What HEAD tells of a manifest. A registry may leave any of it out.
#[derive(Debug, Clone)]
pub struct ManifestHead {
    /// `Docker-Content-Digest`.
    pub digest: Option<Digest>,
    /// `Content-Type`.
    pub media_type: Option<MediaType>,
    /// `Content-Length`.
    pub size: Option<u64>,
    /// `ETag`.
    pub etag: Option<String>,
}

/// A manifest as it came: bounded, not verified.
#[derive(Debug, Clone)]
pub struct ManifestBody {
    /// At most `MANIFEST_MAX` bytes.
    pub bytes: Bytes,
    /// `Content-Type`.
    pub media_type: Option<MediaType>,
    /// `Docker-Content-Digest`: what upstream says it is.
    pub digest_header: Option<Digest>,
    /// `ETag`.
    pub etag: Option<String>,
}

/// What HEAD tells of a blob.
#[derive(Debug, Clone)]
pub struct BlobHead {
    /// `Content-Length`.
    pub size: Option<u64>,
}

/// The lists that come in pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    Tags,
    Referrers,
}

impl List {
    const fn kind(self) -> &'static str {
        match self {
            Self::Tags => "tags",
            Self::Referrers => "referrers",
        }
    }

    /// The type that the answer must have, where it must have one.
    const fn accept(self) -> Option<&'static str> {
        match self {
            Self::Tags => None,
            Self::Referrers => Some(OCI_INDEX),
        }
    }
}

impl Upstream {
    /// Asks what a reference means, without a pull.
    pub async fn head_manifest(
        &self,
        hops: &Hops,
        name: &Name,
        reference: &Reference,
    ) -> Result<ManifestHead, Error> {
        let (response, _permits) = self
            .send(&self.manifest_ask(Method::HEAD, hops, name, reference))
            .await?;
        let headers = response.headers();
        Ok(ManifestHead {
            digest: digest(headers),
            media_type: media_type(headers),
            size: length(headers),
            etag: etag(headers),
        })
    }

    /// Fetches a manifest.
    pub async fn get_manifest(
        &self,
        hops: &Hops,
        name: &Name,
        reference: &Reference,
    ) -> Result<ManifestBody, Error> {
        let (response, permits) = self
            .send(&self.manifest_ask(Method::GET, hops, name, reference))
            .await?;
        let (digest_header, media_type, etag) = (
            digest(response.headers()),
            media_type(response.headers()),
            etag(response.headers()),
        );
        if media_type
            .as_ref()
            .is_some_and(|media_type| media_type.as_str() == "text/html")
        {
            return Err(Error::new(
                Kind::BadAnswer,
                "upstream sends a web page instead of a manifest",
            ));
        }
        let bytes = self.whole(response, permits, MANIFEST_MAX).await?;
        Ok(ManifestBody {
            bytes,
            media_type,
            digest_header,
            etag,
        })
    }

    /// Asks whether an image has a blob.
    pub async fn head_blob(
        &self,
        hops: &Hops,
        name: &Name,
        digest: &Digest,
    ) -> Result<BlobHead, Error> {
        let url = self.inner.endpoint.url(&path::blob(name, digest), &[]);
        let ask = Ask {
            kind: "blob",
            method: Method::HEAD,
            url,
            name,
            accept: None,
            range: None,
            hops,
        };
        let (response, _permits) = self.send(&ask).await?;
        Ok(BlobHead {
            size: length(response.headers()),
        })
    }

    /// Every tag of an image, over all pages; what is no tag is left out.
    pub async fn tags(&self, hops: &Hops, name: &Name) -> Result<Vec<String>, Error> {
        let mut tags = Vec::new();
        let first = self.inner.endpoint.url(&path::tags(name), &[("n", "1000")]);
        self.pages(List::Tags, hops, name, first, |page| {
            let page: Value = serde_json::from_slice(page).ok()?;
            match page.get("tags")? {
                Value::Null => {}
                Value::Array(list) => tags.extend(
                    list.iter()
                        .filter_map(Value::as_str)
                        .filter(|tag| Tag::parse(tag).is_ok())
                        .map(str::to_owned),
                ),
                Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
                    return None;
                }
            }
            Some(())
        })
        .await?;
        Ok(tags)
    }

    /// Everything that refers to a manifest, over all pages. `NotFound` means that upstream has no such API.
    pub async fn referrers(
        &self,
        hops: &Hops,
        name: &Name,
        subject: &Digest,
    ) -> Result<Vec<Descriptor>, Error> {
        let mut list = Vec::new();
        let first = self
            .inner
            .endpoint
            .url(&path::referrers(name, subject), &[]);
        self.pages(List::Referrers, hops, name, first, |page| {
            let left = referrers::REFERRERS_MAX.saturating_sub(list.len());
            list.extend(referrers::parse_index(page).ok()?.into_iter().take(left));
            Some(())
        })
        .await?;
        Ok(list)
    }

    /// Follows `Link: rel="next"` on the same origin, at most [`PAGES_MAX`] times, never in a circle.
    async fn pages(
        &self,
        list: List,
        hops: &Hops,
        name: &Name,
        first: Url,
        mut take: impl FnMut(&[u8]) -> Option<()>,
    ) -> Result<(), Error> {
        let mut seen = HashSet::new();
        let mut next = Some(first);
        while let Some(url) = next {
            if seen.len() == PAGES_MAX || !seen.insert(url.clone()) {
                tracing::warn!(repository = self.inner.config.key, %name, kind = list.kind(), "upstream's list has too many pages or runs in a circle; it is cut");
                return Ok(());
            }
            let (kind, accept) = (list.kind(), list.accept().map(HeaderValue::from_static));
            let (response, permits) = self
                .send(&Ask {
                    kind,
                    method: Method::GET,
                    url: url.clone(),
                    name,
                    accept: accept.clone(),
                    range: None,
                    hops,
                })
                .await?;
            if accept.is_some()
                && media_type(response.headers())
                    .is_none_or(|media_type| media_type.as_str() != OCI_INDEX)
            {
                return Err(Error::new(
                    Kind::BadAnswer,
                    "upstream's list has another type than it must have",
                ));
            }
            let links: Vec<String> = response
                .headers()
                .get_all(LINK)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .map(str::to_owned)
                .collect();
            let body = self.whole(response, permits, PAGE_BYTES_MAX).await?;
            take(&body)
                .ok_or_else(|| Error::new(Kind::BadAnswer, "upstream's list cannot be read"))?;
            next = match link::next(links.iter().map(String::as_str)) {
                Some(link) => Some(
                    url.join(&link)
                        .ok()
                        .filter(|next| self.inner.endpoint.is_own(next))
                        .ok_or_else(|| {
                            Error::new(Kind::BadAnswer, "upstream's list goes on at another host")
                        })?,
                ),
                None => None,
            };
        }
        Ok(())
    }

    fn manifest_ask<'a>(
        &self,
        method: Method,
        hops: &'a Hops,
        name: &'a Name,
        reference: &Reference,
    ) -> Ask<'a> {
        let url = self
            .inner
            .endpoint
            .url(&path::manifest(name, reference), &[]);
        let accept = HeaderValue::try_from(MANIFEST_ACCEPT.join(", ")).ok();
        debug_assert!(accept.is_some(), "{ACCEPT} is made of constants");
        Ask {
            kind: "manifest",
            method,
            url,
            name,
            accept,
            range: None,
            hops,
        }
    }

    /// A bounded body, whole.
    async fn whole(
        &self,
        response: Response<Incoming>,
        permits: Permits,
        most: usize,
    ) -> Result<Bytes, Error> {
        let idle = self.inner.config.timeouts.idle;
        let mut body = Limited::new(response.into_body(), most);
        let mut bytes = Vec::new();
        loop {
            let frame = tokio::time::timeout(idle, body.frame())
                .await
                .map_err(|_elapsed| {
                    Error::new(Kind::Timeout, "upstream stalls in the middle of its answer")
                })?;
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|error| {
                if error
                    .downcast_ref::<http_body_util::LengthLimitError>()
                    .is_some()
                {
                    Error::new(
                        Kind::BadAnswer,
                        "upstream sends more than any answer of this kind may have",
                    )
                } else {
                    Error::new(
                        Kind::Unavailable,
                        "upstream broke off in the middle of its answer",
                    )
                }
            })?;
            if let Ok(data) = frame.into_data() {
                bytes.extend_from_slice(&data);
            }
        }
        drop(permits);
        let labels = RepositoryLabels {
            repository: self.inner.config.key.clone(),
        };
        self.inner
            .metrics
            .upstream_bytes
            .get_or_create(&labels)
            .inc_by(bytes.len() as u64);
        Ok(bytes.into())
    }
}

fn digest(headers: &HeaderMap) -> Option<Digest> {
    headers
        .get("docker-content-digest")
        .and_then(|value| value.to_str().ok())
        .and_then(|text| Digest::parse(text).ok())
}

fn media_type(headers: &HeaderMap) -> Option<MediaType> {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(MediaType::parse)
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse().ok())
}

fn etag(headers: &HeaderMap) -> Option<String> {
    headers
        .get(ETAG)
        .and_then(|value| value.to_str().ok())
        .filter(|etag| etag.len() <= 256)
        .map(str::to_owned)
}
