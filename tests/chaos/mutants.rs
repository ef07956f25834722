//! Hosts with one guard left out. Each of them must turn the same load and the same books red: else the suite would not see that guard fail.

use std::time::Duration;

use crate::judge;
use crate::table::{Case, Experiment, experiment};
use crate::world::World;

/// What is done to the hosts between the messages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hurt {
    Nothing,
    Kill,
    Stop,
}

/// A guard that is left out, and what brings that to light.
#[derive(Clone, Copy)]
struct Mutant {
    name: &'static str,
    hosts: usize,
    hurt: Hurt,
    faults: &'static str,
    /// What its guard is there to prevent, in the words of the judge; any of them.
    gives_away: &'static [&'static str],
}

pub fn all() -> Vec<Experiment> {
    vec![
        // What gives a mutant away must not be the load, the hurts or the little patience.
        experiment!("M0", short, "no mutant, hurt as the mutants are", unharmed),
        experiment!("M1", short, "mutant: settlements are not fenced", |case| caught(case, NO_FENCE)),
        experiment!("M2", short, "mutant: later messages of a key do not wait", |case| caught(case, NO_PARKING)),
        experiment!("M3", short, "mutant: settlement numbers as a sequence gives them", |case| caught(case, CURSOR_BY_ID)),
        experiment!("M4", short, "mutant: the group's offsets as truth", |case| caught(case, GROUP_OFFSETS)),
        experiment!("M5", short, "mutant: rows are limited before blocked keys are left out", |case| caught(case, LIMIT_BEFORE_FILTER)),
        experiment!("M6", short, "mutant: reads are not validated", |case| caught(case, READS_NOT_VALIDATED)),
        experiment!("M7", short, "mutant: the cursor passes what is not settled", |case| caught(case, CURSOR_OVER_UNSETTLED)),
    ]
}

const NO_FENCE: Mutant = Mutant {
    name: "no-fence",
    hosts: 2,
    hurt: Hurt::Stop,
    // A settlement is nearly always under way when the host is stopped.
    faults: "settle/outputs=sleep:400x*",
    gives_away: &["settled twice", "stored twice", "not done", "earlier message of their key"],
};
const NO_PARKING: Mutant = Mutant {
    name: "no-parking",
    hosts: 1,
    hurt: Hurt::Nothing,
    faults: "",
    gives_away: &["earlier message of their key", "was settled after", "came after"],
};
const CURSOR_BY_ID: Mutant = Mutant {
    name: "cursor-by-id",
    hosts: 3,
    hurt: Hurt::Nothing,
    faults: "settle/commit=sleep:300x*%30",
    gives_away: &["outputs are missing"],
};
const GROUP_OFFSETS: Mutant = Mutant {
    name: "group-offsets",
    hosts: 1,
    hurt: Hurt::Nothing,
    faults: "ingest/appended=abort@4",
    gives_away: &["taken in twice", "positions that differ"],
};
const LIMIT_BEFORE_FILTER: Mutant =
    Mutant { name: "limit-before-filter", hosts: 1, hurt: Hurt::Nothing, faults: "", gives_away: &["nobody has come to"] };
const READS_NOT_VALIDATED: Mutant = Mutant {
    name: "reads-not-validated",
    hosts: 3,
    hurt: Hurt::Nothing,
    faults: "settle/outputs=sleep:100x*%50",
    gives_away: &["two saw the same", "wait for an entry that is there"],
};
const CURSOR_OVER_UNSETTLED: Mutant =
    Mutant { name: "cursor-over-unsettled", hosts: 2, hurt: Hurt::Kill, faults: "", gives_away: &["nothing accounts for"] };

/// Loads that a mutant may outlive: what it leaves out matters at moments that come by chance.
const LOADS: u64 = 3;

/// Returns what gave the mutant away; panics where nothing did. A world that cannot be set up is not a caught mutant: it panics too.
async fn caught(case: Case, mutant: Mutant) -> String {
    let (mut others, mut stalled): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    for load in 0..LOADS {
        let case = Case { seed: case.seed.wrapping_add(load), ..case };
        let mut world = hurt(case, &mutant).await;
        let findings = judge::findings(&mut world).await;
        let own = findings.iter().find(|finding| mutant.gives_away.iter().any(|words| finding.contains(words)));
        if let Some(own) = own {
            return format!("caught by load {}, by what it stands for: {own}", load + 1);
        }
        let rests = !findings.iter().any(|finding| finding.starts_with(judge::STALLED));
        if rests { others.extend(findings) } else { stalled.extend(findings) }
    }
    // The judge finds nothing where nothing is left out (M0): what it finds at rest comes of the mutant, if not by the shortest way.
    match others.first() {
        Some(first) => format!("caught by what follows from it: {first}"),
        None if stalled.is_empty() => panic!("the mutant {} lives", mutant.name),
        None => panic!("the mutant {} only stands still: {}", mutant.name, stalled.join("; ")),
    }
}

/// The same load and the same hurts without a mutant: the judge must find nothing.
async fn unharmed(case: Case) -> String {
    let all = [NO_FENCE, NO_PARKING, CURSOR_BY_ID, GROUP_OFFSETS, READS_NOT_VALIDATED, CURSOR_OVER_UNSETTLED];
    let (mut messages, mut outputs) = (0, 0);
    let hurts: Vec<Mutant> = all.into_iter().take(if case.full { 6 } else { 1 }).collect();
    for like in &hurts {
        let mut world = hurt(case, &Mutant { name: "none", ..*like }).await;
        let findings = judge::findings(&mut world).await;
        assert!(findings.is_empty(), "nothing is left out, hurt as {} is, and yet: {}", like.name, findings.join("; "));
        messages += world.sent.len();
        outputs += world.sent.iter().map(|message| message.outputs.len()).sum::<usize>();
    }
    format!("hurt as {} of them are: {messages} messages, {outputs} outputs, nothing found", hurts.len())
}

/// A world with a mutant in it, hurt.
async fn hurt(case: Case, mutant: &Mutant) -> World {
    let mut world = World::shared(case.seed).await;
    world.environment =
        [("TOLK_MUTANT", mutant.name), ("TOLK_FAULTS", mutant.faults)].map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    world.start(mutant.hosts);
    for _ in 0..4 {
        world.load(200);
        match mutant.hurt {
            Hurt::Nothing => world.moment(300, 600).await,
            Hurt::Kill => {
                world.moment(1_200, 2_400).await;
                let host = world.host(&[]);
                let victim = world.dice.below(world.hosts.len() as u64) as usize;
                std::mem::replace(&mut world.hosts[victim], host).kill();
            }
            Hurt::Stop => {
                world.moment(300, 1_200).await;
                let victim = world.dice.below(world.hosts.len() as u64) as usize;
                world.hosts[victim].signal("STOP");
                tokio::time::sleep(Duration::from_millis(2_500)).await;
                world.hosts[victim].signal("CONT");
            }
        }
    }
    world
}
