//! What an endpoint makes of its remote system's answers: which are tried again, which fail the attempt, which are the translator's, and
//! which of their headers. Sends nothing.

use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_ENCODING, HeaderMap, HeaderName, LOCATION, RETRY_AFTER};
use serde_json::Value;

use super::config::{Config, Pointed};
use super::exchange::escaped;
use crate::plugin::Response;

/// Bytes of a body that a reason shows.
const BODY_SHOWN: usize = 200;
/// The longest `Retry-After` that is believed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// What a call ended in. Calls that are equal but for `lenient` may share it.
#[derive(Clone, Debug)]
pub enum Ended {
    /// An answer; `failure` is why a call that is not lenient fails by it, `keep` whether later calls may have it too.
    Answer { response: Response, failure: Option<Failure>, keep: bool },
    /// No answer that anybody may have: the attempt has failed.
    Failed(Failure),
    /// The endpoint is away, for about this long; `spread` keeps those who come back apart.
    Away { reason: String, after: Duration, spread: Duration },
}

/// Why an attempt has failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// A stable code.
    pub code: &'static str,
    /// A sentence for people.
    pub reason: String,
    /// What `Retry-After` said, in milliseconds.
    pub after_ms: Option<u64>,
}

/// An answer, judged.
pub struct Judged {
    /// What the call ends in, if this was the last try.
    pub ended: Ended,
    /// Whether another try may fare better.
    pub again: bool,
    /// What is wrong with the remote system, for its breaker.
    pub unsound: Option<String>,
}

/// The settings that judge answers.
pub struct Answers {
    name: String,
    retry_statuses: Vec<RangeInclusive<u16>>,
    retry_bodies: Vec<Pointed>,
    final_bodies: Vec<Pointed>,
    not_kept: Vec<Pointed>,
    shown: Vec<HeaderName>,
}

impl Answers {
    /// Checks the settings. Errors name the config key.
    pub fn new(name: &str, config: &Config) -> Result<Self, (&'static str, String)> {
        let retry_statuses = config.retry_statuses.iter().map(|text| statuses(text)).collect::<Result<_, _>>();
        let not_kept = config.cache.as_ref().map(|cache| cache.except.clone()).unwrap_or_default();
        for (key, places) in [("retry_bodies", &config.retry_bodies), ("final_bodies", &config.final_bodies), ("cache.except", &not_kept)] {
            if let Some(place) = places.iter().find(|place| !place.pointer().is_empty() && !place.pointer().starts_with('/')) {
                return Err((key, format!("\"{}\" is no JSON pointer: it starts with \"/\"", place.pointer())));
            }
        }
        let mut shown = Vec::new();
        for header in &config.response_headers {
            let name: HeaderName = header.parse().map_err(|_| ("response_headers", format!("\"{header}\" is no header name")))?;
            if name == "set-cookie" {
                let reason = "\"set-cookie\" holds secrets of a session, and nothing a translation may depend on: remove it";
                return Err(("response_headers", reason.to_owned()));
            }
            shown.push(name);
        }
        shown.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        shown.dedup();
        let retry_statuses = retry_statuses.map_err(|reason| ("retry_statuses", reason))?;
        let (retry_bodies, final_bodies) = (config.retry_bodies.clone(), config.final_bodies.clone());
        Ok(Self { name: name.to_owned(), retry_statuses, retry_bodies, final_bodies, not_kept, shown })
    }

