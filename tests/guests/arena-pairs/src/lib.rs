//! Arena's inner rules as a component of their own: a payload `{"now", "input"}` becomes the rule's result, put to `result`.
//! Table `status` runs the status rule, table `reason` the reason rule. Holds no rule itself.

use arena_rules::reason::{self, ArenaReason};
use arena_rules::status::{self, ActivityStatus, ArenaStatus, Situation, Status};
use arena_rules::time::{Date, DateTime};
use serde::Deserialize;
use serde_json::json;
use tolk_sdk::{Context, Description, Message, Outcome, Stop, Translator};

struct Pairs;

#[derive(Deserialize)]
struct Pair<I> {
    /// The clock of the pair, local; where it is absent the context's.
    now: Option<DateTime>,
    input: I,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StatusInput {
    arena_status: ArenaStatus,
    deltaker_registrert_dato: DateTime,
    deltaker_startdato: Option<Date>,
    deltaker_sluttdato: Option<Date>,
    dato_status_endring: Option<DateTime>,
    gjennomforing_sluttdato: Option<Date>,
    er_gjennomforing_avsluttet: bool,
    gjennomforing_status: Option<ActivityStatus>,
    er_enkeltplass: bool,
    deltakelse_krever_godkjenning_loep: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReasonInput {
    arena_status: ArenaStatus,
    amt_status: Status,
    arena_aarsak: Option<ArenaReason>,
    gjennomforing_avsluttet: bool,
}

impl Translator for Pairs {
    fn describe() -> Description {
        Description::new("arena-pairs", env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_DESCRIPTION"))
            .table("status")
            .table("reason")
            .target("result")
    }

    fn configure(_config: &str) -> Result<Self, String> {
        Ok(Self)
    }

    fn translate(&self, message: &Message, ctx: &Context) -> Result<Outcome, Stop> {
        let result = match message.table.as_str() {
            "status" => {
                let Pair { now, input } = message.json::<Pair<StatusInput>>()?;
                let today = now.map_or_else(|| Date::of(ctx.now().local()), DateTime::date);
                let (status, from) = status::decide(&situation(&input, today));
                json!({ "status": status, "statusEndretDato": from })
            }
            "reason" => {
                let Pair { input, .. } = message.json::<Pair<ReasonInput>>()?;
                json!(reason::decide(input.arena_status, input.amt_status, input.arena_aarsak, input.gjennomforing_avsluttet))
            }
            other => return Err(Outcome::rejected("unknown-table", format!("no rule is called {other}")).into()),
        };
        Ok(Outcome::put("result", message.id.as_str(), result.to_string()).into())
    }
}

fn situation(input: &StatusInput, today: Date) -> Situation {
    Situation {
        code: input.arena_status,
        start: input.deltaker_startdato,
        end: input.deltaker_sluttdato,
        changed: input.dato_status_endring,
        registered: input.deltaker_registrert_dato,
        activity_end: input.gjennomforing_sluttdato,
        activity_ended: input.er_gjennomforing_avsluttet,
        activity_status: input.gjennomforing_status,
        single: input.er_enkeltplass,
        course: input.deltakelse_krever_godkjenning_loep,
        today,
    }
}

tolk_sdk::register!(Pairs);

#[cfg(test)]
mod tests {
    use tolk_sdk::testing::{World, message};

    use super::*;

    fn result(table: &str, payload: &str) -> String {
        let played = World::new().play(&Pairs, &message(table, payload));
        played.outputs().first().map_or_else(|| played.outcome.to_string(), tolk_sdk::Output::payload_text)
    }

    #[test]
    fn both_rules_answer_with_their_result_alone() {
        let status = r#"{"now":"2031-04-02T09:00:00","input":{"arenaStatus":"TILBUD","deltakerRegistrertDato":"2031-01-01T00:00:00",
            "deltakerStartdato":"2031-04-01","deltakerSluttdato":null,"datoStatusEndring":null,"gjennomforingSluttdato":null,
            "erGjennomforingAvsluttet":false,"gjennomforingStatus":null,"erEnkeltplass":false,"deltakelseKreverGodkjenningLoep":true}}"#;
        assert_eq!(result("status", status), r#"{"status":"DELTAR","statusEndretDato":"2031-04-01T00:00:00"}"#);
        let reason = r#"{"input":{"arenaStatus":"IKKEM","amtStatus":"AVBRUTT","arenaAarsak":null,"gjennomforingAvsluttet":false}}"#;
        assert_eq!(result("reason", reason), r#""IKKE_MOTT""#);
        assert_eq!(result("reason", &reason.replace("AVBRUTT", "DELTAR")), "null");
        assert!(result("other", "{}").contains("unknown-table"));
    }
}
