//! Plays recipients against a fake world: every step that can end early, what is kept of it, and how many questions it takes.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tolk_sdk::testing::{Played, World, message};
use tolk_sdk::{Cause, Outcome, Request, Response};

use barnetrygd_rules::names::NOT_SENT;

use super::*;

const DELIVERY: &str = "0aa0f5a8-3e3f-4d51-a1a0-8b7f0c9d1e2f";

/// What the remote systems know, by number; numbers without an answer of their own are persons with one number, without cases.
#[derive(Clone, Default)]
struct Known {
    persons: BTreeMap<String, Response>,
    cases: BTreeMap<String, Response>,
    supports: BTreeMap<String, Response>,
}

impl Known {
    /// A person with these numbers, the first in use.
    fn person(mut self, idents: &[&str]) -> Self {
        for ident in idents {
            self.persons.insert((*ident).to_owned(), person(idents));
        }
        self
    }

    fn nobody(mut self, ident: &str, code: &str) -> Self {
        let body = json!({ "errors": [{ "extensions": { "code": code } }], "data": { "hentPerson": null } });
        self.persons.insert(ident.to_owned(), Response::new(200, body.to_string()));
        self
    }

    fn cases(mut self, ident: &str, cases: Value) -> Self {
        self.cases.insert(ident.to_owned(), Response::new(200, json!({ "fagsaker": cases }).to_string()));
        self
    }

    fn supports(mut self, ident: &str, decisions: Value) -> Self {
        self.supports.insert(ident.to_owned(), Response::new(200, decisions.to_string()));
        self
    }

