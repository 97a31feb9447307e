//! Virtual repositories: one name over several. First hit wins; an outage never reads as absence.
//!
//! Members are asked in their order; of remotes that stand side by side, those that know the content from before come first. A name that a
//! local member holds is not asked of remotes at all, unless `local_names = "shared"` (`library/…` aside): nobody can put an image of that
//! name upstream and have it pulled here (dependency confusion).

use std::collections::BTreeSet;
use std::sync::Arc;

use tracing::warn;

use super::image::{Found, Repository};
use super::key::Key;
use super::member::Filter;
use super::{Error, Verdict};
use crate::cache::{self, CacheStatus, OpenBlob, OpenManifest, Outcome, PullThrough, Reason, Want};
use crate::clock::Wall;
use crate::oci::{Accept, Descriptor, Digest, Name, Reference, Tag};
use crate::overlay::Local;
use crate::upstream::Hops;

/// Names that are Docker's own: a local image of one shadows single tags, and the others still come from upstream.
const LIBRARY: &str = "library/";

/// One member; never a virtual one: those are replaced by their members.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its key.
    pub key: Key,
    /// A remote or a local repository.
    pub repository: Repository,
    /// What it is asked for: all of these.
    pub filters: Vec<Filter>,
}

/// What a virtual repository is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// In the order in which they are asked.
    pub members: Vec<Member>,
    /// Where pushes and deletes go.
    pub deploy_to: Option<Local>,
    /// The newest tag of all members wins instead of the first.
    pub by_timestamp: bool,
    /// Whether a name that a local member holds is kept from remotes.
    pub exclusive_names: bool,
}

/// One name over several repositories. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Virtual {
    key: Key,
    config: Arc<Config>,
}

/// What came of asking the members.
#[derive(Debug, Default)]
struct Misses {
    outage: Option<Error>,
    refusal: Option<Error>,
    absence: Option<Error>,
}

impl Misses {
    /// One member's answer: found, or noted.
    fn take<T>(
        &mut self,
        member: &Member,
        answer: Result<Found<T>, Error>,
    ) -> Result<Option<Found<T>>, Error> {
        match answer {
            Ok(found) => Ok(Some(found.of(&member.key))),
            Err(error) => self.note(member, error).map(|()| None),
        }
    }

    /// Takes note of a member that did not have it; gives back what ends the search.
    fn note(&mut self, member: &Member, error: Error) -> Result<(), Error> {
        match error.verdict() {
            Verdict::Absent => {
                // What a member says of itself, such as "denied", is not told of the whole.
                let nothing = Error::Remote(cache::Error::NotFound);
                let error = if error.is_nothing() || error.is_offline() {
                    error
                } else {
                    nothing
                };
                // Nobody has asked the one that may not be asked: that says more than that the others do not have it.
                if error.is_offline() {
                    self.absence = Some(error);
                } else {
                    self.absence.get_or_insert(error);
                }
            }
            // It has been logged where it was decided.
            Verdict::Failed if error.is_refusal() => {
                self.refusal.get_or_insert(error);
            }
            Verdict::Failed => {
                warn!(member = %member.key, %error, "a member of a virtual repository failed; the others are asked");
                self.outage.get_or_insert(error);
            }
            Verdict::Final => return Err(error),
        }
        Ok(())
    }

    /// Why nobody had it: a failure before a refusal, and that before an absence.
    fn error(self) -> Error {
        self.outage
            .or(self.refusal)
            .or(self.absence)
            .unwrap_or(Error::Remote(cache::Error::NotFound))
    }
}

impl Virtual {
    /// The virtual repository `key`.
    pub fn new(key: Key, config: Config) -> Self {
        Self {
            key,
            config: Arc::new(config),
        }
    }

    /// The repository key.
    pub const fn key(&self) -> &Key {
        &self.key
    }

    /// The keys of its members, in their order.
    pub fn members(&self) -> impl Iterator<Item = &Key> {
        self.config.members.iter().map(|member| &member.key)
    }

