//! Which image of which repository is meant by what somebody wants, and all that it is made of.

use std::collections::{BTreeSet, HashMap};

use futures_util::stream::{self, StreamExt as _};

use super::archive::ImageRef;
use super::asked::Asked;
use super::list::{Image, ListError, Pick, PickError, Place, Referrers, Source, Wanted};
use super::lock::{LockError, Locked};
use super::progress::{Event, Progress};
use crate::oci::{Digest, Name, Platform, Reference};
use crate::repository::records::Pulled;
use crate::repository::{
    About, Error, GatherError, Gathered, Gathering, Key, Repository, Snapshot, Taken,
};
use crate::upstream::Hops;

/// What stands for the file of what was pulled.
const PULLED: &str = "what was pulled";
/// How many images are looked at at a time.
const AT_ONCE: usize = 4;

/// One image that is wanted.
#[derive(Debug, Clone)]
pub struct Sought {
    /// Its full name.
    pub image: ImageRef,
    /// The key of the repository that a pull of it would ask.
    pub key: Key,
    /// That repository.
    pub repository: Repository,
    /// Its name there.
    pub name: Name,
    /// What is asked for there: the tag, or the digest that it was locked to.
    pub reference: Reference,
    /// What is taken of an index.
    pub taken: Taken,
    /// What comes along.
    pub about: About,
    /// Where it was asked for.
    pub source: Source,
}

/// Why something that is wanted is not had.
#[derive(Debug, thiserror::Error)]
pub enum Why {
    /// No repository of this mirror has it.
    #[error(
        "no repository of this mirror has the key `{0}` or serves a host of that name; add one to the configuration"
    )]
    Nowhere(String),
    /// Its repository cannot be used.
    #[error(
        "the repository `{0}` cannot be used as it is configured; the log of the start says why"
    )]
    LeftOut(Key),
    /// It is no image.
    #[error("{0}")]
    NoImage(String),
    /// Its name is to mean two things.
    #[error("it is asked for as {0} and as {1}; leave one of them out")]
    Twice(String, String),
    /// Nothing fits.
    #[error(transparent)]
    Pick(#[from] PickError),
    /// Its tags cannot be listed.
    #[error("its tags cannot be listed: {0}")]
    Tags(Error),
    /// Its repository does not give it.
    #[error(transparent)]
    Gather(#[from] GatherError),
    /// It cannot be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
}

/// Something that is wanted and not had.
#[derive(Debug)]
pub struct Trouble {
    /// What was asked for.
    pub image: String,
    /// Where.
    pub source: Source,
    /// What is wrong.
    pub why: Why,
}

impl Trouble {
    /// As it is told.
    pub fn event(&self) -> Event {
        Event::Trouble {
            image: self.image.clone(),
            source: self.source.to_string(),
            error: self.why.to_string(),
        }
    }
}

/// What was looked for.
#[derive(Debug)]
pub struct Search<'a> {
    /// The repositories.
    pub there: &'a Snapshot,
    /// Who asks.
    pub hops: &'a Hops,
    /// What was pulled, if that is asked for.
    pub pulled: &'a [Pulled],
    /// Who is told of it.
    pub progress: &'a Progress,
}

