//! `tolk deliveries`: how they stand and whether they are well; and orders to them: order, bind, stop, invalidate, rerun.

mod view;

use crate::cli::Exit;
use crate::cli::listing::{self, Format};
use crate::cli::messages::known_feed;
use crate::cli::shell::{self, Shell, Stop};
use crate::config::Config;
use crate::delivery::{self, Rules, health};
use crate::message::FeedId;
use crate::store::{By, Done, Ordered, Store};
use view::{Row, Whole};

/// Arguments of `tolk deliveries`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    list: List,
}

#[derive(clap::Subcommand)]
enum What {
    /// List deliveries, newest order first
    List(List),
    /// Show one with the account of its parts and what was asked of it
    Show(One),
    /// Order a delivery; the owner of the feed makes the call
    Order(Order),
    /// Give an order in doubt its id
    Bind(Bind),
    /// Set its open parts aside
    Stop(Told),
    /// Make it invalid as a whole, or give up its order
    Invalidate(Told),
    /// Let its failed parts begin anew
    Rerun(Told),
    /// Tell whether each feed's deliveries are well; exit code 1 where one is not
    Health(Format),
}

#[derive(clap::Args)]
struct List {
    /// Only of this feed
    #[arg(long)]
    feed: Option<String>,
    /// Deliveries at most, of each feed
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..=100_000))]
    limit: i64,
    #[command(flatten)]
    format: Format,
}

#[derive(clap::Args)]
struct One {
    /// Its number, or its id
    delivery: String,
    #[command(flatten)]
    format: Format,
}

/// Who orders something, and why.
#[derive(clap::Args)]
struct Person {
    /// Why, for the audit trail
    #[arg(long)]
    reason: String,
    /// Who orders it; default: the user of this process
    #[arg(long)]
    by: Option<String>,
}

impl Person {
    fn by(&self) -> By {
        By { whom: shell::who(self.by.clone()), why: self.reason.clone() }
    }
}

#[derive(clap::Args)]
struct Order {
    /// The feed
    #[arg(long)]
    feed: String,
    /// A parameter, such as `year=2024`; may be given several times
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = pair)]
    params: Vec<(String, String)>,
    /// Although an order with the same parameters is open
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    person: Person,
}

#[derive(clap::Args)]
struct Bind {
    /// Its number
    delivery: String,
    /// The id that the remote system gave it
    id: String,
    #[command(flatten)]
    person: Person,
}

#[derive(clap::Args)]
struct Told {
    /// Its number, or its id
    delivery: String,
    #[command(flatten)]
    person: Person,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(super) async fn run(args: Args, shell: &Shell) -> anyhow::Result<Exit> {
    let config = shell.config()?;
    let store = shell.store(&config).await?;
    let at = At { config: &config, store: &*store, shell };
    match args.what {
        None => at.list(&args.list).await,
        Some(What::List(list)) => at.list(&list).await,
        Some(What::Show(one)) => at.show(&one).await,
        Some(What::Order(order)) => at.order(&order).await,
        Some(What::Bind(bind)) => at.bind(&bind).await,
        Some(What::Stop(told)) => {
            let number = at.number(&told.delivery).await?;
            at.say(store.stop_delivery(number, &told.person.by()).await?, number, "are asked to stop")
        }
        Some(What::Invalidate(told)) => {
            let number = at.number(&told.delivery).await?;
            at.say(store.invalidate_delivery(number, &told.person.by()).await?, number, "are not translated")
        }
        Some(What::Rerun(told)) => {
            let number = at.number(&told.delivery).await?;
            at.say(store.rerun_delivery(number, &told.person.by()).await?, number, "begin anew")
        }
        Some(What::Health(format)) => at.health(&format).await,
    }
}

struct At<'a> {
    config: &'a Config,
    store: &'a dyn Store,
    shell: &'a Shell,
}

