//! What all cases of a system share: components built once by `tolk build`, pushed and activated once in a store that each case gets a copy
//! of, one engine, one HTTP server. Knows stores only by their URLs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use anyhow::{Context as _, bail, ensure};
use sqlx::Connection as _;
use tempfile::TempDir;
use tolk::config::{self, Config};
use tolk::endpoint::pace::Pace;
use tolk::endpoint::{self, Endpoints, Outside};
use tolk::registry;
use tolk::runtime::{self, Runtime};
use tolk::store::{self, Activation, Clock, Store};

use crate::services;
use crate::stubs::Remote;

/// The program under test: what builds components, and compiles them in a child process.
const TOLK: &str = env!("CARGO_BIN_EXE_tolk");

/// Where the cases' stores are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file each.
    Sqlite,
    /// A database each, on the tests' PostgreSQL.
    Postgres,
}

impl Kind {
    /// `STORE`, SQLite where it is not set.
    pub fn from_environment() -> anyhow::Result<Self> {
        match std::env::var("STORE").ok().filter(|store| !store.is_empty()).as_deref() {
            None | Some("sqlite") => Ok(Self::Sqlite),
            Some("postgres") => Ok(Self::Postgres),
            Some(other) => bail!("STORE is \"{other}\": write sqlite or postgres"),
        }
    }
}

/// A plugin of a system: the folder of its crate, and the feed and table it is active for.
pub struct Plugin {
    /// From the project's root.
    pub folder: &'static str,
    /// The feed.
    pub feed: &'static str,
    /// The table.
    pub table: &'static str,
    /// Its config.
    pub config: &'static str,
}

/// What the cases of one system are played with.
pub struct Bench {
    /// The engine.
    pub runtime: Arc<Runtime>,
    /// The remote systems.
    pub remote: Remote,
    /// The real endpoints, at the remote systems' address.
    pub endpoints: Arc<Endpoints>,
    kind: Kind,
    config: String,
    folder: TempDir,
    copies: AtomicU32,
}

impl Bench {
    /// Builds the plugins and puts them, active, into the store that cases get copies of.
    pub async fn new(kind: Kind, config: &str, plugins: &[Plugin]) -> anyhow::Result<Self> {
        let folders: Vec<&str> = plugins.iter().map(|plugin| plugin.folder).collect();
        let components = build(&folders)?;
        let engine = runtime::Config { compiler: Some(PathBuf::from(TOLK)), ..runtime::Config::default() };
        let (runtime, remote) = (Runtime::new(&engine)?, Remote::start().await);
        let folder = TempDir::new()?;
        let copies = AtomicU32::new(0);
        let mut bench =
            Self { runtime, remote, endpoints: Arc::new(Endpoints::new(&[].into())?), kind, config: config.to_owned(), folder, copies };
        let url = bench.template_url();
        if kind == Kind::Postgres {
            create_database(&url, None).await?;
        }
        let config = bench.config_of(&url)?;
        bench.endpoints = bench.endpoints_of(&config.endpoints)?;
        let store = store::open(&config.store, Clock::Fixed(Arc::new(AtomicI64::new(0)))).await?;
        store.migrate().await?;
        bench.fill(&*store, &config, plugins, &components).await?;
        Ok(bench)
    }

    async fn fill(&self, store: &dyn Store, config: &Config, plugins: &[Plugin], components: &[Vec<u8>]) -> anyhow::Result<()> {
        let feeds: Vec<(String, u16)> = config.feeds.iter().map(|(name, feed)| (name.clone(), feed.lanes)).collect();
        store.register(&feeds, &config.targets.keys().cloned().collect::<Vec<_>>()).await?;
        for (plugin, component) in plugins.iter().zip(components) {
            let pushed = registry::push(store, &self.runtime, component, "acceptance").await?;
            let activation = Activation {
                id: 0,
                feed: plugin.feed.to_owned(),
                table: plugin.table.to_owned(),
                digest: pushed.digest.parse().map_err(anyhow::Error::msg)?,
                config: plugin.config.to_owned(),
                at_ms: 0,
                by: "acceptance".to_owned(),
                why: "the cases play it".to_owned(),
            };
            registry::activate(store, &activation).await?;
        }
        Ok(())
    }

    /// A store of its own for a case, with what every case needs in it, and the config that names it.
    pub async fn open(&self, clock: Arc<AtomicI64>) -> anyhow::Result<(Arc<dyn Store>, Config)> {
        let number = self.copies.fetch_add(1, Ordering::Relaxed);
        let url = match self.kind {
            Kind::Sqlite => {
                let copy = self.folder.path().join(format!("case-{number}.db"));
                for entry in std::fs::read_dir(self.folder.path())? {
                    let name = entry?.file_name().to_string_lossy().into_owned();
                    if let Some(rest) = name.strip_prefix("template.db").filter(|rest| *rest != ".lock") {
                        std::fs::copy(self.folder.path().join(&name), format!("{}{rest}", copy.display()))?;
                    }
                }
                format!("sqlite://{}", copy.display())
            }
            Kind::Postgres => {
                let url = database_url(&format!("tolk_case_{}_{number}", std::process::id()));
                create_database(&url, Some(&self.template_url())).await?;
                url
            }
        };
        let config = self.config_of(&url)?;
        Ok((store::open(&config.store, Clock::Fixed(clock)).await?, config))
    }

