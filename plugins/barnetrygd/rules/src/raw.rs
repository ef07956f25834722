//! Raw answers, which travel with the message: one object of texts for each call.

use serde::Serialize;
use serde_json::{Map, Value};
use tolk_sdk::Response;

use crate::month::Window;

/// One raw answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Raw(Map<String, Value>);

impl Raw {
    /// The answer to a look-up of a number.
    pub fn identity(ident: &str, body: &str) -> Self {
        Self::of([(ident, body.to_owned())])
    }

    /// The benefit cases of a number.
    pub fn benefit(ident: &str, window: Window, response: &Response) -> Self {
        Self::of([("fnr", ident.to_owned()), ("fom", window.first_day()), ("barnetrygd", text(response))])
    }

    /// The support decisions of a number.
    pub fn support(ident: &str, window: Window, response: &Response) -> Self {
        Self::of([("fnr", ident.to_owned()), ("fom", window.first_day()), ("tom", window.last_day()), ("hjelpestønad", text(response))])
    }

    fn of<const N: usize>(fields: [(&str, String); N]) -> Self {
        Self(fields.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect())
    }
}

/// Lists one after the other, equal answers once.
pub fn joined<'r>(lists: impl IntoIterator<Item = &'r Raw>) -> Vec<Raw> {
    let mut all: Vec<Raw> = Vec::new();
    for raw in lists {
        if !all.contains(raw) {
            all.push(raw.clone());
        }
    }
    all
}

/// A body as text; bytes that are no UTF-8 are replaced.
pub fn text(response: &Response) -> String {
    String::from_utf8_lossy(&response.body).into_owned()
}