impl At<'_> {
    /// The feeds that have deliveries, or the one given.
    async fn feeds(&self, only: Option<&str>) -> anyhow::Result<Vec<(String, FeedId, &delivery::Config)>> {
        if let Some(feed) = only {
            known_feed(self.config, feed)?;
        }
        let mut feeds = Vec::new();
        for (name, feed) in &self.config.feeds {
            let Some(delivery) = feed.delivery.as_ref().filter(|_| only.is_none_or(|only| only == name)) else { continue };
            let id = self.store.register(&[(name.clone(), feed.lanes)], &[]).await?[0].0;
            feeds.push((name.clone(), id, delivery));
        }
        if feeds.is_empty() {
            return Err(Stop::usage("find a feed with deliveries in the config").next("add [feeds.NAME.delivery]").into());
        }
        Ok(feeds)
    }

    /// The number of a delivery that is named by its number or id.
    async fn number(&self, named: &str) -> anyhow::Result<i64> {
        if let Ok(number) = named.parse()
            && let Some(found) = self.store.delivery(number).await?
        {
            return Ok(found.number);
        }
        for (_, feed, _) in self.feeds(None).await? {
            if let Some(found) = self.store.delivery_by_id(feed, named).await? {
                return Ok(found.number);
            }
        }
        Err(Stop::usage(format!("find the delivery \"{named}\"")).next("`tolk deliveries` lists them").into())
    }

    async fn list(&self, list: &List) -> anyhow::Result<Exit> {
        let mut rows = Vec::new();
        for (name, feed, _) in self.feeds(list.feed.as_deref()).await? {
            for delivery in self.store.deliveries(feed, list.limit).await? {
                rows.push(Row::new(&name, &delivery));
            }
        }
        listing::print(self.shell, &list.format, &rows, view::COLUMNS, Row::cells, "no deliveries")?;
        Ok(Exit::Ok)
    }

    async fn show(&self, one: &One) -> anyhow::Result<Exit> {
        let number = self.number(&one.delivery).await?;
        let (Some(delivery), Some(account)) = (self.store.delivery(number).await?, self.store.delivery_account(number).await?) else {
            return Err(Stop::usage(format!("find delivery {number}")).into());
        };
        let feed = self.feeds(None).await?.into_iter().find(|(_, id, _)| *id == delivery.feed).map(|(name, ..)| name);
        let adds_up = account.adds_up();
        let whole = Whole {
            delivery: Row::new(&feed.unwrap_or_default(), &delivery),
            account,
            adds_up,
            audit: self.store.delivery_audit(number).await?,
        };
        match one.format.output {
            listing::Output::Json => listing::json(self.shell, &whole)?,
            listing::Output::Table => self.shell.say(whole.text())?,
        }
        Ok(if adds_up { Exit::Ok } else { Exit::Findings })
    }

    async fn order(&self, order: &Order) -> anyhow::Result<Exit> {
        let feeds = self.feeds(Some(&order.feed)).await?;
        let (name, feed, config) = &feeds[0];
        let Some(settings) = &config.order else {
            return Err(Stop::usage(format!("order a delivery of feed \"{name}\": it has no [feeds.{name}.delivery.order]")).into());
        };
        if let Some(missing) = settings.params.iter().find(|wanted| !order.params.iter().any(|(name, _)| name == *wanted)) {
            return Err(Stop::usage(format!("order a delivery without the parameter \"{missing}\"")).next("add --param").into());
        }
        match self.store.order_delivery(*feed, &order.params, &order.person.by(), order.force).await? {
            Ordered::Placed(number) => self.shell.say(number)?,
            Ordered::Open(other) => {
                let text = format!("order it: delivery {other} is ordered with the same parameters and not over");
                return Err(Stop::refused(text).next(format!("look at it: `tolk deliveries show {other}`; or --force")).into());
            }
        }
        Ok(Exit::Ok)
    }

    async fn bind(&self, bind: &Bind) -> anyhow::Result<Exit> {
        let number = self.number(&bind.delivery).await?;
        let found = self.store.delivery(number).await?;
        let feeds = self.feeds(None).await?;
        let of = feeds.iter().find(|(_, id, _)| found.as_ref().is_some_and(|found| found.feed == *id));
        let (.., config) = of.ok_or_else(|| Stop::usage(format!("find the feed of delivery {number} in the config")))?;
        let id = delivery::id_of(config, &bind.id).ok_or_else(|| Stop::usage(format!("take \"{}\" for a delivery's id", bind.id)))?;
        self.say(self.store.bind_delivery(number, &id, &Rules::of(config), &bind.person.by()).await?, number, "came before")
    }

    /// What became of an order to a delivery.
    fn say(&self, done: Done, number: i64, what: &str) -> anyhow::Result<Exit> {
        match done {
            Done::Parts(parts) => self.shell.say(format_args!("delivery {number}: {parts} parts {what}"))?,
            Done::Refused(state) => return Err(Stop::refused(format!("do that: delivery {number} is {state}")).into()),
            Done::Unknown => return Err(Stop::usage(format!("find delivery {number}")).into()),
        }
        Ok(Exit::Ok)
    }

    async fn health(&self, format: &Format) -> anyhow::Result<Exit> {
        let (mut rows, mut well) = (Vec::new(), true);
        for (name, feed, config) in self.feeds(None).await? {
            let code = health_of(self.store, feed, config).await?;
            well &= code == health::Code::Ok;
            rows.push(view::Health { feed: name, code });
        }
        let cells = |row: &view::Health| vec![row.feed.clone(), row.code.as_str().to_owned()];
        listing::print(self.shell, format, &rows, &["feed", "deliveries"], cells, "no feed has deliveries")?;
        Ok(if well { Exit::Ok } else { Exit::Findings })
    }
}

/// How a feed's deliveries are, by the store's clock.
async fn health_of(store: &dyn Store, feed: FeedId, config: &delivery::Config) -> crate::store::Result<health::Code> {
    use crate::delivery::State;
    let all = store.deliveries(feed, 1_000).await?;
    let unclear = all.iter().filter(|delivery| delivery.tally.state == State::Unclear).count();
    let newest = all.iter().find(|delivery| !matches!(delivery.tally.state, State::Invalid | State::Refused | State::Unbound));
    let done = match newest {
        Some(newest) => store.delivery_account(newest.number).await?.map_or(0, |account| account.handled + account.finished),
        None => 0,
    };
    let newest = newest.map(|newest| health::Newest { tally: &newest.tally, opened_ms: newest.opened_ms, done });
    let (failed, now_ms) = (store.delivery_failures(feed).await?, store.now_ms().await?);
    Ok(health::health(&config.health, newest, unclear, failed, now_ms))
}
