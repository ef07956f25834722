//! The remote systems: what is called, what is read of the answers. Answers of the statuses that an endpoint retries, and transport
//! errors, never come here unless the call is lenient: the host tries the message again by itself.

use serde::Deserialize;
use serde_json::Value;
use tolk_sdk::{Call, Fault, Outcome, Response};

use crate::activity::{arena_code, is_single};
use crate::external::uuid;
use crate::names::endpoint;

/// An activity as the remote system knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteActivity {
    /// Its id.
    pub id: String,
    /// Whether it is for single persons.
    pub single: bool,
    /// Whether taking part has an approved course.
    pub course: bool,
}

/// A participation as the system downstream knows it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Participation {
    /// The amt uuid.
    pub id: String,
    /// Its status.
    pub status: String,
}

impl Participation {
    /// Whether downstream regards it as a mistake.
    pub fn is_wrong(&self) -> bool {
        self.status == "FEILREGISTRERT"
    }
}

/// Asks for the national identity number of Arena's person.
pub fn person_call(person_id: i64) -> Call {
    Call::new(endpoint::PERSON).param("personId", person_id)
}

/// The identity number; rejected where the person is unknown.
pub fn read_person(response: &Response, person_id: i64) -> Result<String, Fault> {
    if response.status == 404 {
        let text = format!("Arena mangler personlig ident for personId={person_id}");
        return Err(Outcome::rejected("person-unknown", text).field("PERSON_ID"));
    }
    let body = body(response, "Klarte ikke å hente fnr for Arena personId. Status: ")?;
    text(&body, "fnr")
}

/// Asks for the remote id of an activity.
pub fn activity_id_call(activity_id: i64) -> Call {
    Call::new(endpoint::ACTIVITY_ID).param("activityId", activity_id)
}

/// The remote id, or `None` where there is none yet.
pub fn read_activity_id(response: &Response) -> Result<Option<String>, Fault> {
    if response.status == 404 {
        return Ok(None);
    }
    let body = body(response, "Klarte ikke å hente gjennomføring arenadata fra Mulighetsrommet. status=")?;
    uuid_of(&body, "id").map(Some)
}

/// Asks for an activity by its remote id.
pub fn activity_call(remote_id: &str) -> Call {
    Call::new(endpoint::ACTIVITY).param("id", remote_id)
}

/// The activity.
pub fn read_activity(response: &Response) -> Result<RemoteActivity, Fault> {
    let body = body(response, "Klarte ikke å hente gjennomføring fra Mulighetsrommet v2 API. status=")?;
    let remote_code = text(&body, "tiltakskode")?;
    let code = arena_code(&remote_code).ok_or_else(|| unreadable("tiltakskode"))?;
    let joint_start = match text(&body, "oppstart")?.as_str() {
        "FELLES" => true,
        "LOPENDE" => false,
        _ => return Err(unreadable("oppstart")),
    };
    // No rule uses it, but an answer without it is not what was agreed on.
    text(&body["arrangor"], "organisasjonsnummer")?;
    let single = is_single(code);
    Ok(RemoteActivity { id: uuid_of(&body, "id")?, single, course: joint_start || single })
}

/// Asks downstream for a person's participations.
pub fn participations_call(identity: &str) -> Call {
    Call::new(endpoint::PARTICIPATIONS).body(serde_json::json!({ "personIdent": identity }).to_string())
}

/// The participations. New statuses downstream are no error: one alone matters here.
pub fn read_participations(response: &Response) -> Result<Vec<Participation>, Fault> {
    let body = body(response, "Klarte ikke å hente tiltaksdeltakelser fra amt-tiltak. status=")?;
    serde_json::from_value(body).map_err(|_| unreadable("id and status of each element"))
}

fn body(response: &Response, trouble: &str) -> Result<Value, Fault> {
    if !response.is_success() {
        return Err(Outcome::retry("remote-error", format!("{trouble}{}", response.status)));
    }
    response.json().map_err(|error| Outcome::retry("remote-error", error))
}

fn text(body: &Value, field: &str) -> Result<String, Fault> {
    body[field].as_str().map(str::to_owned).ok_or_else(|| unreadable(field))
}

