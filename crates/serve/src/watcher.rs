//! Looks at the storages now and then, and makes a [`Snapshot`] of what it finds. Everybody else reads that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::apart::apart;
use crate::history;
use crate::leases::{Leases, unlisted};
use crate::plans::Plans;
use crate::remember::Remembering;
use crate::runs::Runs;
use crate::snapshot::{Drilled, Program, Snapshot};
use pgkeep_core::context::Context;
use pgkeep_core::op::history::Records;
use pgkeep_core::op::status;
use pgkeep_core::op::stored::{Listing, NamedStorage};
use pgkeep_core::setup::{Setup, StorageOverrides, status as request};
use pgkeep_model::config::Config;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::freshness::Freshness;
use pgkeep_model::id::DatabaseName;

/// How often the storages are listed, at most; a listing that takes long is made more seldom.
const LISTING_INTERVAL: Duration = Duration::from_secs(60);

/// The longest pause: what is older than a quarter of an hour starts nothing.
const MAX_INTERVAL: Duration = Duration::from_secs(600);

/// A listing may take this share of the time.
const LISTING_SHARE: u32 = 10;

/// The longest look: one that takes longer hangs.
const LOOK_LIMIT: Duration = Duration::from_secs(900);

/// How long the start waits for the first look. Behind it the server begins, and says that nothing is known yet.
const FIRST_LOOK_LIMIT: Duration = Duration::from_secs(5);

/// How often leases are looked at, and databases judged anew. With the life of a lease, a run that died is told within 90 seconds.
const LEASE_INTERVAL: Duration = Duration::from_secs(10);

/// How soon after a run of our own the storages are listed again.
const SETTLING: Duration = Duration::from_millis(300);

/// How many records are held in all, and of one database at least and at most.
const MAX_RECORDS: usize = 10_000;
const RECORDS_OF_ONE: (usize, usize) = (20, 200);

/// How many notes about drills are read of each database.
const NOTES_READ: usize = 12;

/// How far back missed slots are told.
const MISSED_WITHIN: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Looks at the storages of the configuration again and again until a stop is asked for, and at once where `refresh` says
/// so. Returns what is known, and the task that looks.
///
/// It waits for the first look, but not for ever: storages that do not answer hinder no server from saying so.
///
/// All of it is done on one thread: what a look frees is there for the next one, while threads that took turns would each
/// keep as much.
pub async fn start(
    setup: &Setup,
    context: &Context,
    runs: &Runs,
    refresh: &Arc<Notify>,
) -> Result<(watch::Receiver<Arc<Snapshot>>, JoinHandle<Result<()>>)> {
    let (sender, receiver) = oneshot::channel();
    let (setup, context, runs) = (setup.clone(), context.clone(), runs.clone());
    let refresh = Arc::clone(refresh);
    let ended = apart(move || async move {
        let watcher = match Watcher::new(setup, context, runs).await {
            Ok((watcher, snapshots)) => sender.send(Ok(snapshots)).ok().map(|()| watcher),
            Err(failure) => sender.send(Err(failure)).ok().and(None),
        };
        if let Some(watcher) = watcher {
            watcher.run(refresh).await;
        }
    });
    let task = tokio::spawn(ended);
    let made: Result<watch::Receiver<_>> = receiver.await.unwrap_or_else(|_| {
        let message = "the storages were never looked at";
        Err(
            Failure::new(Kind::Unexpected, "operation_panicked", message)
                .hint("this is a defect of pgkeep; the log says where"),
        )
    });
    let mut snapshots = made?;
    let first = snapshots.wait_for(|known| known.failure.as_ref().is_none_or(is_told));
    let _ = timeout(FIRST_LOOK_LIMIT, first).await; // it is told as not known until then
    Ok((snapshots, task))
}

/// Id of what stands for a failure before the first look has ended.
const NOT_LISTED_YET: &str = "not_listed_yet";

fn is_told(failure: &Failure) -> bool {
    failure.id != NOT_LISTED_YET
}

/// Makes snapshots.
struct Watcher {
    setup: Setup,
    context: Context,
    config: Arc<Config>,
    storages: Vec<NamedStorage>,
    plans: Plans,
    runs: Runs,
    programs: Arc<Vec<Program>>,
    known: Known,
    sender: watch::Sender<Arc<Snapshot>>,
}

/// What is known of looks before.
struct Known {
    leases: Leases,
    records: Records,
}

