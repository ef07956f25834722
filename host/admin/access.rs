//! Who asks, and whether they may: a static token, a token of the issuer, or, where nobody is asked, whoever reaches loopback.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State as Given};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::State;
use super::issuer::{Issuer, Refusal};
use super::problem::{Answer, Problem};
use super::tokens::Tokens;
use crate::config::admin::{AdminConfig, Role};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Visitor {
    /// The name that stands in the audit trail.
    pub(super) name: String,
    /// What they may do.
    pub(super) role: Role,
    /// Whether the name was proven; without that a request may name somebody itself.
    pub(super) proven: bool,
}

/// What a route asks of a visitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing, not even a token.
    Nobody,
    /// At least this role.
    Role(Role),
}

/// How visitors prove who they are.
pub(super) struct Access {
    tokens: Option<Tokens>,
    issuer: Option<Issuer>,
}

impl Access {
    /// Reads the tokens and makes the issuer ready.
    pub(super) fn new(config: &AdminConfig) -> Result<Self, String> {
        Ok(Self {
            tokens: config.tokens_file.as_deref().map(Tokens::open).transpose()?,
            issuer: config.oidc.as_ref().map(Issuer::new).transpose()?,
        })
    }

    async fn visitor(&self, headers: &HeaderMap) -> Answer<Visitor> {
        if self.tokens.is_none() && self.issuer.is_none() {
            return local(headers);
        }
        let token = bearer(headers).ok_or_else(|| Problem::unknown("there is no bearer token in the request", None))?;
        if let Some(holder) = self.tokens.as_ref().and_then(|tokens| tokens.holder(token)) {
            return Ok(Visitor { name: holder.name, role: holder.role, proven: true });
        }
        let Some(issuer) = &self.issuer else {
            return Err(Problem::unknown("the bearer token is not known", Some("invalid_token")));
        };
        match issuer.bearer(token).await {
            Ok(bearer) => match bearer.role {
                Some(role) => Ok(Visitor { name: bearer.name, role, proven: true }),
                None => Err(Problem::forbidden(format!("the token of {} has no role here", bearer.name))
                    .next("give it a role that admin.oidc.readers or admin.oidc.operators names")),
            },
            Err(Refusal::Bad(reason)) => Err(Problem::unknown(format!("the bearer token is not good: {reason}"), Some("invalid_token"))),
            Err(Refusal::Away(reason)) => {
                Err(Problem::away("admin.oidc", reason).next("check that the issuer can be reached from the host"))
            }
        }
    }
}

/// Nobody is asked who they are, so the name under which the door was reached must be this machine's: a page in somebody's browser
/// that resolves its own name to loopback is kept out.
fn local(headers: &HeaderMap) -> Answer<Visitor> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.chars().all(|c| c.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_matches(['[', ']']);
    if name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) {
        return Ok(Visitor { name: "local".to_owned(), role: Role::Operator, proven: false });
    }
    Err(Problem::forbidden("without tokens this door answers only to localhost, 127.0.0.1 and [::1]")
        .next("use one of these names, or set admin.tokens_file or admin.oidc"))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

/// Lets a request through to its route, or not.
pub(super) async fn check(Given((state, needs)): Given<(Arc<State>, Needs)>, mut request: Request, next: Next) -> Response {
    let Needs::Role(wanted) = needs else { return next.run(request).await };
    match state.access.visitor(request.headers()).await {
        Ok(visitor) if visitor.role >= wanted => {
            request.extensions_mut().insert(visitor);
            next.run(request).await
        }
        Ok(visitor) => {
            Problem::forbidden(format!("{} is a {}, and this needs the role {}", visitor.name, visitor.role.as_str(), wanted.as_str()))
                .next("use a token with that role")
                .into_response()
        }
        Err(problem) => problem.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_tokens_only_names_of_this_machine_are_answered() {
        let visit = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            local(&headers).is_ok()
        };
        for host in ["localhost", "LOCALHOST:8686", "127.0.0.1:80", "[::1]:9", "127.9.9.9"] {
            assert!(visit(host), "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example:80", "localhost.evil", "", "10.0.0.1"] {
            assert!(!visit(host), "{host}");
        }
    }
}