    /// Removes the copy that a config names.
    pub async fn close(&self, config: &Config) -> anyhow::Result<()> {
        match self.kind {
            Kind::Sqlite => {
                let path = config.store.url.trim_start_matches("sqlite://");
                for rest in ["", "-wal", "-shm", ".lock"] {
                    match std::fs::remove_file(format!("{path}{rest}")) {
                        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                        _ => {}
                    }
                }
                Ok(())
            }
            Kind::Postgres => drop_database(&config.store.url).await,
        }
    }

    /// Removes what outlives the process.
    pub async fn end(&self) -> anyhow::Result<()> {
        if self.kind == Kind::Postgres { drop_database(&self.template_url()).await } else { Ok(()) }
    }

    /// The settings of the system's endpoints.
    pub fn endpoint_settings(&self) -> anyhow::Result<BTreeMap<String, endpoint::config::Config>> {
        Ok(self.config_of(&self.template_url())?.endpoints)
    }

    /// Endpoints of these settings; nobody waits for their back-off.
    pub fn endpoints_of(&self, settings: &BTreeMap<String, endpoint::config::Config>) -> anyhow::Result<Arc<Endpoints>> {
        let outside = Outside { pace: Pace::Ahead(Arc::default()), ..Outside::default() };
        Ok(Arc::new(Endpoints::with(settings, &outside)?))
    }

    fn template_url(&self) -> String {
        match self.kind {
            Kind::Sqlite => format!("sqlite://{}", self.folder.path().join("template.db").display()),
            Kind::Postgres => database_url(&format!("tolk_template_{}", std::process::id())),
        }
    }

    fn config_of(&self, store_url: &str) -> anyhow::Result<Config> {
        let environment = |name: &str| match name {
            "STORE_URL" => Some(store_url.to_owned()),
            "REMOTE_URL" => Some(self.remote.url()),
            _ => None,
        };
        Ok(config::load::parse(&self.config, Path::new("acceptance.toml"), &environment)?)
    }
}

/// Builds plugins with `tolk build`; their components in the order of the folders.
pub fn build(folders: &[&str]) -> anyhow::Result<Vec<Vec<u8>>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(TOLK);
    command.arg("build").args(folders.iter().map(|folder| root.join(folder))).stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("run {TOLK}"))?;
    ensure!(output.status.success(), "`tolk build {}` failed: see above", folders.join(" "));
    let text = String::from_utf8(output.stdout)?;
    let paths: Vec<&str> = text.lines().filter_map(|line| line.split("  sha256:").next()).collect();
    ensure!(paths.len() == folders.len(), "`tolk build` names {} components for {} folders", paths.len(), folders.len());
    paths.iter().map(|path| std::fs::read(path).with_context(|| format!("read {path}"))).collect()
}

// ---------------------------------------------------------------- PostgreSQL's databases

fn database_url(name: &str) -> String {
    with_database(services::postgres_url(), name)
}

/// The same server, another database.
fn with_database(url: &str, name: &str) -> String {
    let (place, query) = url.split_once('?').map_or((url, None), |(place, query)| (place, Some(query)));
    let authority = place.find("://").map_or(0, |at| at + 3);
    let end = place[authority..].find('/').map_or(place.len(), |at| authority + at);
    format!("{}/{name}{}", &place[..end], query.map(|query| format!("?{query}")).unwrap_or_default())
}

fn database_of(url: &str) -> &str {
    let place = url.split_once('?').map_or(url, |(place, _)| place);
    place.rsplit_once('/').map_or("", |(_, name)| name)
}

/// Makes a case's store refuse rows of the inbox, by a trigger in the database itself, or take them again.
pub async fn break_inbox(config: &store::Config, broken: bool) -> anyhow::Result<()> {
    if config.url.starts_with("sqlite") {
        let mut file = sqlx::SqliteConnection::connect(&config.url).await?;
        let sql = match broken {
            true => "CREATE TRIGGER broken BEFORE INSERT ON inbox BEGIN SELECT RAISE(ABORT, 'broken by the case'); END",
            false => "DROP TRIGGER broken",
        };
        sqlx::query(sql).execute(&mut file).await?;
        return Ok(file.close().await?);
    }
    let mut server = sqlx::PgConnection::connect(&config.url).await?;
    let inbox = format!("{}.inbox", config.schema);
    let statements = match broken {
        true => vec![
            "CREATE OR REPLACE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'broken by the case'; END $$"
                .to_owned(),
            format!("CREATE TRIGGER broken BEFORE INSERT ON {inbox} FOR EACH ROW EXECUTE FUNCTION broken()"),
        ],
        false => vec![format!("DROP TRIGGER broken ON {inbox}")],
    };
    for statement in statements {
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut server).await?;
    }
    Ok(server.close().await?)
}

async fn create_database(url: &str, template: Option<&str>) -> anyhow::Result<()> {
    let mut server = sqlx::PgConnection::connect(services::postgres_url()).await?;
    let mut statement = format!("CREATE DATABASE {}", database_of(url));
    if let Some(template) = template.map(database_of) {
        // A template may have no visitors; a pool that was just dropped may still be on its way out.
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
        sqlx::query(end).bind(template).execute(&mut server).await?;
        statement.push_str(&format!(" TEMPLATE {template}"));
    }
    sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut server).await?;
    server.close().await?;
    Ok(())
}

async fn drop_database(url: &str) -> anyhow::Result<()> {
    let mut server = sqlx::PgConnection::connect(services::postgres_url()).await?;
    let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", database_of(url));
    sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut server).await?;
    server.close().await?;
    Ok(())
}
