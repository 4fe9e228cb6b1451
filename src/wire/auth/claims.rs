//! What a JSON Web Token claims, and whether that is good now.
//!
//! In: the claims of a token whose signature is right, what is expected of them, and the time. Out: a
//! [`Caller`], or why not. Pure. Called by `jwt`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::state::effect::ProducerSub;
use crate::wire::auth::role::Role;
use crate::wire::auth::{Caller, Denied};

/// What is expected of a token beside its signature.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Who must have issued it; empty: anybody.
    pub issuer: String,
    /// Whom it must be for; empty: anybody.
    pub audience: String,
    /// How far clocks may be apart, seconds.
    pub skew_s: u64,
    /// The claim that holds one role.
    pub role_claim: String,
    /// The claim that holds a list of roles.
    pub roles_claim: String,
    /// Names of the roles there, the weakest first.
    pub role_names: [String; 3],
}

impl Default for Expected {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            audience: String::new(),
            skew_s: 30,
            role_claim: "role".to_owned(),
            roles_claim: "roles".to_owned(),
            role_names: Role::ALL.map(|role| role.name().to_owned()),
        }
    }
}

/// One text or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Texts {
    One(String),
    Many(Vec<String>),
}

impl Texts {
    fn has(&self, wanted: &str) -> bool {
        match self {
            Self::One(text) => text == wanted,
            Self::Many(texts) => texts.iter().any(|text| text == wanted),
        }
    }
}

/// The claims of a token.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Claims {
    exp: Option<f64>,
    nbf: Option<f64>,
    iss: Option<String>,
    aud: Option<Texts>,
    sub: Option<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Claims {
    /// Who it is, if all that is claimed is good at `now_s`, unix seconds.
    pub(super) fn check(&self, expected: &Expected, now_s: u64) -> Result<Caller, Denied> {
        let (now, skew) = (now_s as f64, expected.skew_s as f64);
        // A token that never ends cannot be taken back.
        let until = self.exp.ok_or(Denied::Expired)? + skew;
        if until <= now {
            return Err(Denied::Expired);
        }
        if self.nbf.is_some_and(|from| from > now + skew) {
            return Err(Denied::NotYet);
        }
        if !expected.issuer.is_empty() && self.iss.as_ref() != Some(&expected.issuer) {
            return Err(Denied::Issuer);
        }
        let is_for = |wanted: &str| self.aud.as_ref().is_some_and(|it| it.has(wanted));
        if !expected.audience.is_empty() && !is_for(&expected.audience) {
            return Err(Denied::Audience);
        }
        let sub = match self.sub.as_deref() {
            None | Some("") => None,
            Some(sub) => Some(ProducerSub::new(sub).ok_or(Denied::Malformed)?),
        };
        let until_ms = Some((until * 1000.0) as u64);
        Ok(Caller { role: self.role(expected), sub, until_ms, token: None })
    }

    /// The strongest role that is claimed.
    fn role(&self, expected: &Expected) -> Option<Role> {
        let one = self.rest.get(&expected.role_claim).into_iter();
        let list = self.rest.get(&expected.roles_claim).and_then(Value::as_array);
        let claimed = one.chain(list.into_iter().flatten()).filter_map(Value::as_str);
        let named = claimed.filter_map(|name| {
            let at = expected.role_names.iter().position(|known| known == name)?;
            Role::ALL.get(at).copied()
        });
        named.max()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_000_000;

    fn check(expected: &Expected, claims: Value) -> Result<Caller, Denied> {
        serde_json::from_value::<Claims>(claims).unwrap().check(expected, NOW)
    }

    fn strict() -> Expected {
        let (issuer, audience) = ("issuer".to_owned(), "onrush".to_owned());
        Expected { issuer, audience, ..Expected::default() }
    }

    #[test]
    fn a_token_is_good_until_it_ends_and_a_little_longer() {
        let at = |exp: u64| check(&Expected::default(), json!({ "exp": exp, "sub": "a" }));
        assert_eq!(at(NOW - 29).unwrap().sub, ProducerSub::new("a"));
        assert_eq!(at(NOW - 29).unwrap().until_ms, Some((NOW + 1) * 1000));
        assert_eq!(at(NOW - 30).unwrap_err(), Denied::Expired);
        let nothing = check(&Expected::default(), json!({ "sub": "a" }));
        assert_eq!(nothing.unwrap_err(), Denied::Expired, "without an end");
        let later = |nbf: u64| check(&Expected::default(), json!({ "exp": NOW + 90, "nbf": nbf }));
        assert!(later(NOW + 30).is_ok());
        assert_eq!(later(NOW + 31).unwrap_err(), Denied::NotYet);
    }

    #[test]
    fn issuer_and_audience_must_be_the_expected_ones() {
        let token = |iss: &str, aud: Value| {
            check(&strict(), json!({ "exp": NOW + 1, "iss": iss, "aud": aud })).map(|_| ())
        };
        assert_eq!(token("issuer", json!("onrush")), Ok(()));
        assert_eq!(token("issuer", json!(["other", "onrush"])), Ok(()));
        assert_eq!(token("other", json!("onrush")), Err(Denied::Issuer));
        assert_eq!(token("issuer", json!("other")), Err(Denied::Audience));
        assert_eq!(check(&strict(), json!({ "exp": NOW + 1 })).unwrap_err(), Denied::Issuer);
    }

    #[test]
    fn the_strongest_of_all_claimed_roles_counts() {
        let role = |claims: Value| {
            let mut claims = claims;
            claims["exp"] = json!(NOW + 1);
            check(&Expected::default(), claims).unwrap().role
        };
        assert_eq!(role(json!({})), None);
        assert_eq!(role(json!({ "role": "read-only" })), Some(Role::ReadOnly));
        assert_eq!(role(json!({ "roles": ["x", "read-write", 7] })), Some(Role::ReadWrite));
        let both = json!({ "role": "read-only", "roles": ["admin"] });
        assert_eq!(role(both), Some(Role::Admin));
        assert_eq!(role(json!({ "role": "root", "roles": "admin" })), None);
    }

    #[test]
    fn claims_and_names_of_roles_may_be_others() {
        let expected = Expected {
            role_claim: "onrush_role".to_owned(),
            role_names: ["viewer", "worker", "boss"].map(str::to_owned),
            ..Expected::default()
        };
        let claims = json!({ "exp": NOW + 1, "onrush_role": "worker", "role": "admin" });
        assert_eq!(check(&expected, claims).unwrap().role, Some(Role::ReadWrite));
    }

    #[test]
    fn a_subject_that_is_too_long_is_refused_and_an_empty_one_is_none() {
        let sub = |sub: &str| check(&Expected::default(), json!({ "exp": NOW + 1, "sub": sub }));
        assert_eq!(sub("").unwrap().sub, None);
        assert_eq!(sub(&"x".repeat(256)).unwrap_err(), Denied::Malformed);
    }
}
