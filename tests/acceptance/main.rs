//! Plays case files against the built components: `CASES` names a folder (default: our own few cases), `STORE` is sqlite or postgres.
//! One line a case, at the end `N passed, M failed`; exit 1 if any failed. Words as arguments choose cases that have one of them.

#![expect(clippy::print_stdout, reason = "the lines are what it is for")]
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod arena;
mod barnetrygd;
mod bench;
mod diff;
mod files;
mod stubs;
mod world;

#[expect(dead_code, reason = "other test binaries use the rest")]
#[path = "../support/services.rs"]
mod services;
#[expect(dead_code, reason = "other test binaries use the rest")]
#[path = "../support/stub.rs"]
mod stub;

#[expect(dead_code, reason = "other test binaries use the rest")]
#[path = "../admin/issuer.rs"]
mod issuer;

/// Where the shared parts look for each other.
mod support {
    pub(crate) use crate::stub;
}

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::arena::Arena;
use crate::barnetrygd::Barnetrygd;
use crate::bench::Kind;
use crate::files::{Case, CaseFile};

/// Our own cases: the format is tested wherever the tests are.
const OWN_CASES: &str = "tests/acceptance/cases";

/// The systems that are played, each made when its first case comes.
#[derive(Default)]
struct Systems {
    arena: Option<Arena>,
    barnetrygd: Option<Barnetrygd>,
}

#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // What test runners ask of every test binary.
    if arguments.iter().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    let words: Vec<String> = arguments.into_iter().filter(|argument| !argument.starts_with('-')).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads can be started");
    match runtime.block_on(run(&words)) {
        Ok(tally) => {
            println!("{} passed, {} failed", tally.passed, tally.failed);
            if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            println!("the cases could not be played: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(words: &[String]) -> anyhow::Result<Tally> {
    let kind = Kind::from_environment()?;
    let cases = std::env::var_os("CASES").filter(|cases| !cases.is_empty());
    let folder = cases.map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(OWN_CASES), PathBuf::from);
    let (mut systems, mut tally) = (Systems::default(), Tally::default());
    let mut any = false;
    for file in files::find(&folder)? {
        match file {
            Ok(file) => {
                any = true;
                systems.play(kind, &file, words, &mut tally).await?;
            }
            Err(unknown) => println!("SKIP {unknown}"),
        }
    }
    systems.end().await?;
    anyhow::ensure!(any, "there is no case below {}", folder.display());
    Ok(tally)
}

impl Systems {
    async fn play(&mut self, kind: Kind, file: &CaseFile, words: &[String], tally: &mut Tally) -> anyhow::Result<()> {
        let chosen = |case: &&Case| {
            let line = format!("{} {} {} {}", file.system, file.name, case.id, case.title);
            words.is_empty() || words.iter().any(|word| line.contains(word.as_str()))
        };
        for case in file.cases.iter().filter(chosen) {
            let played = if arena::is(&file.system) {
                if self.arena.is_none() {
                    self.arena = Some(Arena::new(kind).await?);
                }
                self.arena.as_ref().expect("it was just made").play(case).await
            } else if barnetrygd::is(&file.system) {
                if self.barnetrygd.is_none() {
                    self.barnetrygd = Some(Barnetrygd::new(kind).await?);
                }
                self.barnetrygd.as_ref().expect("it was just made").play(case).await
            } else {
                Err(anyhow::anyhow!("no file of tests/acceptance tells how cases of \"{}\" are played", file.system))
            };
            let found = played.unwrap_or_else(|error| vec![format!("{error:#}")]);
            let line = format!("{} {} {} {}", file.system, file.name, case.id, case.title);
            if found.is_empty() {
                tally.passed += 1;
                println!("PASS {line}");
            } else {
                tally.failed += 1;
                println!("FAIL {line}: {}", found.join("; "));
            }
        }
        Ok(())
    }

    async fn end(&self) -> anyhow::Result<()> {
        if let Some(arena) = &self.arena {
            arena.end().await?;
        }
        match &self.barnetrygd {
            Some(barnetrygd) => barnetrygd.end().await,
            None => Ok(()),
        }
    }
}
