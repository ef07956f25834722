//! Plays hist participants against a fake world: no match, one, several, restoring, and every stop of the order of checks.

use serde_json::{Value, json};
use tolk_sdk::Response;
use tolk_sdk::testing::{Played, World, message};

use super::*;

const ACTIVITY: &str = "2f6f1c1e-64a4-4a0f-9d0e-3c6a1a2b3c4d";
const KNOWN: &str = "9d3f7c52-0b1e-4f6a-8c2d-5e4f3a2b1c0d";
const OTHER: &str = "1c0d9d3f-0b1e-4f6a-8c2d-5e4f3a2b7c52";

fn event(op: &str, changes: Value) -> Message {
    let mut row = json!({
        "HIST_TILTAKDELTAKER_ID": 601, "PERSON_ID": 701, "TILTAKGJENNOMFORING_ID": 901, "DELTAKERSTATUSKODE": "FULLF",
        "DELTAKERTYPEKODE": "INNSOKT", "REG_DATO": "2030-01-01 10:00:00", "DATO_STATUSENDRING": "2030-03-02 08:00:00",
        "DATO_FRA": "2030-02-01 00:00:00", "DATO_TIL": "2030-03-01 00:00:00", "BEGRUNNELSE_BESTILLING": null,
    });
    for (key, value) in changes.as_object().unwrap() {
        row[key] = value.clone();
    }
    let side = if op == "D" { "before" } else { "after" };
    message(table::HIST, json!({ "table": table::HIST, "op_type": op, side: row }).to_string())
}

