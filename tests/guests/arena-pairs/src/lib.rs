//! Arena's inner rules as a component of their own: a payload `{"now", "input"}` becomes the rule's result, put to `result`.
//! Table `status` runs the status rule, table `reason` the reason rule, table `remote` makes a call of a remote system and reads its answer as
//! the translators do. Holds no rule itself.

use arena_rules::names::endpoint;
use arena_rules::reason::{self, ArenaReason};
use arena_rules::remote;
use arena_rules::status::{self, ActivityStatus, ArenaStatus, Situation, Status};
use arena_rules::time::{Date, DateTime};
use serde::Deserialize;
use serde_json::{Value, json};
use tolk_sdk::{Call, Context, Description, Message, Outcome, Stop, Translator};

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

/// Remote systems that no translator asks; what is read of their answers is the whole rule.
const EMPLOYER: &str = "employer";
const ACTIVITY_V1: &str = "activity-v1";

/// A call and what is read of its answer; null where the remote system knows nothing and that is no error.
#[derive(Deserialize)]
struct Remote {
    endpoint: String,
    /// The one parameter, or the identity number of a person.
    of: String,
}

impl Translator for Pairs {
    fn describe() -> Description {
        Description::new("arena-pairs", env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_DESCRIPTION"))
            .table("status")
            .table("reason")
            .table("remote")
            .target("result")
            .endpoint(endpoint::PERSON)
            .endpoint(endpoint::ACTIVITY_ID)
            .endpoint(endpoint::ACTIVITY)
            .endpoint(endpoint::PARTICIPATIONS)
            .endpoint(EMPLOYER)
            .endpoint(ACTIVITY_V1)
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
            "remote" => read(&message.json::<Remote>()?, ctx)?,
            other => return Err(Outcome::rejected("unknown-table", format!("no rule is called {other}")).into()),
        };
        Ok(Outcome::put("result", message.id.as_str(), result.to_string()).into())
    }
}

fn read(Remote { endpoint, of }: &Remote, ctx: &Context) -> Result<Value, Stop> {
    let number = || of.parse::<i64>().map_err(|_| Outcome::rejected("no-number", "the parameter is no number"));
    Ok(match endpoint.as_str() {
        endpoint::PERSON => {
            let person = number()?;
            match remote::read_person(ctx.call(remote::person_call(person))?, person) {
                Err(fault) if fault.code == "person-unknown" => Value::Null,
                read => json!(read?),
            }
        }
        endpoint::ACTIVITY_ID => json!(remote::read_activity_id(ctx.call(remote::activity_id_call(number()?))?)?),
        endpoint::ACTIVITY => {
            let response = ctx.call(remote::activity_call(of))?;
            let activity = remote::read_activity(response)?;
            let body: Value = response.json().map_err(|error| Outcome::retry("remote-error", error))?;
            with(body, json!({ "id": activity.id, "erEnkeltplass": activity.single, "erKurs": activity.course }))
        }
        endpoint::PARTICIPATIONS => {
            let participations = remote::read_participations(ctx.call(remote::participations_call(of))?)?;
            participations.iter().map(|one| json!({ "id": one.id, "status": one.status })).collect()
        }
        EMPLOYER => answer(ctx, Call::new(EMPLOYER).param("arbeidsgiverId", of), &["virksomhetsnummer"])?["virksomhetsnummer"].take(),
        ACTIVITY_V1 => {
            let body = answer(ctx, Call::new(ACTIVITY_V1).param("id", of), &["id", "status", "oppstart"])?;
            let course = body["oppstart"] == "FELLES";
            with(body, json!({ "erKurs": course }))
        }
        other => return Err(Outcome::rejected("unknown-endpoint", format!("no endpoint is called {other}")).into()),
    })
}

/// The body of a good answer that has these fields.
fn answer(ctx: &Context, call: Call, fields: &[&str]) -> Result<Value, Stop> {
    let response = ctx.call(call)?;
    if !response.is_success() {
        return Err(Outcome::retry("remote-error", format!("status {}", response.status)).into());
    }
    let body: Value = response.json().map_err(|error| Outcome::retry("remote-error", error))?;
    match fields.iter().find(|field| !body[**field].is_string()) {
        Some(field) => Err(Outcome::retry("remote-error", format!("the answer does not give a readable {field}")).into()),
        None => Ok(body),
    }
}

fn with(mut body: Value, more: Value) -> Value {
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    body
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
    use tolk_sdk::testing::{Called, World, message};

    use super::*;

    fn result(table: &str, payload: &str) -> String {
        let played = World::new().play(&Pairs, &message(table, payload));
        played.outputs().first().map_or_else(|| played.outcome.to_string(), tolk_sdk::Output::payload_text)
    }

    #[test]
    fn answers_are_read_as_the_translators_read_them() {
        let asked = |endpoint: &str, call: Call, status: u16, body: &str| {
            let (wanted, answer) = (call, tolk_sdk::Response::new(status, body));
            let mut world = World::new();
            world.endpoint(endpoint, move |call| {
                assert_eq!(*call, wanted);
                Called::Response(answer.clone())
            });
            let payload = json!({ "endpoint": endpoint, "of": "7" }).to_string();
            let played = world.play(&Pairs, &message("remote", payload));
            played.outputs().first().map_or_else(|| played.outcome.to_string(), tolk_sdk::Output::payload_text)
        };
        assert_eq!(asked("person", remote::person_call(7), 200, r#"{"fnr":"01"}"#), r#""01""#);
        assert_eq!(asked("person", remote::person_call(7), 404, ""), "null");
        assert!(asked("person", remote::person_call(7), 403, "").contains("remote-error"));
        let employer = || Call::new(EMPLOYER).param("arbeidsgiverId", 7);
        assert_eq!(asked(EMPLOYER, employer(), 200, r#"{"virksomhetsnummer":"9"}"#), r#""9""#);
        assert!(asked(EMPLOYER, employer(), 200, "{}").contains("virksomhetsnummer"));
        assert!(asked(EMPLOYER, employer(), 404, "").contains("404"));
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
