//! Translates Arena's activities: nothing is published, their state is what participants wait for and build on.

use arena_rules::activity::{Activity, ActivityColumns, is_supported};
use arena_rules::event::Event;
use arena_rules::names::{collection, endpoint, table};
use arena_rules::remote::{activity_id_call, read_activity_id};
use arena_rules::state::ActivityState;
use tolk_sdk::{Context, Description, Message, Outcome, Stop, Translator};

struct Gjennomforing;

impl Translator for Gjennomforing {
    fn describe() -> Description {
        Description::new("arena-gjennomforing", env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_DESCRIPTION"))
            .table(table::ACTIVITY)
            .reads(collection::ACTIVITY)
            .writes(collection::ACTIVITY)
            .endpoint(endpoint::ACTIVITY_ID)
    }

    fn configure(config: &str) -> Result<Self, String> {
        if config.trim().is_empty() { Ok(Self) } else { Err("arena-gjennomforing takes no config".to_owned()) }
    }

    fn translate(&self, message: &Message, ctx: &Context) -> Result<Outcome, Stop> {
        // A deletion is handled as a change: nothing is ever removed.
        let event = Event::<ActivityColumns>::read(message, table::ACTIVITY)?;
        let activity = Activity::read(event.row)?;
        let supported = is_supported(&activity.code);
        if supported {
            ctx.prefetch(activity_id_call(activity.id).lenient());
        }
        let known = ctx.entry_json::<ActivityState>(collection::ACTIVITY, activity.id)?;
        let state = match known {
            Some(state) => ActivityState { is_valid: activity.is_valid, ..state },
            None => ActivityState { tiltak_kode: activity.code.clone(), is_valid: activity.is_valid, id: None },
        };
        if !supported {
            let text = format!("Gjennomføring med arenakode {} er ikke støttet", activity.code);
            return Ok(Outcome::ignored("unsupported-activity", text).write(state.write(activity.id)).into());
        }
        // Whatever goes wrong with the remote id, participants ask for it themselves later; an earlier one stays.
        let answer = ctx.call(activity_id_call(activity.id).lenient())?;
        let found = answer.ok().and_then(|response| read_activity_id(response).ok().flatten());
        let state = ActivityState { id: found.or(state.id), ..state };
        Ok(Outcome::handled().write(state.write(activity.id)).into())
    }
}

tolk_sdk::register!(Gjennomforing);

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tolk_sdk::Response;
    use tolk_sdk::testing::{Called, Played, World, message};

    use super::*;

    const ID: &str = "2f6f1c1e-64a4-4a0f-9d0e-3c6a1a2b3c4d";

    fn event(op: &str, changes: Value) -> Message {
        let mut row = json!({
            "TILTAKGJENNOMFORING_ID": 901, "TILTAKSKODE": "ARBFORB", "SAK_ID": 1, "ARBGIV_ID_ARRANGOR": 2, "LOKALTNAVN": "navn",
            "TILTAKSTATUSKODE": "GJENNOMFOR", "REG_DATO": "2030-01-01 00:00:00",
        });
        for (key, value) in changes.as_object().unwrap() {
            row[key] = value.clone();
        }
        let side = if op == "D" { "before" } else { "after" };
        message(table::ACTIVITY, json!({ "table": table::ACTIVITY, "op_type": op, side: row }).to_string())
    }

    fn world(answer: impl Into<Called> + Clone + 'static) -> World {
        let mut world = World::new();
        world.endpoint(endpoint::ACTIVITY_ID, move |_| answer.clone().into());
        world
    }

    fn known() -> Response {
        Response::new(200, json!({ "id": ID }).to_string())
    }

    fn state(world: &World) -> Option<Value> {
        world.value(collection::ACTIVITY, 901).map(|value| serde_json::from_slice(value).unwrap())
    }

    fn settle(world: &mut World, message: &Message) -> Played {
        world.settle(&Gjennomforing, message)
    }

    #[test]
    fn a_valid_activity_is_stored_with_its_remote_id_in_one_round() {
        let mut world = world(known());
        let played = settle(&mut world, &event("I", json!({})));
        assert_eq!((played.outcome.kind(), played.outcome.text(), played.outputs().len(), played.rounds), ("translated", "", 0, 2));
        assert_eq!(state(&world), Some(json!({ "tiltak_kode": "ARBFORB", "is_valid": true, "id": ID })));
    }

    #[test]
    fn an_invalid_activity_is_handled_and_asks_for_its_id_too() {
        let mut world = world(known());
        let played = settle(&mut world, &event("I", json!({ "ARBGIV_ID_ARRANGOR": null })));
        assert_eq!(played.outcome.kind(), "translated");
        assert_eq!(state(&world), Some(json!({ "tiltak_kode": "ARBFORB", "is_valid": false, "id": ID })));
    }

    #[test]
    fn no_answer_of_the_remote_system_is_an_error_and_an_earlier_id_stays() {
        let answers = [Response::new(404, ""), Response::new(500, ""), Response::new(200, "<html>")].map(Called::from);
        for answer in answers.into_iter().chain([Called::Away("down".to_owned())]) {
            let mut world = world(answer);
            assert_eq!(settle(&mut world, &event("I", json!({}))).outcome.kind(), "translated");
            assert_eq!(state(&world).unwrap()["id"], Value::Null);
            world.entry(collection::ACTIVITY, 901, json!({ "tiltak_kode": "VASV", "is_valid": false, "id": "earlier" }).to_string());
            settle(&mut world, &event("U", json!({})));
            assert_eq!(state(&world), Some(json!({ "tiltak_kode": "VASV", "is_valid": true, "id": "earlier" })));
        }
    }

    #[test]
    fn a_deletion_is_a_change_by_the_row_before() {
        let mut world = world(known());
        settle(&mut world, &event("I", json!({})));
        let played = settle(&mut world, &event("D", json!({ "LOKALTNAVN": null, "TILTAKSKODE": "JOBBK" })));
        assert_eq!(played.outcome.kind(), "translated");
        assert_eq!(state(&world), Some(json!({ "tiltak_kode": "ARBFORB", "is_valid": false, "id": ID })));
    }

    #[test]
    fn an_unsupported_activity_is_remembered_without_a_call() {
        let mut world = world(known());
        let played = settle(&mut world, &event("I", json!({ "TILTAKSKODE": "MENTOR" })));
        assert_eq!((played.outcome.kind(), played.outcome.code()), ("ignored", "unsupported-activity"));
        assert!(!played.called(endpoint::ACTIVITY_ID));
        assert_eq!(state(&world), Some(json!({ "tiltak_kode": "MENTOR", "is_valid": true, "id": null })));
    }

    #[test]
    fn an_equal_message_changes_nothing() {
        let mut world = world(known());
        let first = settle(&mut world, &event("I", json!({})));
        let again = settle(&mut world, &event("U", json!({})));
        assert_eq!(first.writes(), again.writes());
    }

    #[test]
    fn the_code_is_required_and_config_is_refused() {
        let mut world = world(known());
        assert_eq!(settle(&mut world, &event("I", json!({ "TILTAKSKODE": null }))).outcome.code(), "missing-field");
        assert!(Gjennomforing::configure("x").is_err() && Gjennomforing::configure(" ").is_ok());
    }
}
