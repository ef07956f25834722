//! Tokens of an OpenID Connect issuer: its keys are fetched once, kept, and fetched again for a key that nobody knows. What a token says
//! decides the role. No token appears in an error or a log line.

use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;

use super::signatures;
use crate::config::admin::{Oidc, Role};
use crate::endpoint::fetch::Fetcher;

/// Keys are fetched anew after this time.
const KEYS_FRESH: Duration = Duration::from_secs(3600);
/// While the issuer is away, keys that were fetched serve on for so long.
const KEYS_KEPT: Duration = Duration::from_secs(24 * 3600);
/// Tokens with unknown keys make us ask at most this often.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// Bytes of a document of the issuer.
const DOCUMENT_BYTES_MAX: usize = 1 << 20;
/// How long the issuer may take for one.
const FETCH_MAX: Duration = Duration::from_secs(5);

/// Who a token speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// The name that stands in the audit trail.
    pub name: String,
    /// What it may do; `None`: nothing here.
    pub role: Option<Role>,
}

/// Why a token is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The token is bad.
    Bad(String),
    /// The issuer's keys could not be had.
    Away(String),
}

/// An issuer whose tokens are taken.
pub struct Issuer {
    config: Oidc,
    validation: Validation,
    fetcher: Fetcher,
    keys: Mutex<Keys>,
}

#[derive(Default)]
struct Keys {
    known: Vec<Key>,
    fetched: Option<Instant>,
    asked: Option<(Instant, Result<(), String>)>,
}

#[derive(Clone)]
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

impl Issuer {
    /// Makes ready; nothing is fetched before the first token.
    pub fn new(config: &Oidc) -> Result<Self, String> {
        signatures::install();
        let mut validation = Validation::new(Algorithm::RS256);
        validation.algorithms = vec![Algorithm::RS256];
        validation.leeway = config.leeway_s;
        validation.validate_nbf = true;
        validation.set_issuer(&[&config.issuer]);
        validation.set_audience(&config.audience);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        let fetcher = Fetcher::new().map_err(|error| error.to_string())?;
        Ok(Self { config: config.clone(), validation, fetcher, keys: Mutex::default() })
    }

    /// Who a token speaks for, if it is good.
    pub async fn bearer(&self, token: &str) -> Result<Bearer, Refusal> {
        let bad = |error: jsonwebtoken::errors::Error| Refusal::Bad(reason(&error));
        let header = decode_header(token).map_err(bad)?;
        if !matches!(header.alg, Algorithm::RS256 | Algorithm::ES256) {
            return Err(Refusal::Bad("it is signed neither with RS256 nor with ES256".to_owned()));
        }
        let key = self.key(header.kid.as_deref(), header.alg).await?;
        let mut validation = self.validation.clone();
        // One algorithm, that of the key: a token does not choose how it is verified.
        validation.algorithms = vec![key.algorithm];
        let claims = decode::<Value>(token, &key.key, &validation).map_err(bad)?.claims;
        Ok(Bearer { name: name(&claims), role: role(&self.config, &claims) })
    }

    /// The key that a token names, fetched if it is not known; without a name the only one of its kind.
    async fn key(&self, id: Option<&str>, algorithm: Algorithm) -> Result<Key, Refusal> {
        let mut keys = self.keys.lock().await;
        let fresh = keys.fetched.is_some_and(|at| at.elapsed() < KEYS_FRESH);
        if fresh && let Some(key) = keys.find(id, algorithm) {
            return Ok(key);
        }
        if keys.asked.as_ref().is_none_or(|(at, _)| at.elapsed() >= ASK_EVERY) {
            let asked = self.fetch().await;
            if let Err(reason) = &asked {
                tracing::warn!(reason, "the issuer's keys could not be fetched");
            }
            keys.asked = Some((Instant::now(), asked.as_ref().map(|_| ()).map_err(Clone::clone)));
            if let Ok(known) = asked {
                (keys.known, keys.fetched) = (known, Some(Instant::now()));
            }
        }
        let kept = keys.fetched.is_some_and(|at| at.elapsed() < KEYS_KEPT);
        match (keys.find(id, algorithm).filter(|_| kept), &keys.asked) {
            (Some(key), _) => Ok(key),
            (None, Some((_, Err(reason)))) => Err(Refusal::Away(format!("the issuer's keys could not be fetched: {reason}"))),
            (None, _) => Err(Refusal::Bad("it is signed with a key that the issuer does not publish".to_owned())),
        }
    }

