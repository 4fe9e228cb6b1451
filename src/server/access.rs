//! Who may come in, from the settings: tokens, keys, and the files that hold them.
//!
//! In: settings. Out: what `wire::auth` needs; and, again and again, the tokens of a file that has
//! changed. A file that cannot be read later leaves in force what was read before. Called by the
//! server's composition.

use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Clock;
use crate::config::{self, JwtAlgorithm, Settings};
use crate::server::{Doing, StartError};
use crate::wire::auth::claims::Expected;
use crate::wire::auth::jwks::JwksConfig;
use crate::wire::auth::jwt::{JwtConfig, Signing};
use crate::wire::auth::tokens::Tokens;
use crate::wire::auth::{Auth, AuthConfig};

/// What begins a key that stands in the settings themselves.
const PEM_BEGINS: &str = "-----BEGIN";

/// Knows callers as the settings say.
pub(super) fn auth(settings: &Settings, clock: Arc<dyn Clock>) -> Result<Auth, StartError> {
    let fixed = fixed_tokens(settings)?;
    let file = &settings.auth.tokens_file;
    let tokens = match file.is_empty() {
        true => fixed,
        false => fixed.joined(&read_tokens(file)?),
    };
    let skip_paths = settings.auth.skip_paths.split(',').map(str::trim);
    let skip_paths = skip_paths.filter(|path| !path.is_empty()).map(str::to_owned).collect();
    let jwt = settings.auth.jwt_enabled.then(|| jwt(&settings.auth)).transpose()?;
    let config = AuthConfig { tokens, jwt, skip_paths, is_closed: settings.asks_for_tokens() };
    Auth::new(config, clock).doing("knowing who may come in")
}

/// The tokens of the settings themselves.
fn fixed_tokens(settings: &Settings) -> Result<Tokens, StartError> {
    let mut tokens = Tokens::parse(&settings.auth.tokens).doing("reading auth.tokens")?;
    if settings.server.token.is_set() {
        tokens.add_secret(settings.server.token.expose());
    }
    Ok(tokens)
}

fn read_tokens(path: &str) -> Result<Tokens, StartError> {
    let text = std::fs::read_to_string(path).doing(format!("reading {path}"))?;
    Tokens::parse(&text).doing(format!("reading {path}"))
}

fn jwt(auth: &config::Auth) -> Result<JwtConfig, StartError> {
    let signing = match auth.jwt_algorithm {
        JwtAlgorithm::Hs256 => Signing::Hs256,
        JwtAlgorithm::Rs256 => Signing::Rs256,
        JwtAlgorithm::EdDsa => Signing::EdDsa,
        JwtAlgorithm::Auto => Signing::Auto,
    };
    let key = &auth.jwt_public_key;
    let public_key = match key.is_empty() || key.trim_start().starts_with(PEM_BEGINS) {
        true => key.clone(),
        false => std::fs::read_to_string(key).doing(format!("reading {key}"))?,
    };
    let jwks = (!auth.jwt_jwks_url.is_empty()).then(|| JwksConfig {
        url: auth.jwt_jwks_url.clone(),
        refresh: Duration::from_secs(auth.jwt_jwks_refresh_s),
        timeout: Duration::from_millis(auth.jwt_jwks_timeout_ms),
    });
    let names = [&auth.jwt_role_read_only, &auth.jwt_role_read_write, &auth.jwt_role_admin];
    let expected = Expected {
        issuer: auth.jwt_issuer.clone(),
        audience: auth.jwt_audience.clone(),
        skew_s: auth.jwt_clock_skew_s,
        role_claim: auth.jwt_role_claim.clone(),
        roles_claim: auth.jwt_roles_claim.clone(),
        role_names: names.map(Clone::clone),
    };
    let secret = auth.jwt_secret.expose().to_owned();
    Ok(JwtConfig { signing, secret, public_key, jwks, expected })
}

/// Reads the file of tokens again whenever it has changed; never returns.
pub(super) async fn watch_tokens(settings: Settings, auth: Arc<Auth>) {
    let path = settings.auth.tokens_file.clone();
    if path.is_empty() {
        return;
    }
    let every = Duration::from_millis(settings.tls.reload_interval_ms);
    let mut seen = tokio::fs::read(&path).await.ok();
    loop {
        tokio::time::sleep(every).await;
        let now = tokio::fs::read(&path).await.ok();
        if now == seen {
            continue;
        }
        seen = now;
        match fixed_tokens(&settings).and_then(|fixed| Ok(fixed.joined(&read_tokens(&path)?))) {
            Ok(tokens) => {
                auth.set_tokens(tokens);
                tracing::info!(path, "the tokens were read again");
            }
            Err(error) => tracing::error!(%error, "the tokens stay as they were"),
        }
    }
}
