//! A map that can go back: what a part of a draft changed is undone where that part is refused.
//!
//! In: changes, and perhaps a mark before them. Out: the map with them, or as it was at the mark.
//! Without a mark a change costs one look at a flag. Used by drafts for everything that a command
//! may change, so that nobody can change it behind the back of the mark.

use std::hash::Hash;
use std::ops::Deref;

use hashbrown::HashMap;

/// A map whose changes since a mark can be undone. Reading is the map's own.
#[derive(Debug)]
pub(super) struct Reversible<K, V> {
    map: HashMap<K, V, foldhash::fast::RandomState>,
    /// What stood there before, oldest change first; `None` without a mark.
    before: Option<Vec<(K, Option<V>)>>,
}

impl<K, V> Default for Reversible<K, V> {
    fn default() -> Self {
        Self { map: HashMap::default(), before: None }
    }
}

impl<K, V> Deref for Reversible<K, V> {
    type Target = HashMap<K, V, foldhash::fast::RandomState>;

    fn deref(&self) -> &Self::Target {
        &self.map
    }
}

impl<K: Clone + Eq + Hash, V> Reversible<K, V> {
    pub(super) fn insert(&mut self, key: K, value: V) {
        match &mut self.before {
            None => drop(self.map.insert(key, value)),
            Some(before) => {
                let old = self.map.insert(key.clone(), value);
                before.push((key, old));
            }
        }
    }

    pub(super) fn remove(&mut self, key: &K) {
        if let (Some((key, old)), Some(before)) = (self.map.remove_entry(key), &mut self.before) {
            before.push((key, Some(old)));
        }
    }

    pub(super) fn reserve(&mut self, more: usize) {
        self.map.reserve(more);
    }

    /// What comes from here on can be undone.
    pub(super) fn mark(&mut self) {
        self.before = Some(Vec::new());
    }

    /// What came since the mark stays.
    pub(super) fn keep(&mut self) {
        self.before = None;
    }

    /// What came since the mark never was.
    pub(super) fn undo(&mut self) {
        for (key, old) in self.before.take().into_iter().flatten().rev() {
            match old {
                Some(value) => drop(self.map.insert(key, value)),
                None => drop(self.map.remove(&key)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn sorted(map: &Reversible<u8, u32>) -> BTreeMap<u8, u32> {
        map.iter().map(|(key, value)| (*key, *value)).collect()
    }

    proptest! {
        #[test]
        fn undoing_brings_back_what_was_there_at_the_mark(
            parts in prop::collection::vec(
                (prop::collection::vec((0..6_u8, any::<u32>()), 0..8), 0..3_u8), 0..8)
        ) {
            let (mut map, mut model) = (Reversible::default(), BTreeMap::new());
            for (changes, end) in parts {
                let earlier = model.clone();
                if end > 0 {
                    map.mark();
                }
                for (key, value) in changes {
                    map.insert(key, value);
                    model.insert(key, value);
                }
                match end {
                    0 => {}
                    1 => map.keep(),
                    _ => {
                        map.undo();
                        model = earlier;
                    }
                }
                prop_assert_eq!(sorted(&map), model.clone());
            }
        }
    }
}
