//! Sentry as the tracker of this process's runs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::join_all;
use reqwest::Client;
use sentry_types::protocol::v7::{Envelope, MonitorCheckInStatus as Status};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use crate::monitor::{self, Moment};
use crate::target::{Target, Variables};
use crate::{event, send};
use pgkeep_core::clock::Clock;
use pgkeep_core::lock::host_name;
use pgkeep_core::log::Secrets;
use pgkeep_core::stop::Stop;
use pgkeep_core::tracker::{Place, Tracked, Tracker};
use pgkeep_model::config::Config;
use pgkeep_model::failure::{Failure, Kind};

/// How long the end of a run may wait for Sentry.
const LIMIT: Duration = Duration::from_secs(2);

/// How long it may, shortly after Sentry did not answer: a run over many databases must not wait for each.
const LIMIT_WHEN_GONE: Duration = Duration::from_millis(250);

/// How long a Sentry that did not answer is taken to be gone.
const GONE_FOR: Duration = Duration::from_secs(60);

/// How long the begin of a run may be under way, which nothing waits for.
const BEGIN_LIMIT: Duration = Duration::from_secs(10);

/// How long after a wish to stop something is still sent; the process has ten seconds for all.
const STOPPED_LIMIT: Duration = Duration::from_secs(8);

/// How long a test may take.
const TEST_LIMIT: Duration = Duration::from_secs(9);

/// Tells Sentry of runs. Until a configuration is read, what the environment says counts alone.
pub struct Sentry {
    secrets: Secrets,
    clock: Arc<dyn Clock>,
    host: String,
    variables: Variables,
    /// What this process alone has, for check-ins of runs that know no slot.
    nonce: String,
    target: Mutex<Arc<Result<Option<Target>, String>>>,
    client: OnceLock<Result<Client, String>>,
    /// Check-ins of begins under way, by database and verb. They end by their limit, or with the end of their run.
    begins: Mutex<HashMap<(String, String), AbortOnDropHandle<()>>>,
    gone_since: Mutex<Option<Instant>>,
    heard: AtomicBool,
}

/// Nothing here is ever left half changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sentry {
    /// Goes by the environment until [`Sentry::configure`] is called. What `secrets` knows when something is sent is
    /// taken out of it.
    pub fn new(secrets: Secrets, clock: Arc<dyn Clock>, variables: Variables) -> Self {
        Self {
            secrets,
            host: host_name(),
            nonce: clock.hex(16),
            clock,
            target: Mutex::new(Arc::new(Target::new(None, &variables))),
            variables,
            client: OnceLock::new(),
            begins: Mutex::default(),
            gone_since: Mutex::default(),
            heard: AtomicBool::new(false),
        }
    }

    /// Goes by a configuration from now on.
    pub fn configure(&self, config: &Config) {
        *locked(&self.target) = Arc::new(Target::new(Some(config), &self.variables));
    }

    fn target(&self) -> Arc<Result<Option<Target>, String>> {
        Arc::clone(&locked(&self.target))
    }

    fn client(&self) -> Result<Client, String> {
        self.client.get_or_init(|| send::client(LIMIT)).clone()
    }

    /// Makes the check-in of a run; none where no schedule of the configuration wants it.
    fn check_in(&self, run: &Tracked<'_>, status: Status, target: &Target) -> Option<Envelope> {
        let database = run.database.filter(|_| run.is_scheduled)?;
        let found = target.monitor(database, run.verb)?;
        let moment = match run.slot {
            Some(slot) => Moment::Slot(slot),
            None => Moment::Process(&self.nonce),
        };
        let environment = target.environment.as_deref();
        let check_in = monitor::check_in(database, run.verb, &moment, status, environment, found);
        let mut envelope = Envelope::new();
        envelope.add_item(check_in);
        Some(envelope)
    }

    fn limit(&self) -> Duration {
        let since = *locked(&self.gone_since);
        if since.is_some_and(|since| since.elapsed() < GONE_FOR) {
            LIMIT_WHEN_GONE
        } else {
            LIMIT
        }
    }

    /// Says what did not arrive, in the log alone: a run is as good without.
    fn note(&self, sent: Result<(), String>) {
        *locked(&self.gone_since) = sent.is_err().then(Instant::now);
        if let Err(why) = sent {
            let why = self.secrets.redacted(&why);
            tracing::warn!(target: "pgkeep", "Sentry did not hear of this run: {why}");
        }
    }
}