fn uuid_of(body: &Value, field: &str) -> Result<String, Fault> {
    body[field].as_str().and_then(uuid).ok_or_else(|| unreadable(field))
}

fn unreadable(what: &str) -> Fault {
    Outcome::retry("remote-error", format!("the answer does not give a readable {what}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "0aa0f5a8-3e3f-4d51-a1a0-8b7f0c9d1e2f";

    fn answer(body: Value) -> Response {
        Response::new(200, body.to_string())
    }

    fn activity(changes: Value) -> Result<RemoteActivity, Fault> {
        let mut body =
            json!({ "id": ID, "tiltakskode": "OPPFOLGING", "oppstart": "LOPENDE", "arrangor": { "organisasjonsnummer": "1" }, "more": 1 });
        for (key, value) in changes.as_object().unwrap() {
            body[key] = value.clone();
        }
        read_activity(&answer(body))
    }

    #[test]
    fn an_activity_needs_all_that_was_agreed_on() {
        assert_eq!(activity(json!({})), Ok(RemoteActivity { id: ID.to_owned(), single: false, course: false }));
        assert!(activity(json!({ "oppstart": "FELLES" })).unwrap().course);
        let single = activity(json!({ "tiltakskode": "HOYERE_UTDANNING" })).unwrap();
        assert!(single.single && single.course);
        for field in ["id", "tiltakskode", "oppstart", "arrangor"] {
            assert_eq!(activity(json!({ field: null })).unwrap_err().code, "remote-error", "{field}");
        }
        for changes in [json!({ "oppstart": "SENERE" }), json!({ "tiltakskode": "TILPASSET_JOBBSTOTTE" }), json!({ "id": "7" })] {
            assert_eq!(activity(changes).unwrap_err().kind, tolk_sdk::FaultKind::Retry);
        }
    }

    #[test]
    fn statuses_are_told_in_the_words_of_each_call() {
        let refused = Response::new(403, "");
        let check = |fault: Fault, text: &str| assert_eq!((fault.code.as_str(), fault.message.as_str()), ("remote-error", text));
        check(read_person(&refused, 1).unwrap_err(), "Klarte ikke å hente fnr for Arena personId. Status: 403");
        let text = "Klarte ikke å hente gjennomføring arenadata fra Mulighetsrommet. status=403";
        check(read_activity_id(&refused).unwrap_err(), text);
        let text = "Klarte ikke å hente gjennomføring fra Mulighetsrommet v2 API. status=403";
        check(read_activity(&refused).unwrap_err(), text);
        check(read_participations(&refused).unwrap_err(), "Klarte ikke å hente tiltaksdeltakelser fra amt-tiltak. status=403");
    }

    #[test]
    fn only_two_calls_have_a_meaning_for_404() {
        let none = Response::new(404, "");
        assert_eq!(read_activity_id(&none), Ok(None));
        let person = read_person(&none, 9).unwrap_err();
        assert_eq!((person.code.as_str(), person.message.as_str()), ("person-unknown", "Arena mangler personlig ident for personId=9"));
        assert_eq!(read_activity(&none).unwrap_err().code, "remote-error");
        assert_eq!(read_participations(&none).unwrap_err().code, "remote-error");
    }

    #[test]
    fn answers_that_cannot_be_read_are_errors() {
        assert_eq!(read_person(&answer(json!({ "fnr": null })), 1).unwrap_err().code, "remote-error");
        assert_eq!(read_person(&answer(json!({ "fnr": "01" })), 1), Ok("01".to_owned()));
        assert_eq!(read_activity_id(&Response::new(200, "<html>")).unwrap_err().code, "remote-error");
        assert_eq!(read_participations(&answer(json!([{ "id": ID }]))).unwrap_err().code, "remote-error");
        let known = read_participations(&answer(json!([{ "id": ID, "status": "HELT_NY", "more": [] }]))).unwrap();
        assert!(known[0].id == ID && !known[0].is_wrong());
    }

    #[test]
    fn participations_are_asked_for_by_body() {
        assert_eq!(participations_call("01").body.as_deref(), Some(br#"{"personIdent":"01"}"#.as_slice()));
    }
}
