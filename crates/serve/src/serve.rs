//! `serve`: from the configuration to a server that answers, and its clean end.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::app::{App, Settings, Shared};
use crate::auth::{Auth, Role, Secret};
use crate::plans::Plans;
use crate::proxies::Proxies;
use crate::runs::{Limits, Runs};
use crate::scheduler::{self, Heart};
use crate::server;
use crate::stale;
use crate::tasks::{Task, first_end};
use crate::watcher;
use pgkeep_core::context::Context;
use pgkeep_core::setup::{Setup, StorageOverrides};
use pgkeep_core::stop::Stop;
use pgkeep_model::config::{Config, ServerConfig, ServerRole};
use pgkeep_model::connection::Connection;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::id::DatabaseName;

/// How long a run that is made to end may take: it removes what it began, and leaves its record.
const ENDING: Duration = Duration::from_secs(5);

/// Fewer characters of a token can be guessed.
const MIN_TOKEN: usize = 16;

/// What somebody wants otherwise than the configuration says.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Address and port to listen on.
    pub listen: Option<String>,
    /// Path that the page begins at.
    pub base_path: Option<String>,
    /// Start and change nothing, whatever is scheduled or asked for.
    pub is_watch_only: bool,
}

/// Serves until a stop is asked for; `told` is handed the address once it listens.
///
/// A server that others could reach and that knows no token is refused.
pub async fn run(
    options: &Options,
    setup: &Setup,
    context: &Context,
    told: impl FnOnce(&str),
) -> Result<()> {
    let config = setup.config_or_fail()?.clone();
    let server = &config.server;
    let (settings, auth) = (settings(options, server)?, auth(server)?);
    let listen = options.listen.as_deref().unwrap_or(&server.listen);
    let address = resolved(listen).await?;
    if auth.is_open() && !address.ip().is_loopback() {
        let message = format!(
            "cannot listen on {address}: others could reach it, and the configuration has no token"
        );
        return Err(Failure::new(Kind::Usage, "tokens_needed", message)
            .hint("`server.tokens` names who may do what; `--listen 127.0.0.1:8080` needs none"));
    }
    let listener = TcpListener::bind(address).await.map_err(|error| {
        let message = format!("cannot listen on {address}: {error}");
        Failure::new(Kind::Usage, "cannot_listen", message)
            .hint("another program may listen there; `--listen ADDRESS:PORT` names another place")
    })?;
    // Runs have a wish to stop of their own, so that they may have time to end well.
    let working = Context {
        stop: Stop::default(),
        ..setup.telling(context, &StorageOverrides::default())?
    };
    let limits = Limits {
        all: server.max_parallel as usize,
        per_server: server.max_parallel_per_server as usize,
    };
    let runs = Runs::new(setup.clone(), working.clone(), limits, servers(&config));
    // The server ends where a stop is asked for, and where one of its tasks fails.
    let closing = Stop::default();
    let closed = Context {
        stop: closing.clone(),
        ..context.clone()
    };
    let looking = Context {
        stop: closing.clone(),
        ..working.clone()
    };
    let (refresh, heart) = (Arc::new(Notify::new()), Heart::default());
    let (snapshot, watching) = watcher::start(setup, &looking, &runs, &refresh).await?;
    let base = settings.base.clone();
    let is_watch_only = settings.is_watch_only;
    let app = App::new(Shared {
        settings,
        auth,
        runs: runs.clone(),
        snapshot: snapshot.clone(),
        setup: setup.clone(),
        context: working.clone(),
        streams: CancellationToken::new(),
        refresh: Arc::clone(&refresh),
        heart: heart.clone(),
    });
    let plans = if is_watch_only {
        Plans::default()
    } else {
        Plans::new(&config)
    };
    let schedules = scheduler::run(
        plans,
        runs.clone(),
        snapshot.clone(),
        looking.clone(),
        heart,
    );
    let telling = stale::run(snapshot, looking.clone());
    let mut tasks: [Task; 3] = [
        ("the watcher of storages", watching),
        (
            "the scheduler",
            tokio::spawn(async {
                schedules.await;
                Ok(())
            }),
        ),
        (
            "the sender of notices",
            tokio::spawn(async {
                telling.await;
                Ok(())
            }),
        ),
    ];
    let bound = listener.local_addr().unwrap_or(address);
    told(&format!("http://{bound}{base}/"));
    let grace = server.shutdown_grace.unwrap_or_default();
    let answer = async {
        server::answer(listener, app, &closed).await;
        closing.request(Kind::Terminated); // where a stop was asked for it changes nothing
    };
    let watch = async {
        let lost = tokio::select! {
            () = context.stop.token().cancelled() => None,
            () = closing.token().cancelled() => None,
            failure = first_end(&mut tasks) => Some(failure),
        };
        closing.request(context.stop.kind().unwrap_or(Kind::Terminated));
        lost
    };
    let ((), lost, ()) = tokio::join!(answer, watch, end(&runs, &working.stop, &closed, grace));
    for (_, task) in tasks {
        task.abort();
    }
    lost.map_or(Ok(()), Err)
}

