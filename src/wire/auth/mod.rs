//! Who may do what: roles, tokens, and what each request needs.
//!
//! In: what a client presents. Out: a [`Caller`], or why not. Nothing configured: everybody may do
//! everything, which is for loopback. Decisions are pure; only keys of a key server are fetched. Called
//! by both doors.
//!
//! | file | decides |
//! |---|---|
//! | [`role`] | the three roles, and whether one is enough |
//! | [`tokens`] | whose static token it is |
//! | [`claims`] | what a JSON Web Token says of its holder, and whether that is good now |
//! | [`jwt`], [`jwks`] | whether it is signed, with whose key, and where that comes from |
//! | `known` | which tokens were checked already |

pub mod claims;
pub mod jwks;
pub mod jwt;
mod known;
pub mod role;
pub mod tokens;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use onrush_protocol::code::Code;

use crate::base::clock::Clock;
use crate::state::effect::ProducerSub;
use crate::wire::auth::jwt::{Jwt, JwtConfig, JwtError, Trouble};
use crate::wire::auth::known::Known;
use crate::wire::auth::role::{Level, Role};
use crate::wire::auth::tokens::{Digest, Tokens};

/// Somebody known.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Caller {
    /// What they may do; `None`: nothing that is not public.
    pub role: Option<Role>,
    /// As whom they push.
    pub sub: Option<ProducerSub>,
    /// Until when that holds, unix milliseconds; `None`: until the settings change.
    pub until_ms: Option<u64>,
    /// The static token that they presented, if it was one.
    pub token: Option<Presented>,
}

/// A static token that somebody presented.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Presented {
    digest: Digest,
    /// Which set of tokens it was found in.
    generation: u64,
}

/// Why somebody may not. The texts are those of the contract.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Denied {
    /// Nothing was presented.
    #[error("Authentication required")]
    Missing,
    /// What was presented is no token that is known.
    #[error("Invalid token")]
    Unknown,
    /// It is no JSON Web Token, or its claims are of the wrong kind.
    #[error("Invalid token format")]
    Malformed,
    /// Its algorithm is not taken.
    #[error("Invalid token algorithm")]
    Algorithm,
    /// Nobody knows its key.
    #[error("Unknown signing key")]
    Key,
    /// It was signed with another key, or changed.
    #[error("Invalid token signature")]
    Signature,
    /// Its time is over, or it has none.
    #[error("Token has expired")]
    Expired,
    /// Its time is not yet.
    #[error("Token is not valid yet")]
    NotYet,
    /// Somebody else issued it.
    #[error("Invalid token issuer")]
    Issuer,
    /// It is for somebody else.
    #[error("Invalid token audience")]
    Audience,
    /// They are known, and may not.
    #[error("Insufficient permissions")]
    Role,
}

impl Denied {
    /// Its code.
    #[must_use]
    pub fn code(self) -> Code {
        match self {
            Self::Role => Code::Forbidden,
            Self::Missing
            | Self::Unknown
            | Self::Malformed
            | Self::Algorithm
            | Self::Key
            | Self::Signature
            | Self::Expired
            | Self::NotYet
            | Self::Issuer
            | Self::Audience => Code::Unauthenticated,
        }
    }
}

/// How callers are known.
#[derive(Clone, Debug, Default)]
pub struct AuthConfig {
    /// Static tokens.
    pub tokens: Tokens,
    /// JSON Web Tokens.
    pub jwt: Option<JwtConfig>,
    /// Paths of HTTP that nobody needs a token for: exact, or all below one that ends in `/`.
    pub skip_paths: Vec<String>,
    /// Whether a server without tokens asks for some all the same, as one does whose list of them, in
    /// the settings or in a file, is blank now.
    pub is_closed: bool,
}

/// Knows callers.
pub struct Auth {
    tokens: ArcSwap<Tokens>,
    /// How often they were replaced; raised after they are.
    generation: AtomicU64,
    jwt: Option<Jwt>,
    known: Known,
    skip_paths: Vec<String>,
    is_open: bool,
    clock: Arc<dyn Clock>,
}

/// Figures that may be closed by leaving them out of the skipped paths; probes may not.
const CLOSABLE: [&str; 4] = ["/health", "/metrics", "/metrics/prometheus", "/"];