impl Search<'_> {
    /// Everything that is asked for, each full name once.
    pub async fn find(&self, asked: &Asked) -> Result<(Vec<Sought>, Vec<Trouble>), ListError> {
        let (mut found, mut troubles) = (Vec::new(), Vec::new());
        let lock = asked.locked()?;
        if let Some(lock) = lock {
            let file = asked.lock.as_ref().map(|lock| lock.file.clone());
            let source = Source {
                file: file.unwrap_or_default(),
                line: None,
            };
            for (image, locked) in lock.images() {
                match self.locked(image, locked, &source) {
                    Ok(sought) => found.push(sought),
                    Err(why) => troubles.push(Trouble {
                        image: image.to_owned(),
                        source: source.clone(),
                        why,
                    }),
                }
            }
        }
        let platforms = asked.platforms()?;
        for pulled in self.pulled {
            let source = Source {
                file: PULLED.to_owned(),
                line: None,
            };
            match self.as_pulled(pulled, (&platforms, asked.with_referrers), &source) {
                Ok(sought) => found.push(sought),
                Err(why) => troubles.push(Trouble {
                    image: format!("{}/{}", pulled.repository, pulled.image),
                    source,
                    why,
                }),
            }
        }
        let wanted = asked.wanted()?;
        // Made before they are awaited: a closure over references inside of the stream is not `Send` for every lifetime.
        let all: Vec<_> = wanted.iter().map(|wanted| self.meant_by(wanted)).collect();
        let mut all = stream::iter(all).buffered(AT_ONCE);
        while let Some((wanted, meant)) = all.next().await {
            match meant {
                Ok(sought) => found.extend(sought),
                Err(why) => troubles.push(Trouble {
                    image: wanted.image.clone(),
                    source: wanted.source.clone(),
                    why,
                }),
            }
        }
        let (found, twice) = each_once(found);
        troubles.extend(twice);
        Ok((found, troubles))
    }

    /// All that each of them is made of, in their order. Manifests come into the store with it; blobs do not.
    pub async fn gather(&self, all: Vec<Sought>) -> (Vec<(Sought, Gathered)>, Vec<Trouble>) {
        let all: Vec<_> = all
            .into_iter()
            .map(|sought| self.gathered(sought))
            .collect();
        let mut gathered = stream::iter(all).buffered(AT_ONCE);
        let (mut found, mut troubles) = (Vec::new(), Vec::new());
        while let Some((sought, gathered)) = gathered.next().await {
            match gathered {
                Ok(gathered) => found.push((sought, gathered)),
                Err(error) => troubles.push(Trouble {
                    image: sought.image.to_string(),
                    source: sought.source,
                    why: error.into(),
                }),
            }
        }
        (found, troubles)
    }

    async fn gathered(&self, sought: Sought) -> (Sought, Result<Gathered, GatherError>) {
        let image = sought.image.to_string();
        self.progress.tell(Event::Looking { image }).await;
        let gathering = Gathering {
            hops: self.hops,
            from: (&sought.repository, &sought.name),
            taken: &sought.taken,
            about: &sought.about,
        };
        let gathered = gathering.run(&sought.reference).await;
        (sought, gathered)
    }

    async fn meant_by<'w>(&self, wanted: &'w Wanted) -> (&'w Wanted, Result<Vec<Sought>, Why>) {
        (wanted, self.meant(wanted).await)
    }

    /// The repository that a pull of `written` would ask, its name there, and what stands before it in its full name.
    pub fn place(&self, written: &str) -> Result<(Key, Repository, String, Name), Why> {
        let definitions = self.there.definitions();
        let is_key = |first: &str| definitions.by_key(first).is_some();
        let place = Place::of(written, &is_key).map_err(|error| Why::NoImage(error.to_string()))?;
        let key = if place.is_key() {
            definitions.by_key(place.head())
        } else {
            definitions.by_host(place.head())
        };
        let key = key.ok_or_else(|| Why::Nowhere(place.head().to_owned()))?;
        let Some(repository) = self.there.get(key) else {
            return Err(Why::LeftOut(key.clone()));
        };
        let name = if definitions.has_library(key) && place.name().is_single_component() {
            let name = Name::parse(&format!("library/{}", place.name()));
            name.map_err(|error| Why::NoImage(error.to_string()))?
        } else {
            place.name().clone()
        };
        // What a host serves is called by the host wherever it goes; a key means the same only here.
        let head = if place.is_key() {
            definitions
                .host_of(key)
                .map_or_else(|| key.to_string(), str::to_owned)
        } else {
            place.head().to_owned()
        };
        Ok((key.clone(), repository.clone(), head, name))
    }

    async fn meant(&self, wanted: &Wanted) -> Result<Vec<Sought>, Why> {
        let (key, repository, head, name) = self.place(&wanted.image)?;
        let sought = |shown: &Reference, reference: Reference| -> Result<Sought, Why> {
            Ok(Sought {
                image: full_name(&head, &name, shown)?,
                key: key.clone(),
                repository: repository.clone(),
                name: name.clone(),
                reference,
                taken: Taken::Platforms(wanted.platforms.clone()),
                about: About::Listed(wanted.referrers.clone()),
                source: wanted.source.clone(),
            })
        };
        let tags = match &wanted.pick {
            Pick::Digest { digest, tag } => {
                let reference = Reference::Digest(digest.clone());
                let shown = tag
                    .clone()
                    .map_or_else(|| reference.clone(), Reference::Tag);
                return Ok(vec![sought(&shown, reference)?]);
            }
            Pick::Tags(tags) => tags.clone(),
            Pick::Choice(_) => {
                let listed = repository.tags(self.hops, &name).await;
                wanted.pick.choose(&listed.map_err(Why::Tags)?.what.0)?
            }
        };
        tags.into_iter()
            .map(Reference::Tag)
            .map(|reference| sought(&reference, reference.clone()))
            .collect()
    }

    /// What somebody was given: the content that a tag meant then, and of an index what was taken of it, unless platforms are named.
    fn as_pulled(
        &self,
        pulled: &Pulled,
        (platforms, with_referrers): (&[Platform], bool),
        source: &Source,
    ) -> Result<Sought, Why> {
        let nowhere = || Why::Nowhere(pulled.repository.clone());
        let definitions = self.there.definitions();
        let key = definitions.by_key(&pulled.repository).ok_or_else(nowhere)?;
        let repository = self.there.get(key);
        let name = Name::parse(&pulled.image).map_err(|error| Why::NoImage(error.to_string()))?;
        let reference = Reference::Digest(pulled.digest.clone());
        let shown = pulled.tag.clone().map(Reference::Tag);
        let shown = shown.unwrap_or_else(|| reference.clone());
        let head = definitions.host_of(key).unwrap_or(key.as_str());
        Ok(Sought {
            image: full_name(head, &name, &shown)?,
            key: key.clone(),
            repository: repository.ok_or_else(|| Why::LeftOut(key.clone()))?.clone(),
            name,
            reference,
            taken: if platforms.is_empty() && !pulled.platforms.is_empty() {
                Taken::These(pulled.platforms.iter().cloned().collect())
            } else {
                Taken::Platforms(platforms.to_vec())
            },
            about: About::Listed(if with_referrers {
                Referrers::All
            } else {
                Referrers::None
            }),
            source: source.clone(),
        })
    }

    fn locked(&self, image: &str, locked: &Locked, source: &Source) -> Result<Sought, Why> {
        let parsed = Image::parse(image).map_err(|error| Why::NoImage(error.to_string()))?;
        let (key, repository, head, name) = self.place(&parsed.name)?;
        let reference = Reference::Digest(locked.digest.clone());
        let shown = parsed.tag.map_or_else(|| reference.clone(), Reference::Tag);
        let children: BTreeSet<Digest> = locked
            .platforms
            .iter()
            .map(|(_, digest)| digest.clone())
            .collect();
        Ok(Sought {
            image: full_name(&head, &name, &shown)?,
            key,
            repository,
            name,
            reference,
            taken: Taken::These(children),
            about: About::These {
                manifests: locked.referrers.clone(),
                tags: locked.tags.clone(),
            },
            source: source.clone(),
        })
    }
}

