//! Parts of barnetrygd's rules as a component of their own, for cases that are about one rule. The payload is a list of `{"year", "fagsak"}`.
//! Table `map`: one entry a case, mapped, merged and checked. Table `compress`: mapped, then one entry an owner. Holds no rule itself.

use barnetrygd_rules::benefit::{self, Refused};
use barnetrygd_rules::entry::{Entry, compressed};
use barnetrygd_rules::month::Window;
use barnetrygd_rules::period::Overlap;
use barnetrygd_rules::trouble::Trouble;
use serde::Deserialize;
use serde_json::{Value, json};
use tolk_sdk::{Context, Description, Message, Outcome, Stop, Translator};

struct Parts;

#[derive(Deserialize)]
struct Input {
    year: i64,
    fagsak: Value,
}

/// What ended a rule early.
enum Ended {
    Error(String),
    Trouble(Box<Trouble>),
}

impl Translator for Parts {
    fn describe() -> Description {
        Description::new("barnetrygd-parts", env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_DESCRIPTION"))
            .table("map")
            .table("compress")
            .target("result")
    }

    fn configure(_config: &str) -> Result<Self, String> {
        Ok(Self)
    }

    fn translate(&self, message: &Message, _ctx: &Context) -> Result<Outcome, Stop> {
        let inputs: Vec<Input> = message.json()?;
        let overlap = |overlap: Overlap| Ended::Trouble(Trouble::benefit_overlap(overlap).into());
        let mapped = inputs.iter().map(mapped).collect::<Result<Vec<_>, _>>();
        let result = match message.table.as_str() {
            "map" => mapped.and_then(|entries| entries.into_iter().map(Entry::merged).collect::<Result<Vec<_>, _>>().map_err(overlap)),
            "compress" => mapped.and_then(|entries| compressed(entries).map_err(overlap)),
            other => return Err(Outcome::rejected("unknown-table", format!("no rule is called {other}")).into()),
        };
        let result = match result {
            Ok(entries) => json!({ "persongrunnlag": entries, "feilinfo": [] }),
            Err(Ended::Trouble(trouble)) => json!({ "persongrunnlag": [], "feilinfo": [trouble] }),
            Err(Ended::Error(text)) => return Err(Outcome::retry("barnetrygd-error", text).into()),
        };
        Ok(Outcome::put("result", message.id.as_str(), result.to_string()).into())
    }
}

fn mapped(input: &Input) -> Result<Entry, Ended> {
    let cases = benefit::cases(&Value::from(vec![input.fagsak.clone()])).map_err(Ended::Error)?;
    cases[0].map(Window::new(input.year)).map_err(|refused| match refused {
        Refused::Error(text) => Ended::Error(text),
        Refused::Impossible(text) => Ended::Trouble(Trouble::data(&text).into()),
    })
}

tolk_sdk::register!(Parts);

#[cfg(test)]
mod tests {
    use tolk_sdk::testing::{World, message};

    use super::*;

    fn result(table: &str, cases: &[Value]) -> Value {
        let payload: Value = cases.iter().map(|case| json!({ "year": 2020, "fagsak": case })).collect();
        let played = World::new().play(&Parts, &message(table, payload.to_string()));
        let text = played.outputs().first().map_or_else(|| json!(played.outcome.to_string()).to_string(), tolk_sdk::Output::payload_text);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn both_rules_answer_with_their_result_alone() {
        let case = json!({ "fagsakEiersIdent": "1", "barnetrygdPerioder": [] });
        let entry = json!({ "omsorgsyter": "1", "omsorgsperioder": [], "hjelpestønadsperioder": [] });
        assert_eq!(result("map", &[case.clone(), case.clone()])["persongrunnlag"], json!([entry, entry]));
        assert_eq!(result("compress", &[case.clone(), case])["persongrunnlag"], json!([entry]));
        assert!(result("map", &[json!({})]).as_str().unwrap().contains("barnetrygd-error"));
        assert!(result("other", &[]).as_str().unwrap().contains("unknown-table"));
    }
}