    async fn fetch(&self) -> Result<Vec<Key>, String> {
        let url = format!("{}/.well-known/openid-configuration", self.config.issuer.trim_end_matches('/'));
        let document = self.fetcher.get(&url, DOCUMENT_BYTES_MAX, FETCH_MAX).await?;
        let discovery: Discovery = serde_json::from_slice(&document).map_err(|error| format!("{url}: {error}"))?;
        if discovery.issuer != self.config.issuer {
            return Err(format!("{url} is of the issuer {}, not of {}", discovery.issuer, self.config.issuer));
        }
        let document = self.fetcher.get(&discovery.jwks_uri, DOCUMENT_BYTES_MAX, FETCH_MAX).await?;
        let set: KeySet = serde_json::from_slice(&document).map_err(|error| format!("{}: {error}", discovery.jwks_uri))?;
        // Keys of kinds that nobody here knows are no reason to refuse the others.
        Ok(set.keys.into_iter().filter_map(|key| usable(&serde_json::from_value(key).ok()?)).collect())
    }
}

impl Keys {
    fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<Key> {
        let mut fitting = self.known.iter().filter(|key| key.algorithm == algorithm && (id.is_none() || key.id.as_deref() == id));
        let first = fitting.next()?;
        (id.is_some() || fitting.next().is_none()).then(|| first.clone())
    }
}

/// A key that signs tokens in a way that we verify.
fn usable(jwk: &Jwk) -> Option<Key> {
    use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, KeyAlgorithm};
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(parameters) if parameters.curve == EllipticCurve::P256 => Algorithm::ES256,
        _ => return None,
    };
    let said = jwk.common.key_algorithm.as_ref();
    let fits = match algorithm {
        Algorithm::RS256 => said.is_none_or(|said| *said == KeyAlgorithm::RS256),
        _ => said.is_none_or(|said| *said == KeyAlgorithm::ES256),
    };
    let signs = jwk.common.public_key_use.as_ref().is_none_or(|it| *it == PublicKeyUse::Signature);
    let key = DecodingKey::from_jwk(jwk).ok().filter(|_| fits && signs)?;
    Some(Key { id: jwk.common.key_id.clone(), algorithm, key })
}

/// What is wrong with a token, without its contents.
fn reason(error: &jsonwebtoken::errors::Error) -> String {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::ExpiredSignature => "it has expired".to_owned(),
        ErrorKind::ImmatureSignature => "it is not valid yet".to_owned(),
        ErrorKind::InvalidIssuer => "its issuer is not that of admin.oidc.issuer".to_owned(),
        ErrorKind::InvalidAudience => "its audience is none of admin.oidc.audience".to_owned(),
        ErrorKind::InvalidSignature => "its signature is wrong".to_owned(),
        ErrorKind::MissingRequiredClaim(claim) => format!("it has no claim \"{claim}\""),
        _ => "it is no token that can be read".to_owned(),
    }
}

/// Whose token it is, for the audit trail.
fn name(claims: &Value) -> String {
    let words = ["preferred_username", "upn", "email", "azp_name", "client_id", "sub", "azp"];
    let name = words.iter().find_map(|claim| claims.get(claim).and_then(Value::as_str).filter(|name| !name.trim().is_empty()));
    name.unwrap_or("unnamed token").chars().filter(|c| !c.is_control()).take(200).collect()
}

fn role(config: &Oidc, claims: &Value) -> Option<Role> {
    let claim = &config.roles_claim;
    let found = if claim.starts_with('/') { claims.pointer(claim) } else { claims.get(claim) };
    let words: Vec<&str> = match found {
        Some(Value::String(text)) => text.split_whitespace().collect(),
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let has = |wanted: &[String]| wanted.iter().any(|role| words.contains(&role.as_str()));
    if has(&config.operators) {
        Some(Role::Operator)
    } else if has(&config.readers) {
        Some(Role::Reader)
    } else {
        config.otherwise
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(more: &str) -> Oidc {
        toml::from_str(&format!("issuer = \"https://i\"\naudience = [\"a\"]\noperators = [\"op\"]\nreaders = [\"re\"]\n{more}")).unwrap()
    }

    #[test]
    fn claims_decide_the_role() {
        let plain = config("");
        assert_eq!(role(&plain, &json!({"roles": ["x", "op", "re"]})), Some(Role::Operator));
        assert_eq!(role(&plain, &json!({"roles": "x re"})), Some(Role::Reader));
        assert_eq!(role(&plain, &json!({"roles": [1, null]})), None);
        assert_eq!(role(&plain, &json!({})), None);
        assert_eq!(role(&config("otherwise = \"reader\""), &json!({})), Some(Role::Reader));
        let nested = config("roles_claim = \"/realm_access/roles\"");
        assert_eq!(role(&nested, &json!({"realm_access": {"roles": ["op"]}})), Some(Role::Operator));
    }

    #[test]
    fn a_token_has_a_name() {
        assert_eq!(name(&json!({"sub": "s", "preferred_username": "kari"})), "kari");
        assert_eq!(name(&json!({"sub": "a\nb"})), "ab");
        assert_eq!(name(&json!({})), "unnamed token");
    }
}