/// What a lock says of an image.
pub fn locked(gathered: &Gathered) -> Option<Locked> {
    let top = gathered.top()?;
    let platforms: BTreeSet<(Platform, Digest)> = gathered.platforms.clone();
    Some(Locked {
        digest: gathered.digest.clone(),
        media_type: top.media_type.clone(),
        size: top.bytes.len() as u64,
        blobs: gathered.blobs.iter().map(|blob| blob.size).sum(),
        referrers: gathered.referrers.clone(),
        tags: gathered.tags.iter().cloned().collect(),
        platforms,
    })
}

/// What is asked for in several places is looked for once: all the platforms, and all that comes along, of all of them. A name that is to
/// mean two things means none.
fn each_once(found: Vec<Sought>) -> (Vec<Sought>, Vec<Trouble>) {
    let (mut once, mut troubles): (Vec<Sought>, Vec<Trouble>) = (Vec::new(), Vec::new());
    let mut places: HashMap<ImageRef, usize> = HashMap::new();
    for sought in found {
        let place = places
            .get(&sought.image)
            .and_then(|place| once.get_mut(*place));
        let Some(there) = place else {
            places.insert(sought.image.clone(), once.len());
            once.push(sought);
            continue;
        };
        if there.reference == sought.reference {
            there.taken = both(&there.taken, sought.taken);
            there.about = wider(&there.about, sought.about);
        } else {
            troubles.push(Trouble {
                image: sought.image.to_string(),
                source: sought.source,
                why: Why::Twice(there.reference.to_string(), sought.reference.to_string()),
            });
        }
    }
    (once, troubles)
}

