//! The demonstration's data: change events as Arena's GoldenGate writes them, of our own making, and the remote systems' answers to them.
//! Pure: the same every time.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::message::Captured;

/// Partitions of the source topic.
pub(super) const PARTITIONS: usize = 3;

/// Activities, participants and what happens to them.
const ACTIVITIES: u64 = 300;
const PARTICIPANTS: u64 = 3_600;
const UPDATES: u64 = 900;
const ENDED: u64 = 240;
const GONE: u64 = 20;
const ODD: u64 = 60;

/// The supported kinds of activities, and two that are not.
const KINDS: [&str; 6] = ["INDOPPFAG", "ARBFORB", "JOBBK", "ENKELAMO", "GRUPPEAMO", "AVKLARAG"];
const UNSUPPORTED: [&str; 2] = ["MENTOR", "AMO"];

const ACTIVITY: &str = "SIAMO.TILTAKGJENNOMFORING";
const PARTICIPANT: &str = "SIAMO.TILTAKDELTAKER";
const HIST: &str = "SIAMO.HIST_TILTAKDELTAKER";

/// All messages, in the order in which they are produced. About one activity in six comes after its participants.
pub(super) fn messages() -> Vec<Captured> {
    let mut events = Events::default();
    let late = |i: u64| i % 6 == 5;
    (0..ACTIVITIES).filter(|i| !late(*i)).for_each(|i| events.change(ACTIVITY, "I", None, Some(activity(i))));
    for i in 0..PARTICIPANTS {
        events.change(PARTICIPANT, "I", None, Some(participant(i, 0)));
        if i % (PARTICIPANTS / ODD) == 7 {
            events.odd(i / (PARTICIPANTS / ODD));
        }
    }
    (0..ACTIVITIES).filter(|i| late(*i)).for_each(|i| events.change(ACTIVITY, "I", None, Some(activity(i))));
    // An invalid activity is mended: whoever waits for it goes on.
    (0..ACTIVITIES).filter(|i| i % 50 == 49).for_each(|i| events.change(ACTIVITY, "U", Some(activity(i)), Some(mended(i))));
    (0..UPDATES).for_each(|i| events.change(PARTICIPANT, "U", Some(participant(i, 0)), Some(participant(i, 1))));
    for i in UPDATES..UPDATES + ENDED {
        // The person came back: the old row moves to the history, and its delete and its insert come in no agreed order.
        events.change(HIST, "I", None, Some(hist(i)));
        events.change(PARTICIPANT, "D", Some(participant(i, 0)), None);
    }
    (UPDATES + ENDED..UPDATES + ENDED + GONE).for_each(|i| events.change(PARTICIPANT, "D", Some(participant(i, 0)), None));
    events.messages
}

/// One second of a flow that goes on: updates of participants, and a few changes of a shop, which the sample of `tolk new` translates.
pub(super) fn second(second: u64, rate: u64) -> Vec<Captured> {
    let mut events = Events { pos: 1_000_000 + second * (rate + 10), messages: Vec::new() };
    for n in second * rate..(second + 1) * rate {
        let i = n * 7 % PARTICIPANTS;
        events.change(PARTICIPANT, "U", Some(participant(i, n)), Some(participant(i, n + 1)));
    }
    if second < 10 {
        events.change("SHOP.CUSTOMERS", "I", None, Some(json!({ "id": second, "name": format!("Customer {second}") })));
    }
    for order in 0..3 {
        let number = 1_000 + second * 3 + order;
        let row = json!({ "number": number, "customer": number % 10, "amount": 9.5 + order as f64 });
        events.change("SHOP.ORDERS", "I", None, Some(row));
    }
    events.messages
}

/// What the remote systems answer: status and body.
pub(super) fn answer(path: &str) -> (u16, Value) {
    let number = |text: &str| text.parse::<u64>().unwrap_or(0);
    if let Some(person) = path.strip_prefix("/api/ords/fnr?personId=") {
        // One person in 97 is unknown.
        return if number(person) % 97 == 0 { (404, Value::Null) } else { (200, json!({ "fnr": format!("{:011}", number(person)) })) };
    }
    if let Some(activity) = path.strip_prefix("/api/v1/tiltaksgjennomforinger/id/") {
        return (200, json!({ "id": remote_id(number(activity)) }));
    }
    if let Some(id) = path.strip_prefix("/api/v2/tiltaksgjennomforinger/") {
        let i = u64::from_str_radix(id.rsplit('-').next().unwrap_or_default(), 16).unwrap_or(0);
        let kind = if KINDS[(i % 6) as usize] == "ENKELAMO" { "ENKELTPLASS_ARBEIDSMARKEDSOPPLAERING" } else { "OPPFOLGING" };
        let start = if i % 2 == 0 { "LOPENDE" } else { "FELLES" };
        let employer = json!({ "organisasjonsnummer": "900000001" });
        return (200, json!({ "id": id, "tiltakskode": kind, "oppstart": start, "arrangor": employer }));
    }
    if path == "/api/external/deltakelser" {
        return (200, json!([]));
    }
    (404, Value::Null)
}

fn remote_id(i: u64) -> String {
    format!("7e57da7a-0000-4000-8000-{i:012x}")
}

fn activity_id(i: u64) -> u64 {
    3_000_000 + i
}

