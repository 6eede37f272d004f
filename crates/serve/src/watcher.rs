//! Looks at the storages now and then, and makes a [`Snapshot`] of what it finds. Everybody else reads that.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, oneshot, watch};

use crate::apart::apart;
use crate::history;
use crate::plans::Plans;
use crate::remember::Remembering;
use crate::runs::Runs;
use crate::snapshot::{Drilled, Held, Program, Snapshot};
use pgkeep_core::context::Context;
use pgkeep_core::lock::host_name;
use pgkeep_core::op::history::Records;
use pgkeep_core::op::status;
use pgkeep_core::op::stored::{Listing, NamedStorage};
use pgkeep_core::setup::{Setup, StorageOverrides, status as request};
use pgkeep_model::config::Config;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::id::DatabaseName;
use pgkeep_model::lease::{Lease, MAX_LEASE_BYTES};

/// How often the storages are listed, at most; a listing that takes long is made more seldom.
const LISTING_INTERVAL: Duration = Duration::from_secs(60);

/// The longest pause: what is older than a quarter of an hour starts nothing.
const MAX_INTERVAL: Duration = Duration::from_secs(600);

/// A listing may take this share of the time.
const LISTING_SHARE: u32 = 10;

/// How often leases are looked at. With the life of a lease, a run that died is told within 90 seconds.
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

/// Looks at the storages of the configuration once, and then again and again until a stop is asked for, or at once where
/// `refresh` says so.
///
/// All of it is done on one thread: what a look frees is there for the next one, while threads that took turns would each
/// keep as much.
pub async fn start(
    setup: &Setup,
    context: &Context,
    runs: &Runs,
    refresh: &Arc<Notify>,
) -> Result<watch::Receiver<Arc<Snapshot>>> {
    let (sender, receiver) = oneshot::channel();
    let (setup, context, runs) = (setup.clone(), context.clone(), runs.clone());
    let refresh = Arc::clone(refresh);
    // Nobody waits for the end: it comes with the stop, or with the process.
    let ended = apart(move || async move {
        let watcher = match Watcher::new(setup, context, runs).await {
            Ok((watcher, snapshots)) => sender.send(Ok(snapshots)).ok().map(|()| watcher),
            Err(failure) => sender.send(Err(failure)).ok().and(None),
        };
        if let Some(watcher) = watcher {
            watcher.run(refresh).await;
        }
    });
    tokio::spawn(ended);
    receiver.await.unwrap_or_else(|_| {
        let message = "the storages were never looked at";
        Err(
            Failure::new(Kind::Unexpected, "operation_panicked", message)
                .hint("this is a defect of pgkeep; the log says where"),
        )
    })
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
    leases: HashMap<(String, usize), Seen>,
    records: Records,
}

/// A lease as it was last seen, and since when it has been the same.
struct Seen {
    bytes: Bytes,
    since: Instant,
    last_sign: Timestamp,
}

impl Watcher {
    /// Opens the storages of the configuration, and looks at them once.
    async fn new(
        setup: Setup,
        context: Context,
        runs: Runs,
    ) -> Result<(Self, watch::Receiver<Arc<Snapshot>>)> {
        let config = Arc::new(setup.config_or_fail()?.clone());
        let opened = setup.storages_to_read(&StorageOverrides::default())?;
        let storages = opened
            .into_iter()
            .map(|named| NamedStorage {
                storage: Arc::new(Remembering::new(named.storage)),
                ..named
            })
            .collect();
        let plans = Plans::new(&config);
        let programs = Arc::new(programs(&setup, &context).await);
        let count = config.databases.len().max(1);
        let mut known = Known {
            leases: HashMap::new(),
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
        let first = look.at_all(&mut known).await?;
        let (sender, receiver) = watch::channel(Arc::new(first));
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
        let mut listed = Instant::now();
        let mut pause = LISTING_INTERVAL;
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
            let began = Instant::now();
            self.look_at_all().await;
            listed = Instant::now();
            let long = began.elapsed() * LISTING_SHARE;
            pause = long.clamp(LISTING_INTERVAL, MAX_INTERVAL);
        }
    }