/// The platforms of both; none means all.
fn both(one: &Taken, other: Taken) -> Taken {
    match (one, other) {
        (Taken::Platforms(one), Taken::Platforms(other)) if one.is_empty() || other.is_empty() => {
            Taken::default()
        }
        (Taken::Platforms(one), Taken::Platforms(other)) => {
            let mut all = one.clone();
            all.extend(other.into_iter().filter(|platform| !one.contains(platform)));
            Taken::Platforms(all)
        }
        (Taken::These(one), Taken::These(other)) => {
            Taken::These(one.union(&other).cloned().collect())
        }
        // What was locked is what it is.
        (one, _) => one.clone(),
    }
}

/// What comes along with either.
fn wider(one: &About, other: About) -> About {
    match (one, other) {
        (About::Listed(Referrers::None), other) => other,
        (About::Listed(Referrers::Types(one)), About::Listed(Referrers::Types(other))) => {
            let mut all = one.clone();
            all.extend(other.into_iter().filter(|kind| !one.contains(kind)));
            About::Listed(Referrers::Types(all))
        }
        (About::Listed(Referrers::Types(_)), About::Listed(Referrers::All)) => {
            About::Listed(Referrers::All)
        }
        (one, _) => one.clone(),
    }
}

fn full_name(head: &str, name: &Name, reference: &Reference) -> Result<ImageRef, Why> {
    let text = match reference {
        Reference::Tag(tag) => format!("{head}/{name}:{tag}"),
        Reference::Digest(digest) => format!("{head}/{name}@{digest}"),
    };
    ImageRef::parse(&text).map_err(|error| Why::NoImage(format!("{text}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_wishes_are_one_with_all_of_both() {
        let platforms = |list: &[&str]| {
            let parsed = list.iter().map(|text| Platform::parse(text).unwrap());
            Taken::Platforms(parsed.collect())
        };
        let (amd, arm) = (platforms(&["linux/amd64"]), platforms(&["linux/arm64"]));
        assert_eq!(
            both(&amd, arm.clone()),
            platforms(&["linux/amd64", "linux/arm64"])
        );
        assert_eq!(both(&amd, amd.clone()), amd);
        for (one, other) in [(amd.clone(), platforms(&[])), (platforms(&[]), arm)] {
            assert_eq!(both(&one, other), platforms(&[]));
        }
        let types = |list: &[&str]| {
            About::Listed(Referrers::Types(
                list.iter().map(|&kind| kind.to_owned()).collect(),
            ))
        };
        let (none, all) = (
            About::Listed(Referrers::None),
            About::Listed(Referrers::All),
        );
        for (one, other, came) in [
            (&none, &none, &none),
            (&none, &all, &all),
            (&all, &none, &all),
            (&types(&["a"]), &all, &all),
            (&all, &types(&["a"]), &all),
            (&types(&["a"]), &types(&["a", "b"]), &types(&["a", "b"])),
        ] {
            assert_eq!(&wider(one, other.clone()), came);
        }
    }
}