fn key(run: &Tracked<'_>) -> (String, String) {
    let database = run.database.unwrap_or_default().to_owned();
    (database, run.verb.to_owned())
}

#[async_trait]
impl Tracker for Sentry {
    fn begun(&self, run: &Tracked<'_>) {
        let target = self.target();
        let Ok(Some(to)) = target.as_ref() else {
            return;
        };
        let Some(envelope) = self.check_in(run, Status::InProgress, to) else {
            return;
        };
        let (client, dsn) = (self.client(), to.dsn.clone());
        // It ends by its limit, or when its run ends. Whether Sentry can be reached is told by the end of the run.
        let task = tokio::spawn(
            async move {
                let Ok(client) = client else { return };
                let sending = send::send(&client, &dsn, &envelope);
                if let Ok(Err(why)) = tokio::time::timeout(BEGIN_LIMIT, sending).await {
                    tracing::info!(target: "pgkeep", "Sentry did not hear of the begin of this run: {why}");
                }
            }
            .in_current_span(),
        );
        locked(&self.begins).insert(key(run), AbortOnDropHandle::new(task));
    }

    async fn ended(&self, run: &Tracked<'_>, failure: Option<&Failure>, stop: &Stop) {
        if failure.is_some() {
            self.heard.store(true, Ordering::Relaxed);
        }
        let begin = locked(&self.begins).remove(&key(run));
        let target = self.target();
        let Ok(Some(to)) = target.as_ref() else {
            return;
        };
        let event = failure.map(|failure| {
            let now = self.clock.now();
            Envelope::from(event::of(run, failure, to, &self.host, &self.secrets, now))
        });
        let status = match failure {
            Some(failure) if failure.kind != Kind::AfterGood => Status::Error,
            _ => Status::Ok,
        };
        let check_in = self.check_in(run, status, to);
        let envelopes: Vec<Envelope> = event.into_iter().chain(check_in).collect();
        if envelopes.is_empty() {
            return;
        }
        let sending = async {
            // Overtaken, a begin would open again what the end closed.
            if let Some(begin) = begin {
                let _ = begin.await;
            }
            let client = self.client()?;
            let all = envelopes
                .iter()
                .map(|one| send::send(&client, &to.dsn, one));
            join_all(all).await.into_iter().collect()
        };
        let limit = self.limit();
        let sent = tokio::select! {
            // What arrived counts, also at the last moment.
            biased;
            sent = sending => sent,
            () = tokio::time::sleep(limit) => Err(format!("it did not answer within {} ms", limit.as_millis())),
            () = stop.overdue(STOPPED_LIMIT) => Err("there was no time left after the request to stop".to_owned()),
        };
        self.note(sent);
    }

    fn heard_of_failure(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }

    fn place(&self) -> Place {
        match self.target().as_ref() {
            Err(why) => Place::Bad(why.clone()),
            Ok(None) => Place::Nowhere,
            Ok(Some(target)) => Place::At(target.label()),
        }
    }

    async fn test(&self) -> Result<(), String> {
        let target = self.target();
        let to = match target.as_ref() {
            Ok(Some(to)) => to,
            Ok(None) => return Err("nothing says where to".to_owned()),
            Err(why) => return Err(why.clone()),
        };
        let envelope = Envelope::from(event::test(to, &self.host, self.clock.now()));
        let client = self.client()?;
        let sending = send::send(&client, &to.dsn, &envelope);
        let too_late = || format!("it did not answer within {} s", TEST_LIMIT.as_secs());
        let sent = tokio::time::timeout(TEST_LIMIT, sending)
            .await
            .unwrap_or_else(|_| Err(too_late()));
        sent.map_err(|why| self.secrets.redacted(&why).into_owned())
    }
}
