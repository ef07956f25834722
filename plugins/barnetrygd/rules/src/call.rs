//! The calls of a recipient: their bodies, and what their headers are filled with.

use serde_json::json;
use tolk_sdk::Call;

use crate::month::Window;
use crate::names::endpoint;

/// What is asked of a person: every number, and whether it is in use.
const QUERY: &str = "query pdlPerson($ident: ID!) { hentPerson(ident: $ident) { folkeregisteridentifikator(historikk: true) { \
                     identifikasjonsnummer status type folkeregistermetadata { ajourholdstidspunkt } \
                     metadata { master historisk endringer { registrert } } } } }";

/// Makes the calls of one recipient.
#[derive(Clone, Copy, Debug)]
pub struct Calls<'m> {
    /// The recipient's correlation id.
    pub correlation: &'m str,
    /// The delivery that the recipient is a part of.
    pub delivery: &'m str,
    /// The delivery's two years.
    pub window: Window,
}

impl Calls<'_> {
    /// Asks for the numbers of a person.
    pub fn identity(&self, ident: &str) -> Call {
        self.call(endpoint::PERSON, &json!({ "query": QUERY, "variables": { "ident": ident } }))
    }

    /// Asks for the benefit cases of a number.
    pub fn benefit(&self, ident: &str) -> Call {
        self.call(endpoint::BENEFIT, &json!({ "ident": ident, "fraDato": self.window.first_day() }))
    }

    /// Asks for the support decisions of a number.
    pub fn support(&self, ident: &str) -> Call {
        self.call(endpoint::SUPPORT, &json!({ "fnr": ident, "fom": self.window.first_day(), "tom": self.window.last_day() }))
    }

    fn call(&self, endpoint: &str, body: &serde_json::Value) -> Call {
        Call::new(endpoint).param("correlation", self.correlation).param("delivery", self.delivery).body(body.to_string())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn bodies_and_parameters() {
        let calls = Calls { correlation: "c", delivery: "d", window: Window::new(2020) };
        let body = |call: &Call| serde_json::from_slice::<Value>(call.body.as_deref().unwrap()).unwrap();
        assert_eq!(body(&calls.benefit("01")), json!({ "ident": "01", "fraDato": "2020-01-01" }));
        assert_eq!(body(&calls.support("01")), json!({ "fnr": "01", "fom": "2020-01-01", "tom": "2021-12-31" }));
        let identity = body(&calls.identity("01"));
        assert_eq!(identity["variables"], json!({ "ident": "01" }));
        let query = identity["query"].as_str().unwrap();
        for field in ["pdlPerson", "identifikasjonsnummer", "status", "type", "ajourholdstidspunkt", "master", "historisk", "registrert"] {
            assert!(query.contains(field), "{field}");
        }
        assert_eq!(calls.support("01").params, [("correlation".to_owned(), "c".to_owned()), ("delivery".to_owned(), "d".to_owned())]);
    }
}
