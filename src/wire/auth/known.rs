//! Tokens whose signature was found right: they need not be checked again with each request.
//!
//! In: a token, and which fetch of keys it is checked with. Out: who presents it, if that was found out
//! with these very keys and its time is not over; so a key that is withdrawn takes its tokens along. Kept by
//! their hashes, a bounded number of them: whoever is forgotten is checked again. Called by `auth`.

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::wire::auth::Caller;
use crate::wire::auth::tokens::{Digest, hash};

/// Tokens that are remembered; each takes about 200 bytes.
const TOKENS_MAX: usize = 4096;

/// Tokens that were checked.
#[derive(Default)]
pub(super) struct Known(Mutex<HashMap<Digest, Entry, foldhash::fast::RandomState>>);

struct Entry {
    caller: Caller,
    keys: u64,
    until_ms: u64,
}

impl Known {
    /// Who presents this at `now_ms`, as was found out with `keys`.
    pub(super) fn find(&self, token: &[u8], keys: u64, now_ms: u64) -> Option<Caller> {
        let known = self.0.lock();
        let entry = known.get(&hash(token))?;
        (entry.keys == keys && now_ms < entry.until_ms).then(|| entry.caller.clone())
    }

    /// Remembers what was found out with `keys`. Whose time never ends is checked each time.
    pub(super) fn remember(&self, token: &[u8], keys: u64, caller: &Caller, now_ms: u64) {
        let Some(until_ms) = caller.until_ms else { return };
        let mut known = self.0.lock();
        if known.len() >= TOKENS_MAX {
            known.retain(|_, entry| entry.keys == keys && now_ms < entry.until_ms);
        }
        if known.len() >= TOKENS_MAX {
            // Which of them come again is not known, and any choice would cost each of them a look.
            known.clear();
        }
        known.insert(hash(token), Entry { caller: caller.clone(), keys, until_ms });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::auth::role::Role;

    fn caller(until_ms: Option<u64>) -> Caller {
        Caller { role: Some(Role::ReadOnly), sub: None, until_ms, token: None }
    }

    #[test]
    fn a_token_is_known_with_its_own_keys_and_until_its_time_is_over() {
        let known = Known::default();
        known.remember(b"token", 1, &caller(Some(1_000)), 0);
        assert_eq!(known.find(b"token", 1, 999), Some(caller(Some(1_000))));
        assert_eq!(known.find(b"token", 1, 1_000), None, "its time is over");
        assert_eq!(known.find(b"token", 2, 999), None, "there are other keys now");
        assert_eq!(known.find(b"other", 1, 999), None);
        known.remember(b"endless", 1, &caller(None), 0);
        assert_eq!(known.find(b"endless", 1, 0), None);
    }

    #[test]
    fn no_more_are_remembered_than_the_limit_and_those_that_are_over_go_first() {
        let known = Known::default();
        let token = |number: usize| number.to_string().into_bytes();
        for number in 0..TOKENS_MAX {
            let until_ms = if number % 2 == 0 { 10 } else { 1_000 };
            known.remember(&token(number), 1, &caller(Some(until_ms)), 0);
        }
        known.remember(b"late", 1, &caller(Some(1_000)), 10);
        assert_eq!(known.0.lock().len(), TOKENS_MAX / 2 + 1);
        assert!(known.find(&token(1), 1, 10).is_some(), "what is good stays");
        for number in 0..3 * TOKENS_MAX {
            known.remember(&token(number), 1, &caller(Some(1_000)), 10);
            assert!(known.0.lock().len() <= TOKENS_MAX);
        }
    }
}