    /// One of the members.
    pub(super) fn member(&self, key: &Key) -> Option<&Repository> {
        let found = self.config.members.iter().find(|one| one.key == *key);
        found.map(|member| &member.repository)
    }

    /// The remote in which what is brought under a name is found again: the first that takes the name.
    pub fn remote_for(&self, name: &Name) -> Option<&PullThrough> {
        let mut taking = self
            .config
            .members
            .iter()
            .filter(|member| member.takes(name));
        taking.find_map(|member| match &member.repository {
            Repository::Remote(remote) => Some(remote),
            Repository::Local(_) | Repository::Virtual(_) => None,
        })
    }

    /// Where pushes and deletes go.
    pub fn target(&self) -> Option<&Local> {
        self.config.deploy_to.as_ref()
    }

    /// Where pushes and deletes of a name go: nowhere, where that member is not asked for the name and it could not be pulled again.
    pub fn deploy_to(&self, name: &Name) -> Option<&Local> {
        let target = self.target()?;
        let mut members = self.config.members.iter();
        members
            .any(|member| member.key.as_str() == target.key() && member.takes(name))
            .then_some(target)
    }

    /// Opens a blob for reading.
    pub async fn open_blob(
        &self,
        hops: &Hops,
        name: &Name,
        digest: &Digest,
    ) -> Result<Found<OpenBlob>, Error> {
        let mut misses = Misses::default();
        let members = self.ordered(name, Sought::Digest(digest)).await?;
        for member in members {
            let answer = member.repository.open_blob(hops, name, digest).await;
            let found = misses.take(member, answer)?;
            if let Some(found) = found {
                return Ok(found);
            }
        }
        Err(misses.error())
    }

    /// What is known of a blob without moving its bytes.
    pub async fn stat_blob(
        &self,
        hops: &Hops,
        name: &Name,
        digest: &Digest,
    ) -> Result<Found<(Option<u64>, CacheStatus)>, Error> {
        let mut misses = Misses::default();
        let members = self.ordered(name, Sought::Digest(digest)).await?;
        for member in members {
            let answer = member.repository.stat_blob(hops, name, digest).await;
            let found = misses.take(member, answer)?;
            if let Some(found) = found {
                return Ok(found);
            }
        }
        Err(misses.error())
    }

    /// A manifest by digest from any member that has it; by tag from the first, or from that where the tag is newest.
    pub async fn manifest(
        &self,
        hops: &Hops,
        name: &Name,
        reference: &Reference,
        accept: &Accept,
        want: Want,
    ) -> Result<Found<OpenManifest>, Error> {
        let sought = match reference {
            Reference::Tag(tag) if self.config.by_timestamp => {
                return self.newest(hops, name, tag, accept, want).await;
            }
            Reference::Tag(tag) => Sought::Tag(tag),
            Reference::Digest(digest) => Sought::Digest(digest),
        };
        let mut misses = Misses::default();
        let members = self.ordered(name, sought).await?;
        for member in members {
            let asked = member
                .repository
                .manifest(hops, name, reference, accept, want);
            let found = misses.take(member, asked.await)?;
            if let Some(found) = found {
                return Ok(found);
            }
        }
        Err(misses.error())
    }

    /// Every tag that any member has, sorted. Flagged where a member could not be asked.
    pub async fn tags(
        &self,
        hops: &Hops,
        name: &Name,
    ) -> Result<Found<(Arc<Vec<String>>, CacheStatus)>, Error> {
        let mut tags = BTreeSet::new();
        let (mut any, mut misses) = (false, Misses::default());
        for member in self.reachable(name).await? {
            match member.repository.tags(hops, name).await {
                Ok(found) => {
                    any = true;
                    tags.extend(found.what.0.iter().cloned());
                }
                Err(error) => misses.note(member, error)?,
            }
        }
        // An empty list says nothing while somebody else could not be asked.
        if !any || (tags.is_empty() && misses.outage.is_some()) {
            return Err(misses.error());
        }
        let status = merged(&misses);
        Ok(Found::here((Arc::new(tags.into_iter().collect()), status)))
    }

