//! `tolk rollback`: moves the pointer of a feed and table back to what was active before. Nothing is compiled for it.

use crate::cli::Exit;
use crate::cli::activate::{self, Place, Switch};
use crate::cli::shell::{Shell, Stop};
use crate::cli::{messages, plugins};

/// Arguments of `tolk rollback`.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    switch: Switch,
}

pub(super) async fn run(mut args: Args, shell: &Shell) -> anyhow::Result<Exit> {
    let config = shell.config()?;
    messages::known_feed(&config, &args.place.feed)?;
    let store = shell.store(&config).await?;
    let Place { feed, table } = &args.place;
    let history = store.activations(Some(feed), Some(table)).await?;
    let before = history.split_first().and_then(|(current, earlier)| {
        earlier
            .iter()
            .find(|activation| (activation.digest, &activation.config) != (current.digest, &current.config))
            .map(|before| (current, before))
    });
    let Some((current, before)) = before else {
        let text = format!("roll back {feed}/{table}: nothing else was active before");
        return Err(Stop::usage(text).next("look at `tolk plugins --history`").into());
    };
    let components = store.components().await?;
    let Some(component) = components.iter().find(|component| component.digest == before.digest) else {
        return Err(Stop::environment(format!("find plugin {}, which was active before", before.digest.short())).into());
    };
    if args.switch.why.is_empty() {
        args.switch.why = format!("rollback from {} (activation {})", plugins::label(&components, current.digest), current.id);
    }
    activate::switch(shell, &*store, &components, component, &args.place, before.config.clone(), &args.switch).await
}
