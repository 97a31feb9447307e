//! Admission carried out: what [`admit`](super::admit) has to know is looked up, here or upstream, and what it decides is written down.
//!
//! Every manifest that leaves a remote with rules has passed [`PullThrough::judge`], by tag and by digest alike. Once admitted, a digest
//! stays so until the key or the size asked for is another; a refusal is thought over when the tag's TTL is over. What cannot be judged
//! because upstream does not answer is not admitted.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tracing::{info, warn};

use super::admit::{self, Asked, Candidate, Decision, Facts, Refusal, SIMPLE_SIGNING, Signature};
use super::cosign::PublicKey;
use super::error::Error;
use super::follow::Promise;
use super::learn::{learn, recall};
use super::manifests::{OpenManifest, Stored, Told, Want};
use super::pull_through::{Inner, PullThrough};
use super::tags::age_key;
use crate::clock;
use crate::oci::{Descriptor, Digest, Manifest, Name, Reference, Tag, referrers};
use crate::store::index::{StandingRow, TagRow};
use crate::upstream::Hops;

/// Where cosign puts a signature that refers to its image.
const SIGNATURE_ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
/// Where it writes the signature itself.
const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// The terms of what is about an image, which no other tag may mean by that.
const ABOUT: &str = "about";
/// Signatures that are tried for one digest, and referrers that may hold them.
const SIGNATURES_MAX: usize = 32;
const REFERRERS_MAX: usize = 8;
/// The longest payload and signature.
const PAYLOAD_MAX: u64 = 64 * 1024;
const SIGNATURE_TEXT_MAX: usize = 8 * 1024;

impl PullThrough {
    /// Whether `digest` may be served under `name`, as what it was asked for; the error names the rule that it may not by.
    pub(super) async fn judge(
        &self,
        hops: &Hops,
        name: &Name,
        asked: Asked,
        digest: &Digest,
    ) -> Result<(), Error> {
        let Inner { config, judged, .. } = &*self.inner;
        if config.admit.is_empty() {
            return Ok(());
        }
        match judged.refusal(&judged_key(name, asked, digest)) {
            Some(refusal) => Err(Error::Refused(refusal)),
            None => self.judge_again(hops, name, asked, digest).await,
        }
    }

    /// The same, where an earlier refusal does not count: upstream has just been asked what a tag means, which happens once in a TTL.
    pub(super) async fn judge_again(
        &self,
        hops: &Hops,
        name: &Name,
        asked: Asked,
        digest: &Digest,
    ) -> Result<(), Error> {
        let Inner { config, judged, .. } = &*self.inner;
        let key = judged_key(name, asked, digest);
        if config.admit.is_empty() || judged.is_admitted(&key) {
            return Ok(());
        }
        let (this, hops, asked_name, wanted) =
            (self.clone(), hops.clone(), name.clone(), digest.clone());
        let landed = self.inner.judgements.run(key.clone(), || async move {
            Box::pin(this.judge_anew(&hops, &asked_name, asked, &wanted)).await
        });
        let outcome = landed.await.ok_or(Error::GivenUp)?.value;
        match &outcome {
            Ok(()) => judged.admit(&key),
            Err(Error::Refused(refusal)) => {
                judged.refuse(&key, refusal);
                // Once, however it is asked for.
                if !refusal.rule.is_of_name() && judged.refuse(&format!("{name}@{digest}"), refusal)
                {
                    let (repository, rule) = (&self.inner.key, refusal.rule.as_str());
                    info!(repository, %name, %digest, rule, why = %refusal.rule, "a digest is not admitted");
                }
            }
            Err(_nobody_could_say) => {}
        }
        outcome
    }

    /// What a tag means now, as far as the rules admit it.
    pub(super) async fn admitted(
        &self,
        hops: &Hops,
        name: &Name,
        tag: &Tag,
        want: Want,
    ) -> Result<OpenManifest, Error> {
        if let Some(refusal) = self.refuses_name(name) {
            return Err(Error::Refused(refusal));
        }
        let open = self.current(hops, name, tag, want).await?;
        // What came before there were rules, or before these, has not been judged.
        self.judge(hops, name, Asked::by(tag), &open.told.digest)
            .await?;
        Ok(open)
    }

