//! Keys that a key server publishes: fetched, kept, fetched again.
//!
//! In: the server's address. Out: its keys. They are fetched when the first token asks for one, again
//! when they are older than the interval, and at once, but not more often than every second, when a
//! token names one that is not there. Keys that were fetched stay good while their server is away.
//! Called by `jwt` and `auth`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use jsonwebtoken::jwk::{Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use tokio::sync::Mutex;

use crate::wire::auth::fetch::{self, Address, BadAddress};

/// Shortest time between two fetches that unknown keys ask for, microseconds.
const PAUSE_US: u64 = 1_000_000;

/// Where keys are published, and how often that is looked at.
#[derive(Clone, Debug)]
pub struct JwksConfig {
    /// An http or https address.
    pub url: String,
    /// Age at which keys are fetched again.
    pub refresh: Duration,
    /// How long a fetch may take.
    pub timeout: Duration,
}

/// The keys of one fetch.
#[derive(Default)]
pub(super) struct Keys(Vec<Key>);

struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Keys {
    /// Keys of a set that check signatures, of the algorithms that are understood; others are passed
    /// over, as sets hold keys for many purposes.
    fn of(set: &JwkSet) -> Self {
        Self(set.keys.iter().filter_map(Key::of).collect())
    }

    /// The keys that may have signed a token: the one it names, or all where it names none.
    pub(super) fn find(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &DecodingKey> {
        let is_named = move |key: &&Key| id.is_none() || key.id.as_deref() == id;
        let fits = move |key: &&Key| key.algorithm == algorithm && is_named(key);
        self.0.iter().filter(fits).map(|it| &it.key)
    }
}

impl Key {
    fn of(jwk: &Jwk) -> Option<Self> {
        let key = DecodingKey::from_jwk(jwk).ok()?;
        let algorithm = match key.family() {
            AlgorithmFamily::Rsa => Algorithm::RS256,
            AlgorithmFamily::Ed => Algorithm::EdDSA,
            _ => return None,
        };
        let is_said = match jwk.common.key_algorithm {
            None => true,
            Some(KeyAlgorithm::RS256) => algorithm == Algorithm::RS256,
            Some(KeyAlgorithm::EdDSA) => algorithm == Algorithm::EdDSA,
            Some(_) => false,
        };
        let signs = !matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption));
        let id = jwk.common.key_id.clone();
        (is_said && signs).then_some(Self { id, algorithm, key })
    }
}

/// Keys and where they come from.
pub(super) struct Jwks {
    address: Address,
    config: JwksConfig,
    keys: ArcSwap<Keys>,
    /// How often they were replaced; counted after they were.
    fetches: AtomicU64,
    /// When they were fetched, in the clock's microseconds plus one; 0: never.
    fetched_us: AtomicU64,
    /// When a fetch was begun, the same; held while one is under way.
    tried_us: Mutex<u64>,
}

impl Jwks {
    /// # Errors
    /// The address is none.
    pub(super) fn new(config: JwksConfig) -> Result<Self, BadAddress> {
        let address = Address::parse(&config.url)?;
        let (keys, fetched_us) = (ArcSwap::default(), AtomicU64::new(0));
        let (fetches, tried_us) = (AtomicU64::new(0), Mutex::new(0));
        Ok(Self { address, config, keys, fetches, fetched_us, tried_us })
    }

    /// The keys as they are known now.
    pub(super) fn keys(&self) -> Guard<Arc<Keys>> {
        self.keys.load()
    }

    /// Which fetch the keys are of: whatever is checked after this was asked for is checked with the keys of
    /// that fetch or of a later one.
    pub(super) fn fetch_number(&self) -> u64 {
        self.fetches.load(Ordering::Acquire)
    }

    /// Whether they are due to be fetched again.
    pub(super) fn is_old(&self, now_us: u64) -> bool {
        let age_us = now_us.saturating_sub(self.fetched_us.load(Ordering::Relaxed));
        u128::from(age_us) > self.config.refresh.as_micros()
    }

    /// Fetches the keys, unless that was tried a moment ago; waits for a fetch under way, for as long
    /// as a fetch may take. Whatever goes wrong, the keys that are known stay.
    pub(super) async fn refresh(&self, now_us: u64) {
        let mut tried_us = self.tried_us.lock().await;
        if *tried_us != 0 && now_us < tried_us.saturating_add(PAUSE_US) {
            return;
        }
        *tried_us = now_us + 1;
        match self.fetch().await {
            Ok(keys) => {
                self.keys.store(Arc::new(keys));
                self.fetches.fetch_add(1, Ordering::Release);
                self.fetched_us.store(now_us + 1, Ordering::Relaxed);
            }
            Err(reason) => tracing::warn!(
                url = self.config.url,
                reason,
                "the keys that check tokens could not be fetched"
            ),
        }
    }

    async fn fetch(&self) -> Result<Keys, String> {
        let body = fetch::get(&self.address, self.config.timeout).await?;
        let set: JwkSet = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        Ok(Keys::of(&set))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: &str = r#"{"keys":[
        {"kty":"OKP","crv":"Ed25519","kid":"a","use":"sig",
         "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
        {"kty":"OKP","crv":"Ed25519","kid":"b","use":"enc",
         "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
        {"kty":"oct","kid":"c","k":"AAAA"},
        {"kty":"RSA","kid":"d","alg":"RS256","n":"AQAB","e":"AQAB"},
        {"kty":"RSA","kid":"e","alg":"RS512","n":"AQAB","e":"AQAB"}]}"#;

    #[test]
    fn only_keys_that_check_signatures_of_known_kinds_are_kept() {
        let keys = Keys::of(&serde_json::from_str(SET).unwrap());
        let count = |id, algorithm| keys.find(id, algorithm).count();
        assert_eq!(count(None, Algorithm::EdDSA), 1);
        assert_eq!(count(Some("a"), Algorithm::EdDSA), 1);
        assert_eq!(count(Some("a"), Algorithm::RS256), 0, "a key is of one kind");
        assert_eq!(count(Some("d"), Algorithm::RS256), 1);
        assert_eq!(count(None, Algorithm::HS256), 0, "a published secret is none");
        assert_eq!(count(Some("z"), Algorithm::EdDSA), 0);
    }
}
