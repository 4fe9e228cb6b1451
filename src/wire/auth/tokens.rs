//! Static tokens: long random secrets, each with a name and a role, known to the server as hashes.
//!
//! In: lines `name:role:hash`, and what a client presents. Out: whose token it is. A token has 256
//! random bits, so that SHA-256 of it can be kept where others read it; a password would need more.
//! Looking takes the same time whatever is presented and whoever it belongs to. Pure. Called by
//! `auth`, and by the command that makes a token.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};

use crate::base::random::Random;
use crate::state::effect::ProducerSub;
use crate::wire::auth::role::Role;

/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;
/// Bytes of its hash.
const DIGEST_BYTES: usize = 32;
/// A token's hash.
pub(super) type Digest = [u8; DIGEST_BYTES];
/// What our tokens begin with, so that they are recognised where they should not be.
const PREFIX: &str = "onrush_";
/// Tokens of a server; each costs a comparison with every request.
const TOKENS_MAX: usize = 1024;

/// Why a line is no token.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TokenError {
    /// The line has not three parts.
    #[error("token {entry} is not of the form name:role:hash")]
    Form {
        /// Which one, from 1.
        entry: usize,
    },
    /// Its name is too long, or used before.
    #[error("the name of token {entry} must have 1 to 255 bytes and be used once")]
    Name {
        /// Which one, from 1.
        entry: usize,
    },
    /// Its role is unknown.
    #[error("the role of token {entry} must be read-only, read-write or admin")]
    Role {
        /// Which one, from 1.
        entry: usize,
    },
    /// Its hash is none.
    #[error("the hash of token {entry} must be 64 hexadecimal digits")]
    Hash {
        /// Which one, from 1.
        entry: usize,
    },
    /// There are too many.
    #[error("there are more than {TOKENS_MAX} tokens")]
    TooMany,
}

/// One token.
#[derive(Clone, Debug)]
pub struct StaticToken {
    /// Its name; `None` for the one that only has a secret.
    pub name: Option<ProducerSub>,
    /// What its holder may do.
    pub role: Role,
    digest: Digest,
}

impl StaticToken {
    /// What is kept of it.
    pub(super) fn digest(&self) -> &Digest {
        &self.digest
    }
}

/// All of a server.
#[derive(Clone, Debug, Default)]
pub struct Tokens(Vec<StaticToken>);

impl Tokens {
    /// Reads entries that are parted by commas or line ends; lines that begin with `#` say nothing.
    ///
    /// # Errors
    /// [`TokenError`] with the number of the entry; no part of it is told, as it may be a secret.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let entries = lines.flat_map(|line| line.split(',')).map(str::trim);
        let mut tokens = Self::default();
        for (at, entry) in entries.filter(|entry| !entry.is_empty()).enumerate() {
            tokens.push(parse_one(at + 1, entry)?, at + 1)?;
        }
        Ok(tokens)
    }

    fn push(&mut self, token: StaticToken, entry: usize) -> Result<(), TokenError> {
        if self.0.len() >= TOKENS_MAX {
            return Err(TokenError::TooMany);
        }
        if self.0.iter().any(|held| held.name == token.name) {
            return Err(TokenError::Name { entry });
        }
        self.0.push(token);
        Ok(())
    }

    /// Adds the one secret without a name, whose holder is an admin.
    pub fn add_secret(&mut self, secret: &str) {
        let digest = hash(secret.as_bytes());
        self.0.push(StaticToken { name: None, role: Role::Admin, digest });
    }

    /// The tokens of both.
    #[must_use]
    pub fn joined(mut self, others: &Self) -> Self {
        self.0.extend(others.0.iter().cloned());
        self
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whose token this is.
    #[must_use]
    pub fn find(&self, presented: &[u8]) -> Option<&StaticToken> {
        self.of_digest(&hash(presented))
    }

    /// The token of which this is kept.
    pub(super) fn of_digest(&self, digest: &Digest) -> Option<&StaticToken> {
        let mut found = None;
        for token in &self.0 {
            // To the end, so that the time says nothing about which one it was.
            if verify_slices_are_equal(&token.digest, digest).is_ok() {
                found = Some(token);
            }
        }
        found
    }
}