    async fn look_at_all(&mut self) {
        let look = Look {
            setup: &self.setup,
            context: &self.context,
            config: &self.config,
            storages: &self.storages,
            plans: &self.plans,
            runs: &self.runs,
            programs: &self.programs,
        };
        match look.at_all(&mut self.known).await {
            Ok(snapshot) => drop(self.sender.send_replace(Arc::new(snapshot))),
            Err(failure) => {
                tracing::warn!(
                    id = failure.id,
                    "the storages were not listed: {}",
                    failure.message
                );
                let last = Arc::clone(&self.sender.borrow());
                let snapshot = last.but(|next| next.failure = Some(failure));
                self.sender.send_replace(Arc::new(snapshot));
            }
        }
    }

    async fn look_at_leases(&mut self) {
        let last = Arc::clone(&self.sender.borrow());
        let now = self.context.clock.now();
        let held = held(&last.listing, &mut self.known.leases, now).await;
        let snapshot = last.but(|next| next.held = held);
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
    async fn at_all(&self, known: &mut Known) -> Result<Snapshot> {
        let now = self.context.clock.now();
        let listing = Listing::read(self.storages.clone(), None, now).await?;
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
        let held = held(&listing, &mut known.leases, now).await;
        let mut snapshot = Snapshot {
            at: now,
            report: Arc::new(report),
            listing: Arc::new(listing),
            records: Arc::new(records),
            held,
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
        };
        snapshot.missed = self
            .plans
            .missed(&snapshot, self.runs, now - MISSED_WITHIN, now);
        Ok(snapshot)
    }
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

/// Reads the leases that are listed, and tells which of them live.
async fn held(
    listing: &Listing,
    seen: &mut HashMap<(String, usize), Seen>,
    now: Timestamp,
) -> Vec<Held> {
    let mut held: Vec<Held> = Vec::new();
    let mut next = HashMap::new();
    for (key, places) in &listing.leases {
        for &at in places {
            let place = (key.clone(), at);
            let storage = &listing.storages[at].storage;
            let Ok((bytes, _)) = storage.get_versioned(key, MAX_LEASE_BYTES).await else {
                continue;
            };
            let Ok(lease) = Lease::read(&bytes) else {
                continue;
            };
            let database = key.split('/').next().unwrap_or_default();
            let Ok(database) = database.parse::<DatabaseName>() else {
                continue;
            };
            if lease.released_at.is_some() {
                continue;
            }
            let known = match seen.remove(&place) {
                Some(known) if known.bytes == bytes => known,
                Some(_) => Seen {
                    bytes,
                    since: Instant::now(),
                    last_sign: now,
                },
                // Its own clock may be wrong: until it was watched, that is all that is known.
                None => Seen {
                    bytes,
                    since: Instant::now(),
                    last_sign: lease.renewed_at.min(now),
                },
            };
            let silent = SignedDuration::try_from(lease.ttl()).unwrap_or(SignedDuration::MAX);
            // A run of this very host has our clock.
            let is_ours = lease.host_name == host_name();
            let is_dead = known.since.elapsed() >= lease.ttl()
                || (is_ours && now.duration_since(known.last_sign) >= silent);
            let one = Held::of(&lease, database, known.last_sign, is_dead);
            next.insert(place, known);
            // The same run in another storage: one sign of life is enough.
            let same = held
                .iter_mut()
                .find(|other| other.database == one.database && other.is_same(&one));
            match same {
                Some(other) => {
                    other.is_dead &= one.is_dead;
                    other.last_sign = other.last_sign.max(one.last_sign);
                }
                None => held.push(one),
            }
        }
    }
    *seen = next;
    held
}
