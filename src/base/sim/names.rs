//! The names of a simulated disk: those that readers see, those that survive, and what lies between.
//!
//! In: links, renames, removals, folder syncs and crashes. Out: which name means which file. Pure
//! but for the random source it is handed. Called by `sim`.

use std::collections::BTreeMap;

use super::Survival;
use crate::base::random::SeededRandom;

#[derive(Clone, Debug)]
pub(super) enum NameChange {
    Link { path: String, file: u64 },
    Unlink { path: String },
    Rename { from: String, to: String, file: u64 },
}

impl NameChange {
    fn path(&self) -> &str {
        match self {
            Self::Link { path, .. } | Self::Unlink { path } => path,
            Self::Rename { to, .. } => to,
        }
    }

    fn is_in(&self, prefix: &str) -> bool {
        self.path().strip_prefix(prefix).is_some_and(|name| !name.contains('/'))
    }

    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Link { path, file } => {
                names.insert(path.clone(), *file);
            }
            Self::Unlink { path } => {
                names.remove(path);
            }
            Self::Rename { from, to, file } => {
                if names.get(from) == Some(file) {
                    names.remove(from);
                }
                names.insert(to.clone(), *file);
            }
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Names {
    seen: BTreeMap<String, u64>,
    durable: BTreeMap<String, u64>,
    pending: Vec<NameChange>,
}

impl Names {
    pub(super) fn get(&self, path: &str) -> Option<u64> {
        self.seen.get(path).copied()
    }

    pub(super) fn holds(&self, file: u64) -> bool {
        self.seen.values().any(|held| *held == file)
    }

    pub(super) fn paths(&self) -> Vec<String> {
        self.seen.keys().cloned().collect()
    }

    pub(super) fn change(&mut self, change: NameChange) {
        change.apply(&mut self.seen);
        self.pending.push(change);
    }

    pub(super) fn put_durable(&mut self, path: &str, file: u64) {
        self.seen.insert(path.to_owned(), file);
        self.durable.insert(path.to_owned(), file);
    }

    /// Makes the changes in one folder durable.
    pub(super) fn sync(&mut self, prefix: &str) {
        for change in std::mem::take(&mut self.pending) {
            if change.is_in(prefix) {
                change.apply(&mut self.durable);
            } else {
                self.pending.push(change);
            }
        }
    }

    /// A failed folder sync: each change reached the medium or never will; none is pending.
    pub(super) fn lose_pending(&mut self, prefix: &str, random: &SeededRandom) {
        for change in std::mem::take(&mut self.pending) {
            if !change.is_in(prefix) {
                self.pending.push(change);
            } else if random.chance(300) {
                change.apply(&mut self.durable);
            }
        }
    }

    /// What survives is all, none, the first few, or any few of the pending changes.
    pub(super) fn crash(&mut self, survival: Survival, random: &SeededRandom) {
        let pending = std::mem::take(&mut self.pending);
        let count = pending.len() as u64;
        let in_order = random.chance(500);
        let first_few = random.below(count + 1);
        for (index, change) in pending.iter().enumerate() {
            let survives = match survival {
                Survival::None => false,
                Survival::All => true,
                Survival::Each if in_order => (index as u64) < first_few,
                Survival::Each => random.chance(500),
            };
            if survives {
                change.apply(&mut self.durable);
            }
        }
        self.seen = self.durable.clone();
    }
}