impl Watcher {
    /// Opens the storages of the configuration, which asks none of them.
    async fn new(
        setup: Setup,
        context: Context,
        runs: Runs,
    ) -> Result<(Self, watch::Receiver<Arc<Snapshot>>)> {
        let config = Arc::new(setup.config_or_fail()?.clone());
        let opened = setup.storages_to_read(&StorageOverrides::default())?;
        let storages: Vec<NamedStorage> = opened
            .into_iter()
            .map(|named| NamedStorage {
                storage: Arc::new(Remembering::new(named.storage)),
                ..named
            })
            .collect();
        let plans = Plans::new(&config);
        let programs = Arc::new(programs(&setup, &context).await);
        let count = config.databases.len().max(1);
        let known = Known {
            leases: Leases::default(),
            records: Records::new((MAX_RECORDS / count).clamp(RECORDS_OF_ONE.0, RECORDS_OF_ONE.1)),
        };
        let look = Look {
            setup: &setup,
            context: &context,
            config: &config,
            storages: &storages,
            plans: &plans,
            runs: &runs,
            programs: &programs,
        };
        let (sender, receiver) = watch::channel(Arc::new(look.at_nothing().await?));
        let watcher = Self {
            setup,
            context,
            config,
            storages,
            plans,
            runs,
            programs,
            known,
            sender,
        };
        Ok((watcher, receiver))
    }

    /// Looks again and again until a stop is asked for.
    async fn run(mut self, refresh: Arc<Notify>) {
        let mut pause = self.look_at_all().await;
        let mut listed = Instant::now();
        loop {
            let is_forced = tokio::select! {
                () = self.context.stop.token().cancelled() => return,
                () = refresh.notified() => true,
                () = self.runs.ended() => true,
                () = tokio::time::sleep(LEASE_INTERVAL) => false,
            };
            if is_forced {
                tokio::time::sleep(SETTLING).await;
            }
            if !is_forced && listed.elapsed() < pause {
                self.look_at_leases().await;
                continue;
            }
            pause = self.look_at_all().await;
            listed = Instant::now();
        }
    }

    /// Looks at everything, and returns how long to wait before the next time.
    async fn look_at_all(&mut self) -> Duration {
        let began = Instant::now();
        let look = Look {
            setup: &self.setup,
            context: &self.context,
            config: &self.config,
            storages: &self.storages,
            plans: &self.plans,
            runs: &self.runs,
            programs: &self.programs,
        };
        let looking = timeout(LOOK_LIMIT, look.at_all(&mut self.known));
        tokio::pin!(looking);
        let found = loop {
            tokio::select! {
                found = &mut looking => break found,
                () = self.context.stop.token().cancelled() => return LISTING_INTERVAL,
                () = tokio::time::sleep(LEASE_INTERVAL) => {
                    let now = self.context.clock.now();
                    let last = Arc::clone(&self.sender.borrow());
                    self.sender.send_replace(Arc::new(last.but(|next| next.judge(now))));
                }
            }
        };
        match found.unwrap_or_else(|_| Err(too_long())) {
            Ok(snapshot) => {
                self.sender.send_replace(Arc::new(snapshot));
                let long = began.elapsed() * LISTING_SHARE;
                long.clamp(LISTING_INTERVAL, MAX_INTERVAL)
            }
            Err(failure) => {
                tracing::warn!(
                    id = failure.id,
                    "the storages were not listed: {}",
                    failure.message
                );
                let now = self.context.clock.now();
                let last = Arc::clone(&self.sender.borrow());
                let since = now - MISSED_WITHIN;
                let mut snapshot = last.but(|next| next.failure = Some(failure));
                snapshot.judge(now);
                snapshot.plans = self.plans.told(now);
                snapshot.missed = self.plans.missed(&snapshot, &self.runs, since, now);
                self.sender.send_replace(Arc::new(snapshot));
                LISTING_INTERVAL
            }
        }
    }

    async fn look_at_leases(&mut self) {
        let last = Arc::clone(&self.sender.borrow());
        let now = self.context.clock.now();
        let leases = &mut self.known.leases;
        let held = leases.held(&last.listing, unlisted(&last, now), now).await;
        let mut snapshot = last.but(|next| next.held = held);
        snapshot.judge(now);
        self.sender.send_replace(Arc::new(snapshot));
    }
}

/// One look at everything.
struct Look<'a> {
    setup: &'a Setup,
    context: &'a Context,
    config: &'a Arc<Config>,
    storages: &'a Vec<NamedStorage>,
    plans: &'a Plans,
    runs: &'a Runs,
    programs: &'a Arc<Vec<Program>>,
}

