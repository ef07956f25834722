//! The fault suite: real processes between a real PostgreSQL and a real Kafka, hurt on purpose; after each experiment everything that must be
//! there is looked for. Prints a table; exit 1 when any experiment is red. `SEED` plays a run again as far as the machine lets it, `ONLY`
//! names experiments, `KILLS` is the length of the kill loop, `FULL` adds what takes long.

#![expect(clippy::print_stdout, reason = "the table is what it is for")]
#![expect(clippy::unwrap_used, reason = "an experiment stops at the first surprise")]

mod clocks;
mod endpoints;
mod hosts;
mod judge;
mod killers;
mod kills;
mod ledger;
mod mutants;
mod orders;
mod outages;
mod plugins;
mod points;
mod poison;
mod preload;
mod proxy;
mod records;
mod spoiler;
mod table;
mod upkeep;
mod versions;
mod world;

#[path = "../path/check.rs"]
mod check;
#[path = "../sandbox/guest.rs"]
mod guest;
#[path = "../support/guests.rs"]
mod guests;
#[path = "../support/kafka.rs"]
#[expect(dead_code, reason = "other test binaries use the rest")]
mod kafka;
#[path = "../path/rig.rs"]
#[expect(dead_code, reason = "other test binaries use the rest")]
mod rig;
#[path = "../path/script.rs"]
#[expect(dead_code, reason = "other test binaries use the rest")]
mod script;
#[path = "../support/services.rs"]
mod services;
#[path = "../support/stub.rs"]
#[expect(dead_code, reason = "other test binaries use the rest")]
mod stub;
#[path = "../path/swap.rs"]
#[expect(dead_code, reason = "the test runner's part")]
mod swap;
#[path = "../cli/tolk.rs"]
#[expect(dead_code, reason = "other test binaries use the rest")]
mod tolk_binary;

/// What the files of other test binaries call these.
mod support {
    pub(crate) use crate::services::postgres_url;
    pub(crate) use crate::{guests, kafka};
}
mod cli {
    pub(crate) use crate::tolk_binary as tolk;
}
use services::kafka_brokers;

use std::process::ExitCode;

use table::{Experiment, Suite};

fn experiments() -> Vec<Experiment> {
    [
        points::all(),
        kills::all(),
        killers::all(),
        mutants::all(),
        hosts::all(),
        outages::all(),
        clocks::all(),
        records::all(),
        plugins::all(),
        versions::all(),
        poison::all(),
        orders::all(),
        endpoints::all(),
        upkeep::all(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn main() -> ExitCode {
    // What test runners ask of every test binary.
    if std::env::args().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let red = runtime.block_on(Suite::from_environment().run(experiments()));
    // Whatever still runs belongs to an experiment that has failed.
    runtime.shutdown_background();
    if red == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
