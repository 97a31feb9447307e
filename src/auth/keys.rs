//! The keys that tokens are signed with: made at the first start, replaced now and then, kept as long as a token of theirs may count.

use std::fs;
use std::io::{self, Write as _};
use std::num::NonZeroUsize;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lru::LruCache;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::identity::{Grant, Identity};
use super::tokens::{Claims, Issued, TokenError};
use crate::clock::{self, Wall};
use crate::recent::recent;

/// The file in the data directory.
const FILE: &str = "token-keys.json";
/// How long a key signs.
const SIGNS_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long a refresh token counts, at most.
pub(super) const REFRESH_TTL: Duration = Duration::from_secs(14 * 24 * 3600);
/// How long a key is kept after it was made.
const KEPT_FOR: Duration = Duration::from_secs(SIGNS_FOR.as_secs() + REFRESH_TTL.as_secs());
/// How many tokens are remembered as right. They are up to [`super::TOKEN_MAX`] long, so this is up to 8 MiB.
const VERIFIED_MAX: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
/// Bytes of a key.
const SECRET: usize = 32;

/// One key, as it is kept.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    kid: String,
    /// Base64, of [`SECRET`] bytes.
    secret: String,
    /// In milliseconds since the Unix epoch.
    made: i64,
}

/// One key.
pub(super) struct Key {
    pub(super) kid: String,
    made: Wall,
    secret: Vec<u8>,
}

/// The keys, the newest last.
pub(super) struct Keys {
    path: PathBuf,
    known: Mutex<Vec<Arc<Key>>>,
    /// Access tokens whose signatures were right: each is verified once.
    verified: Mutex<LruCache<Box<str>, Arc<Claims>>>,
    /// For what is not a token: marks of passwords.
    stamps: hmac::Key,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Keys {
    /// Reads the keys; makes one where there is none. Blocks.
    pub(super) fn open(data: &Path, now: Wall) -> io::Result<Self> {
        fs::create_dir_all(data)?;
        let path = data.join(FILE);
        let mut keys = Vec::new();
        match fs::read_to_string(&path) {
            Ok(text) => {
                let kept: Vec<Kept> = serde_json::from_str(&text).map_err(|error| {
                    io::Error::other(format!(
                        "{}: {error}; remove the file, and everybody logs in again",
                        path.display()
                    ))
                })?;
                for one in kept {
                    let secret = URL_SAFE_NO_PAD.decode(&one.secret);
                    match secret {
                        Ok(secret) if secret.len() == SECRET => keys.push(Arc::new(Key {
                            kid: one.kid,
                            made: Wall::from_ms(one.made),
                            secret,
                        })),
                        Ok(_) | Err(_) => {
                            warn!(kid = one.kid, "a key for tokens is damaged and left out");
                        }
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let opened = Self {
            path,
            known: Mutex::new(keys),
            verified: Mutex::new(recent(VERIFIED_MAX)),
            stamps: hmac::Key::new(hmac::HMAC_SHA256, b"roadstead password stamp"),
        };
        opened.rotate(now)?;
        Ok(opened)
    }

    /// Makes a new key where the newest has signed for long enough, and lets go of those that no token needs. Blocks.
    pub(super) fn rotate(&self, now: Wall) -> io::Result<()> {
        let mut keys = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = keys
            .last()
            .is_none_or(|newest| now.since(newest.made) >= SIGNS_FOR);
        if !is_due {
            return Ok(());
        }
        let mut next: Vec<_> = keys
            .iter()
            .filter(|key| now.since(key.made) < KEPT_FOR)
            .cloned()
            .collect();
        let mut secret = vec![0; SECRET];
        aws_lc_rs::rand::fill(&mut secret)
            .map_err(|_unspecified| io::Error::other("the system gives no random bytes"))?;
        let kid = uuid::Uuid::new_v4().simple().to_string();
        info!(kid, "made a key for tokens");
        next.push(Arc::new(Key {
            kid,
            made: now,
            secret,
        }));
        write(&self.path, &next)?;
        *keys = next;
        Ok(())
    }

    /// The key that signs. One that has signed for long enough is replaced on the way.
    fn signing(&self) -> Option<Arc<Key>> {
        if let Err(error) = self.rotate(clock::now()) {
            warn!(%error, "no new key for tokens could be made; the one before it goes on");
        }
        let keys = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        keys.last().cloned()
    }

    /// A key by its name.
    fn by_kid(&self, kid: &str) -> Option<Arc<Key>> {
        let keys = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        keys.iter().find(|key| key.kid == kid).cloned()
    }

    /// A token; with grants it is for requests, without for further tokens.
    pub(super) fn issue(
        &self,
        realm: &str,
        identity: &Identity,
        stamp: &str,
        grants: Option<&[Grant]>,
        ttl: Duration,
    ) -> Issued {
        let claims = Claims::new(realm, identity, stamp, grants, (clock::now(), ttl));
        let key = self.signing();
        let text = key.and_then(|key| claims.sign(&key.kid, &key.secret));
        Issued::new(text.unwrap_or_default(), &claims)
    }

    /// What a token says, if it counts. A signature is checked once, all else at every use.
    pub(super) fn read(
        &self,
        token: &str,
        realm: &str,
        now: Wall,
    ) -> Result<Arc<Claims>, TokenError> {
        let verified = || self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        let known = verified().get(token).map(Arc::clone);
        if let Some(claims) = known {
            claims.count(realm, now)?;
            return Ok(claims);
        }
        let kid = Claims::kid(token)?;
        let key = self.by_kid(&kid).ok_or(TokenError::Key)?;
        let claims = Arc::new(Claims::verify(token, &key.secret, realm, now)?);
        if claims.is_access() {
            verified().put(token.into(), Arc::clone(&claims));
        }
        Ok(claims)
    }

    /// A mark of a user's password: another password has another.
    pub(super) fn stamp(&self, hash: &str) -> String {
        let tag = hmac::sign(&self.stamps, hash.as_bytes());
        URL_SAFE_NO_PAD.encode(tag.as_ref().get(..12).unwrap_or_default())
    }
}

/// Beside, synced, renamed, synced: a start finds the keys before or after.
fn write(path: &Path, keys: &[Arc<Key>]) -> io::Result<()> {
    let kept: Vec<Kept> = keys
        .iter()
        .map(|key| Kept {
            kid: key.kid.clone(),
            secret: URL_SAFE_NO_PAD.encode(&key.secret),
            made: key.made.as_ms(),
        })
        .collect();
    let beside = path.with_extension("json.new");
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(&serde_json::to_vec(&kept)?)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    if let Some(directory) = path.parent() {
        fs::File::open(directory)?.sync_all()?;
    }
    Ok(())
}
