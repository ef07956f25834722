//! Plays participants against a fake world: every stop of the order of checks, deletions, targets and what is remembered.

use serde_json::{Value, json};
use tolk_sdk::testing::{Played, World, message};
use tolk_sdk::{Cause, Outcome, Request, Response};

use super::*;

const ACTIVITY: &str = "2f6f1c1e-64a4-4a0f-9d0e-3c6a1a2b3c4d";
const EXTERNAL: &str = "9d3f7c52-0b1e-4f6a-8c2d-5e4f3a2b1c0d";
/// 2030-06-10T12:00:00 in Oslo.
const NOW_MS: i64 = 1_907_316_000_000;

fn event(op: &str, changes: Value) -> Message {
    let mut row = json!({
        "TILTAKDELTAKER_ID": 801, "PERSON_ID": 701, "TILTAKGJENNOMFORING_ID": 901, "DELTAKERSTATUSKODE": "GJENN",
        "DELTAKERTYPEKODE": "INNSOKT", "REG_DATO": "2030-05-01 10:11:12", "DATO_STATUSENDRING": "2030-05-02 00:00:00",
        "DATO_FRA": "2030-06-01 00:00:00", "DATO_TIL": null, "ANTALL_DAGER_PR_UKE": 2.5, "PROSENT_DELTID": 50,
        "BEGRUNNELSE_BESTILLING": null, "DATO_SVARFRIST": "STRING_NOT_SET",
    });
    for (key, value) in changes.as_object().unwrap() {
        row[key] = value.clone();
    }
    let side = if op == "D" { "before" } else { "after" };
    message(table::PARTICIPANT, json!({ "table": table::PARTICIPANT, "op_type": op, side: row }).to_string())
}

fn activity_state(code: &str, is_valid: bool, id: Option<&str>) -> String {
    json!({ "tiltak_kode": code, "is_valid": is_valid, "id": id }).to_string()
}

fn remote_activity(code: &str, start: &str) -> Response {
    let body = json!({ "id": ACTIVITY, "tiltakskode": code, "oppstart": start, "arrangor": { "organisasjonsnummer": "1" } });
    Response::new(200, body.to_string())
}

