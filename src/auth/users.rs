//! The users file: lines `name:hash` as `htpasswd -B` writes them, read again as soon as it changes.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::{info, warn};

use crate::audit;

/// The longest users file.
const FILE_MAX: u64 = 16 << 20;
/// The longest name.
const NAME_MAX: usize = 255;
/// What new passwords cost; a login takes some tens of milliseconds.
const COST: u32 = 10;
/// The most that a hash in the file may cost: more would let one line take all processors.
const COST_MAX: u32 = 15;

/// Why there are no users.
#[derive(Debug, Clone, thiserror::Error)]
pub enum UsersError {
    /// The file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: Arc<io::Error>,
    },
    /// A line is no user.
    #[error("{}:{line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from one.
        line: usize,
        /// What is wrong, and what to do.
        problem: String,
    },
}

/// Users with the hashes of their passwords.
#[derive(Debug, Clone, Default)]
pub struct Table(HashMap<String, Arc<str>>);

impl Table {
    /// Reads the text of a users file.
    pub fn parse(text: &str, path: &Path) -> Result<Self, UsersError> {
        let mut users = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_end();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |problem: &str| UsersError::Line {
                path: path.to_owned(),
                line: number + 1,
                problem: problem.to_owned(),
            };
            let (name, hash) = line
                .split_once(':')
                .ok_or_else(|| wrong("no colon; write name:hash, or use `roadstead user add`"))?;
            if !is_user_name(name) {
                return Err(wrong(
                    "this is no user name: letters, digits and . _ - @ +, and not the word anonymous",
                ));
            }
            if !is_bcrypt(hash) {
                return Err(wrong(
                    "the hash is not bcrypt ($2y$); make it with `roadstead user add`, or `htpasswd -B`",
                ));
            }
            if cost(hash).is_none_or(|cost| cost > COST_MAX) {
                return Err(wrong(
                    "this hash takes too long to check; use a cost of at most 15",
                ));
            }
            if users.insert(name.to_owned(), Arc::from(hash)).is_some() {
                return Err(wrong("this user is there already; remove one of the lines"));
            }
        }
        Ok(Self(users))
    }

    /// The hash of a user's password.
    pub fn get(&self, name: &str) -> Option<&Arc<str>> {
        self.0.get(name)
    }

    /// What most passwords cost to check: a user who is not there costs the same.
    pub(super) fn usual_cost(&self) -> u32 {
        let mut counted: HashMap<u32, usize> = HashMap::new();
        for hash in self.0.values() {
            *counted.entry(cost(hash).unwrap_or(COST)).or_default() += 1;
        }
        // Of several the dearest, always: a cost that changed from try to try would tell who is not there.
        let most = counted
            .into_iter()
            .max_by_key(|(cost, count)| (*count, *cost));
        most.map_or(COST, |(cost, _)| cost)
    }

    /// Every name, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.0.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }
}

/// Whether this can be a user's name.
pub fn is_user_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@+".contains(&byte);
    !name.is_empty()
        && name.len() <= NAME_MAX
        && name != "anonymous"
        && !name.starts_with('@')
        && name.bytes().all(fits)
}

/// The hash of a new password.
pub fn hash(password: &str) -> Result<String, bcrypt::BcryptError> {
    hash_at(COST, password)
}

pub(super) fn hash_at(cost: u32, password: &str) -> Result<String, bcrypt::BcryptError> {
    let parts = bcrypt::hash_with_result(password, cost)?;
    Ok(parts.format_for_version(bcrypt::Version::TwoY))
}

fn is_bcrypt(hash: &str) -> bool {
    let known = ["$2y$", "$2a$", "$2b$"];
    known.iter().any(|kind| hash.starts_with(kind))
        && hash.len() == 60
        && hash
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"$./".contains(&byte))
}

/// How often a hash was hashed, as a power of two.
fn cost(hash: &str) -> Option<u32> {
    hash.get(4..6)?.parse().ok().filter(|cost| *cost >= 4)
}

/// What tells one state of the file from another.
type Stamp = Option<(u64, u64, i64, i64)>;

/// The users, as they are now.
#[derive(Debug)]
pub(super) struct Users {
    path: Option<PathBuf>,
    known: Mutex<(Stamp, Arc<Table>)>,
}

impl Users {
    pub(super) fn open(path: Option<&Path>) -> Result<Self, UsersError> {
        let known = match path {
            Some(path) => (stamp(path), Arc::new(read(path)?)),
            None => (None, Arc::default()),
        };
        Ok(Self {
            path: path.map(Path::to_owned),
            known: Mutex::new(known),
        })
    }

    /// The users now. One look at the file's times; it is read where they changed. A file that is broken leaves those before it in force.
    pub(super) fn table(&self) -> Arc<Table> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(path) = &self.path else {
            return Arc::clone(&known.1);
        };
        let now = stamp(path);
        if now != known.0 {
            match read(path) {
                Ok(table) => {
                    known.0 = now;
                    known.1 = Arc::new(table);
                    info!(target: audit::TARGET, action = "users", outcome = "done", users = known.1.0.len(), "the users file was read again");
                }
                // Without a file there is nobody.
                Err(UsersError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                    known.0 = now;
                    known.1 = Arc::default();
                    warn!(target: audit::TARGET, action = "users", outcome = "done", "the users file is gone, and with it every user");
                }
                // Looked at again at the next request: a removal that cannot be read yet must not be missed.
                Err(error @ UsersError::Io { .. }) => {
                    warn!(%error, "the users file cannot be read; the users before it stay for now");
                }
                Err(error @ UsersError::Line { .. }) => {
                    known.0 = now;
                    warn!(target: audit::TARGET, action = "users", outcome = "refused", %error, "the users file cannot be used; the users before it stay");
                }
            }
        }
        Arc::clone(&known.1)
    }
}

fn stamp(path: &Path) -> Stamp {
    let found = fs::metadata(path).ok()?;
    Some((found.ino(), found.len(), found.ctime(), found.ctime_nsec()))
}

fn read(path: &Path) -> Result<Table, UsersError> {
    use std::io::Read as _;

    let failed = |error: io::Error| UsersError::Io {
        path: path.to_owned(),
        error: Arc::new(error),
    };
    let mut text = String::new();
    let file = fs::File::open(path).map_err(failed)?;
    file.take(FILE_MAX)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Table::parse(&text, path)
}
