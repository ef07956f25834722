//! `make bench`: measures the flow beside its ceilings, which are measured in the same run, in turn with it, over the same rows. Prints a
//! table and writes `bench.json` into cargo's target folder. A run that did not leave every row where it belongs counts for nothing.

#![expect(clippy::unwrap_used, reason = "a measurement stops at the first surprise")]

mod call;
mod crowd;
mod house;
mod input;
mod lite;
mod postgres;
mod raw;
mod recipients;
mod remote;
mod report;
mod schema;
#[path = "../support/services.rs"]
#[expect(dead_code, reason = "no Kafka is measured here, and nothing is killed")]
mod services;
mod single;

use std::path::Path;
use std::process::ExitCode;

use house::Guest;
use report::Report;

fn main() -> ExitCode {
    // Components are compiled in a child process, which is this program again.
    if let Some(code) = tolk::runtime::compile::child() {
        return code;
    }
    // `cargo test --benches` runs every benchmark once to see that it starts; this one takes minutes and needs services.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    // The host's own threads: as many as the machine has cores.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(measure());
    ExitCode::SUCCESS
}

async fn measure() {
    let only = std::env::var("TOLK_BENCH_ONLY").unwrap_or_default();
    let wanted = |name: &str| only.is_empty() || only.split(',').any(|one| one == name);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests/flow");
    let built = tolk::cli::build::build(&folder, &|text| report::note(text)).unwrap();
    let guest = Guest::new(std::fs::read(built.path).unwrap());
    let mut report = Report::default();
    if wanted("call") {
        call::measure(&guest, &mut report);
    }
    if wanted("sqlite") {
        lite::measure(&guest, &mut report).await;
    }
    if wanted("postgres") {
        postgres::measure(&guest, services::postgres_url(), "", &mut report).await;
    }
    if wanted("tcp") {
        postgres::measure(&guest, services::postgres_tcp_url(), "-tcp", &mut report).await;
    }
    for crowd in [crowd::STUCK, crowd::PARKED] {
        if wanted(crowd.name) {
            crowd::beside(&crowd, &guest, services::postgres_url(), &mut report).await;
        }
    }
    if wanted("replay") {
        crowd::replay(&guest, services::postgres_url(), &mut report).await;
    }
    if wanted("recipients") {
        recipients::measure(services::postgres_url(), &mut report).await;
    }
    report.print();
    // A part of the rows is no result.
    if only.is_empty() {
        report.write();
    }
}