    /// Writes down that upstream lets a tag mean something that is not admitted.
    pub(super) async fn note_refused(
        &self,
        name: &Name,
        tag: &Tag,
        before: Option<TagRow>,
        told: &Told,
        refusal: &Refusal,
    ) {
        let Inner {
            key,
            shared,
            absences,
            ages,
            judged,
            ..
        } = &*self.inner;
        let memory = age_key(name, tag);
        absences.forget(&memory);
        let Some(before) = before else {
            // Nothing was ever served, so there is no row; the next who ask are told without a question upstream.
            judged.refuse(&memory, refusal);
            return;
        };
        let row = TagRow {
            observed: told.digest.clone(),
            checked: clock::now(),
            gone: None,
            ..before
        };
        let index = shared.store.index();
        if learn("tag", index.put_tag(key, name, tag, row, "upstream")).await {
            ages.note(&memory, Duration::ZERO);
        }
    }

    /// Whether what is read as a blob may be. A manifest stays one whatever it is asked for as; layers are reached only through what is
    /// admitted, so of them the name alone is judged.
    pub(super) async fn judge_blob(
        &self,
        hops: &Hops,
        name: &Name,
        digest: &Digest,
    ) -> Result<(), Error> {
        let Inner { config, shared, .. } = &*self.inner;
        if config.admit.is_empty() {
            return Ok(());
        }
        let row = shared.store.index().manifest(digest);
        if recall("manifest", config.offline, row).await?.is_some() {
            return self.judge(hops, name, Asked::Digest, digest).await;
        }
        match self.refuses_name(name) {
            Some(refusal) if !self.standing(name, digest).await?.pinned => {
                Err(Error::Refused(refusal))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Why this was refused, as what it was asked for, where that is remembered.
    pub(super) fn refusal_of(&self, name: &Name, asked: Asked, digest: &Digest) -> Option<Refusal> {
        let key = judged_key(name, asked, digest);
        self.inner.judged.refusal(&key)
    }

    /// Whether this was let through before, under the rules of now.
    pub(super) async fn lets_through(
        &self,
        name: &Name,
        asked: Asked,
        digest: &Digest,
    ) -> Result<bool, Error> {
        let Inner { config, judged, .. } = &*self.inner;
        if judged.is_admitted(&judged_key(name, asked, digest)) {
            return Ok(true);
        }
        let standing = self.standing(name, digest).await?;
        Ok(is_admitted(&standing, asked, &config.admit.terms()))
    }

    /// What the patterns say of a name. Logged once for each.
    fn refuses_name(&self, name: &Name) -> Option<Refusal> {
        let Inner {
            key,
            config,
            judged,
            ..
        } = &*self.inner;
        let rule = config.admit.refuses_name(name)?;
        let refusal = Refusal { digest: None, rule };
        if judged.refuse(name.as_str(), &refusal) {
            info!(repository = key, %name, rule = rule.as_str(), why = %rule, "an image is not admitted");
        }
        Some(refusal)
    }

    /// Whether what upstream says of a tag now waits to be admitted.
    pub(super) async fn holds_back(
        &self,
        name: &Name,
        asked: Asked,
        digest: &Digest,
    ) -> Result<bool, Error> {
        let rules = &self.inner.config.admit;
        if rules.is_empty() {
            return Ok(false);
        }
        let standing = self.standing(name, digest).await?;
        Ok(!is_admitted(&standing, asked, &rules.terms()))
    }

    /// An operator wants this digest, whatever the rules say.
    pub(super) async fn admit_pinned(&self, name: &Name, digest: &Digest) {
        let Inner {
            key,
            config,
            shared,
            judged,
            ..
        } = &*self.inner;
        let memory = format!("pin {name}@{digest}");
        if config.admit.is_empty() || judged.is_admitted(&memory) {
            return;
        }
        let index = shared.store.index();
        let written = index.admit_pinned(key, name, digest, clock::now());
        if learn("admission", written).await {
            judged.admit(&memory);
            self.reconsider(name);
        }
    }

    async fn standing(&self, name: &Name, digest: &Digest) -> Result<StandingRow, Error> {
        let Inner {
            key,
            config,
            shared,
            ..
        } = &*self.inner;
        let terms = config.admit.terms();
        let standing = shared.store.index().standing(key, name, digest, &terms);
        recall("admission", config.offline, standing).await
    }

    async fn judge_anew(
        &self,
        hops: &Hops,
        name: &Name,
        asked: Asked,
        digest: &Digest,
    ) -> Result<(), Error> {
        let Inner {
            key,
            config,
            shared,
            ..
        } = &*self.inner;
        let (rules, terms) = (&config.admit, config.admit.terms());
        let standing = self.standing(name, digest).await?;
        let refused_name = self.refuses_name(name);
        if standing.pinned || (refused_name.is_none() && is_admitted(&standing, asked, &terms)) {
            return Ok(());
        }
        if let Some(refusal) = refused_name {
            return Err(Error::Refused(refusal));
        }
        let index = shared.store.index();
        let mut facts = None;
        if asked == Asked::Digest && standing.first_seen.is_none() {
            // What a client makes up has not been seen: upstream has to show it first.
            facts = Some(self.facts(hops, name, digest).await?);
        }
        let now = clock::now();
        // Where it cannot be written down it counts from now, and is written down the next time.
        let seen = index.see(key, name, digest, now).await;
        let first_seen = seen.inspect_err(
            |error| warn!(%error, "when a digest was first seen could not be written"),
        );
        let mut candidate = Candidate {
            name,
            asked,
            first_seen: first_seen.unwrap_or(now),
            is_vouched: standing.vouched,
            facts,
            signature: None,
        };
        let about = loop {
            match admit::decide(rules, &candidate, now) {
                Decision::Admitted { about } => break about,
                Decision::Refused(rule) => {
                    let digest = Some(digest.clone());
                    return Err(Error::Refused(Refusal { digest, rule }));
                }
                Decision::NeedsFacts => {
                    candidate.facts = Some(self.facts(hops, name, digest).await?);
                }
                Decision::NeedsSignature => {
                    candidate.signature = Some(match &rules.cosign_key {
                        Some(key) => self.signature(hops, name, digest, key).await?,
                        None => Signature::Missing,
                    });
                }
            }
        };
        let vouches = rules.cosign_key.is_some() || !rules.min_age.is_zero();
        if vouches && candidate.facts.is_none() {
            // What it lists has to be known: clients that have an index ask for its platforms alone.
            self.facts(hops, name, digest).await?;
        }
        let terms = if about { ABOUT } else { &terms };
        learn("admission", index.admit(key, name, digest, terms, now)).await;
        self.reconsider(name);
        Ok(())
    }

    /// Something of an image was admitted, and what it contains may have been refused before.
    pub(super) fn reconsider(&self, name: &Name) {
        let begin = format!("{} {name}@", Asked::Digest.as_str());
        self.inner.judged.reconsider(&begin);
    }

    async fn facts(&self, hops: &Hops, name: &Name, digest: &Digest) -> Result<Facts, Error> {
        let open = self.open_manifest(hops, name, digest, Want::Body).await?;
        let bytes = open.bytes.unwrap_or_default();
        let manifest = Manifest::parse(&bytes, Some(&open.told.media_type));
        Ok(Facts::of(&manifest.map_err(Error::Manifest)?))
    }

    /// Looks for a signature: under the tag that cosign makes of the digest, then among what refers to it.
    async fn signature(
        &self,
        hops: &Hops,
        name: &Name,
        digest: &Digest,
        key: &PublicKey,
    ) -> Result<Signature, Error> {
        if self.inner.config.offline {
            return Err(Error::Offline);
        }
        let tag = format!("{}-{}.sig", digest.algorithm().as_str(), digest.hex());
        let mut found = Signature::Missing;
        if let Ok(tag) = Tag::parse(&tag) {
            match self.fetch_manifest(hops, name, &Reference::Tag(tag)).await {
                Ok((manifest, _)) => {
                    found = self.verify(hops, name, digest, key, &manifest).await?;
                }
                Err(Error::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        if found == Signature::Verified {
            return Ok(found);
        }
        // Not what was known of it: a list that is old may lack the signature, and would pass an outage off as its absence.
        let referrers = match self.fetch_referrers(hops, name, digest).await {
            Ok((list, _)) => referrers::parse_index(&list).map_err(Error::Manifest)?,
            Err(Error::NotFound) => return Ok(found),
            Err(error) => return Err(error),
        };
        let signs = |one: &&Descriptor| one.artifact_type() == Some(SIGNATURE_ARTIFACT);
        for referrer in referrers.iter().filter(signs).take(REFERRERS_MAX) {
            let reference = Reference::Digest(referrer.digest().clone());
            let (manifest, _) = self.fetch_manifest(hops, name, &reference).await?;
            match self.verify(hops, name, digest, key, &manifest).await? {
                Signature::Missing => {}
                Signature::Wrong => found = Signature::Wrong,
                Signature::Verified => return Ok(Signature::Verified),
            }
        }
        Ok(found)
    }

    /// Tries the signatures that a manifest of cosign's holds.
    async fn verify(
        &self,
        hops: &Hops,
        name: &Name,
        digest: &Digest,
        key: &PublicKey,
        manifest: &Stored,
    ) -> Result<Signature, Error> {
        let Ok(manifest) = Manifest::parse(&manifest.bytes, Some(&manifest.media_type)) else {
            return Ok(Signature::Missing);
        };
        let mut found = Signature::Missing;
        for layer in manifest.layers().iter().take(SIGNATURES_MAX) {
            let Some(signature) = signature_of(layer) else {
                continue;
            };
            found = Signature::Wrong;
            let payload = match self.payload(hops, name, layer.digest()).await {
                Ok(payload) => payload,
                // One that is not there proves nothing, and others may.
                Err(Error::NotFound | Error::StillAbsent) => continue,
                Err(error) => return Err(error),
            };
            if key.signed(&payload, &signature, digest) {
                return Ok(Signature::Verified);
            }
        }
        Ok(found)
    }

    /// A small blob, whole.
    async fn payload(&self, hops: &Hops, name: &Name, digest: &Digest) -> Result<Bytes, Error> {
        let open = Box::pin(self.open_any_blob(hops, name, digest)).await?;
        // What upstream has under that digest may be longer than the manifest says.
        if open.size().is_none_or(|size| size > PAYLOAD_MAX) {
            return Ok(Bytes::new());
        }
        let mut body = Box::pin(open.read(0, open.size(), Promise::ToEnd));
        let mut payload = Vec::new();
        while let Some(chunk) = body.next().await {
            payload.extend_from_slice(&chunk.map_err(|_broke_off| Error::GivenUp)?);
        }
        Ok(payload.into())
    }
}

pub(super) fn judged_key(name: &Name, asked: Asked, digest: &Digest) -> String {
    format!("{} {name}@{digest}", asked.as_str())
}

/// Whether it was decided before that this may be served as what it is asked for.
fn is_admitted(standing: &StandingRow, asked: Asked, terms: &str) -> bool {
    let own = standing.terms.as_deref();
    standing.pinned || own == Some(terms) || (own == Some(ABOUT) && asked != Asked::Tag)
}

/// The signature that a layer holds, if it is one of cosign's.
fn signature_of(layer: &Descriptor) -> Option<Vec<u8>> {
    if layer.media_type() != SIMPLE_SIGNING || layer.size() > PAYLOAD_MAX {
        return None;
    }
    let text = layer.annotations().get(SIGNATURE_ANNOTATION)?;
    (text.len() <= SIGNATURE_TEXT_MAX)
        .then(|| BASE64_STANDARD.decode(text).ok())
        .flatten()
}