    /// What refers to a manifest, in any member.
    pub async fn referrers(
        &self,
        hops: &Hops,
        name: &Name,
        subject: &Digest,
    ) -> Result<Found<(Vec<Descriptor>, CacheStatus)>, Error> {
        let mut list: Vec<Descriptor> = Vec::new();
        let (mut any, mut misses) = (false, Misses::default());
        for member in self.reachable(name).await? {
            match member.repository.referrers(hops, name, subject).await {
                Ok(found) => {
                    any = true;
                    for descriptor in found.what.0 {
                        if list
                            .iter()
                            .all(|known| known.digest() != descriptor.digest())
                        {
                            list.push(descriptor);
                        }
                    }
                }
                Err(error) if error.is_absence() && !error.is_nothing() => {
                    misses.outage.get_or_insert(error);
                }
                Err(error) => misses.note(member, error)?,
            }
        }
        // A list without what a failed member would have added is no list: a signature that is missing looks like none.
        if let Some(outage) = misses.outage.take() {
            return Err(outage);
        }
        if !any {
            return Err(misses.error());
        }
        let status = merged(&misses);
        Ok(Found::here((list, status)))
    }

    /// The images that are known in the members, sorted.
    pub async fn names(&self) -> Result<Vec<String>, Error> {
        let mut names = BTreeSet::new();
        for member in &self.config.members {
            for known in member.repository.names().await? {
                if Name::parse(&known).is_ok_and(|name| member.takes(&name)) {
                    names.insert(known);
                }
            }
        }
        Ok(names.into_iter().collect())
    }

    /// The members that a name reaches, in their order.
    async fn reachable(&self, name: &Name) -> Result<Vec<&Member>, Error> {
        let members = self.config.members.iter();
        let mut members: Vec<&Member> = members.filter(|member| member.takes(name)).collect();
        if self.holder(name).await?.is_some() {
            members.retain(|member| matches!(member.repository, Repository::Local(_)));
        }
        Ok(members)
    }

    /// The local member that holds a name, where remotes are therefore not asked for it. Patterns do not matter: a name that is held here is nobody
    /// else's to fill.
    pub async fn holder(&self, name: &Name) -> Result<Option<&Local>, Error> {
        if self.config.exclusive_names && !name.as_str().starts_with(LIBRARY) {
            for member in &self.config.members {
                if let Repository::Local(local) = &member.repository
                    && local.state(name).await?.is_held
                {
                    return Ok(Some(local));
                }
            }
        }
        Ok(None)
    }

