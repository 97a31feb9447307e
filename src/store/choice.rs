//! Which content to let go. Pure.

/// Something that may be let go. Pinned content is never among the candidates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Victim<T> {
    /// What it is.
    pub(super) what: T,
    /// How many bytes letting it go frees.
    pub(super) size: u64,
    /// Manifests are small and lead to everything else, so they go after all blobs.
    pub(super) manifest: bool,
    /// A stamp that grows with every use.
    pub(super) last_use: i64,
}

/// The shortest run of the least recently used, blobs before manifests, that frees at least `need` bytes; none where all together do not,
/// because letting go of something without gaining the room would be a loss for nothing.
pub(super) fn choose<T>(mut candidates: Vec<Victim<T>>, need: u64) -> Option<Vec<Victim<T>>> {
    candidates.sort_by_key(|victim| (victim.manifest, victim.last_use));
    let mut freed = 0_u64;
    let mut chosen = 0;
    for victim in &candidates {
        if freed >= need {
            break;
        }
        freed = freed.saturating_add(victim.size);
        chosen += 1;
    }
    if freed < need {
        return None;
    }
    candidates.truncate(chosen);
    Some(candidates)
}
