//! Keys that a key server publishes: fetched, kept, fetched again.
//!
//! In: the server's address. Out: its keys. They are fetched when the first token asks for one, again
//! when they are older than the interval, and at once when a token names one that is not there; never
//! two at a time, and never sooner after the last attempt than a pause, however it ended. Keys that were
//! fetched stay good while their server is away. Called by `jwt` and `auth`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use jsonwebtoken::jwk::{Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::JoinHandle;

use crate::base::clock::Clock;
use crate::wire::fetch::{self, Address, BadAddress};

/// Shortest time between the beginnings of two fetches, where keys are to last for longer: whoever sends
/// tokens with invented keys makes this server ask the other one no more often.
const PAUSE: Duration = Duration::from_secs(30);

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
    /// over, as sets hold keys for many purposes. `None` where nothing is left.
    fn of(set: &JwkSet) -> Option<Self> {
        let keys: Vec<Key> = set.keys.iter().filter_map(Key::of).collect();
        (!keys.is_empty()).then_some(Self(keys))
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
    tried_us: Arc<Mutex<u64>>,
}

/// The right to fetch: only one has it at a time.
type Turn = OwnedMutexGuard<u64>;

impl Jwks {
    /// # Errors
    /// The address is none.
    pub(super) fn new(config: JwksConfig) -> Result<Self, BadAddress> {
        let address = Address::parse(&config.url)?;
        let (keys, fetched_us) = (ArcSwap::default(), AtomicU64::new(0));
        Ok(Self {
            address,
            config,
            keys,
            fetches: AtomicU64::new(0),
            fetched_us,
            tried_us: Arc::default(),
        })
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

    /// Fetches the keys, unless that was tried a moment ago; waits for a fetch under way, for as long
    /// as a fetch may take. Whatever goes wrong, the keys that are known stay. Dropping the future ends
    /// the waiting, not the fetch: whoever hangs up cannot keep others from their keys.
    pub(super) async fn refresh(self: &Arc<Self>, clock: &dyn Clock) {
        let came_us = clock.monotonic_us();
        let turn = Arc::clone(&self.tried_us).lock_owned().await;
        let now_us = clock.monotonic_us();
        // A fetch that was begun since has fetched for us too.
        if *turn <= came_us && self.is_rested(&turn, now_us) {
            // An error means that the process ends, or that fetching panicked: the keys stay.
            let _ = self.fetch_aside(turn, now_us).await;
        }
    }

    /// Fetches keys that are due to be fetched again, without waiting for it; those that are known are
    /// used meanwhile.
    pub(super) fn refresh_if_old(self: &Arc<Self>, now_us: u64) {
        let age_us = now_us.saturating_sub(self.fetched_us.load(Ordering::Relaxed));
        if u128::from(age_us) > self.config.refresh.as_micros()
            && let Ok(turn) = Arc::clone(&self.tried_us).try_lock_owned()
            && self.is_rested(&turn, now_us)
        {
            drop(self.fetch_aside(turn, now_us));
        }
    }

    /// Whether the last attempt was long enough ago.
    fn is_rested(&self, turn: &Turn, now_us: u64) -> bool {
        let pause_us = self.config.refresh.min(PAUSE).as_micros();
        **turn == 0 || u128::from((now_us + 1).saturating_sub(**turn)) >= pause_us
    }

    fn fetch_aside(self: &Arc<Self>, mut turn: Turn, now_us: u64) -> JoinHandle<()> {
        let this = Arc::clone(self);
        *turn = now_us + 1;
        tokio::spawn(async move {
            match this.fetch().await {
                Ok(keys) => {
                    this.keys.store(Arc::new(keys));
                    this.fetches.fetch_add(1, Ordering::Release);
                    this.fetched_us.store(now_us + 1, Ordering::Relaxed);
                }
                Err(reason) => tracing::warn!(
                    url = this.config.url,
                    reason,
                    "the keys that check tokens could not be fetched"
                ),
            }
            drop(turn);
        })
    }

    async fn fetch(&self) -> Result<Keys, String> {
        let body = fetch::get(&self.address, self.config.timeout).await?;
        let set: JwkSet = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        // A server that has lost its keys, or shows another page, has not withdrawn them all.
        Keys::of(&set).ok_or_else(|| "none of its keys checks signatures".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::net::TcpListener;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::base::clock::ManualClock;

    const PAUSE_US: u64 = PAUSE.as_micros() as u64;

    /// A key server that hangs up on whoever asks, once it is let.
    struct Away {
        jwks: Arc<Jwks>,
        clock: ManualClock,
        asked: Arc<AtomicUsize>,
        let_go: Arc<Semaphore>,
    }

    impl Away {
        async fn new() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/keys", listener.local_addr().unwrap());
            let (asked, let_go) = (Arc::<AtomicUsize>::default(), Arc::new(Semaphore::new(0)));
            let (counted, gate) = (Arc::clone(&asked), Arc::clone(&let_go));
            tokio::spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    counted.fetch_add(1, Ordering::Relaxed);
                    gate.acquire().await.unwrap().forget();
                    drop(stream);
                }
            });
            let (refresh, timeout) = (Duration::from_secs(3600), Duration::from_secs(600));
            let jwks = Jwks::new(JwksConfig { url, refresh, timeout });
            let jwks = Arc::new(jwks.unwrap_or_else(|_| unreachable!("it is an address")));
            Self { jwks, clock: ManualClock::new(0), asked, let_go }
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::Relaxed)
        }

        /// Somebody with an unknown key; when this returns they wait.
        async fn refresh(&self) -> JoinHandle<()> {
            let (jwks, clock) = (Arc::clone(&self.jwks), self.clock.clone());
            let waits = tokio::spawn(async move { jwks.refresh(&clock).await });
            tokio::task::yield_now().await;
            waits
        }

        async fn until_asked(&self, times: usize) {
            while self.asked() < times {
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn a_key_server_that_is_away_is_asked_no_more_often_than_the_pause_allows() {
        let away = Away::new().await;
        away.let_go.add_permits(10);
        for _ in 0..3 {
            away.refresh().await.await.unwrap();
        }
        assert_eq!(away.asked(), 1);
        away.clock.advance_monotonic_us(PAUSE_US - 1);
        away.refresh().await.await.unwrap();
        assert_eq!(away.asked(), 1);
        away.clock.advance_monotonic_us(1);
        away.refresh().await.await.unwrap();
        assert_eq!(away.asked(), 2);
    }

    #[tokio::test]
    async fn all_who_waited_while_a_fetch_hung_are_served_by_one_more() {
        let away = Away::new().await;
        let first = away.refresh().await;
        away.until_asked(1).await;
        away.clock.advance_monotonic_us(1000);
        let mut others = Vec::new();
        for _ in 0..20 {
            others.push(away.refresh().await);
        }
        away.clock.advance_monotonic_us(PAUSE_US);
        away.let_go.add_permits(100);
        for waits in others.into_iter().chain([first]) {
            waits.await.unwrap();
        }
        assert_eq!(away.asked(), 2);
    }

    #[tokio::test]
    async fn old_keys_are_fetched_by_one_task_however_many_tokens_are_checked() {
        let away = Away::new().await;
        away.clock.advance_monotonic_us(2 * 3_600_000_000);
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let before = tasks();
        for _ in 0..100 {
            away.jwks.refresh_if_old(away.clock.monotonic_us());
        }
        assert_eq!(tasks() - before, 1);
        away.until_asked(1).await;
        away.let_go.add_permits(1);
        drop(away.jwks.tried_us.lock().await);
        away.jwks.refresh_if_old(away.clock.monotonic_us());
        assert_eq!(away.asked(), 1, "it failed a moment ago");
    }

    #[tokio::test]
    async fn whoever_hangs_up_does_not_end_the_fetch() {
        let away = Away::new().await;
        let waits = away.refresh().await;
        away.until_asked(1).await;
        waits.abort();
        assert!(waits.await.unwrap_err().is_cancelled());
        assert!(away.jwks.tried_us.try_lock().is_err(), "it goes on");
    }

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
        let keys = Keys::of(&serde_json::from_str(SET).unwrap()).unwrap();
        let count = |id, algorithm| keys.find(id, algorithm).count();
        assert_eq!(count(None, Algorithm::EdDSA), 1);
        assert_eq!(count(Some("a"), Algorithm::EdDSA), 1);
        assert_eq!(count(Some("a"), Algorithm::RS256), 0, "a key is of one kind");
        assert_eq!(count(Some("d"), Algorithm::RS256), 1);
        assert_eq!(count(None, Algorithm::HS256), 0, "a published secret is none");
        assert_eq!(count(Some("z"), Algorithm::EdDSA), 0);
    }
}
