//! JSON Web Tokens: which key a token is signed with, and whether it is.
//!
//! In: a token. Out: who presents it, or why not; or that its key is not known, which a look at the
//! key server may change. A key is only ever used for its own kind of algorithm: a public key is no
//! secret that anybody could sign with. Called by `auth`.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};

use crate::wire::auth::Caller;
use crate::wire::auth::Denied;
use crate::wire::auth::claims::{Claims, Expected};
use crate::wire::auth::jwks::{Jwks, JwksConfig};

/// How tokens may be signed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Signing {
    /// HMAC with SHA-256, by the secret.
    Hs256,
    /// RSA with SHA-256.
    Rs256,
    /// Ed25519.
    EdDsa,
    /// Any of them, as the token says and as far as there are keys.
    Auto,
}

impl Signing {
    fn allows(self, algorithm: Algorithm) -> bool {
        match self {
            Self::Hs256 => algorithm == Algorithm::HS256,
            Self::Rs256 => algorithm == Algorithm::RS256,
            Self::EdDsa => algorithm == Algorithm::EdDSA,
            Self::Auto => KNOWN.contains(&algorithm),
        }
    }
}

/// Algorithms that are understood.
pub(super) const KNOWN: [Algorithm; 3] = [Algorithm::HS256, Algorithm::RS256, Algorithm::EdDSA];

/// How tokens are checked.
#[derive(Clone, Debug)]
pub struct JwtConfig {
    /// How they may be signed.
    pub signing: Signing,
    /// The secret of HS256; empty: none.
    pub secret: String,
    /// A public key in PEM; empty: none.
    pub public_key: String,
    /// Where keys are published.
    pub jwks: Option<JwksConfig>,
    /// What is expected beside the signature.
    pub expected: Expected,
}

/// Why no token could ever be checked.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum JwtError {
    /// There is no key.
    #[error(
        "there is no key to check tokens with: set auth.jwt_secret, auth.jwt_public_key or \
         auth.jwt_jwks_url"
    )]
    NoKey,
    /// The public key is none.
    #[error("auth.jwt_public_key holds no RSA or Ed25519 public key in PEM")]
    PublicKey,
    /// The address of the key server is none.
    #[error("auth.jwt_jwks_url is no http or https address without a user's name")]
    Url,
}

/// Why a token is not good, for now.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It will not be, whatever is tried.
    Denied(Denied),
    /// Nobody has seen its key yet.
    UnknownKey,
}

impl From<Denied> for Trouble {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

/// Checks tokens.
pub(super) struct Jwt {
    signing: Signing,
    own: Vec<(Algorithm, DecodingKey)>,
    pub(super) jwks: Option<Arc<Jwks>>,
    expected: Expected,
}

impl Jwt {
    /// # Errors
    /// [`JwtError`].
    pub(super) fn new(config: JwtConfig) -> Result<Self, JwtError> {
        let JwtConfig { signing, secret, public_key, jwks, expected } = config;
        let mut own = Vec::new();
        if !secret.is_empty() {
            own.push((Algorithm::HS256, DecodingKey::from_secret(secret.as_bytes())));
        }
        if !public_key.is_empty() {
            own.push(public(&public_key).ok_or(JwtError::PublicKey)?);
        }
        let jwks = jwks.map(Jwks::new).transpose().map_err(|_| JwtError::Url)?.map(Arc::new);
        if own.is_empty() && jwks.is_none() {
            return Err(JwtError::NoKey);
        }
        Ok(Self { signing, own, jwks, expected })
    }

    /// Which keys tokens are checked with: another number, other keys.
    pub(super) fn keys(&self) -> u64 {
        self.jwks.as_ref().map_or(0, |jwks| jwks.fetch_number())
    }

    /// Who presents this token at `now_s`, unix seconds.
    pub(super) fn check(&self, token: &[u8], now_s: u64) -> Result<Caller, Trouble> {
        let header = decode_header(token).map_err(|_| Denied::Malformed)?;
        if !self.signing.allows(header.alg) {
            return Err(Denied::Algorithm.into());
        }
        let mut result = Err(Trouble::UnknownKey);
        let own = self.own.iter().filter(|(algorithm, _)| *algorithm == header.alg);
        for (_, key) in own {
            result = self.check_with(token, header.alg, key, now_s).map_err(Trouble::from);
            if !matches!(result, Err(Trouble::Denied(Denied::Signature))) {
                return result;
            }
        }
        let Some(jwks) = &self.jwks else { return result };
        // Of a key server's keys none is a secret.
        if header.alg == Algorithm::HS256 {
            return result;
        }
        // Ours did not sign it. Perhaps a key did that nobody has fetched yet.
        result = Err(Trouble::UnknownKey);
        for key in jwks.keys().find(header.kid.as_deref(), header.alg) {
            result = self.check_with(token, header.alg, key, now_s).map_err(Trouble::from);
            if !matches!(result, Err(Trouble::Denied(Denied::Signature))) {
                break;
            }
        }
        result
    }

    fn check_with(
        &self,
        token: &[u8],
        algorithm: Algorithm,
        key: &DecodingKey,
        now_s: u64,
    ) -> Result<Caller, Denied> {
        let mut validation = Validation::new(algorithm);
        // What is claimed is judged by our own clock and rules.
        validation.required_spec_claims.clear();
        (validation.validate_exp, validation.validate_aud) = (false, false);
        let decoded =
            decode::<Claims>(token, key, &validation).map_err(|error| match error.kind() {
                jsonwebtoken::errors::ErrorKind::InvalidSignature => Denied::Signature,
                _ => Denied::Malformed,
            })?;
        decoded.claims.check(&self.expected, now_s)
    }
}

/// The key in a PEM text, whose line ends may be written as `\n`, as in a variable.
fn public(pem: &str) -> Option<(Algorithm, DecodingKey)> {
    let pem = pem.replace("\\n", "\n");
    let pem = pem.as_bytes();
    let ed = DecodingKey::from_ed_pem(pem).map(|key| (Algorithm::EdDSA, key));
    ed.or_else(|_| DecodingKey::from_rsa_pem(pem).map(|key| (Algorithm::RS256, key))).ok()
}
