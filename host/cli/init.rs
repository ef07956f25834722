//! `tolk init`: writes a commented, working config. Its parts are the TOML files beside this one.

use std::fs::OpenOptions;
use std::io::{self, Write as _};

use crate::cli::Exit;
use crate::cli::shell::{Shell, Stop};

/// Arguments of `tolk init`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Keep the data in PostgreSQL; default: an SQLite file
    #[arg(long)]
    postgres: bool,
    /// Read from and write to Kafka; default: files
    #[arg(long)]
    kafka: bool,
}

const HEAD: &str = include_str!("init/head.toml");
const SQLITE: &str = include_str!("init/store-sqlite.toml");
const POSTGRES: &str = include_str!("init/store-postgres.toml");
const KAFKA: &str = include_str!("init/path-kafka.toml");
const FILES: &str = include_str!("init/path-files.toml");
const FEED: &str = include_str!("init/feed.toml");
const REST: &str = include_str!("init/rest.toml");

pub(super) fn run(args: Args, shell: &Shell) -> anyhow::Result<Exit> {
    let path = &shell.config_path;
    let name = path.display();
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            let stop = Stop::usage(format!("write the config {name}: the file exists already, and init never overwrites"));
            anyhow::Error::new(stop.next("edit it, or name another with --config FILE"))
        }
        _ => anyhow::Error::new(error).context(format!("write the config {name}")),
    })?;
    file.write_all(text(&args).as_bytes())?;
    file.sync_all()?;
    shell.note(format_args!("wrote {name}; read it through, then:"));
    shell.note("  tolk doctor              what is missing on this machine");
    shell.note("  tolk migrate             make the tables");
    shell.note("  tolk new my-translator   write a plugin, then build, push and activate it");
    shell.note("  tolk run                 start to consume");
    Ok(Exit::Ok)
}

fn text(args: &Args) -> String {
    let store = if args.postgres { POSTGRES } else { SQLITE };
    let path = if args.kafka { KAFKA } else { FILES };
    [HEAD, store, path, FEED, REST].join("\n")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::load::parse;

    fn all() -> impl Iterator<Item = String> {
        [(false, false), (false, true), (true, false), (true, true)].into_iter().map(|(postgres, kafka)| text(&Args { postgres, kafka }))
    }

    #[test]
    fn every_variant_is_a_valid_config() {
        for text in all() {
            parse(&text, Path::new("tolk.toml"), &|_| None).unwrap();
        }
    }

    #[test]
    fn what_is_commented_out_is_valid_too() {
        for text in all() {
            let whole: String = text
                .lines()
                .map(|line| match line.strip_prefix("#: ") {
                    Some(setting) => format!("{setting}\n"),
                    None => format!("{line}\n"),
                })
                .collect();
            assert_ne!(whole, text);
            let config = parse(&whole, Path::new("tolk.toml"), &|name| (name == "PERSON_TOKEN").then(|| "hush".to_owned())).unwrap();
            assert!(config.endpoints.contains_key("person") && config.limits.contains_key("default"), "{config:?}");
        }
    }
}
