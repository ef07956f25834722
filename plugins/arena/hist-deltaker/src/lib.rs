//! Translates Arena's historical participants: one that is known already is tied to it, the rest are published as new.

use arena_rules::event::{Event, Operation};
use arena_rules::external;
use arena_rules::names::{collection, endpoint, namespace, table, target};
use arena_rules::parent::{Parent, parent};
use arena_rules::participant::{Kind, Participant, ParticipantColumns, Valid};
use arena_rules::payload::Payload;
use arena_rules::remote::{participations_call, person_call, read_participations, read_person};
use arena_rules::state::ParticipantState;
use arena_rules::time::{Date, DateTime};
use tolk_sdk::{Binding, Context, Description, Fault, KeyOf, KnownId, Message, Outcome, Output, Stop, Translation, Translator};

struct HistDeltaker;

/// What is needed of a row at its end.
struct Row<'a> {
    message: &'a Message,
    row: &'a Participant,
    valid: &'a Valid,
    parent: &'a Parent,
    person: &'a str,
}

impl Translator for HistDeltaker {
    fn describe() -> Description {
        Description::new("arena-hist-deltaker", env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_DESCRIPTION"))
            .table(table::HIST)
            .reads(collection::ACTIVITY)
            .reads(collection::PARTICIPANT)
            .writes(collection::ACTIVITY)
            .namespace(namespace::PARTICIPANT)
            .namespace(namespace::HIST)
            .endpoint(endpoint::ACTIVITY_ID)
            .endpoint(endpoint::ACTIVITY)
            .endpoint(endpoint::PERSON)
            .endpoint(endpoint::PARTICIPATIONS)
            .target(target::AMT_TILTAK)
    }

    fn configure(config: &str) -> Result<Self, String> {
        if config.trim().is_empty() { Ok(Self) } else { Err("arena-hist-deltaker takes no config".to_owned()) }
    }

    fn translate(&self, message: &Message, ctx: &Context) -> Result<Outcome, Stop> {
        let event = Event::<ParticipantColumns>::read(message, table::HIST)?;
        let row = Participant::read(event.row, Kind::Hist)?;
        // A row that nothing but its activity can stop will need its person and the candidates: both are asked for ahead.
        let sure =
            row.validate().ok().filter(|valid| event.operation == Operation::Created && !row.is_external() && valid.changed.is_some());
        let ahead = sure.map(|valid| (person_call(valid.person_id), ParticipantState::scan(valid.person_id, row.activity_id)));
        let parent = parent(ctx, row.activity_id, ahead)?;
        external::guard(ctx, &row, parent.write.as_ref())?;
        if event.operation != Operation::Created {
            let text = format!("Ignorerer hist-deltaker som har operation type {}", event.operation.as_str());
            return Ok(parent.write.into_iter().fold(Outcome::ignored("hist-operation", text), |it, write| it.write(write)).into());
        }
        let valid = row.validate()?;
        let person = read_person(ctx.call(person_call(valid.person_id))?, valid.person_id)?;
        let Some(changed) = valid.changed else {
            let text = "Kan ikke matche hist deltaker som mangler DATO_STATUSENDRING";
            return Err(Outcome::rejected("status-date-null", text).field("DATO_STATUSENDRING").into());
        };
        let found = Row { message, row: &row, valid: &valid, parent: &parent, person: &person };
        let translation = match matches(ctx, &found, changed)? {
            None => found.publish_as_new(ctx)?,
            Some(arena_id) => found.tie_to(ctx, &arena_id)?,
        };
        Ok(parent.write.iter().cloned().fold(translation, Translation::write).into())
    }
}

/// The Arena id of the one known participant that the hist row was; fails where there are several.
fn matches(ctx: &Context, found: &Row<'_>, changed: DateTime) -> Result<Option<String>, Stop> {
    let Row { row, valid, .. } = found;
    let candidates = ctx.entries_to_the_end(ParticipantState::scan(valid.person_id, row.activity_id))?;
    let mut matching = Vec::new();
    for (arena_id, value) in &candidates {
        let state: ParticipantState = serde_json::from_slice(value)
            .map_err(|_| Outcome::failed("bad-entry", format!("the entry {}/{arena_id} cannot be read", collection::PARTICIPANT)))?;
        // A candidate without a time of change never matches.
        if (state.dato_fra, state.dato_til, state.dato_statusendring) == (valid.start, valid.end, Some(changed)) {
            matching.push(*arena_id);
        }
    }
    match matching.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some((*one).to_owned())),
        _ => {
            let text = format!("Fant {} deltakere som matcher med hist deltaker {}", candidates.len(), row.arena_id);
            Err(Outcome::failed("several-matches", text).into())
        }
    }
}

impl Row<'_> {
    /// Nobody knows it: a participant of its own.
    fn publish_as_new(&self, ctx: &Context) -> Result<Translation, Stop> {
        let id = ctx.id(namespace::HIST, self.row.arena_id)?;
        Ok(Outcome::handled().output(self.output(ctx, id, Operation::Created)?).note("Fant match? false"))
    }

    /// It is the participant `arena_id`, which Arena moved: both get the same uuid, and it is restored where its deletion came first.
    fn tie_to(&self, ctx: &Context, arena_id: &str) -> Result<Translation, Stop> {
        let hist_id = self.row.arena_id;
        let lost = |code: &str, place: &str| {
            let text = format!("Fant matchende deltaker for hist deltaker {hist_id} men fant ikke deltakeren igjen i {place}");
            Outcome::rejected(code, text)
        };
        let (id, known) = ctx.all((KnownId::new(namespace::PARTICIPANT, arena_id), KnownId::new(namespace::HIST, hist_id)))?;
        let id = id.ok_or_else(|| lost("match-without-id", "translation tabellen"))?;
        let (response, tied) = ctx.all((participations_call(self.person), KeyOf::new(namespace::HIST, id)))?;
        let participations = read_participations(response)?;
        let downstream = participations.iter().find(|it| it.id.eq_ignore_ascii_case(id));
        let downstream = downstream.ok_or_else(|| lost("match-not-downstream", "amt-tiltak"))?;
        if known.is_some_and(|known| known != id) {
            return Err(
                Outcome::retry("hist-id-conflict", format!("hist deltaker {hist_id} er allerede mappet til en annen deltaker")).into()
            );
        }
        let mut translation = Outcome::handled().note("Fant match? true");
        if tied.is_none() {
            translation = translation.bind(Binding::new(namespace::HIST, hist_id, id));
        }
        if downstream.is_wrong() {
            translation = translation.output(self.output(ctx, id, Operation::Modified)?);
        }
        Ok(translation)
    }

    /// The participant in its envelope, whatever the kind of its activity.
    fn output(&self, ctx: &Context, id: &str, operation: Operation) -> Result<Output, Stop> {
        let today = Date::of(ctx.now().local());
        let payload = Payload::of(self.row, self.valid, &self.parent.remote, id, self.person, today);
        ended(&payload)?;
        Ok(payload.enveloped(operation, self.message, ctx))
    }
}

/// What was moved to history must have ended, at a known time.
fn ended(payload: &Payload<'_>) -> Result<(), Fault> {
    if !payload.status.is_ending() {
        return Err(Outcome::retry("hist-not-ended", format!("Hist deltaker har fått status {}", payload.status.as_str())));
    }
    if payload.status_endret_dato.is_none() {
        return Err(Outcome::rejected("status-date-null", "Hist deltaker mangler statusEndretDato").field("DATO_STATUSENDRING"));
    }
    Ok(())
}

tolk_sdk::register!(HistDeltaker);

#[cfg(test)]
mod tests;
