//! Hosts with one guard left out. Each of them must turn the same load and the same books red: else the suite would not see that guard fail.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;

use crate::table::{Case, Experiment, experiment};
use crate::world::{Resends, World};

/// What is done to the hosts between the messages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hurt {
    Nothing,
    Kill,
    Stop,
}

/// A guard that is left out, and what brings that to light.
struct Mutant {
    name: &'static str,
    hosts: usize,
    hurt: Hurt,
    faults: &'static str,
}

pub fn all() -> Vec<Experiment> {
    vec![
        // What gives a mutant away must not be the load or the little patience.
        experiment!("M0", short, "no mutant, hurt as the mutants are", |case| async move {
            run(case, &mutant("none", 2, Hurt::Stop, "settle/outputs=sleep:400x*")).await
        }),
        experiment!("M1", short, "mutant: settlements are not fenced", |case| caught(
            case,
            // A settlement is nearly always under way when the host is stopped.
            mutant("no-fence", 2, Hurt::Stop, "settle/outputs=sleep:400x*")
        )),
        experiment!("M2", short, "mutant: later messages of a key do not wait", |case| caught(
            case,
            mutant("no-parking", 1, Hurt::Nothing, "")
        )),
        experiment!("M3", short, "mutant: settlement numbers as a sequence gives them", |case| caught(
            case,
            mutant("cursor-by-id", 3, Hurt::Nothing, "settle/commit=sleep:300x*%30")
        )),
        experiment!("M4", short, "mutant: the group's offsets as truth", |case| caught(
            case,
            mutant("group-offsets", 1, Hurt::Nothing, "ingest/appended=abort@4")
        )),
        experiment!("M5", short, "mutant: rows are limited before blocked keys are left out", |case| caught(
            case,
            mutant("limit-before-filter", 1, Hurt::Nothing, "")
        )),
        experiment!("M6", short, "mutant: reads are not validated", |case| caught(
            case,
            mutant("reads-not-validated", 3, Hurt::Nothing, "settle/outputs=sleep:100x*%50")
        )),
        experiment!("M7", short, "mutant: the cursor passes what is not settled", |case| caught(
            case,
            mutant("cursor-over-unsettled", 2, Hurt::Kill, "")
        )),
    ]
}

fn mutant(name: &'static str, hosts: usize, hurt: Hurt, faults: &'static str) -> Mutant {
    Mutant { name, hosts, hurt, faults }
}

/// Loads that a mutant may outlive: what it leaves out matters at moments that come by chance.
const LOADS: u64 = 3;

/// Returns what gave the mutant away; panics where nothing did.
async fn caught(case: Case, mutant: Mutant) -> String {
    let mut lived = Vec::new();
    for load in 0..LOADS {
        let case = Case { seed: case.seed.wrapping_add(load), ..case };
        match AssertUnwindSafe(run(case, &mutant)).catch_unwind().await {
            Ok(figures) => lived.push(figures),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                let after = if load == 0 { String::new() } else { format!(" by load {}", load + 1) };
                return format!("caught{after}: {}", text.lines().next().unwrap_or_default());
            }
        }
    }
    panic!("the mutant {} lives: {}", mutant.name, lived.join("; "))
}

async fn run(case: Case, mutant: &Mutant) -> String {
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
    world.rest(Resends::Any).await
}