impl Look<'_> {
    /// Returns what is known before the first look.
    async fn at_nothing(&self) -> Result<Snapshot> {
        let why = "no storage has answered yet";
        let now = self.context.clock.now();
        let listing = Listing::unread(self.storages.clone(), why, now);
        let mut known = Known {
            leases: Leases::default(),
            records: Records::new(1),
        };
        let mut snapshot = self.judged(listing, &mut known, now).await?;
        snapshot.at = Timestamp::UNIX_EPOCH;
        // What no storage was asked for is neither fresh nor stale.
        if let Some(report) = Arc::get_mut(&mut snapshot.report) {
            for status in &mut report.databases {
                status.freshness = Freshness::NotJudged;
            }
        }
        snapshot.judge(now);
        snapshot.failure = Some(Failure::new(Kind::Storage, NOT_LISTED_YET, why));
        Ok(snapshot)
    }

    async fn at_all(&self, known: &mut Known) -> Result<Snapshot> {
        let now = self.context.clock.now();
        let listing = Listing::read(self.storages.clone(), None, now).await?;
        let mut snapshot = self.judged(listing, known, now).await?;
        let unlisted = unlisted(&snapshot, now);
        snapshot.held = known.leases.held(&snapshot.listing, unlisted, now).await;
        let since = now - MISSED_WITHIN;
        snapshot.missed = self.plans.missed(&snapshot, self.runs, since, now);
        Ok(snapshot)
    }

    /// Judges what is listed. Leases and missed slots are not in it yet.
    async fn judged(
        &self,
        listing: Listing,
        known: &mut Known,
        now: Timestamp,
    ) -> Result<Snapshot> {
        let asked = request::request(&request::Overrides::default(), self.setup, now)?;
        let seen = &mut known.records;
        seen.begin();
        let report = status::of(&listing, asked.databases, asked.max_age, now, seen).await;
        let mut records = BTreeMap::new();
        for (name, _) in &self.config.databases {
            records.insert(name.clone(), seen.newest(&listing, name).await.to_vec());
        }
        let mut drills = BTreeMap::new();
        for (name, _) in &self.config.databases {
            drills.insert(name.clone(), passed_drills(&listing, name).await);
        }
        Ok(Snapshot {
            at: now,
            report: Arc::new(report),
            listing: Arc::new(listing),
            records: Arc::new(records),
            held: Vec::new(),
            plans: self.plans.told(now),
            missed: Vec::new(),
            failure: None,
            drills: Arc::new(drills),
            recovery_targets: targets(self.config),
            programs: self.programs.clone(),
            can_open: self
                .storages
                .iter()
                .any(|named| !named.identities.is_empty()),
            config: Arc::clone(self.config),
        })
    }
}

fn too_long() -> Failure {
    let minutes = LOOK_LIMIT.as_secs() / 60;
    let message = format!("the storages were not listed within {minutes} minutes");
    Failure::new(Kind::Storage, "list_timed_out", message)
        .hint("a storage that answers slowly may be put into a configuration of its own")
}

/// Looks which client programs this host has: those that a restore needs.
async fn programs(setup: &Setup, context: &Context) -> Vec<Program> {
    let Ok(search) = setup.search(None) else {
        return Vec::new();
    };
    let found = search
        .find(&setup.program_environment(), context.stop.token())
        .await;
    let newest = found.newest().ok();
    let names = ["psql", "pg_dump"];
    let program = |name: &str| Program {
        name: name.to_owned(),
        version: newest.map(|programs| programs.version.to_string()),
    };
    names.into_iter().map(program).collect()
}

fn targets(config: &Config) -> Arc<BTreeMap<DatabaseName, Duration>> {
    let targets = config
        .databases
        .iter()
        .filter_map(|(name, database)| Some((name.clone(), database.drill.recovery_target?)));
    Arc::new(targets.collect())
}

/// Reads the notes beside the newest backups that were drilled, oldest first.
async fn passed_drills(listing: &Listing, database: &DatabaseName) -> Vec<Drilled> {
    let backups = listing.backups.iter().rev();
    let drilled = backups.filter(|backup| {
        backup.place.id.database() == database && backup.is_drilled() && backup.is_good()
    });
    let mut found = Vec::new();
    for backup in drilled.take(NOTES_READ) {
        if let Some(note) = history::note_of(listing, backup).await {
            found.extend(Drilled::read(&backup.place.id, &note));
        }
    }
    found.sort_by_key(|drill| drill.passed_at);
    found
}
