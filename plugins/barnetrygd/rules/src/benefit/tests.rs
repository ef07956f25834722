//! The table of the mapping, row by row, and what an answer may look like.

use serde_json::{Value, json};

use super::*;

fn period(changes: Value) -> Value {
    let mut period = json!({
        "personIdent": "5", "delingsprosentYtelse": "FULL", "ytelseTypeEkstern": "ORDINÆR_BARNETRYGD", "utbetaltPerMnd": 100,
        "stønadFom": "2020-03", "stønadTom": "2020-06", "sakstypeEkstern": "NASJONAL", "kildesystem": "BA", "pensjonstrygdet": null,
        "norgeErSekundærlandMedNullUtbetaling": null,
    });
    for (name, value) in changes.as_object().unwrap() {
        period[name] = value.clone();
    }
    period
}

fn answer(periods: &[Value]) -> Response {
    let body = json!({ "fagsaker": [{ "fagsakEiersIdent": "1", "barnetrygdPerioder": periods, "more": 1 }] });
    Response::new(200, body.to_string())
}

fn mapped(changes: Value) -> Result<Vec<Value>, Refused> {
    let cases = read(&answer(&[period(changes)])).unwrap();
    let entry = cases[0].map(Window::new(2020))?;
    assert_eq!((entry.owner.as_str(), entry.supports.len()), ("1", 0));
    Ok(entry.benefits.iter().map(|period| serde_json::to_value(period).unwrap()).collect())
}

#[track_caller]
fn check(changes: Value, expected: Value) {
    let periods = mapped(changes).unwrap();
    assert_eq!(periods.len(), 1);
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&periods[0][name], value, "{name}");
    }
}

#[test]
fn a_period_is_written_whole() {
    let whole = json!({
        "fom": "2020-03", "tom": "2020-06", "omsorgsmottaker": "5", "omsorgstype": "FULL_BARNETRYGD", "kilde": "BARNETRYGD",
        "utbetalt": 100, "landstilknytning": "NORGE",
    });
    assert_eq!(mapped(json!({})).unwrap(), [whole]);
}

#[test]
fn each_code_has_its_word() {
    check(json!({ "delingsprosentYtelse": "DELT" }), json!({ "omsorgstype": "DELT_BARNETRYGD" }));
    check(json!({ "delingsprosentYtelse": "USIKKER" }), json!({ "omsorgstype": "USIKKER_BARNETRYGD" }));
    check(json!({ "kildesystem": "Infotrygd" }), json!({ "kilde": "INFOTRYGD" }));
    let flag = "norgeErSekundærlandMedNullUtbetaling";
    check(json!({ flag: true }), json!({ "landstilknytning": "NORGE" }));
    check(json!({ "sakstypeEkstern": "EØS" }), json!({ "landstilknytning": "EØS_UKJENT_PRIMÆR_OG_SEKUNDÆR_LAND" }));
    check(json!({ "sakstypeEkstern": "EØS", flag: false }), json!({ "landstilknytning": "EØS_UKJENT_PRIMÆR_OG_SEKUNDÆR_LAND" }));
    let second = json!({ "sakstypeEkstern": "EØS", flag: true, "utbetaltPerMnd": 0 });
    check(second, json!({ "landstilknytning": "EØS_NORGE_SEKUNDÆR", "utbetalt": 0 }));
    let wrong = mapped(json!({ "sakstypeEkstern": "EØS", flag: true }));
    assert!(matches!(wrong, Err(Refused::Error(_))), "{wrong:?}");
    // What is dropped is not checked.
    assert_eq!(mapped(json!({ "sakstypeEkstern": "EØS", flag: true, "ytelseTypeEkstern": "SMÅBARNSTILLEGG" })), Ok(vec![]));
}

#[test]
fn periods_are_cut_to_the_window() {
    check(json!({ "stønadFom": "2010-05", "stønadTom": null }), json!({ "fom": "2020-01", "tom": "2021-12" }));
    check(json!({ "stønadTom": "+999999999-12" }), json!({ "fom": "2020-03", "tom": "2021-12" }));
    check(json!({ "stønadFom": "2021-12", "stønadTom": "2022-01" }), json!({ "fom": "2021-12", "tom": "2021-12" }));
    assert_eq!(mapped(json!({ "stønadFom": "2022-01", "stønadTom": null })), Ok(vec![]));
    assert_eq!(mapped(json!({ "stønadFom": "2010-01", "stønadTom": "2019-12" })), Ok(vec![]));
    let turned = mapped(json!({ "stønadTom": "2020-02" }));
    assert!(matches!(turned, Err(Refused::Impossible(_))), "{turned:?}");
}

#[test]
fn what_is_paid_to_the_owner_is_dropped() {
    assert_eq!(mapped(json!({ "ytelseTypeEkstern": "UTVIDET_BARNETRYGD", "personIdent": "1" })), Ok(vec![]));
    check(json!({ "ytelseTypeEkstern": "UTVIDET_BARNETRYGD" }), json!({ "omsorgstype": "FULL_BARNETRYGD" }));
    check(json!({ "personIdent": "1" }), json!({ "omsorgsmottaker": "1" }));
    // Compared as written: another spelling is somebody else.
    check(json!({ "ytelseTypeEkstern": "UTVIDET_BARNETRYGD", "personIdent": "01" }), json!({ "omsorgsmottaker": "01" }));
}

#[test]
fn an_answer_is_cases_or_an_error() {
    assert_eq!(read(&Response::new(200, r#"{"fagsaker":[]}"#)).unwrap().len(), 0);
    assert_eq!(read(&answer(&[])).unwrap()[0].map(Window::new(2020)).unwrap().benefits, []);
    let missing = read(&Response::new(200, "{}")).unwrap_err();
    assert!(missing.contains("Liste med barnetrygdsaker mangler"), "{missing}");
    assert!(read(&Response::new(200, r#"{"fagsaker":null}"#)).unwrap_err().contains("Liste med barnetrygdsaker mangler"));
    for (status, body) in [(403, r#"{"fagsaker":[]}"#), (500, "blåbær"), (202, "{}"), (404, "")] {
        let error = read(&Response::new(status, body)).unwrap_err();
        assert!(error.contains(&status.to_string()) && error.contains(body), "{error}");
    }
    for body in ["", "{ \"dette er ikke json\" }", "[]", "null", r#"{"fagsaker":{}}"#, r#"{"fagsaker":[null]}"#] {
        assert!(read(&Response::new(200, body)).is_err(), "{body}");
    }
    for changes in [
        json!({ "delingsprosentYtelse": "HALV" }),
        json!({ "ytelseTypeEkstern": "NY" }),
        json!({ "sakstypeEkstern": "NORDISK" }),
        json!({ "kildesystem": "infotrygd" }),
        json!({ "stønadFom": null }),
        json!({ "stønadFom": "2020" }),
        json!({ "utbetaltPerMnd": null }),
        json!({ "personIdent": null }),
    ] {
        assert!(read(&answer(&[period(changes.clone())])).is_err(), "{changes}");
    }
    let mut without = period(json!({}));
    for optional in ["stønadTom", "pensjonstrygdet", "norgeErSekundærlandMedNullUtbetaling"] {
        without.as_object_mut().unwrap().remove(optional);
    }
    assert!(read(&answer(&[without])).is_ok());
}
