//! Cases about one rule, `map` and `table`, through a small component around the same rule code.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tolk::plugin::{Context, Limits, Outcome};
use tolk::runtime::{Runtime, Translator};

use super::form;
use crate::arena::pairs;
use crate::bench;
use crate::diff::{Placeholders, difference, short};

/// The component, loaded.
pub struct Parts {
    runtime: Arc<Runtime>,
    translator: Arc<Translator>,
}

impl Parts {
    /// Builds and loads the component of a folder.
    pub fn new(runtime: &Arc<Runtime>, folder: &str) -> anyhow::Result<Self> {
        let component = bench::build(&[folder])?.pop().context("one folder makes one component")?;
        let translator = runtime.load_component(&component, Limits::default(), "")?;
        Ok(Self { runtime: runtime.clone(), translator })
    }

    /// Maps the cases of one answer, before any look-up.
    pub fn map(&self, cases: &Value, year: &Value, expect: &Value) -> anyhow::Result<Vec<String>> {
        let cases = cases.as_array().context("given.fagsaker is a list")?;
        let inputs = cases.iter().map(|case| json!({ "year": year, "fagsak": case })).collect();
        let mut found = Vec::new();
        let result = match self.run("map", &inputs)? {
            Ok(form) => form,
            Err(error) => json!({ "error": error }),
        };
        let wanted = expect.get("wanted").filter(|wanted| wanted.is_object()).unwrap_or(expect);
        for (key, expected) in wanted.as_object().context("expect is an object")? {
            match (key.as_str(), expected) {
                ("persongrunnlag", Value::Array(entries)) => {
                    // The case lists them before they are merged.
                    let entries: Vec<Value> = entries.iter().map(merged).collect();
                    let path = "persongrunnlag";
                    Placeholders::default().compare("", path, &entries.into(), Some(&result[path]), &mut found);
                }
                ("error", _) if result["error"].is_string() => {}
                ("error_contains", _) => super::expect::contains(expected, result["error"].as_str(), &mut found)?,
                (key, _) => {
                    if !form::compare(&result, key, expected, &mut found)? {
                        found.push(difference(key, &short(expected), &short(&result)));
                    }
                }
            }
        }
        Ok(found)
    }

    /// Lists of whole cases, named by letters, and what is left of them.
    pub fn table(&self, rows: &Value) -> anyhow::Result<Vec<String>> {
        let rows = rows.as_array().context("expect.table is a list")?;
        // A letter is described once, wherever that is.
        let texts: Vec<&str> = rows.iter().flat_map(|row| [&row["in"], &row["out"]]).flat_map(letters).collect();
        let mut found = Vec::new();
        for (number, row) in rows.iter().enumerate() {
            let inputs: Vec<Value> = letters(&row["in"]).map(|letter| case(letter, &texts)).collect::<anyhow::Result<_>>()?;
            let got = self.run("compress", &inputs.into())?;
            let mut expected = Vec::new();
            for letter in letters(&row["out"]) {
                let alone = self.run("compress", &vec![case(letter, &texts)?].into())?;
                expected.push(alone.map_err(anyhow::Error::msg)?["persongrunnlag"][0].clone());
            }
            let got = got.map_or_else(Value::from, |form| form["persongrunnlag"].clone());
            Placeholders::default().compare("", &format!("table[{number}]"), &expected.into(), Some(&got), &mut found);
        }
        Ok(found)
    }

    /// The result of a rule, or the error that failed it.
    fn run(&self, table: &str, payload: &Value) -> anyhow::Result<Result<Value, String>> {
        let message = pairs::message(table, payload);
        let verdict = self.translator.translate(&mut self.runtime.here(), &message, "parts", &Context::default());
        let verdict = verdict.map_err(|trouble| anyhow::anyhow!("{}: {}", trouble.code, trouble.text))?;
        Ok(match verdict.outcome {
            Outcome::Translated(translation) => {
                let payload = translation.outputs.into_iter().next().and_then(|output| output.payload).context("the result is put out")?;
                Ok(serde_json::from_slice(&payload)?)
            }
            Outcome::Retry(fault) => Err(fault.message),
            other => anyhow::bail!("the rule ended as {other:?}"),
        })
    }
}

fn letters(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// `A(owner 12345678901, 2018)`: a whole case with one period, the twelve months of its year; a bare letter is described elsewhere or is free.
fn case(letter: &str, described: &[&str]) -> anyhow::Result<Value> {
    let name = letter.split('(').next().unwrap_or_default().trim();
    ensure!(name.len() == 1, "table: \"{letter}\" is no letter");
    let told = [letter].into_iter().chain(described.iter().copied()).find(|text| text.starts_with(name) && text.contains('('));
    let numbers: Vec<&str> = told.unwrap_or_default().split(|c: char| !c.is_ascii_digit()).filter(|number| !number.is_empty()).collect();
    let owner = numbers.iter().find(|number| number.len() != 4).copied().unwrap_or("12345678901");
    let year = numbers.iter().find(|number| number.len() == 4).copied().unwrap_or("2018");
    let period = json!({
        "personIdent": "07010512345", "delingsprosentYtelse": "FULL", "ytelseTypeEkstern": "ORDINÆR_BARNETRYGD", "utbetaltPerMnd": 2000,
        "stønadFom": format!("{year}-01"), "stønadTom": format!("{year}-12"), "sakstypeEkstern": "NASJONAL", "kildesystem": "BA",
    });
    Ok(json!({ "year": year.parse::<i64>()?, "fagsak": { "fagsakEiersIdent": owner, "barnetrygdPerioder": [period] } }))
}

/// An expected entry with its lists merged, by fields as they are written.
fn merged(entry: &Value) -> Value {
    let mut entry = entry.clone();
    for list in ["omsorgsperioder", "hjelpestønadsperioder"] {
        let Some(periods) = entry.get_mut(list).and_then(Value::as_array_mut) else { continue };
        let text = |period: &Value, field: &str| period[field].as_str().unwrap_or_default().to_owned();
        periods.sort_by_key(|period| (text(period, "omsorgsmottaker"), text(period, "fom")));
        let rest = |period: &Value| {
            let mut rest = period.clone();
            for month in ["fom", "tom"] {
                rest.as_object_mut().map(|fields| fields.remove(month));
            }
            rest
        };
        let mut kept: Vec<Value> = Vec::new();
        for period in std::mem::take(periods) {
            match kept.last_mut() {
                Some(last) if rest(last) == rest(&period) && months(&period["fom"]) <= months(&last["tom"]) + 1 => {
                    if months(&period["tom"]) > months(&last["tom"]) {
                        last["tom"] = period["tom"].clone();
                    }
                }
                _ => kept.push(period),
            }
        }
        *periods = kept;
    }
    entry
}

fn months(month: &Value) -> i64 {
    let (year, month) = month.as_str().and_then(|text| text.split_once('-')).unwrap_or_default();
    year.parse::<i64>().unwrap_or(0) * 12 + month.parse::<i64>().unwrap_or(0)
}
