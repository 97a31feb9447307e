//! Maps that forget what was not used for longest.

use std::hash::Hash;
use std::num::NonZeroUsize;

use lru::LruCache;

/// A map of at most so many, which takes memory as it fills and not before: most of these bounds are never reached.
pub fn recent<K: Hash + Eq, V>(most: NonZeroUsize) -> LruCache<K, V> {
    let mut map = LruCache::unbounded();
    map.resize(most);
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_holds() {
        let mut map = recent(NonZeroUsize::new(2).unwrap());
        for number in 0..3 {
            map.put(number, ());
        }
        assert_eq!(map.cap().get(), 2);
        assert!(map.contains(&2) && map.contains(&1) && !map.contains(&0));
    }
}