fn world() -> World {
    let mut world = World::new();
    // 2030-06-10T12:00:00 in Oslo.
    world.now(1_907_316_000_000, 7_200);
    world.entry(collection::ACTIVITY, 901, json!({ "tiltak_kode": "INDOPPFAG", "is_valid": true, "id": ACTIVITY }).to_string());
    world.endpoint(endpoint::ACTIVITY, |_| {
        let body =
            json!({ "id": ACTIVITY, "tiltakskode": "HOYERE_UTDANNING", "oppstart": "LOPENDE", "arrangor": { "organisasjonsnummer": "1" } });
        Response::new(200, body.to_string()).into()
    });
    world.endpoint(endpoint::PERSON, |_| Response::new(200, r#"{"fnr":"01017012345"}"#).into());
    world
}

/// Adds a participant of person 701 on activity 901 that equals the hist row but for `changes`.
fn participant(world: &mut World, arena_id: i64, changes: Value) {
    let mut state = json!({
        "person_id": 701, "gjennomforing_id": 901, "dato_fra": "2030-02-01", "dato_til": "2030-03-01", "status": "FEILREGISTRERT",
        "dato_statusendring": "2030-03-02T08:00:00",
    });
    for (key, value) in changes.as_object().unwrap() {
        state[key] = value.clone();
    }
    let state: ParticipantState = serde_json::from_value(state).unwrap();
    world.write(&state.write(arena_id));
}

fn downstream(world: &mut World, id: &str, status: &str) {
    let body = json!([{ "id": OTHER, "status": "FEILREGISTRERT" }, { "id": id, "status": status }]).to_string();
    world.endpoint(endpoint::PARTICIPATIONS, move |call| {
        assert_eq!(call.body.as_deref(), Some(br#"{"personIdent":"01017012345"}"#.as_slice()));
        Response::new(200, body.clone()).into()
    });
}

fn play(world: &World, message: &Message) -> Played {
    world.play(&HistDeltaker, message)
}

#[track_caller]
fn check(played: &Played, kind: &str, code: &str, text: &str) {
    assert_eq!((played.outcome.kind(), played.outcome.code(), played.outcome.text()), (kind, code, text));
    assert!(played.outputs().is_empty());
}

fn bindings(played: &Played) -> &[Binding] {
    match &played.outcome {
        Outcome::Translated(translation) => &translation.bindings,
        Outcome::Ignored(dismissal) => &dismissal.bindings,
        other => panic!("{other}"),
    }
}

fn envelope(played: &Played) -> Value {
    serde_json::from_str(&played.outputs()[0].payload_text()).unwrap()
}

#[test]
fn a_hist_row_that_nobody_knows_is_published_as_new() {
    let mut world = world();
    // Near misses: another day, no day, another time of change, none at all, and a person on an activity with a longer number.
    participant(&mut world, 1, json!({ "dato_fra": "2030-02-02" }));
    participant(&mut world, 2, json!({ "dato_til": null }));
    participant(&mut world, 3, json!({ "dato_statusendring": "2030-03-02T08:00:01" }));
    participant(&mut world, 4, json!({ "dato_statusendring": null }));
    participant(&mut world, 5, json!({ "gjennomforing_id": 9011 }));
    let played = play(&world, &event("I", json!({})));
    let id = world.id_of(namespace::HIST, 601);
    assert_eq!((played.outcome.text(), played.outputs()[0].target.as_str()), ("Fant match? false", target::AMT_TILTAK));
    assert_eq!(played.outputs()[0].key.as_deref(), Some(id.as_bytes()));
    let envelope = envelope(&played);
    assert_eq!((&envelope["operation"], &envelope["payload"]["id"]), (&json!("CREATED"), &json!(id)));
    assert_eq!(envelope["payload"]["status"], "FULLFORT");
    assert_eq!(envelope["payload"]["statusEndretDato"], "2030-03-01T00:00:00");
    assert_eq!(envelope["payload"].get("innsokBegrunnelse"), Some(&Value::Null));
    assert!(!played.called(endpoint::PARTICIPATIONS) && played.writes().is_empty());
    assert_eq!(played.rounds, 4, "{:?}", played.asked);
}

#[test]
fn a_match_ties_both_ids_and_publishes_nothing() {
    let mut world = world();
    participant(&mut world, 801, json!({}));
    participant(&mut world, 802, json!({ "dato_til": null }));
    world.id(namespace::PARTICIPANT, 801, KNOWN);
    downstream(&mut world, KNOWN, "FULLFORT");
    let played = play(&world, &event("I", json!({})));
    check(&played, "translated", "", "Fant match? true");
    assert_eq!(bindings(&played), [Binding::new(namespace::HIST, 601, KNOWN)]);
}

#[test]
fn null_dates_match_null_dates() {
    let mut world = world();
    participant(&mut world, 801, json!({ "dato_fra": null, "dato_til": null }));
    world.id(namespace::PARTICIPANT, 801, KNOWN);
    downstream(&mut world, KNOWN, "IKKE_AKTUELL");
    let played = play(&world, &event("I", json!({ "DATO_FRA": null, "DATO_TIL": null })));
    check(&played, "translated", "", "Fant match? true");
}

#[test]
fn a_match_that_downstream_regards_as_a_mistake_is_restored() {
    let mut world = world();
    participant(&mut world, 801, json!({}));
    world.id(namespace::PARTICIPANT, 801, KNOWN);
    downstream(&mut world, KNOWN, "FEILREGISTRERT");
    let played = play(&world, &event("I", json!({ "BEGRUNNELSE_BESTILLING": "b" })));
    let envelope = envelope(&played);
    assert_eq!((&envelope["operation"], &envelope["payload"]["id"]), (&json!("MODIFIED"), &json!(KNOWN)));
    assert_eq!((&envelope["payload"]["status"], &envelope["payload"]["innsokBegrunnelse"]), (&json!("FULLFORT"), &json!("b")));
    assert_eq!(played.outputs()[0].key.as_deref(), Some(KNOWN.as_bytes()));
    assert_eq!((played.outcome.text(), bindings(&played).len()), ("Fant match? true", 1));
}

#[test]
fn an_id_that_is_tied_already_stays_tied() {
    let mut world = world();
    participant(&mut world, 801, json!({}));
    world.id(namespace::PARTICIPANT, 801, KNOWN).id(namespace::HIST, 600, KNOWN);
    downstream(&mut world, KNOWN, "DELTAR");
    let played = play(&world, &event("I", json!({})));
    check(&played, "translated", "", "Fant match? true");
    assert!(bindings(&played).is_empty());
    world.id(namespace::HIST, 601, OTHER);
    assert_eq!(play(&world, &event("I", json!({}))).outcome.code(), "hist-id-conflict");
}

#[test]
fn a_match_must_be_known_here_and_downstream() {
    let mut world = world();
    participant(&mut world, 801, json!({}));
    let text = "Fant matchende deltaker for hist deltaker 601 men fant ikke deltakeren igjen i ";
    let played = play(&world, &event("I", json!({})));
    check(&played, "rejected", "match-without-id", &format!("{text}translation tabellen"));
    assert!(!played.called(endpoint::PARTICIPATIONS));
    world.id(namespace::PARTICIPANT, 801, KNOWN);
    downstream(&mut world, ACTIVITY, "FULLFORT");
    check(&play(&world, &event("I", json!({}))), "rejected", "match-not-downstream", &format!("{text}amt-tiltak"));
    world.endpoint(endpoint::PARTICIPATIONS, |_| Response::new(404, "").into());
    let text = "Klarte ikke å hente tiltaksdeltakelser fra amt-tiltak. status=404";
    check(&play(&world, &event("I", json!({}))), "retry", "remote-error", text);
}

#[test]
fn several_matches_are_for_a_person_and_all_candidates_are_counted() {
    let mut world = world();
    participant(&mut world, 801, json!({}));
    participant(&mut world, 802, json!({ "dato_fra": null }));
    participant(&mut world, 803, json!({}));
    let text = "Fant 3 deltakere som matcher med hist deltaker 601";
    check(&play(&world, &event("I", json!({}))), "failed", "several-matches", text);
}

#[test]
fn only_creations_count_but_the_activity_and_the_guard_come_first() {
    let mut world = world();
    let check_ignored =
        |world: &World, op, text| check(&play(world, &event(op, json!({ "PERSON_ID": null }))), "ignored", "hist-operation", text);
    check_ignored(&world, "D", "Ignorerer hist-deltaker som har operation type DELETED");
    check_ignored(&world, "U", "Ignorerer hist-deltaker som har operation type MODIFIED");
    let external = play(&world, &event("D", json!({ "DELTAKERTYPEKODE": "EKSTERN" })));
    check(&external, "ignored", "external-type", "hist-deltaker har deltakertypekode ekstern, arenaid 601");
    world.entry(collection::ACTIVITY, 901, json!({ "tiltak_kode": "JOBBK", "is_valid": false }).to_string());
    let invalid = play(&world, &event("D", json!({})));
    check(&invalid, "waiting", "activity-invalid", "Deltaker på ugyldig gjennomføring <901>");
}

#[test]
fn external_ids_live_in_the_hist_namespace() {
    let mut world = world();
    let message = event("I", json!({ "EKSTERN_ID": KNOWN }));
    let played = play(&world, &message);
    check(&played, "ignored", "external-id", &format!("hist-deltaker har eksternid {KNOWN}"));
    assert_eq!(bindings(&played), [Binding::new(namespace::HIST, 601, KNOWN)]);
    world.id(namespace::HIST, 602, KNOWN);
    let text = format!("Fikk arena hist-deltaker med id 601 og EKSTERN_ID {KNOWN} men arenaId er allerede mappet til 602");
    check(&play(&world, &message), "rejected", "external-id-conflict", &text);
}

#[test]
fn what_was_moved_to_history_must_have_ended_at_a_known_time() {
    let world = world();
    let no_date = play(&world, &event("I", json!({ "DATO_STATUSENDRING": null })));
    check(&no_date, "rejected", "status-date-null", "Kan ikke matche hist deltaker som mangler DATO_STATUSENDRING");
    let running = play(&world, &event("I", json!({ "DELTAKERSTATUSKODE": "GJENN", "DATO_TIL": null })));
    check(&running, "retry", "hist-not-ended", "Hist deltaker har fått status DELTAR");
    let own_id = play(&world, &event("I", json!({ "HIST_TILTAKDELTAKER_ID": null, "TILTAKDELTAKER_ID": 9 })));
    check(&own_id, "rejected", "own-id-zero", "HIST_TILTAKDELTAKER_ID er 0");
}

#[test]
fn an_unknown_person_is_told_before_a_missing_date() {
    let mut world = world();
    world.endpoint(endpoint::PERSON, |_| Response::new(404, "").into());
    let played = play(&world, &event("I", json!({ "DATO_STATUSENDRING": null })));
    check(&played, "rejected", "person-unknown", "Arena mangler personlig ident for personId=701");
}

#[test]
fn config_is_refused() {
    assert!(HistDeltaker::configure("x").is_err() && HistDeltaker::configure("").is_ok());
}