fn activity(i: u64) -> Value {
    let kind = if i % 25 == 24 { UNSUPPORTED[(i / 25 % 2) as usize] } else { KINDS[(i % 6) as usize] };
    json!({
        "TILTAKGJENNOMFORING_ID": activity_id(i), "SAK_ID": 10_000 + i, "TILTAKSKODE": kind, "LOKALTNAVN": format!("Activity {i}"),
        "ARBGIV_ID_ARRANGOR": if i % 50 == 49 { Value::Null } else { json!(500 + i % 40) },
        "DATO_FRA": "2026-01-05 00:00:00", "DATO_TIL": "2027-06-30 00:00:00", "REG_DATO": "2025-11-01 08:30:00",
        "TILTAKSTATUSKODE": "GJENNOMFOR", "ANTALL_DELTAKERE": 12, "BEGRUNNELSE_STATUS": filler(i),
    })
}

fn mended(i: u64) -> Value {
    let mut row = activity(i);
    row["ARBGIV_ID_ARRANGOR"] = json!(777);
    row
}

fn participant(i: u64, version: u64) -> Value {
    const CODES: [&str; 6] = ["GJENN", "AKTUELL", "VENTELISTE", "FULLF", "GJENN_AVB", "TILBUD"];
    json!({
        "TILTAKDELTAKER_ID": 5_000_000 + i, "PERSON_ID": 20_000 + i, "TILTAKGJENNOMFORING_ID": activity_id(i * 13 % ACTIVITIES),
        "DELTAKERSTATUSKODE": CODES[((i + version) % 6) as usize], "DELTAKERTYPEKODE": if i.is_multiple_of(83) { "EKSTERN" } else { "INNSOKT" },
        "AARSAKVERDIKODE_STATUS": if i.is_multiple_of(11) { json!("SYK") } else { Value::Null },
        "DATO_FRA": format!("2026-0{}-{:02} 00:00:00", 1 + i % 9, 1 + i % 28),
        "DATO_TIL": format!("2026-1{}-{:02} 00:00:00", i % 3, 1 + i % 28),
        "DATO_STATUSENDRING": format!("2026-02-{:02} 10:{:02}:00", 1 + i % 28, version % 60),
        "REG_DATO": "2025-12-01 09:00:00", "ANTALL_DAGER_PR_UKE": 2.5, "PROSENT_DELTID": 50.0 + (version % 50) as f64,
        "EKSTERN_ID": Value::Null, "BEGRUNNELSE_BESTILLING": filler(i),
    })
}

fn hist(i: u64) -> Value {
    let mut row = participant(i, 0);
    row["HIST_TILTAKDELTAKER_ID"] = json!(8_000_000 + i);
    row["DELTAKERSTATUSKODE"] = json!("FULLF");
    // Three in four do not match the row they come from, as in a replay from the start.
    if !i.is_multiple_of(4) {
        row["DATO_STATUSENDRING"] = json!("2026-03-01 00:00:00");
    }
    row
}

fn filler(i: u64) -> String {
    format!("Written for the demonstration, number {i}: long enough to weigh what such a row weighs.")
}

#[derive(Default)]
struct Events {
    pos: u64,
    messages: Vec<Captured>,
}

impl Events {
    fn change(&mut self, table: &str, op: &str, before: Option<Value>, after: Option<Value>) {
        self.pos += 1;
        let row = after.as_ref().or(before.as_ref()).cloned().unwrap_or_default();
        let names = ["HIST_TILTAKDELTAKER_ID", "TILTAKDELTAKER_ID", "TILTAKGJENNOMFORING_ID", "number", "id"];
        let key = names.iter().find_map(|name| row[*name].as_u64()).unwrap_or_default();
        let payload = json!({
            "table": table, "op_type": op, "op_ts": "2026-03-15 11:59:58.000000", "current_ts": "2026-03-15 12:00:00.123000",
            "pos": format!("{:020}", self.pos), "before": before, "after": after,
        });
        self.push(Some(key.to_string()), Some(payload.to_string()));
    }

    /// Tombstones, broken JSON, an unknown table: rows with a status that says why.
    fn odd(&mut self, n: u64) {
        let key = Some(format!("odd-{n}"));
        match n % 3 {
            0 => self.push(key, None),
            1 => self.push(key, Some(format!("{{\"table\":\"{PARTICIPANT}\",\"op_type\":\"I\",\"after\":{{\"TILTAKDELTAKER_ID\":"))),
            _ => self.change("SIAMO.SOMETHING_NEW", "I", None, Some(json!({ "TILTAKDELTAKER_ID": n }))),
        }
    }

    fn push(&mut self, key: Option<String>, payload: Option<String>) {
        self.messages.push(Captured { key: key.map(Bytes::from), payload: payload.map(Bytes::from), ..Captured::default() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_enough_of_everything_and_it_fits_the_mock_broker() {
        let messages = messages();
        assert!(messages.len() >= 5_000, "{}", messages.len());
        let payloads: Vec<&[u8]> = messages.iter().filter_map(|message| message.payload.as_deref()).collect();
        assert!(messages.len() > payloads.len(), "tombstones");
        assert!(payloads.iter().any(|payload| serde_json::from_slice::<Value>(payload).is_err()), "broken JSON");
        let tables: std::collections::BTreeSet<String> = payloads
            .iter()
            .filter_map(|payload| serde_json::from_slice::<Value>(payload).ok()?["table"].as_str().map(str::to_owned))
            .collect();
        assert_eq!(tables.len(), 4, "{tables:?}");
        let bytes: usize = messages.iter().map(Captured::size).sum();
        assert!(bytes / PARTITIONS < 4 << 20, "the mock broker keeps 5 MiB of a partition: {bytes}");
    }
}
