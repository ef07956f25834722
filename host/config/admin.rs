//! `[admin]`: where the admin door listens and who may come in. Knows nothing of HTTP.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Settings of the admin door. Without `listen` there is none.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// ADDRESS:PORT; port 0 takes a free one. An address that others can reach needs `tokens_file` or `oidc`.
    pub listen: Option<String>,
    /// A file of tokens: a line each with name, role (`reader` or `operator`) and the token's SHA-256 in hexadecimal.
    pub tokens_file: Option<PathBuf>,
    /// Tokens of an OpenID Connect issuer.
    pub oidc: Option<Oidc>,
}

/// Which tokens of an issuer are good, and for what.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Oidc {
    /// The issuer, as `iss` has it; its keys are found through `/.well-known/openid-configuration` below it.
    pub issuer: String,
    /// Audiences of which `aud` must hold one.
    pub audience: Vec<String>,
    /// The claim that holds roles: its name, or a JSON pointer. Its value is a list, or words with blanks between.
    #[serde(default = "default_roles_claim")]
    pub roles_claim: String,
    /// Values of the claim that make an operator.
    #[serde(default)]
    pub operators: Vec<String>,
    /// Values of the claim that make a reader.
    #[serde(default)]
    pub readers: Vec<String>,
    /// The role of a good token that has none of these values; unset: it is let in nowhere.
    #[serde(default)]
    pub otherwise: Option<Role>,
    /// Clock skew that is forgiven, in seconds.
    #[serde(default = "default_leeway_s")]
    pub leeway_s: u64,
}

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look.
    Reader,
    /// Look, and order actions.
    Operator,
}

impl Role {
    /// The role of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "reader" => Some(Self::Reader),
            "operator" => Some(Self::Operator),
            _ => None,
        }
    }

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Operator => "operator",
        }
    }
}

impl AdminConfig {
    /// Whether anybody is asked who they are.
    pub fn asks(&self) -> bool {
        self.tokens_file.is_some() || self.oidc.is_some()
    }

    /// What is wrong: keys below `admin` and why.
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        if let Some(listen) = &self.listen {
            match listen.parse::<SocketAddr>() {
                Err(_) => found.push(("listen", format!("\"{listen}\" is no ADDRESS:PORT, such as \"127.0.0.1:8686\""))),
                Ok(address) if !address.ip().is_loopback() && !self.asks() => {
                    let why = "others can reach it and nobody would be asked who they are; set admin.tokens_file or admin.oidc, or listen on 127.0.0.1";
                    found.push(("listen", format!("\"{listen}\": {why}")));
                }
                Ok(_) => {}
            }
        }
        if let Some(oidc) = &self.oidc {
            found.extend(oidc.problems());
        }
        found
    }
}

impl Oidc {
    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        let local = ["http://127.0.0.1", "http://localhost", "http://[::1]"].iter().any(|start| self.issuer.starts_with(start));
        if !self.issuer.starts_with("https://") && !local {
            found.push((
                "oidc.issuer",
                "must start with \"https://\" (plain http only on this machine): keys fetched over it decide who comes in".to_owned(),
            ));
        }
        if self.audience.is_empty() || self.audience.iter().any(|audience| audience.trim().is_empty()) {
            found.push(("oidc.audience", "needs at least one audience, and none that is empty".to_owned()));
        }
        if self.operators.is_empty() && self.readers.is_empty() && self.otherwise.is_none() {
            found.push((
                "oidc.operators",
                "name values of the roles claim in `operators` or `readers`, or set `otherwise`: else nobody comes in".to_owned(),
            ));
        }
        if self.leeway_s > 600 {
            found.push(("oidc.leeway_s", "must be at most 600".to_owned()));
        }
        found
    }
}

fn default_roles_claim() -> String {
    "roles".to_owned()
}

fn default_leeway_s() -> u64 {
    60
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<(&'static str, String)> {
        toml::from_str::<AdminConfig>(text).unwrap().problems()
    }

    #[test]
    fn who_can_be_reached_must_ask() {
        assert!(problems("").is_empty());
        assert!(problems("listen = \"127.0.0.1:0\"").is_empty());
        assert!(problems("listen = \"[::1]:8686\"").is_empty());
        assert_eq!(problems("listen = \"0.0.0.0:8686\"")[0].0, "listen");
        assert_eq!(problems("listen = \"here\"")[0].0, "listen");
        assert!(problems("listen = \"0.0.0.0:8686\"\ntokens_file = \"t\"").is_empty());
    }

    #[test]
    fn an_issuer_is_asked_over_tls_and_somebody_comes_in() {
        let good = "[oidc]\nissuer = \"https://i\"\naudience = [\"a\"]\notherwise = \"reader\"";
        assert!(problems(good).is_empty());
        assert_eq!(problems(&good.replace("https", "http"))[0].0, "oidc.issuer");
        assert_eq!(problems(&good.replace("\"a\"", ""))[0].0, "oidc.audience");
        assert_eq!(problems(&good.replace("otherwise = \"reader\"", ""))[0].0, "oidc.operators");
    }
}