    /// Every member with whether it would be asked for a manifest, those that would in their order first.
    pub(super) async fn standing(
        &self,
        name: &Name,
        reference: &Reference,
    ) -> Result<Vec<(Key, Standing<'_>)>, Error> {
        let sought = match reference {
            Reference::Tag(tag) => Sought::Tag(tag),
            Reference::Digest(digest) => Sought::Digest(digest),
        };
        let asked = self.ordered(name, sought).await?;
        let is_asked = |member: &Member| asked.iter().any(|one| one.key == member.key);
        let mut standing: Vec<(Key, Standing<'_>)> = asked
            .iter()
            .map(|member| (member.key.clone(), Standing::Asked(&member.repository)))
            .collect();
        for member in self.config.members.iter().filter(|one| !is_asked(one)) {
            let why = if !member.takes(name) {
                "its patterns leave this name out"
            } else if matches!(member.repository, Repository::Local(_)) {
                "it has no image of that name"
            } else {
                "a local member holds the name, which is then not asked upstream (local_names)"
            };
            standing.push((member.key.clone(), Standing::NotAsked(why)));
        }
        Ok(standing)
    }

    /// Whether the member with the newest tag answers, whatever their order.
    pub(super) fn takes_newest(&self, reference: &Reference) -> bool {
        self.config.by_timestamp && matches!(reference, Reference::Tag(_))
    }

    /// The same, with remotes that know the content before the others that stand beside them.
    async fn ordered(&self, name: &Name, sought: Sought<'_>) -> Result<Vec<&Member>, Error> {
        let mut ordered: Vec<&Member> = Vec::new();
        let mut others: Vec<&Member> = Vec::new();
        let reachable = self.reachable(name).await?;
        let remotes = reachable
            .iter()
            .filter(|member| matches!(member.repository, Repository::Remote(_)));
        // One has nobody to come before.
        let several = remotes.count() > 1;
        for member in reachable {
            match &member.repository {
                Repository::Local(local) if !local.state(name).await?.is_there => {}
                Repository::Remote(_) if !several => ordered.push(member),
                Repository::Remote(remote) => {
                    let knows = match sought {
                        Sought::Tag(tag) => remote.knows_tag(name, tag).await,
                        Sought::Digest(digest) => remote.knows(name, digest).await,
                    };
                    if knows {
                        ordered.push(member);
                    } else {
                        others.push(member);
                    }
                }
                Repository::Local(_) | Repository::Virtual(_) => {
                    ordered.append(&mut others);
                    ordered.push(member);
                }
            }
        }
        ordered.append(&mut others);
        Ok(ordered)
    }

    /// The manifest of the member where the tag is newest: by push time, or by when upstream was seen to move it.
    async fn newest(
        &self,
        hops: &Hops,
        name: &Name,
        tag: &Tag,
        accept: &Accept,
        want: Want,
    ) -> Result<Found<OpenManifest>, Error> {
        let reference = Reference::Tag(tag.clone());
        let members = self.reachable(name).await?;
        let looks = members.iter().map(|member| look(member, hops, name, tag));
        let looks = futures_util::future::join_all(looks).await;
        let mut misses = Misses::default();
        let mut newest: Option<(Wall, &Member)> = None;
        for (member, moved) in members.iter().zip(looks) {
            match moved {
                // Of equals the first.
                Ok(moved) if newest.is_none_or(|(best, _)| moved > best) => {
                    newest = Some((moved, member));
                }
                Ok(_) => {}
                Err(error) => misses.note(member, error)?,
            }
        }
        let Some((_, member)) = newest else {
            return Err(misses.error());
        };
        let found = member
            .repository
            .manifest(hops, name, &reference, accept, want)
            .await?;
        Ok(found.of(&member.key))
    }
}

/// Whether a member would be asked.
#[derive(Debug)]
pub(super) enum Standing<'a> {
    /// It would.
    Asked(&'a Repository),
    /// It would not, and why.
    NotAsked(&'static str),
}

/// What members are asked for, as far as their order depends on it.
#[derive(Debug, Clone, Copy)]
enum Sought<'a> {
    Tag(&'a Tag),
    Digest(&'a Digest),
}

impl Member {
    fn takes(&self, name: &Name) -> bool {
        self.filters.iter().all(|filter| filter.takes(name))
    }
}

/// When a member's tag last moved.
async fn look(member: &Member, hops: &Hops, name: &Name, tag: &Tag) -> Result<Wall, Error> {
    match &member.repository {
        Repository::Local(local) => Ok(local.tag_pushed(name, tag).await?),
        Repository::Remote(remote) => {
            let accept = Accept::everything();
            Ok(remote.tag_moved(hops, name, tag, &accept).await?)
        }
        Repository::Virtual(_) => Err(Error::Remote(cache::Error::NotFound)),
    }
}

/// How a list that was put together is flagged.
const fn merged(misses: &Misses) -> CacheStatus {
    if misses.outage.is_some() {
        CacheStatus::new(Outcome::Stale, Reason::UpstreamFailed)
    } else {
        CacheStatus::new(Outcome::None, Reason::Unknown)
    }
}