    /// Judges an answer.
    pub fn judge(&self, status: StatusCode, headers: &HeaderMap, body: Bytes) -> Judged {
        let retried = self.retry_statuses.iter().any(|range| range.contains(&status.as_u16()));
        let unsound = retried.then(|| status.to_string());
        if let Some(encoding) = headers.get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
            let encoding = escaped(encoding.as_bytes(), 50);
            let reason = format!("{status} with a body encoded as \"{encoding}\", which was not asked for");
            return Judged { ended: Ended::Failed(self.failure("remote-encoding", reason, None)), again: false, unsound };
        }
        let said = || format!("{status}, body \"{}\"", escaped(&body, BODY_SHOWN));
        let json = self.json(&body);
        let found = |places: &[Pointed]| json.as_ref().and_then(|json| places.iter().find(|place| matches(place, json)).cloned());
        let is_final = found(&self.final_bodies).is_some();
        let (failure, again) = if is_final {
            (None, false)
        } else if retried {
            (Some(self.failure("remote-status", said(), retry_after(headers))), true)
        } else if status.is_redirection() && headers.contains_key(LOCATION) {
            let to = escaped(headers[LOCATION].as_bytes(), BODY_SHOWN);
            let reason = format!("{status} to {to}: redirects are not followed; set base_url and path");
            (Some(self.failure("remote-redirect", reason, None)), false)
        } else if let Some(place) = found(&self.retry_bodies).filter(|_| status.is_success()) {
            let reason = format!("{} is set in {}", place.pointer(), said());
            (Some(self.failure("remote-body", reason, retry_after(headers))), true)
        } else {
            (None, false)
        };
        let keep = failure.is_none() && !is_final && status.is_success() && found(&self.not_kept).is_none();
        let response = Response { status: status.as_u16(), headers: self.shown(headers), body };
        Judged { ended: Ended::Answer { response, failure, keep }, again, unsound: unsound.filter(|_| !is_final) }
    }

    /// A failure in this endpoint's name.
    pub fn failure(&self, code: &'static str, reason: String, after_ms: Option<u64>) -> Failure {
        Failure { code, reason: format!("endpoint \"{}\": {reason}", self.name), after_ms }
    }

    fn json(&self, body: &[u8]) -> Option<Value> {
        let asked = !(self.retry_bodies.is_empty() && self.final_bodies.is_empty() && self.not_kept.is_empty());
        asked.then(|| serde_json::from_slice(body).ok()).flatten()
    }

    /// The headers that translators see, in the order of their names, and equal ones in the order in which they came.
    fn shown(&self, headers: &HeaderMap) -> Vec<(String, String)> {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let values = |name: &HeaderName| headers.get_all(name).iter().map(|value| text(value.as_bytes())).collect::<Vec<_>>();
        self.shown.iter().flat_map(|name| values(name).into_iter().map(|value| (name.as_str().to_owned(), value))).collect()
    }
}

fn matches(place: &Pointed, json: &Value) -> bool {
    let Some(value) = json.pointer(place.pointer()) else { return false };
    match place {
        Pointed::Equals(place) => place.equals.contains(value),
        Pointed::Set(_) => match value {
            Value::Null | Value::Bool(false) => false,
            Value::String(text) => !text.is_empty(),
            Value::Array(items) => !items.is_empty(),
            _ => true,
        },
    }
}

/// `"429"` or `"500-599"`.
fn statuses(text: &str) -> Result<RangeInclusive<u16>, String> {
    let number = |text: &str| text.trim().parse::<u16>().ok().filter(|status| (100..=999).contains(status));
    let range = match text.split_once('-') {
        Some((from, to)) => number(from).zip(number(to)),
        None => number(text).map(|status| (status, status)),
    };
    let (from, to) =
        range.filter(|(from, to)| from <= to).ok_or_else(|| format!("\"{text}\" is no status or range, such as \"429\" or \"500-599\""))?;
    Ok(from..=to)
}

/// `Retry-After` in milliseconds: seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
            Duration::try_from(at.duration_since(jiff::Timestamp::now())).unwrap_or_default()
        }
    };
    u64::try_from(wait.min(RETRY_AFTER_MAX).as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_numbers_or_ranges() {
        assert_eq!(statuses("429"), Ok(429..=429));
        assert_eq!(statuses("500-599"), Ok(500..=599));
        for wrong in ["", "5xx", "599-500", "42", "500-", "1000"] {
            assert!(statuses(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(of("7"), Some(7_000));
        assert_eq!(of("99999999"), Some(3_600_000));
        assert_eq!(of("Wed, 21 Oct 2015 07:28:00 GMT"), Some(0));
        assert_eq!(of("soon"), None);
        let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(100);
        let ms = of(&jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&soon).unwrap()).unwrap();
        assert!((90_000..=100_000).contains(&ms), "{ms}");
    }

    #[test]
    fn places_match_what_is_set_or_what_they_name() {
        let place = |text: &str| -> Pointed { toml::from_str::<std::collections::BTreeMap<String, Pointed>>(text).unwrap()["p"].clone() };
        let body = serde_json::json!({ "errors": [{ "code": "server_error", "n": 3 }], "none": [], "no": false, "empty": "" });
        let equals = "p = { pointer = \"/errors/0/code\", equals = [\"server_error\", \"busy\"] }";
        for (text, want) in [
            ("p = \"/errors\"", true),
            ("p = \"/errors/0/n\"", true),
            ("p = \"/none\"", false),
            ("p = \"/no\"", false),
            ("p = \"/empty\"", false),
            ("p = \"/missing\"", false),
            (equals, true),
            ("p = { pointer = \"/errors/0/code\", equals = [\"not_found\"] }", false),
            ("p = { pointer = \"/errors/0/n\", equals = [3] }", true),
            ("p = { pointer = \"/no\", equals = [false] }", true),
        ] {
            assert_eq!(matches(&place(text), &body), want, "{text}");
        }
    }
}
