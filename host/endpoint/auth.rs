//! Who we are to an endpoint: a fixed header, or a token by client credentials that is fetched once, kept, and renewed before it ends.
//! No secret appears in an error, a log line or a `Debug` output.

use std::time::{Duration, Instant};

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Client, Url};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::config;
use super::exchange::{cause, escaped, read_body};
use super::template::parse_base;

/// A token is fetched anew when this much, or a fifth of its life, is left.
const RENEW_BEFORE: Duration = Duration::from_secs(60);
/// How long a token without `expires_in` is used.
const LIFE_DEFAULT_S: u64 = 300;
/// After a failure, calls that waited for the same token fail alike, without asking once each.
const FAILURE_KEPT: Duration = Duration::from_millis(500);
/// Bytes of a token endpoint's answer.
const TOKEN_BYTES_MAX: usize = 64 << 10;

/// The header that says who we are.
pub type Credentials = Option<(HeaderName, HeaderValue)>;

/// The readied settings of `auth`.
pub enum Auth {
    /// The same for every call.
    Fixed(Credentials),
    /// A token by OAuth 2 client credentials.
    Token(Box<TokenSource>),
}

/// Where tokens come from.
pub struct TokenSource {
    url: Url,
    /// `application/x-www-form-urlencoded`, secret included.
    form: String,
    state: Mutex<State>,
}

#[derive(Default)]
enum State {
    #[default]
    Empty,
    Token {
        header: HeaderValue,
        renew_at: Instant,
    },
    Failed {
        reason: String,
        at: Instant,
    },
}

#[derive(Deserialize)]
struct Token {
    access_token: String,
    #[serde(default)]
    expires_in: Option<u64>,
}

/// RFC 6749's error answer.
#[derive(Deserialize)]
struct Refusal {
    error: String,
}

impl Auth {
    /// Checks the settings. Errors name the config key.
    pub fn new(config: &config::Auth) -> Result<Self, (&'static str, String)> {
        Ok(match config {
            config::Auth::None => Self::Fixed(None),
            config::Auth::Bearer { token } => Self::Fixed(Some((AUTHORIZATION, bearer(token).map_err(|reason| ("auth.token", reason))?))),
            config::Auth::ApiKey { header, key } => {
                let header = header.parse().map_err(|_| ("auth.header", format!("\"{header}\" is no header name")))?;
                Self::Fixed(Some((header, secret(key).map_err(|reason| ("auth.key", reason))?)))
            }
            config::Auth::ClientCredentials { token_url, client_id, client_secret, scope } => {
                let url = parse_base(token_url).map_err(|reason| ("auth.token_url", reason))?;
                let mut fields = vec![
                    ("grant_type", "client_credentials"),
                    ("client_id", client_id.as_str()),
                    ("client_secret", client_secret.as_str()),
                ];
                fields.extend(scope.as_deref().map(|scope| ("scope", scope)));
                // The query of a URL has the form's encoding.
                let mut form = url.clone();
                form.query_pairs_mut().extend_pairs(fields);
                let form = form.query().unwrap_or_default().to_owned();
                Self::Token(Box::new(TokenSource { url, form, state: Mutex::default() }))
            }
        })
    }

    /// The header for a call; an error says why there is no token.
    pub async fn credentials(&self, client: &Client) -> Result<Credentials, String> {
        match self {
            Self::Fixed(credentials) => Ok(credentials.clone()),
            Self::Token(source) => Ok(Some((AUTHORIZATION, source.token(client).await?))),
        }
    }

    /// Forgets the token that was refused, unless another one is kept by now. True: a call with a new one may fare better.
    pub async fn refused(&self, credentials: &Credentials) -> bool {
        let (Self::Token(source), Some((_, refused))) = (self, credentials) else { return false };
        let mut state = source.state.lock().await;
        if matches!(&*state, State::Token { header, .. } if header == refused) {
            *state = State::Empty;
        }
        true
    }
}

impl TokenSource {
    /// The kept token, or a new one; calls that come while it is fetched wait for the same.
    async fn token(&self, client: &Client) -> Result<HeaderValue, String> {
        let mut state = self.state.lock().await;
        match &*state {
            State::Token { header, renew_at } if Instant::now() < *renew_at => return Ok(header.clone()),
            State::Failed { reason, at } if at.elapsed() < FAILURE_KEPT => return Err(reason.clone()),
            _ => {}
        }
        match self.fetch(client).await {
            Ok((header, life)) => {
                let renew_at = Instant::now() + life - RENEW_BEFORE.min(life / 5);
                *state = State::Token { header: header.clone(), renew_at };
                Ok(header)
            }
            Err(reason) => {
                let reason = format!("no token from {}: {reason}", self.url.host_str().unwrap_or_default());
                *state = State::Failed { reason: reason.clone(), at: Instant::now() };
                Err(reason)
            }
        }
    }

    async fn fetch(&self, client: &Client) -> Result<(HeaderValue, Duration), String> {
        let mut response = client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .body(self.form.clone())
            .send()
            .await
            .map_err(|error| cause(error.without_url()))?;
        let status = response.status();
        let body = read_body(&mut response, TOKEN_BYTES_MAX).await.map_err(|trouble| trouble.to_string())?;
        if !status.is_success() {
            // The standard's code is safe to show; the rest of the body might repeat what we sent.
            let code = serde_json::from_slice::<Refusal>(&body).map(|refusal| format!(": {}", escaped(refusal.error.as_bytes(), 100)));
            return Err(format!("it answered {status}{}; check auth in the endpoint's config", code.unwrap_or_default()));
        }
        let token: Token = serde_json::from_slice(&body).map_err(|_| format!("its answer {status} holds no \"access_token\""))?;
        let life = Duration::from_secs(token.expires_in.unwrap_or(LIFE_DEFAULT_S).min(365 * 24 * 3600));
        Ok((bearer(&token.access_token)?, life))
    }
}

fn bearer(token: &str) -> Result<HeaderValue, String> {
    secret(&format!("Bearer {token}"))
}

fn secret(text: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(text).map_err(|_| "it holds characters that no header may".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}