fn parse_one(entry: usize, text: &str) -> Result<StaticToken, TokenError> {
    let mut parts = text.split(':').map(str::trim);
    let (Some(name), Some(role), Some(hash), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(TokenError::Form { entry });
    };
    let name = ProducerSub::new(name).ok_or(TokenError::Name { entry })?;
    let role = Role::named(role).ok_or(TokenError::Role { entry })?;
    let digest = from_hex(hash).ok_or(TokenError::Hash { entry })?;
    Ok(StaticToken { name: Some(name), role, digest })
}

/// A new token and the line that a server needs to know it.
#[must_use]
pub fn make(name: &ProducerSub, role: Role, random: &dyn Random) -> (String, String) {
    let mut secret = [0; TOKEN_BYTES];
    random.fill(&mut secret);
    let token = format!("{PREFIX}{}", to_hex(&secret));
    let line = format!("{}:{}:{}", name.as_str(), role.name(), to_hex(&hash(token.as_bytes())));
    (token, line)
}

/// SHA-256.
pub(super) fn hash(bytes: &[u8]) -> Digest {
    let mut out = [0; DIGEST_BYTES];
    let digest = digest(&SHA256, bytes);
    // SHA-256 has 32 bytes.
    for (to, from) in out.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    out
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Digest> {
    let mut out = [0; DIGEST_BYTES];
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| Some(digit.to_digit(16)? as u8)).collect();
    let digits = digits.filter(|digits| digits.len() == 2 * DIGEST_BYTES)?;
    for (to, pair) in out.iter_mut().zip(digits.chunks(2)) {
        *to = pair.iter().fold(0, |byte, digit| byte << 4 | digit);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::SeededRandom;

    fn sub(name: &str) -> ProducerSub {
        ProducerSub::new(name).unwrap()
    }

    #[test]
    fn a_made_token_is_known_by_its_line_and_by_nothing_else() {
        let random = SeededRandom::new(1);
        let (token, line) = make(&sub("ci"), Role::ReadWrite, &random);
        let (other, other_line) = make(&sub("cron"), Role::Admin, &random);
        assert!(!line.contains(&token), "the line tells the token");
        let tokens = Tokens::parse(&format!("# ours\n{line}\n\n{other_line}\n")).unwrap();
        let found = tokens.find(token.as_bytes()).unwrap();
        assert_eq!((found.name.clone(), found.role), (Some(sub("ci")), Role::ReadWrite));
        assert_eq!(tokens.find(other.as_bytes()).unwrap().role, Role::Admin);
        for wrong in ["", "onrush_", &line, &token[1..]] {
            assert!(tokens.find(wrong.as_bytes()).is_none(), "{wrong}");
        }
        assert!(Tokens::parse(&format!("{line},{other_line}")).unwrap().find(b"x").is_none());
    }

    #[test]
    fn a_line_that_is_no_token_is_refused_by_its_number() {
        let hash = "ab".repeat(32);
        let good = format!("a:admin:{hash}");
        let refusal = |bad: &str| Tokens::parse(&format!("{good}\n{bad}")).unwrap_err();
        assert_eq!(refusal("a"), TokenError::Form { entry: 2 });
        assert_eq!(refusal(&format!("b:root:{hash}")), TokenError::Role { entry: 2 });
        assert_eq!(refusal("b:admin:abc"), TokenError::Hash { entry: 2 });
        assert_eq!(refusal(&format!("a:read-only:{hash}")), TokenError::Name { entry: 2 });
        assert_eq!(refusal(&format!(":read-only:{hash}")), TokenError::Name { entry: 2 });
    }

    #[test]
    fn the_secret_without_a_name_is_an_admins() {
        let mut tokens = Tokens::default();
        assert!(tokens.is_empty() && tokens.find(b"").is_none());
        tokens.add_secret("s3cret");
        let found = tokens.find(b"s3cret").unwrap();
        assert_eq!((found.name.clone(), found.role), (None, Role::Admin));
        assert!(tokens.find(b"s3cre").is_none());
    }
}
