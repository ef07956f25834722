//! The command line: one file per subcommand. Data goes to stdout, everything else to stderr; exit codes are those of `Exit`.
//! The only module that knows clap.

mod act;
mod activate;
mod audit;
pub mod build;
mod capture;
mod completions;
mod deliveries;
mod demo;
mod doctor;
mod explain;
mod init;
mod inspect;
mod listing;
mod messages;
mod migrate;
mod new;
mod pause;
mod plugins;
mod push;
mod reference;
mod replay;
mod report;
mod rollback;
mod run;
pub mod shell;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{CommandFactory, Parser, Subcommand};

use crate::store::ActionKind;
use crate::telemetry::LogFormat;
use shell::Shell;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok,
    /// Done, and it found something: a difference, a failed check.
    Findings,
    /// The command line or the config is wrong.
    Usage,
    /// The database, the broker, a file or the machine does not do what is needed.
    Environment,
    /// Refused by policy: a component that is not taken, capabilities that nobody allowed.
    Refused,
}

impl Exit {
    /// The number that the process ends with.
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Findings => 1,
            Self::Usage => 2,
            Self::Environment => 3,
            Self::Refused => 4,
        }
    }
}

/// What `tolk --version` says: a build that a test can make fail says so.
const VERSION: &str =
    if crate::faults::ON { concat!(env!("CARGO_PKG_VERSION"), " with faults, for tests alone") } else { env!("CARGO_PKG_VERSION") };

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 findings, 2 usage or config, 3 environment (database, broker, files), 4 refused by policy.";

/// Persists every message and translates it in sandboxed WebAssembly plugins.
#[derive(Parser)]
#[command(name = "tolk", version = VERSION, after_help = AFTER_HELP, arg_required_else_help = true, subcommand_required = true, disable_help_subcommand = true)]
struct Cli {
    /// The config file
    #[arg(
        long,
        global = true,
        help_heading = "Options of every command",
        value_name = "FILE",
        env = "TOLK_CONFIG",
        default_value = "tolk.toml"
    )]
    config: PathBuf,
    /// How log lines on stderr look
    #[arg(long, global = true, help_heading = "Options of every command", value_name = "FORMAT", env = "TOLK_LOG_FORMAT", default_value = "text", value_parser = log_format())]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a translator's crate, with a sample that builds and passes its test
    New(new::Args),
    /// Build plugins: compile for wasm and encode the components
    Build(build::Args),
    /// Write a commented, working config
    Init(init::Args),
    /// Run a host: consume, translate, publish
    Run(run::Args),
    /// Bring the tables of the store up to this version
    Migrate(migrate::Args),
    /// Check config, store, brokers, plugins and endpoints, and say how to mend what is wrong
    Doctor(doctor::Args),
    /// Run a component against captured messages, and tell what differs from what is expected
    Test(test::Args),
    /// Show what a component is: description, imports, digest, size
    Inspect(inspect::Args),
    /// Validate components, compile and store them
    Push(push::Args),
    /// Make a plugin the active one of a feed and table, while messages flow
    Activate(activate::Args),
    /// Go back to what was active before
    Rollback(rollback::Args),
    /// List stored plugins and where they are active
    Plugins(plugins::Args),
    /// List messages, or show one with all that became of it
    Messages(messages::Args),
    /// Say why a message has not come out, and what will wake it
    Explain(explain::Args),
    /// Try messages again now
    Retry(act::Args),
    /// Try messages again, with their tries counted anew
    Restart(act::Args),
    /// Close messages as ignored: later ones of their keys go on
    Ignore(act::Args),
    /// Set messages aside: not now
    Stop(act::Args),
    /// Close messages as finished: they count as done
    Finish(act::Args),
    /// Run stored messages again, or say what would come of it
    Replay(replay::Args),
    /// Hold a feed, a table or an endpoint; messages go on being persisted
    Pause(pause::Args),
    /// Let a paused feed, table or endpoint go on
    Resume(pause::Args),
    /// Show who ordered what, when, why, and what became of it
    Audit(audit::Args),
    /// List deliveries, show one, order one, and what can be asked of one
    Deliveries(deliveries::Args),
    /// Write messages to a file, from the inbox or straight from a topic
    Capture(capture::Args),
    /// The main job on this machine alone, with a Kafka that lives in the process
    Demo(demo::Args),
    /// Print a completion script
    Completions(completions::Args),
}

fn log_format() -> impl TypedValueParser<Value = LogFormat> {
    PossibleValuesParser::new(["text", "json"]).map(|word| if word == "json" { LogFormat::Json } else { LogFormat::Text })
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A help text into a closed pipe is no error.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    crate::telemetry::start(cli.log_format);
    let shell = Shell { config_path: cli.config };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report::failed(&anyhow::Error::new(error).context("start the threads of this process")),
    };
    let ended = runtime.block_on(dispatch(cli.command, &shell));
    // Whoever still asks a broker that is away must not hold up the end.
    runtime.shutdown_background();
    match ended {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(error) => report::failed(&error),
    }
}

async fn dispatch(command: Command, shell: &Shell) -> anyhow::Result<Exit> {
    match command {
        Command::New(args) => new::run(args, shell),
        Command::Build(args) => build::run(args, shell),
        Command::Init(args) => init::run(args, shell),
        Command::Run(args) => run::run(args, shell).await,
        Command::Migrate(args) => migrate::run(args, shell).await,
        Command::Doctor(args) => doctor::run(args, shell).await,
        Command::Test(args) => test::run(args, shell),
        Command::Inspect(args) => inspect::run(&args, shell),
        Command::Push(args) => push::run(args, shell).await,
        Command::Activate(args) => activate::run(args, shell).await,
        Command::Rollback(args) => rollback::run(args, shell).await,
        Command::Plugins(args) => plugins::run(args, shell).await,
        Command::Messages(args) => messages::run(args, shell).await,
        Command::Explain(args) => explain::run(args, shell).await,
        Command::Retry(args) => act::run(ActionKind::Retry, args, shell).await,
        Command::Restart(args) => act::run(ActionKind::Restart, args, shell).await,
        Command::Ignore(args) => act::run(ActionKind::Ignore, args, shell).await,
        Command::Stop(args) => act::run(ActionKind::Stop, args, shell).await,
        Command::Finish(args) => act::run(ActionKind::Finish, args, shell).await,
        Command::Replay(args) => replay::run(args, shell).await,
        Command::Pause(args) => pause::pause(args, shell).await,
        Command::Resume(args) => pause::resume(args, shell).await,
        Command::Audit(args) => audit::run(args, shell).await,
        Command::Deliveries(args) => deliveries::run(args, shell).await,
        Command::Capture(args) => capture::run(args, shell).await,
        Command::Demo(args) => demo::run(args, shell).await,
        Command::Completions(args) => completions::run(&args, &mut Cli::command()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
