//! Translates Arena's participants: published once their activity is known and valid, unless another system owns them.

use arena_rules::event::{Event, Operation};
use arena_rules::external;
use arena_rules::names::{collection, endpoint, namespace, table, target};
use arena_rules::parent::parent;
use arena_rules::participant::{Kind, Participant, ParticipantColumns, Valid};
use arena_rules::payload::Payload;
use arena_rules::remote::{person_call, read_person};
use arena_rules::state::ParticipantState;
use arena_rules::status::Status;
use arena_rules::time::Date;
use serde::Deserialize;
use tolk_sdk::{Context, Description, Id, KeyOf, Message, Outcome, Stop, Translation, Translator};

/// Further tries after the first before a deletion without a hist row is published.
const HIST_TRIES: u32 = 2;

/// The translator's config, a JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Deltaker {
    /// How long a deletion waits for its hist row at each try, in milliseconds.
    hist_wait_ms: u64,
}

impl Default for Deltaker {
    fn default() -> Self {
        Self { hist_wait_ms: 600_000 }
    }
}

impl Translator for Deltaker {
    fn describe() -> Description {
        Description::new("arena-deltaker", env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_DESCRIPTION"))
            .table(table::PARTICIPANT)
            .reads(collection::ACTIVITY)
            .reads(collection::PARTICIPANT)
            .writes(collection::ACTIVITY)
            .writes(collection::PARTICIPANT)
            .namespace(namespace::PARTICIPANT)
            .namespace(namespace::HIST)
            .endpoint(endpoint::ACTIVITY_ID)
            .endpoint(endpoint::ACTIVITY)
            .endpoint(endpoint::PERSON)
            .target(target::AMT_TILTAK)
            .target(target::SINGLE)
    }

    fn configure(config: &str) -> Result<Self, String> {
        if config.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_str(config).map_err(|error| format!("arena-deltaker's config: {error}"))
    }

    fn translate(&self, message: &Message, ctx: &Context) -> Result<Outcome, Stop> {
        let event = Event::<ParticipantColumns>::read(message, table::PARTICIPANT)?;
        let row = Participant::read(event.row, Kind::Live)?;
        // A row that nothing but its activity can stop will need its person and its id: both are asked for ahead.
        let sure = row.validate().ok().filter(|_| !row.is_external());
        let ahead = sure.map(|valid| (person_call(valid.person_id), Id::new(namespace::PARTICIPANT, row.arena_id)));
        let parent = parent(ctx, row.activity_id, ahead)?;
        external::guard(ctx, &row, parent.write.as_ref())?;
        let valid = row.validate()?;
        let person = read_person(ctx.call(person_call(valid.person_id))?, valid.person_id)?;
        let id = ctx.id(namespace::PARTICIPANT, row.arena_id)?;
        let payload = Payload::of(&row, &valid, &parent.remote, id, &person, Date::of(ctx.now().local()));
        let translation = match event.operation {
            Operation::Deleted => self.deleted(message, ctx, &row, &valid, payload, parent.remote.single)?,
            operation => publish(&payload, parent.remote.single, operation, message, ctx).write(state(&row, &valid).write(row.arena_id)),
        };
        Ok(parent.write.into_iter().fold(translation, Translation::write).into())
    }
}

impl Deltaker {
    /// A deletion: nothing if the participant became a hist participant, else a mistake once no hist row came in time.
    fn deleted(
        &self,
        message: &Message,
        ctx: &Context,
        row: &Participant,
        valid: &Valid,
        payload: Payload<'_>,
        single: bool,
    ) -> Result<Translation, Stop> {
        let hist = KeyOf::new(namespace::HIST, payload.id);
        if ctx.all(hist.clone())?.is_some() {
            let note = "Slettes ikke fordi deltaker ble historisert";
            return Ok(Outcome::handled().note(note).write(state(row, valid).write(row.arena_id)));
        }
        // The first try is not a further one, so that the third further try publishes.
        if ctx.attempt() <= HIST_TRIES {
            let text = format!("Fant ikke hist-deltaker for deltaker id={} arenaId={}", payload.id, row.arena_id);
            return Err(Outcome::waiting("hist-missing", text).on(hist).timeout_ms(self.hist_wait_ms).into());
        }
        let stored = ctx.entry_json::<ParticipantState>(collection::PARTICIPANT, row.arena_id)?;
        let translation = publish(&payload.deleted(), single, Operation::Modified, message, ctx);
        Ok(match stored {
            Some(stored) => {
                let status = Status::Feilregistrert.as_str().to_owned();
                translation.write(ParticipantState { status, ..stored }.write(row.arena_id))
            }
            None => translation,
        })
    }
}

/// The participant on its way: bare for activities of single persons, else in its envelope.
fn publish(payload: &Payload<'_>, single: bool, operation: Operation, message: &Message, ctx: &Context) -> Translation {
    let output = if single { payload.bare() } else { payload.enveloped(operation, message, ctx) };
    Outcome::handled().output(output)
}

fn state(row: &Participant, valid: &Valid) -> ParticipantState {
    ParticipantState {
        person_id: valid.person_id,
        gjennomforing_id: row.activity_id,
        dato_fra: valid.start,
        dato_til: valid.end,
        reg_dato: Some(valid.registered),
        status: row.status_code.clone(),
        dato_statusendring: valid.changed,
        ekstern_id: None,
    }
}

tolk_sdk::register!(Deltaker);

#[cfg(test)]
mod tests;