    fn world(self) -> World {
        let mut world = World::new();
        let params = vec![("year".to_owned(), "2020".to_owned())];
        world.delivery(Delivery { id: DELIVERY.to_owned(), params, expected: Some(1) });
        let asked = |call: &tolk_sdk::Call, pointer: &str| {
            let body: Value = serde_json::from_slice(call.body.as_deref().unwrap()).unwrap();
            body.pointer(pointer).and_then(Value::as_str).unwrap().to_owned()
        };
        let Self { persons, cases, supports } = self;
        world.endpoint(endpoint::PERSON, move |call| {
            let ident = asked(call, "/variables/ident");
            persons.get(&ident).cloned().unwrap_or_else(|| person(&[&ident])).into()
        });
        world.endpoint(endpoint::BENEFIT, move |call| {
            let none = || Response::new(200, r#"{"fagsaker":[]}"#);
            cases.get(&asked(call, "/ident")).cloned().unwrap_or_else(none).into()
        });
        world.endpoint(endpoint::SUPPORT, move |call| {
            supports.get(&asked(call, "/fnr")).cloned().unwrap_or_else(|| Response::new(200, "[]")).into()
        });
        world
    }

    fn play(self) -> Played {
        self.world().play(&Mottaker, &recipient("1"))
    }
}

fn person(idents: &[&str]) -> Response {
    let list: Vec<Value> = (idents.iter().enumerate())
        .map(|(at, ident)| json!({ "identifikasjonsnummer": ident, "status": if at == 0 { "I_BRUK" } else { "OPPHOERT" } }))
        .collect();
    Response::new(200, json!({ "data": { "hentPerson": { "folkeregisteridentifikator": list } } }).to_string())
}

fn recipient(ident: &str) -> Message {
    let payload = json!({ "meldingstype": "DATA", "requestId": DELIVERY, "personident": ident, "antallIdenterTotalt": 1 });
    message(TABLE, payload.to_string())
}

fn case(owner: &str, periods: &[(&str, i64, &str, &str)]) -> Value {
    let period = |(child, paid, from, to): &(&str, i64, &str, &str)| {
        json!({
            "personIdent": child, "delingsprosentYtelse": "FULL", "ytelseTypeEkstern": "ORDINÆR_BARNETRYGD", "utbetaltPerMnd": paid,
            "stønadFom": from, "stønadTom": to, "sakstypeEkstern": "NASJONAL", "kildesystem": "BA",
        })
    };
    json!({ "fagsakEiersIdent": owner, "barnetrygdPerioder": periods.iter().map(period).collect::<Vec<_>>() })
}

fn decision(ident: &str, from: &str, to: &str, rate: u8) -> Value {
    json!({ "id": 1, "ident": ident, "fom": from, "tom": to, "omsorgstype": format!("FORHØYET_SATS_{rate}") })
}

fn whole(child: &str) -> (&str, i64, &'static str, &'static str) {
    (child, 100, "2020-01", "2025-12")
}

fn sent(played: &Played) -> Value {
    assert_eq!((played.outputs().len(), played.writes().len()), (1, 0), "{}", played.outcome);
    serde_json::from_str(&played.outputs()[0].payload_text()).unwrap()
}

/// What is kept of a recipient that is not sent.
fn kept(played: &Played) -> Value {
    assert_eq!((played.outcome.kind(), played.outcome.text(), played.outputs().len()), ("translated", NOT_SENT, 0), "{}", played.outcome);
    serde_json::from_slice(played.writes()[0].value.as_deref().unwrap()).unwrap()
}

/// Whose raw answers there are: b for benefit, p for persons, s for support.
fn raw(form: &Value) -> Vec<String> {
    let raw = form["rådata"].as_array().unwrap().iter().map(|raw| {
        let fields = raw.as_object().unwrap();
        match fields.get("fnr").and_then(Value::as_str) {
            Some(ident) if fields.contains_key("barnetrygd") => format!("b{ident}"),
            Some(ident) => format!("s{ident}"),
            None => format!("p{}", fields.keys().next().unwrap()),
        }
    });
    raw.collect()
}

fn trouble(form: &Value) -> (String, String) {
    assert_eq!((form["feilinfo"].as_array().map(Vec::len), form["persongrunnlag"].as_array().map(Vec::len)), (Some(1), Some(0)));
    let trouble = &form["feilinfo"][0];
    let ident = trouble.get("ident").or_else(|| trouble.get("omsorgsmottaker")).cloned().unwrap_or_default();
    let role = trouble["identRolle"].as_str().map(|role| format!(" {role}")).unwrap_or_default();
    (trouble["type"].as_str().unwrap().to_owned(), format!("{}{role}", ident.as_str().unwrap_or_default()))
}

#[track_caller]
fn check(played: &Played, kind: &str, whose: &str, answers: &[&str]) {
    let form = kept(played);
    assert_eq!(trouble(&form), (kind.to_owned(), whose.to_owned()));
    assert_eq!(raw(&form), answers);
}

#[test]
fn a_recipient_goes_out_once_four_rounds_are_answered() {
    let known =
        Known::default().cases("1", json!([case("1", &[whole("5")])])).supports("5", json!([decision("5", "2020-01", "2025-12", 3)]));
    let played = known.play();
    assert_eq!((played.rounds, played.asked.len()), (5, 4));
    let output = &played.outputs()[0];
    assert_eq!((output.target.as_str(), output.key.as_deref()), (TARGET, Some(br#"{"ident":"1"}"#.as_slice())));
    let form = sent(&played);
    let period = json!({
        "fom": "2020-01", "tom": "2021-12", "omsorgsmottaker": "5", "omsorgstype": "FULL_BARNETRYGD", "kilde": "BARNETRYGD",
        "utbetalt": 100, "landstilknytning": "NORGE",
    });
    let support = json!({
        "fom": "2020-01", "tom": "2021-12", "omsorgsmottaker": "5", "omsorgstype": "HJELPESTØNAD_FORHØYET_SATS_3", "kilde": "INFOTRYGD",
    });
    let entry = json!({ "omsorgsyter": "1", "omsorgsperioder": [period], "hjelpestønadsperioder": [support] });
    assert_eq!((&form["omsorgsyter"], &form["persongrunnlag"], &form["feilinfo"]), (&json!("1"), &json!([entry]), &json!([])));
    assert_eq!((&form["innlesingId"], &form["correlationId"]), (&json!(DELIVERY), &json!(recipient("1").id)));
    assert_eq!(raw(&form), ["b1", "p1", "p5", "s5"]);
    assert_eq!(form["rådata"][3]["tom"], "2021-12-31");
    // The headers' part: every call has the recipient's correlation id and the delivery's id.
    for request in &played.asked {
        let Request::Call(call, lenient) = request else { panic!("only calls") };
        let expected = [("correlation".to_owned(), recipient("1").id), ("delivery".to_owned(), DELIVERY.to_owned())];
        assert_eq!((&call.params[..], *lenient), (&expected[..], false));
    }
}

#[test]
fn numbers_of_one_person_become_the_current_one() {
    let known = Known::default()
        .person(&["1", "11", "12"])
        .person(&["2", "21", "22"])
        .cases("11", json!([case("11", &[("21", 100, "2020-01", "2020-06")]), case("12", &[("22", 100, "2020-07", "2020-12")])]))
        .cases("12", json!([case("12", &[("22", 100, "2020-07", "2020-12")])]))
        .supports("21", json!([decision("21", "2020-01", "2020-03", 4)]))
        .supports("22", json!([decision("22", "2020-04", "2020-05", 4)]));
    let form = sent(&known.play());
    assert_eq!(form["persongrunnlag"].as_array().map(Vec::len), Some(1));
    let entry = &form["persongrunnlag"][0];
    let months = |list: &str| (entry[list].as_array().map(Vec::len), entry[list][0]["fom"].clone(), entry[list][0]["tom"].clone());
    assert_eq!(entry["omsorgsyter"], "1");
    assert_eq!(months("omsorgsperioder"), (Some(1), json!("2020-01"), json!("2020-12")));
    assert_eq!(months("hjelpestønadsperioder"), (Some(1), json!("2020-01"), json!("2020-05")));
    // Of a person only the first answer counts, under the number that was asked.
    assert_eq!(raw(&form), ["b1", "b11", "b12", "p1", "p21", "s2", "s21", "s22"]);
}

#[test]
fn other_owners_have_entries_of_their_own() {
    let known = Known::default().cases("1", json!([case("9", &[whole("5")]), case("1", &[])]));
    let form = sent(&known.play());
    let owners: Vec<&str> = form["persongrunnlag"].as_array().unwrap().iter().filter_map(|entry| entry["omsorgsyter"].as_str()).collect();
    assert_eq!(owners, ["9", "1"]);
    assert_eq!(form["persongrunnlag"][1], json!({ "omsorgsyter": "1", "omsorgsperioder": [], "hjelpestønadsperioder": [] }));
    assert_eq!(raw(&form), ["b1", "p9", "p5", "p1", "s5"]);
    // Nobody's number led to the recipient: its look-up comes last among the persons.
    let alone = sent(&Known::default().cases("1", json!([case("9", &[whole("5")])])).play());
    assert_eq!(raw(&alone), ["b1", "p9", "p5", "p1", "s5"]);
}

#[test]
fn a_recipient_without_a_case_is_kept_and_not_sent() {
    let played = Known::default().person(&["1", "11"]).play();
    let form = kept(&played);
    assert_eq!((&form["feilinfo"], &form["persongrunnlag"]), (&json!([]), &json!([])));
    assert_eq!(raw(&form), ["b1", "b11", "p1"]);
    let write = &played.writes()[0];
    assert_eq!((write.collection.as_str(), &write.key), (INFORMATION, &recipient("1").id));
    let indexes = [("innlesing".to_owned(), format!("{DELIVERY}/")), ("feil".to_owned(), "IngenSaker/".to_owned())];
    assert_eq!(write.indexes, indexes);
}

#[test]
fn a_case_without_periods_is_sent() {
    let form = sent(&Known::default().cases("1", json!([case("1", &[])])).play());
    assert_eq!(form["persongrunnlag"][0]["omsorgsperioder"], json!([]));
    assert_eq!(raw(&form), ["b1", "p1"]);
}

#[test]
fn a_recipient_without_one_current_number_is_tried_again_and_says_why() {
    let unknown = Known::default().nobody("1", "not_found").play();
    let Outcome::Faulty(fault) = &unknown.outcome else { panic!("{}", unknown.outcome) };
    assert_eq!((unknown.outcome.kind(), fault.code.as_str(), unknown.asked.len()), ("retry", "UgyldigIdent", 1));
    let form: Value = serde_json::from_slice(fault.detail.as_deref().unwrap()).unwrap();
    assert_eq!((&form["feilinfo"][0]["type"], &form["feilinfo"][0]["identRolle"]), (&json!("UgyldigIdent"), &json!("BARNETRYGDMOTTAKER")));
    assert_eq!(raw(&form), ["p1"]);
    let mut ended = Known::default();
    let body =
        json!({ "data": { "hentPerson": { "folkeregisteridentifikator": [{ "identifikasjonsnummer": "1", "status": "OPPHOERT" }] } } });
    ended.persons.insert("1".to_owned(), Response::new(200, body.to_string()));
    let Outcome::Faulty(fault) = ended.play().outcome else { panic!("it has no number") };
    let form: Value = serde_json::from_slice(fault.detail.as_deref().unwrap()).unwrap();
    assert_eq!((fault.code.as_str(), raw(&form).len()), ("UgyldigIdent", 0));
}

#[test]
fn overlaps_in_one_case_end_the_steps_at_that_answer() {
    let two = [("5", 1, "2020-01", "2020-06"), ("5", 2, "2020-06", "2020-09")];
    let known = Known::default().person(&["1", "11", "12"]).cases("11", json!([case("1", &two)])).cases("12", json!(null));
    check(&known.play(), "OverlappendeBarnetrygdperioder", "5", &["b11", "p1"]);
    // An end before its start is no overlap, and no period either.
    let turned = Known::default().cases("1", json!([case("1", &[("5", 1, "2020-06", "2020-02")])]));
    check(&turned.play(), "FeilIDatagrunnlag", "", &["b1", "p1"]);
}

#[test]
fn persons_behind_cases_must_be_known() {
    let children = Known::default().cases("1", json!([case("1", &[whole("5"), whole("6")])]));
    let child = children.clone().nobody("6", "not_found");
    // Of the look-ups only the recipient's is kept, and the one that failed.
    check(&child.play(), "UgyldigIdent", "6 OMSORGSMOTTAKER_BARNETRYGD", &["b1", "p1", "p6"]);
    let owner = Known::default().nobody("9", "bad_request").cases("1", json!([case("9", &[whole("5")])]));
    check(&owner.play(), "UgyldigIdent", "9 OMSORGSYTER_BARNETRYGD", &["b1", "p1", "p9"]);
    let mut twofold = children.clone();
    let list = json!([{ "identifikasjonsnummer": "5", "status": "I_BRUK" }, { "identifikasjonsnummer": "7", "status": "I_BRUK" }]);
    let body = json!({ "data": { "hentPerson": { "folkeregisteridentifikator": list } } });
    twofold.persons.insert("5".to_owned(), Response::new(200, body.to_string()));
    check(&twofold.play(), "UgyldigIdent", "5 OMSORGSMOTTAKER_BARNETRYGD", &["b1", "p1"]);
    // A remote system in trouble says nothing about a child.
    let away = children.nobody("6", "server_error").play();
    assert_eq!((away.outcome.kind(), away.outcome.code()), ("retry", "PdlException"));
    // A later number of a known person does not matter, whatever its own look-up says.
    let known = Known::default().person(&["5", "51"]).nobody("51", "not_found").cases("1", json!([case("1", &[whole("5"), whole("51")])]));
    assert_eq!(raw(&sent(&known.play())), ["b1", "p1", "p5", "s5", "s51"]);
}

#[test]
fn overlaps_that_current_numbers_bring_to_light() {
    let known = Known::default().person(&["5", "51"]);
    let one = [("5", 1, "2020-01", "2020-06"), ("51", 2, "2020-06", "2020-09")];
    check(&known.clone().cases("1", json!([case("1", &one)])).play(), "OverlappendeBarnetrygdperioder", "5", &["b1", "p1", "p5"]);
    // In two cases even equal periods overlap, unless they are the same.
    let two = json!([case("1", &[("5", 1, "2020-01", "2020-06")]), case("1", &[("51", 1, "2020-06", "2020-09")])]);
    check(&known.clone().cases("1", two).play(), "OverlappendeBarnetrygdperioder", "5", &["b1", "p1", "p5"]);
    let same = json!([case("1", &[whole("5")]), case("1", &[whole("51")])]);
    assert_eq!(sent(&known.cases("1", same).play())["persongrunnlag"][0]["omsorgsperioder"].as_array().map(Vec::len), Some(1));
}

#[test]
fn overlaps_and_unknown_children_of_support() {
    let known = Known::default().person(&["5", "51"]).cases("1", json!([case("1", &[whole("5")])]));
    let inside = json!([decision("5", "2020-01", "2020-06", 3), decision("5", "2020-06", "2020-09", 4)]);
    check(&known.clone().supports("5", inside).play(), "OverlappendeHjelpestønadperioder", "5", &["b1", "p1", "p5"]);
    let across = known.clone().supports("5", json!([decision("5", "2020-01", "2020-06", 3)]));
    let across = across.supports("51", json!([decision("51", "2020-06", "2020-09", 4)]));
    check(&across.play(), "OverlappendeHjelpestønadperioder", "5", &["b1", "p1", "p5", "s5", "s51"]);
    let stranger = known.clone().supports("5", json!([decision("8", "2020-01", "2020-06", 3)])).nobody("8", "not_found");
    check(&stranger.play(), "UgyldigIdent", "8 OMSORGSMOTTAKER_HJELPESTONAD", &["b1", "p1", "p5", "p8", "s5", "s51"]);
    let two = json!([case("1", &[("5", 1, "2020-01", "2020-06")]), case("9", &[("5", 1, "2020-01", "2020-06")])]);
    let both = known.cases("1", two).supports("51", json!([decision("51", "2020-01", "2020-02", 3)]));
    let form = sent(&both.play());
    // Two owners may have the same child and month; equal support requests are one.
    assert_eq!(form["persongrunnlag"][0]["hjelpestønadsperioder"], form["persongrunnlag"][1]["hjelpestønadsperioder"]);
    assert_eq!(raw(&form), ["b1", "p1", "p5", "p9", "s5", "s51"]);
}

#[test]
fn remote_errors_fail_the_attempt_with_status_and_body() {
    let mut refused = Known::default();
    refused.cases.insert("1".to_owned(), Response::new(403, "ikke lov"));
    let played = refused.play();
    assert_eq!((played.outcome.kind(), played.outcome.code()), ("retry", "barnetrygd-error"));
    assert!(played.outcome.text().contains("403") && played.outcome.text().contains("ikke lov"), "{}", played.outcome);
    let mut support = Known::default().cases("1", json!([case("1", &[whole("5")])]));
    support.supports.insert("5".to_owned(), Response::new(404, ""));
    let played = support.play();
    assert_eq!((played.outcome.kind(), played.outcome.code()), ("retry", "hjelpestonad-error"));
}

#[test]
fn what_is_no_recipient_of_a_year_is_said() {
    let world = Known::default().world();
    for payload in ["{}", "x", r#"{"personident":null}"#, r#"{"personident":""}"#, r#"{"personident":"12a"}"#] {
        let played = world.play(&Mottaker, &message(TABLE, payload));
        assert_eq!((played.outcome.kind(), played.outcome.code()), ("rejected", UNDECODABLE), "{payload}");
    }
    assert_eq!(World::new().play(&Mottaker, &recipient("1")).outcome.code(), "no-delivery");
    let mut world = World::new();
    world.delivery(Delivery { id: DELIVERY.to_owned(), params: Vec::new(), expected: None });
    assert_eq!(world.play(&Mottaker, &recipient("1")).outcome.code(), "no-year");
    assert!(Mottaker::configure("{}").is_err() && Mottaker::configure(" ").is_ok());
}

#[test]
fn another_run_that_sends_forgets_what_was_kept() {
    let mut world = Known::default().cases("1", json!([case("1", &[])])).world();
    world.attempt(1, Cause::Retry);
    let played = world.play(&Mottaker, &recipient("1"));
    assert_eq!((played.outputs().len(), played.writes()), (1, &[Write::remove(INFORMATION, recipient("1").id)][..]));
    world.attempt(0, Cause::First);
    assert_eq!(world.play(&Mottaker, &recipient("1")).writes().len(), 0);
}