impl Auth {
    /// # Errors
    /// [`JwtError`] when no JSON Web Token could ever be checked.
    pub fn new(config: AuthConfig, clock: Arc<dyn Clock>) -> Result<Self, JwtError> {
        let AuthConfig { tokens, jwt, skip_paths, is_closed } = config;
        let jwt = jwt.map(Jwt::new).transpose()?;
        let is_open = tokens.is_empty() && jwt.is_none() && !is_closed;
        let (tokens, generation) = (ArcSwap::from_pointee(tokens), AtomicU64::new(0));
        let known = Known::default();
        Ok(Self { tokens, generation, jwt, known, skip_paths, is_open, clock })
    }

    /// One that lets everybody in.
    #[must_use]
    pub fn open(clock: Arc<dyn Clock>) -> Self {
        let (tokens, generation) = (ArcSwap::default(), AtomicU64::new(0));
        let (known, skip_paths) = (Known::default(), Vec::new());
        Self { tokens, generation, jwt: None, known, skip_paths, is_open: true, clock }
    }

    /// Replaces the static tokens. Whoever came in with one that is no longer among them has come in
    /// for the last time: see [`Self::is_current`].
    pub fn set_tokens(&self, tokens: Tokens) {
        self.tokens.store(Arc::new(tokens));
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Whether everybody may do everything.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// What a request for `path` needs, of a route of this level.
    #[must_use]
    pub fn level(&self, level: Level, path: &str) -> Level {
        let is_skipped = |skip: &String| {
            *skip == path || skip.len() > 1 && skip.ends_with('/') && path.starts_with(&**skip)
        };
        if self.is_open || self.skip_paths.iter().any(is_skipped) {
            return Level::Public;
        }
        match level {
            Level::Public if CLOSABLE.contains(&path) => Level::AtLeast(Role::ReadOnly),
            level => level,
        }
    }

    /// Who presents this, if they may do what asks for `level`. `None`: somebody unknown, who may.
    /// Waits only where a key has to be fetched, for as long as a fetch may take; dropping the future
    /// is harmless.
    ///
    /// # Errors
    /// [`Denied`].
    pub async fn admit(
        self: &Arc<Self>,
        presented: Option<&[u8]>,
        level: Level,
    ) -> Result<Option<Caller>, Denied> {
        if level == Level::Public {
            return Ok(None);
        }
        let caller = self.identify(presented).await?;
        if level.allows(caller.role) { Ok(Some(caller)) } else { Err(Denied::Role) }
    }

    /// Who presents this.
    ///
    /// # Errors
    /// [`Denied`]; never [`Denied::Role`].
    pub async fn identify(self: &Arc<Self>, presented: Option<&[u8]>) -> Result<Caller, Denied> {
        if self.is_open {
            return Ok(Caller { role: Some(Role::Admin), sub: None, until_ms: None, token: None });
        }
        let presented = presented.filter(|it| !it.is_empty()).ok_or(Denied::Missing)?;
        // Before the tokens: whoever is found among newer ones is at most looked up once more.
        let generation = self.generation.load(Ordering::Acquire);
        if let Some(token) = self.tokens.load().find(presented) {
            let (role, sub) = (Some(token.role), token.name.clone());
            let token = Some(Presented { digest: *token.digest(), generation });
            return Ok(Caller { role, sub, until_ms: None, token });
        }
        let Some(jwt) = &self.jwt else { return Err(Denied::Unknown) };
        let (keys, now_ms) = (jwt.keys(), self.clock.now_ms());
        // Asked also where a token is known: keys that were withdrawn take their tokens along.
        if let Some(jwks) = &jwt.jwks {
            jwks.refresh_if_old(self.clock.monotonic_us());
        }
        if let Some(caller) = self.known.find(presented, keys, now_ms) {
            return Ok(caller);
        }
        let settled = |trouble| match trouble {
            Trouble::Denied(denied) => denied,
            Trouble::UnknownKey => Denied::Key,
        };
        let (keys, checked) = match (jwt.check(presented, now_ms / 1000), &jwt.jwks) {
            (Err(Trouble::UnknownKey), Some(jwks)) => {
                jwks.refresh(&*self.clock).await;
                (jwt.keys(), jwt.check(presented, self.clock.now_ms() / 1000))
            }
            (checked, _) => (keys, checked),
        };
        let caller = checked.map_err(settled)?;
        self.known.remember(presented, keys, &caller, now_ms);
        Ok(caller)
    }

    /// Whether a caller is still who they were: a connection may outlive its token. The holder of a
    /// static token has the role from here on that it has now.
    #[must_use]
    pub fn is_current(&self, caller: &mut Caller) -> bool {
        if self.left_ms(caller) == 0 {
            return false;
        }
        let Some(presented) = &mut caller.token else { return true };
        let generation = self.generation.load(Ordering::Acquire);
        if presented.generation != generation {
            let tokens = self.tokens.load();
            let Some(token) = tokens.of_digest(&presented.digest) else { return false };
            (caller.role, caller.sub) = (Some(token.role), token.name.clone());
            presented.generation = generation;
        }
        true
    }

    /// How long a caller's token still lasts, milliseconds; `u64::MAX` for one without an end.
    #[must_use]
    pub fn left_ms(&self, caller: &Caller) -> u64 {
        caller.until_ms.map_or(u64::MAX, |until_ms| until_ms.saturating_sub(self.clock.now_ms()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::SystemClock;
    use crate::base::random::SeededRandom;

    fn auth(skip: &[&str]) -> Arc<Auth> {
        let mut tokens = Tokens::default();
        tokens.add_secret("s3cret");
        let skip_paths = skip.iter().map(|path| (*path).to_owned()).collect();
        let config = AuthConfig { tokens, skip_paths, ..AuthConfig::default() };
        Arc::new(Auth::new(config, Arc::new(SystemClock::new())).unwrap())
    }

    #[tokio::test]
    async fn with_nothing_configured_everybody_is_an_admin() {
        let auth = Arc::new(Auth::open(Arc::new(SystemClock::new())));
        assert_eq!(auth.identify(None).await.unwrap().role, Some(Role::Admin));
        assert_eq!(auth.level(Level::AtLeast(Role::Admin), "/x"), Level::Public);
        let config = AuthConfig { is_closed: true, ..AuthConfig::default() };
        let closed = Auth::new(config, Arc::new(SystemClock::new())).unwrap();
        assert_eq!(Arc::new(closed).identify(None).await, Err(Denied::Missing));
    }

    #[tokio::test]
    async fn with_a_token_nobody_else_enters() {
        let auth = auth(&[]);
        assert_eq!(auth.identify(Some(b"s3cret")).await.unwrap().role, Some(Role::Admin));
        assert_eq!(auth.identify(None).await, Err(Denied::Missing));
        assert_eq!(auth.identify(Some(b"")).await, Err(Denied::Missing));
        assert_eq!(auth.identify(Some(b"other")).await, Err(Denied::Unknown));
        assert_eq!(auth.admit(None, Level::Public).await, Ok(None));
    }

    #[test]
    fn skipped_paths_are_exact_or_a_folder_and_figures_left_out_are_closed() {
        let auth = auth(&["/health", "/open/", "/"]);
        let admin = Level::AtLeast(Role::Admin);
        assert_eq!(auth.level(admin, "/health"), Level::Public);
        assert_eq!(auth.level(admin, "/open/x"), Level::Public);
        assert_eq!(auth.level(admin, "/open"), admin);
        assert_eq!(auth.level(admin, "/healthy"), admin, "the root stands for itself only");
        assert_eq!(auth.level(Level::Public, "/metrics"), Level::AtLeast(Role::ReadOnly));
        assert_eq!(auth.level(Level::Public, "/livez"), Level::Public);
    }

    #[tokio::test]
    async fn a_token_that_was_taken_back_ends_what_its_holder_may_and_another_role_counts_at_once()
    {
        let line = |name: &str, role: Role, seed: u64| {
            let name = ProducerSub::new(name).unwrap();
            tokens::make(&name, role, &SeededRandom::new(seed))
        };
        let ((kept, kept_line), (taken, taken_line)) =
            (line("kept", Role::ReadWrite, 1), line("taken", Role::Admin, 2));
        let auth = auth(&[]);
        auth.set_tokens(Tokens::parse(&format!("{kept_line},{taken_line}")).unwrap());
        let mut kept = auth.identify(Some(kept.as_bytes())).await.unwrap();
        let mut taken = auth.identify(Some(taken.as_bytes())).await.unwrap();
        assert!(auth.is_current(&mut kept) && auth.is_current(&mut taken));
        let lesser = kept_line.replace("read-write", "read-only");
        auth.set_tokens(Tokens::parse(&lesser).unwrap());
        assert!(auth.is_current(&mut kept) && !auth.is_current(&mut taken));
        assert_eq!(kept.role, Some(Role::ReadOnly));
        auth.set_tokens(Tokens::default());
        assert!(!auth.is_current(&mut kept));
    }
}