/// Lets runs end when a stop is asked for: by themselves for a while, and then by their own wish to stop.
async fn end(runs: &Runs, stop: &Stop, context: &Context, grace: Duration) {
    context.stop.token().cancelled().await;
    runs.close();
    let _ = timeout(grace, runs.drain()).await; // behind it they are made to end
    stop.request(context.stop.kind().unwrap_or(Kind::Terminated));
    let _ = timeout(ENDING, runs.drain()).await; // what hangs has a lease, which dies
}

async fn resolved(text: &str) -> Result<SocketAddr> {
    let bad = |why: String| {
        Failure::new(
            Kind::Usage,
            "bad_listen",
            format!("cannot listen on `{text}`: {why}"),
        )
        .hint("an address and a port, such as `127.0.0.1:8080`")
    };
    let mut found = tokio::net::lookup_host(text)
        .await
        .map_err(|error| bad(error.to_string()))?;
    found
        .next()
        .ok_or_else(|| bad("it has no address".to_owned()))
}

fn settings(options: &Options, server: &ServerConfig) -> Result<Settings> {
    let path = options.base_path.as_deref().unwrap_or(&server.base_path);
    let base = path.trim_end_matches('/');
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/-_.~".contains(c);
    let is_path = base.is_empty() || base.starts_with('/');
    // Behind two slashes a browser reads the name of a host.
    if !is_path || base.contains("//") || !base.chars().all(is_plain) {
        let message = format!("`{path}` is no path that a page can begin at");
        return Err(Failure::new(Kind::Usage, "bad_base_path", message)
            .hint("letters, digits, `-`, `_` and `/`, such as `/backups`"));
    }
    Ok(Settings {
        base: base.to_owned(),
        is_watch_only: options.is_watch_only,
        proxies: Proxies::new(server.trusted_proxies.clone()),
        cron_secret: server.cron.secret.as_ref().map(Secret::new),
        is_query_secret_allowed: server.cron.allow_query_secret,
        is_body_secret_allowed: server.cron.allow_body_secret,
        min_interval: server.cron.min_interval,
        view_key: server.view_key.as_ref().map(Secret::new),
    })
}

/// Takes the tokens. A short one can be guessed, and so can a short secret of the cron route or of the wall view.
fn auth(server: &ServerConfig) -> Result<Auth> {
    let length = |token: &SecretString| token.expose_secret().chars().count();
    let named = server
        .tokens
        .iter()
        .map(|token| (format!("token `{}`", token.name), &token.token));
    let others = [
        ("`server.cron.secret`", &server.cron.secret),
        ("`server.view_key`", &server.view_key),
    ];
    let given = others
        .into_iter()
        .filter_map(|(name, secret)| Some((name.to_owned(), secret.as_ref()?)));
    if let Some((name, _)) = named
        .chain(given)
        .find(|(_, secret)| length(secret) < MIN_TOKEN)
    {
        let message = format!("{name} has fewer than {MIN_TOKEN} characters, and can be guessed");
        return Err(Failure::new(Kind::Usage, "short_token", message)
            .hint("`openssl rand -hex 32` prints a good one"));
    }
    let tokens = server.tokens.iter().map(|token| {
        let role = match token.role {
            ServerRole::Read => Role::Read,
            ServerRole::Operate => Role::Operate,
            ServerRole::Restore => Role::Restore,
        };
        (token.name.clone(), role, token.token.clone())
    });
    Ok(Auth::new(tokens))
}

/// Returns on which server each database is, so that few runs are on one at once. One that nobody can name is alone.
fn servers(config: &Config) -> HashMap<DatabaseName, String> {
    let of = |name: &DatabaseName, connection: Option<Connection>| {
        let hosts = connection
            .as_ref()
            .map(|found| format!("{:?}", found.hosts()));
        (name.clone(), hosts.unwrap_or_else(|| name.to_string()))
    };
    let all = config.databases.iter();
    all.map(|(name, database)| of(name, pgkeep_core::setup::connection_of(database)))
        .collect()
}
