//! What a look-up of an identity number came to. Whether a failure may heal is in the body, not in the status: the answer to a question
//! about nobody is a 200.

use serde_json::Value;
use tolk_sdk::Response;

use crate::raw;

/// The code that the remote system gives to its own troubles.
const SERVER_ERROR: &str = "server_error";
/// The codes for what will not heal.
const PERMANENT: [&str; 4] = ["not_found", "unauthorized", "unauthenticated", "bad_request"];

/// A person with one number in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The number in use.
    pub current: String,
    /// Every number, the current one included, in the order of the answer.
    pub idents: Vec<String>,
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// A person.
    Found(Person),
    /// Nobody, or nobody that can be used; it will stay so. `body` is kept where the remote system said so itself.
    Unusable { reason: String, body: Option<String> },
    /// The remote system is in trouble; `code` names the trouble's class.
    Trouble { code: &'static str, reason: String },
}

/// Judges an answer.
pub fn judge(response: &Response) -> Judged {
    if response.status >= 400 {
        let reason = format!("the look-up was answered with status {}", response.status);
        return Judged::Trouble { code: "RestClientException", reason };
    }
    let unreadable = |what: &str| Judged::Unusable { reason: format!("the look-up's answer cannot be read: {what}"), body: None };
    let Ok(body) = serde_json::from_slice::<Value>(&response.body) else { return unreadable("it is not JSON") };
    let first = code(&body["errors"][0]);
    if first == Some(SERVER_ERROR) {
        return Judged::Trouble { code: "PdlException", reason: format!("the look-up failed: {SERVER_ERROR}") };
    }
    let errors = body["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
    if errors.iter().filter_map(code).any(|code| code != SERVER_ERROR && !PERMANENT.contains(&code)) {
        return unreadable("an unknown error code");
    }
    let Some(data) = body["data"].as_object() else { return unreadable("it has no data") };
    match data.get("hentPerson") {
        None | Some(Value::Null) => {
            let reason = first.map_or_else(|| "the look-up found nobody".to_owned(), |code| format!("the look-up was refused: {code}"));
            Judged::Unusable { reason, body: Some(raw::text(response)) }
        }
        Some(person) => match numbers(person) {
            Ok(numbers) => person_of(numbers),
            Err(what) => unreadable(what),
        },
    }
}

fn code(error: &Value) -> Option<&str> {
    error["extensions"]["code"].as_str()
}

/// Every number and whether it is in use.
fn numbers(person: &Value) -> Result<Vec<(&str, bool)>, &'static str> {
    let list = person["folkeregisteridentifikator"].as_array().ok_or("a person without a list of numbers")?;
    list.iter()
        .map(|item| {
            let number = item["identifikasjonsnummer"].as_str().ok_or("a number is missing")?;
            match item["status"].as_str() {
                Some("I_BRUK") => Ok((number, true)),
                Some("OPPHOERT") => Ok((number, false)),
                _ => Err("a number of unknown status"),
            }
        })
        .collect()
}

fn person_of(numbers: Vec<(&str, bool)>) -> Judged {
    let mut current: Vec<&str> = numbers.iter().filter(|(_, used)| *used).map(|(number, _)| *number).collect();
    current.sort_unstable();
    current.dedup();
    let [current] = current.as_slice() else {
        let reason = format!("the person has {} numbers in use", current.len());
        return Judged::Unusable { reason, body: None };
    };
    let mut idents: Vec<String> = Vec::with_capacity(numbers.len());
    for (number, _) in &numbers {
        if !idents.iter().any(|known| known == number) {
            idents.push((*number).to_owned());
        }
    }
    Judged::Found(Person { current: (*current).to_owned(), idents })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(status: u16, body: Value) -> Judged {
        judge(&Response::new(status, body.to_string()))
    }

    fn person(numbers: &[(&str, &str)]) -> Value {
        let list: Vec<Value> =
            numbers.iter().map(|(number, status)| json!({ "identifikasjonsnummer": number, "status": status, "more": 1 })).collect();
        json!({ "hentPerson": { "folkeregisteridentifikator": list } })
    }

    fn found(current: &str, idents: &[&str]) -> Judged {
        Judged::Found(Person { current: current.to_owned(), idents: idents.iter().map(|ident| (*ident).to_owned()).collect() })
    }

    fn class(judged: &Judged) -> &'static str {
        match judged {
            Judged::Found(_) => "found",
            Judged::Unusable { body: Some(_), .. } => "kept",
            Judged::Unusable { body: None, .. } => "unusable",
            Judged::Trouble { code, .. } => code,
        }
    }

    #[test]
    fn one_number_in_use_is_a_person() {
        let both = person(&[("2", "OPPHOERT"), ("1", "I_BRUK"), ("2", "OPPHOERT"), ("1", "I_BRUK")]);
        for status in [200, 202, 302] {
            assert_eq!(of(status, json!({ "data": both })), found("1", &["2", "1"]));
        }
        let beside = json!({ "errors": [{ "extensions": { "code": "unauthorized" } }], "data": both });
        assert_eq!(of(200, beside), found("1", &["2", "1"]));
    }

    #[test]
    fn every_class_of_failure() {
        let error = |code: &str, data: Value| json!({ "errors": [{ "message": "m", "extensions": { "code": code } }], "data": data });
        let none = json!({ "hentPerson": null });
        let well = person(&[("1", "I_BRUK")]);
        for (status, body, expected) in [
            (200, json!({ "data": person(&[]) }), "unusable"),
            (200, json!({ "data": person(&[("1", "OPPHOERT")]) }), "unusable"),
            (200, json!({ "data": person(&[("1", "I_BRUK"), ("2", "I_BRUK")]) }), "unusable"),
            (200, json!({ "data": none }), "kept"),
            (200, json!({ "data": {} }), "kept"),
            (200, error("not_found", none.clone()), "kept"),
            (200, error("unauthorized", none.clone()), "kept"),
            (200, error("unauthenticated", none.clone()), "kept"),
            (200, error("bad_request", none.clone()), "kept"),
            (200, error("server_error", none.clone()), "PdlException"),
            (200, error("server_error", well.clone()), "PdlException"),
            (200, error("server_error", Value::Null), "PdlException"),
            (200, error("novelty", none.clone()), "unusable"),
            (200, error("novelty", well.clone()), "unusable"),
            (200, json!({ "errors": [] }), "unusable"),
            (200, json!({ "data": person(&[("1", "NY")]) }), "unusable"),
            (200, json!({ "data": { "hentPerson": {} } }), "unusable"),
            (400, json!({ "data": well }), "RestClientException"),
            (401, error("server_error", none.clone()), "RestClientException"),
            (503, json!(null), "RestClientException"),
        ] {
            assert_eq!(class(&of(status, body.clone())), expected, "{status} {body}");
        }
        assert_eq!(class(&judge(&Response::new(200, "<html>"))), "unusable");
        let kept = error("not_found", none);
        let Judged::Unusable { body: Some(body), .. } = of(200, kept.clone()) else { panic!("it is kept") };
        assert_eq!(body, kept.to_string());
    }
}
