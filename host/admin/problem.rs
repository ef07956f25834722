//! What goes wrong at this door, as `application/problem+json`: what happened, where, and what to do next. Payloads and secrets are never in it.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::store;
use crate::trouble::Chain;

/// An answer that is no success.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    /// What happened.
    detail: String,
    /// The parameter, field or part of the house that it is about.
    place: Option<String>,
    /// What to do next.
    next: Option<String>,
    /// The error of a bearer token, as RFC 6750 has it; empty: there was none.
    challenge: Option<&'static str>,
}

/// The result of whatever answers a request.
pub type Answer<T> = Result<T, Problem>;

impl Problem {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), place: None, next: None, challenge: None }
    }

    /// 400: the request is wrong at `place`.
    pub fn wrong(place: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { place: Some(place.into()), ..Self::new(StatusCode::BAD_REQUEST, detail) }
    }

    /// 401: nobody knows who asks. `error` is what RFC 6750 calls the reason of a token that was given.
    pub fn unknown(detail: impl Into<String>, error: Option<&'static str>) -> Self {
        let next = "send `Authorization: Bearer TOKEN` with a token of admin.tokens_file or of the issuer in admin.oidc";
        Self { challenge: Some(error.unwrap_or_default()), ..Self::new(StatusCode::UNAUTHORIZED, detail) }.next(next)
    }

    /// 403: whoever asks may not.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    /// 404: there is no such thing.
    pub fn missing(place: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { place: Some(place.into()), ..Self::new(StatusCode::NOT_FOUND, detail) }
    }

    /// 405: the thing is there, but not to be used so.
    pub fn method(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, detail)
    }

    /// 409: it cannot be done as things stand.
    pub fn conflict(place: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { place: Some(place.into()), ..Self::new(StatusCode::CONFLICT, detail) }
    }

    /// 413 or another refusal of a body, as the framework judged it.
    pub fn body(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { place: Some("body".to_owned()), ..Self::new(status, detail) }
    }

    /// 503: something that is needed is away.
    pub fn away(place: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { place: Some(place.into()), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail) }
    }

    /// 504: it took too long.
    pub fn slow(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, detail)
    }

    /// With what to do next.
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        let text = Chain(&error).to_string();
        if error.is_transient() {
            return Self::away("store", format!("failed to {text}")).next("try again; `tolk doctor` looks at everything");
        }
        tracing::error!(error = text, "a request of the admin door failed");
        Self { place: Some("store".to_owned()), ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, format!("failed to {text}")) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Problem");
        let mut body = json!({ "status": self.status.as_u16(), "title": title, "detail": self.detail });
        for (name, text) in [("where", self.place), ("next", self.next)] {
            if let Some(text) = text {
                body[name] = text.into();
            }
        }
        let mut response = (self.status, body.to_string()).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        let challenge = self.challenge.map(|error| match error {
            "" => "Bearer realm=\"tolk\"".to_owned(),
            error => format!("Bearer realm=\"tolk\", error=\"{error}\""),
        });
        if let Some(challenge) = challenge.and_then(|text| HeaderValue::from_str(&text).ok()) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