fn world() -> World {
    let mut world = World::new();
    world.now(NOW_MS, 7_200).entry(collection::ACTIVITY, 901, activity_state("INDOPPFAG", true, Some(ACTIVITY)));
    world.endpoint(endpoint::ACTIVITY, |_| remote_activity("OPPFOLGING", "LOPENDE").into());
    world.endpoint(endpoint::PERSON, |_| Response::new(200, r#"{"fnr":"01017012345"}"#).into());
    world
}

fn play(world: &World, message: &Message) -> Played {
    world.play(&Deltaker::default(), message)
}

#[track_caller]
fn check(played: &Played, kind: &str, code: &str, text: &str) {
    assert_eq!((played.outcome.kind(), played.outcome.code(), played.outcome.text()), (kind, code, text));
    assert!(played.outputs().is_empty());
}

fn published(played: &Played) -> Value {
    assert_eq!((played.outputs().len(), played.outcome.text()), (1, ""), "{}", played.outcome);
    serde_json::from_str(&played.outputs()[0].payload_text()).unwrap()
}

fn stored(played: &Played, collection: &str) -> Option<Value> {
    let write = played.writes().iter().find(|write| write.collection == collection)?;
    serde_json::from_slice(write.value.as_deref()?).ok()
}

#[test]
fn a_participant_is_published_in_an_envelope_and_remembered() {
    let world = world();
    let played = play(&world, &event("I", json!({})));
    let id = world.id_of(namespace::PARTICIPANT, 801);
    let output = &played.outputs()[0];
    assert_eq!((output.target.as_str(), output.key.as_deref()), (target::AMT_TILTAK, Some(id.as_bytes())));
    let mut envelope = published(&played);
    assert_eq!(envelope["transactionId"].as_str().map(str::len), Some(36));
    envelope.as_object_mut().unwrap().remove("transactionId");
    let payload = json!({
        "id": id, "gjennomforingId": ACTIVITY, "personIdent": "01017012345", "startDato": "2030-06-01", "sluttDato": null,
        "status": "DELTAR", "statusAarsak": null, "dagerPerUke": 2.5, "prosentDeltid": 50, "registrertDato": "2030-05-01T10:11:12",
        "statusEndretDato": "2030-06-01T00:00:00", "innsokBegrunnelse": "",
    });
    let expected = json!({
        "source": "AMT_ARENA_ACL", "type": "DELTAKER", "timestamp": "2030-06-10T12:00:00", "operation": "CREATED", "payload": payload,
    });
    assert_eq!(envelope, expected);
    let state = json!({
        "person_id": 701, "gjennomforing_id": 901, "dato_fra": "2030-06-01", "dato_til": null, "reg_dato": "2030-05-01T10:11:12",
        "status": "GJENN", "dato_statusendring": "2030-05-02T00:00:00", "ekstern_id": null,
    });
    assert_eq!(stored(&played, collection::PARTICIPANT), Some(state));
    assert_eq!(stored(&played, collection::ACTIVITY), None);
    assert_eq!(played.rounds, 3, "{:?}", played.asked);
}

#[test]
fn a_change_is_published_as_modified() {
    assert_eq!(published(&play(&world(), &event("U", json!({ "BEGRUNNELSE_BESTILLING": "b" }))))["operation"], "MODIFIED");
}

#[test]
fn single_person_activities_get_the_bare_participant() {
    let mut world = world();
    for code in ["ENKELTPLASS_ARBEIDSMARKEDSOPPLAERING", "ENKELTPLASS_FAG_OG_YRKESOPPLAERING", "HOYERE_UTDANNING"] {
        world.endpoint(endpoint::ACTIVITY, move |_| remote_activity(code, "LOPENDE").into());
        let played = play(&world, &event("I", json!({ "DATO_TIL": "2030-06-09 00:00:00" })));
        assert_eq!(played.outputs()[0].target, target::SINGLE);
        let payload = published(&played);
        assert_eq!((&payload["personIdent"], &payload["status"]), (&json!("01017012345"), &json!("FULLFORT")));
        assert_eq!(payload.as_object().unwrap().len(), 12);
    }
}

#[test]
fn a_joint_start_makes_a_course() {
    let mut world = world();
    world.endpoint(endpoint::ACTIVITY, |_| remote_activity("OPPFOLGING", "FELLES").into());
    let over = json!({ "DATO_TIL": "2030-06-09 00:00:00" });
    assert_eq!(published(&play(&world, &event("U", over)))["payload"]["status"], "FULLFORT");
}

#[test]
fn the_activity_must_be_known_supported_and_valid() {
    let mut world = world();
    let on = vec![Request::from(tolk_sdk::Entry::new(collection::ACTIVITY, 902))];
    let missing = play(&world, &event("I", json!({ "TILTAKGJENNOMFORING_ID": 902 })));
    check(&missing, "waiting", "activity-missing", "Venter på at gjennomføring med id=902 skal bli håndtert");
    assert!(matches!(&missing.outcome, Outcome::Waiting(wait) if wait.on == on && wait.timeout_ms.is_none()));
    world.entry(collection::ACTIVITY, 902, activity_state("MENTOR", false, None));
    let unsupported = play(&world, &event("D", json!({ "TILTAKGJENNOMFORING_ID": 902 })));
    check(&unsupported, "ignored", "unsupported-activity", "Deltaker på gjennomføring med arenakode 902 er ikke støttet");
    world.entry(collection::ACTIVITY, 902, activity_state("JOBBK", false, None));
    let invalid = play(&world, &event("I", json!({ "TILTAKGJENNOMFORING_ID": 902 })));
    check(&invalid, "waiting", "activity-invalid", "Deltaker på ugyldig gjennomføring <902>");
    assert!(matches!(&invalid.outcome, Outcome::Waiting(wait) if wait.on == on));
    assert_eq!(invalid.rounds, 2);
}

#[test]
fn a_remote_id_that_is_found_is_remembered_even_if_another_system_owns_the_row() {
    let mut world = world();
    world.entry(collection::ACTIVITY, 901, activity_state("INDOPPFAG", true, None));
    world.endpoint(endpoint::ACTIVITY_ID, |_| Response::new(404, "").into());
    let text = "Venter på at gjennomføring med id=901 skal bli håndtert av Mulighetsrommet";
    check(&play(&world, &event("I", json!({}))), "retry", "remote-id-missing", text);
    world.endpoint(endpoint::ACTIVITY_ID, |_| Response::new(200, json!({ "id": ACTIVITY }).to_string()).into());
    let state = Some(serde_json::from_str(&activity_state("INDOPPFAG", true, Some(ACTIVITY))).unwrap());
    assert_eq!(stored(&play(&world, &event("I", json!({}))), collection::ACTIVITY), state);
    let external = play(&world, &event("I", json!({ "DELTAKERTYPEKODE": "EKSTERN" })));
    check(&external, "ignored", "external-type", "Deltaker har deltakertypekode ekstern, arenaid 801");
    assert_eq!(stored(&external, collection::ACTIVITY), state);
}

#[test]
fn remote_trouble_ends_in_retry_and_an_unknown_person_is_rejected() {
    let mut world = world();
    world.endpoint(endpoint::PERSON, |_| Response::new(404, "").into());
    let played = play(&world, &event("I", json!({})));
    check(&played, "rejected", "person-unknown", "Arena mangler personlig ident for personId=701");
    world.endpoint(endpoint::PERSON, |_| Response::new(401, "").into());
    let played = play(&world, &event("I", json!({})));
    check(&played, "retry", "remote-error", "Klarte ikke å hente fnr for Arena personId. Status: 401");
    world.endpoint(endpoint::PERSON, |_| Response::new(500, "").into());
    assert_eq!(play(&world, &event("I", json!({}))).outcome.kind(), "retry");
    world.endpoint(endpoint::ACTIVITY, |_| Response::new(404, "").into());
    world.endpoint(endpoint::PERSON, |_| Response::new(404, "").into());
    let text = "Klarte ikke å hente gjennomføring fra Mulighetsrommet v2 API. status=404";
    check(&play(&world, &event("I", json!({}))), "retry", "remote-error", text);
}

#[test]
fn external_ids_are_bound_or_found_in_conflict() {
    let mut world = world();
    let message = event("U", json!({ "EKSTERN_ID": EXTERNAL, "PERSON_ID": null }));
    let text = format!("Deltaker har eksternid {EXTERNAL}");
    let bound = play(&world, &message);
    check(&bound, "ignored", "external-id", &text);
    let Outcome::Ignored(dismissal) = &bound.outcome else { panic!("{}", bound.outcome) };
    assert_eq!(dismissal.bindings, [tolk_sdk::Binding::new(namespace::PARTICIPANT, 801, EXTERNAL)]);
    assert!(stored(&bound, collection::PARTICIPANT).is_none() && !bound.called(endpoint::PERSON));

    world.id(namespace::PARTICIPANT, 802, EXTERNAL);
    let text = format!("Fikk arenadeltaker med id 801 og EKSTERN_ID {EXTERNAL} men arenaId er allerede mappet til 802");
    check(&play(&world, &message), "rejected", "external-id-conflict", &text);
}

#[test]
fn an_external_id_is_bound_once_and_never_over_another() {
    let message = event("I", json!({ "EKSTERN_ID": EXTERNAL }));
    for earlier in [EXTERNAL, ACTIVITY] {
        let mut world = world();
        world.id(namespace::PARTICIPANT, 801, earlier);
        let played = play(&world, &message);
        let Outcome::Ignored(dismissal) = &played.outcome else { panic!("{}", played.outcome) };
        assert_eq!((dismissal.code.as_str(), dismissal.bindings.len()), ("external-id", 0));
    }
    let played = play(&world(), &event("I", json!({ "EKSTERN_ID": "17" })));
    assert_eq!((played.outcome.kind(), played.outcome.code()), ("failed", "bad-external-id"));
    assert_eq!(play(&world(), &event("I", json!({ "EKSTERN_ID": "" }))).outputs().len(), 1);
}

#[test]
fn an_invalid_row_costs_no_call_for_its_person() {
    let check_row = |changes, code, text: &str| {
        let played = play(&world(), &event("I", changes));
        check(&played, "rejected", code, text);
        assert!(!played.called(endpoint::PERSON));
    };
    check_row(json!({ "TILTAKDELTAKER_ID": 0 }), "own-id-zero", "TILTAKDELTAKER_ID er 0");
    check_row(json!({ "PERSON_ID": null }), "person-id-null", "PERSON_ID er null");
    check_row(json!({ "DATO_FRA": "2030-06-01" }), "bad-date", "DATO_FRA kan ikke parses til LocalDate (2030-06-01)");
    let unknown = play(&world(), &event("I", json!({ "DELTAKERSTATUSKODE": "NY" })));
    assert_eq!((unknown.outcome.kind(), unknown.outcome.code()), ("failed", "unknown-status-code"));
}

#[test]
fn a_deletion_of_what_became_history_publishes_nothing() {
    let mut world = world();
    let id = world.id_of(namespace::PARTICIPANT, 801);
    world.id(namespace::PARTICIPANT, 801, &id).id(namespace::HIST, 555, &id);
    let played = play(&world, &event("D", json!({})));
    check(&played, "translated", "", "Slettes ikke fordi deltaker ble historisert");
    assert_eq!(stored(&played, collection::PARTICIPANT).unwrap()["status"], "GJENN");
}

#[test]
fn a_deletion_waits_for_its_hist_row_three_times_and_is_then_a_mistake() {
    let mut world = world();
    let id = world.id_of(namespace::PARTICIPANT, 801);
    let deletion = event("D", json!({ "AARSAKVERDIKODE_STATUS": "SYK", "BEGRUNNELSE_BESTILLING": "b" }));
    for attempt in 0..3 {
        world.attempt(attempt, Cause::TimedOut);
        let played = play(&world, &deletion);
        check(&played, "waiting", "hist-missing", &format!("Fant ikke hist-deltaker for deltaker id={id} arenaId=801"));
        let Outcome::Waiting(wait) = &played.outcome else { panic!("{}", played.outcome) };
        assert_eq!((wait.timeout_ms, wait.on.as_slice()), (Some(600_000), [KeyOf::new(namespace::HIST, &id).into()].as_slice()));
    }
    world.attempt(3, Cause::TimedOut);
    let played = play(&world, &deletion);
    let envelope = published(&played);
    assert_eq!(envelope["operation"], "MODIFIED");
    let payload = &envelope["payload"];
    assert_eq!((&payload["status"], &payload["statusEndretDato"]), (&json!("FEILREGISTRERT"), &json!("2030-06-01T00:00:00")));
    for field in ["statusAarsak", "dagerPerUke", "prosentDeltid", "innsokBegrunnelse"] {
        assert_eq!(payload.get(field), Some(&Value::Null), "{field}");
    }
    assert_eq!(payload["startDato"], "2030-06-01");
    assert_eq!(stored(&played, collection::PARTICIPANT), None);
}

#[test]
fn a_late_deletion_marks_what_is_remembered() {
    let mut world = world();
    world.settle(&Deltaker::default(), &event("I", json!({ "DATO_TIL": "2030-12-31 00:00:00" })));
    world.attempt(3, Cause::TimedOut);
    let state = stored(&play(&world, &event("D", json!({}))), collection::PARTICIPANT).unwrap();
    assert_eq!((&state["status"], &state["dato_til"]), (&json!("FEILREGISTRERT"), &json!("2030-12-31")));
    world.endpoint(endpoint::ACTIVITY, |_| remote_activity("HOYERE_UTDANNING", "LOPENDE").into());
    assert_eq!(play(&world, &event("D", json!({}))).outputs()[0].target, target::SINGLE);
}

#[test]
fn the_wait_for_a_hist_row_is_a_setting() {
    assert_eq!(Deltaker::configure(""), Ok(Deltaker::default()));
    assert_eq!(Deltaker::configure(r#"{"hist_wait_ms":5}"#), Ok(Deltaker { hist_wait_ms: 5 }));
    assert!(Deltaker::configure(r#"{"hist_wait":5}"#).unwrap_err().contains("unknown field `hist_wait`"));
}
