//! Parts of barnetrygd's rules as a component of their own, for cases that are about one rule. Table `map`: `{"year", "fagsaker"}` becomes
//! one entry a case, mapped, merged and checked. Table `compress`: `{"year", "fagsaker"}`, mapped, becomes one entry an owner. Holds no rule
//! itself.

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
    fagsaker: Value,
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
        let Input { year, fagsaker } = message.json()?;
        let overlap = |overlap: Overlap| Ended::Trouble(Trouble::benefit_overlap(overlap).into());
        let mapped = mapped(&fagsaker, Window::new(year));
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

fn mapped(cases: &Value, window: Window) -> Result<Vec<Entry>, Ended> {
    let cases = benefit::cases(cases).map_err(Ended::Error)?;
    let refused = |refused| match refused {
        Refused::Error(text) => Ended::Error(text),
        Refused::Impossible(text) => Ended::Trouble(Trouble::data(&text).into()),
    };
    cases.iter().map(|case| case.map(window).map_err(refused)).collect()
}

tolk_sdk::register!(Parts);

#[cfg(test)]
mod tests {
    use tolk_sdk::testing::{World, message};

    use super::*;

    fn result(table: &str, fagsaker: Value) -> Value {
        let payload = json!({ "year": 2020, "fagsaker": fagsaker }).to_string();
        let played = World::new().play(&Parts, &message(table, payload));
        let text = played.outputs().first().map_or_else(|| json!(played.outcome.to_string()).to_string(), tolk_sdk::Output::payload_text);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn both_rules_answer_with_their_result_alone() {
        let case = json!({ "fagsakEiersIdent": "1", "barnetrygdPerioder": [] });
        let entry = json!({ "omsorgsyter": "1", "omsorgsperioder": [], "hjelpestønadsperioder": [] });
        assert_eq!(result("map", json!([case, case]))["persongrunnlag"], json!([entry, entry]));
        assert_eq!(result("compress", json!([case, case]))["persongrunnlag"], json!([entry]));
        assert!(result("map", json!([{}])).as_str().unwrap().contains("barnetrygd-error"));
        assert!(result("other", json!([])).as_str().unwrap().contains("unknown-table"));
    }
}
