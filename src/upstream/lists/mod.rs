//! Lists that come in pages: tags and referrers (distribution-spec, "Listing Tags", "Listing Referrers"; RELIABILITY U34).
//!
//! A list comes whole or not at all: half a list that looks like a whole one hides tags and signatures.

use std::collections::HashSet;

use bytes::Bytes;
use http::header::{HeaderValue, LINK};
use serde::Deserialize;
use serde_json::value::RawValue;
use url::Url;

use super::endpoint::{Origin, parse};
use super::error::{Error, Kind};
use super::exchange::{Exchange, Question};
use super::hops::Hops;
use super::meter::What;
use crate::oci::referrers::{REFERRERS_MAX, parse_index};
use crate::oci::{Descriptor, Digest, Name, Tag, link, media_type, path};

/// The most pages that are followed.
const PAGES_MAX: usize = 100;
/// The largest page of tags. Google's registries add a description of every manifest to it.
const TAGS_PAGE_MAX: usize = 16 * 1024 * 1024;
/// The largest page of referrers.
const REFERRERS_PAGE_MAX: usize = crate::oci::manifest::MANIFEST_MAX;
/// How many tags one page is asked for; Amazon's registry refuses more.
const PAGE: &str = "1000";

/// The most tags of one image. Their names are bounded, so this bounds the memory too.
const TAGS_MAX: usize = 200_000;

#[derive(Deserialize)]
struct TagList<'a> {
    #[serde(borrow)]
    tags: Option<Vec<&'a RawValue>>,
}

impl Exchange {
    /// All tags, in upstream's order. What is no tag is left out.
    pub(super) async fn tags(&self, hops: &Hops, name: &Name) -> Result<Vec<String>, Error> {
        let first = self.endpoint.url(&path::tags(name), &[("n", PAGE)]);
        let accept = HeaderValue::from_static("application/json");
        let mut pages = Pages::new(self.endpoint.origin().clone(), first);
        let (mut found, mut seen) = (Vec::new(), HashSet::new());
        while let Some(url) = pages.next()? {
            let page = self.page(
                hops,
                name,
                What::Tags,
                url,
                &accept,
                TAGS_PAGE_MAX,
                &mut pages,
            );
            let page = page.await?;
            let list: TagList<'_> =
                serde_json::from_slice(&page).map_err(|_unreadable| self.no_list("tags"))?;
            for tag in list.tags.unwrap_or_default() {
                let tag = serde_json::from_str(tag.get()).ok();
                let Some(tag) = tag.filter(|tag: &String| Tag::parse(tag).is_ok()) else {
                    continue;
                };
                if seen.insert(tag.clone()) {
                    found.push(tag);
                }
            }
            if found.len() > TAGS_MAX {
                let sentence =
                    format!("{} lists more than {TAGS_MAX} tags", self.endpoint.origin());
                return Err(Error::new(Kind::BadAnswer, sentence));
            }
        }
        Ok(found)
    }

    /// What refers to a manifest.
    pub(super) async fn referrers(
        &self,
        hops: &Hops,
        name: &Name,
        digest: &Digest,
    ) -> Result<Vec<Descriptor>, Error> {
        let first = self.endpoint.url(&path::referrers(name, digest), &[]);
        let accept = HeaderValue::from_static(media_type::OCI_INDEX);
        let mut pages = Pages::new(self.endpoint.origin().clone(), first);
        let mut found = Vec::new();
        while let Some(url) = pages.next()? {
            let page = self.page(
                hops,
                name,
                What::Referrers,
                url,
                &accept,
                REFERRERS_PAGE_MAX,
                &mut pages,
            );
            // Registries without this API say so in several ways.
            let bytes = page.await.map_err(|error| match error.status() {
                Some(status @ (400 | 405 | 501)) => {
                    let sentence = format!("{} lists no referrers", self.endpoint.origin());
                    Error::new(Kind::NotFound, sentence).with_status(status)
                }
                _ => error,
            })?;
            found.extend(parse_index(&bytes).map_err(|_invalid| self.no_list("referrers"))?);
            if found.len() > REFERRERS_MAX {
                let sentence = format!(
                    "{} lists more than {REFERRERS_MAX} referrers",
                    self.endpoint.origin()
                );
                return Err(Error::new(Kind::BadAnswer, sentence));
            }
        }
        Ok(found)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one private call site for each of two lists"
    )]
    async fn page(
        &self,
        hops: &Hops,
        name: &Name,
        what: What,
        url: Url,
        accept: &HeaderValue,
        max: usize,
        pages: &mut Pages,
    ) -> Result<Bytes, Error> {
        let question = Question {
            hops,
            name,
            what,
            is_head: false,
            url,
            digest: None,
            accept: accept.clone(),
            range: None,
            is_extra: false,
        };
        let answer = self.ask(&question).await?;
        let lines = answer.head.headers.get_all(LINK);
        pages.further(link::next(
            lines.iter().filter_map(|line| line.to_str().ok()),
        ))?;
        let _place = answer.permit;
        let bytes = answer.flow.collect(max).await?;
        self.meter.came(bytes.len());
        Ok(bytes)
    }

    fn no_list(&self, of: &str) -> Error {
        let sentence = format!("{} answered with no list of {of}", self.endpoint.origin());
        Error::new(Kind::BadAnswer, sentence)
    }
}

/// The pages of one list.
#[derive(Debug)]
pub(super) struct Pages {
    own: Origin,
    at: Url,
    next: Option<Url>,
    seen: HashSet<Url>,
}

impl Pages {
    pub(super) fn new(own: Origin, first: Url) -> Self {
        Self {
            own,
            at: first.clone(),
            next: Some(first),
            seen: HashSet::new(),
        }
    }

    /// The page to fetch now.
    pub(super) fn next(&mut self) -> Result<Option<Url>, Error> {
        let Some(url) = self.next.take() else {
            return Ok(None);
        };
        if !self.seen.insert(url.clone()) {
            return Err(self.wrong("lists in a circle"));
        }
        if self.seen.len() > PAGES_MAX {
            return Err(self.wrong("lists without end"));
        }
        self.at = url.clone();
        Ok(Some(url))
    }

    /// Takes note of what the page said of the next one.
    pub(super) fn further(&mut self, target: Option<String>) -> Result<(), Error> {
        let Some(target) = target else { return Ok(()) };
        let url = parse(&target, Some(&self.at))
            .map_err(|_unusable| self.wrong("names a next page that is no URL"))?;
        if Origin::of(&url).as_ref() != Some(&self.own) {
            return Err(self.wrong("names a next page elsewhere, which is not asked"));
        }
        self.next = Some(url);
        Ok(())
    }

    fn wrong(&self, what: &str) -> Error {
        Error::new(Kind::BadAnswer, format!("{} {what}", self.own))
    }
}

#[cfg(test)]
mod tests;
