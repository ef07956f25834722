//! Compares what a case expects with the form of a message: persons, periods, troubles and raw answers, whether it was sent or kept.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::diff::{Placeholders, difference, short};

/// Compares one expectation; false: it is not about the form.
pub fn compare(form: &Value, key: &str, expected: &Value, found: &mut Vec<String>) -> anyhow::Result<bool> {
    let raw = list(&form["rådata"]);
    let entries = list(&form["persongrunnlag"]);
    let has = |field: &'static str| raw.iter().filter(move |raw| raw.get(field).is_some()).collect::<Vec<_>>();
    let persons: Vec<&Value> = raw.iter().filter(|raw| raw.get("fnr").is_none()).collect();
    let mut count = |got: usize| {
        if expected.as_u64() != Some(got as u64) {
            found.push(difference(key, &short(expected), &got.to_string()));
        }
    };
    match key {
        "persongrunnlag" if expected.is_number() => count(entries.len()),
        "feilinfo" if expected.is_number() => count(list(&form["feilinfo"]).len()),
        "omsorgsperioder" | "hjelpestønadsperioder" => {
            let [entry] = entries else {
                found.push(difference(key, "one entry", &format!("{} entries", entries.len())));
                return Ok(true);
            };
            count(list(&entry[key]).len());
        }
        "rådata" if expected.is_number() => count(raw.len()),
        "rådata_barnetrygd" => count(has("barnetrygd").len()),
        "rådata_hjelpestønad" => count(has("hjelpestønad").len()),
        "rådata_other" => count(raw.len() - has("barnetrygd").len()),
        "rådata_barnetrygd_for" => set(key, expected, has("barnetrygd").iter().map(|raw| text(&raw["fnr"])).collect(), found)?,
        "rådata_hjelpestønad_for" => set(key, expected, has("hjelpestønad").iter().map(|raw| text(&raw["fnr"])).collect(), found)?,
        "rådata_other_keys" => set(key, expected, persons.iter().flat_map(|raw| keys(raw)).collect(), found)?,
        "rådata_pdl_for" => set(key, expected, persons.iter().filter_map(|raw| current(raw)).collect(), found)?,
        "recipient_ident" => {
            if *expected != form["omsorgsyter"] {
                found.push(difference(key, &short(expected), &short(&form["omsorgsyter"])));
            }
        }
        "feilinfo" => troubles(list(&form["feilinfo"]), expected, found)?,
        kind if kind.ends_with("_BARNETRYGD") || kind.starts_with("HJELPESTØNAD_") => {
            let periods =
                entries.iter().flat_map(|entry| list(&entry["omsorgsperioder"]).iter().chain(list(&entry["hjelpestønadsperioder"])));
            count(periods.filter(|period| period["omsorgstype"] == kind).count());
        }
        path if path.contains('.') || path.contains('[') => {
            let got = at(form, path).unwrap_or(&Value::Null);
            Placeholders::default().compare("", path, expected, Some(got), found);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn troubles(got: &[Value], expected: &Value, found: &mut Vec<String>) -> anyhow::Result<()> {
    let expected = expected.as_array().context("expect.feilinfo is a list")?;
    if expected.len() != got.len() {
        found.push(difference("feilinfo", &expected.len().to_string(), &format!("{}: {got:?}", got.len())));
    }
    for (number, (expected, got)) in expected.iter().zip(got).enumerate() {
        Placeholders::default().compare("", &format!("feilinfo[{number}]"), expected, Some(got), found);
    }
    Ok(())
}

fn set(key: &str, expected: &Value, got: BTreeSet<String>, found: &mut Vec<String>) -> anyhow::Result<()> {
    let expected: BTreeSet<String> = expected.as_array().with_context(|| format!("expect.{key} is a list"))?.iter().map(text).collect();
    if expected != got {
        found.push(difference(key, &format!("{expected:?}"), &format!("{got:?}")));
    }
    Ok(())
}

/// The current number of the person that a raw look-up is about.
fn current(raw: &Value) -> Option<String> {
    let body: Value = serde_json::from_str(raw.as_object()?.values().next()?.as_str()?).ok()?;
    let numbers = body["data"]["hentPerson"]["folkeregisteridentifikator"].as_array()?;
    numbers.iter().find(|number| number["status"] == "I_BRUK").map(|number| text(&number["identifikasjonsnummer"]))
}

fn keys(raw: &Value) -> Vec<String> {
    raw.as_object().map(|fields| fields.keys().cloned().collect()).unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// `persongrunnlag[0].omsorgsyter`.
fn at<'v>(form: &'v Value, path: &str) -> Option<&'v Value> {
    path.split(['.', '[']).try_fold(form, |at, name| match name.strip_suffix(']') {
        Some(number) => at.get(number.parse::<usize>().ok()?),
        None => at.get(name),
    })
}

/// Refuses an expectation that nothing compares.
pub fn unknown(key: &str) -> anyhow::Result<()> {
    bail!("expect.{key} is not compared")
}
