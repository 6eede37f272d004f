//! One run per database at a time: on this host by a lock that dies with its process, across hosts by a lease in each
//! storage.
//!
//! The two divide the work like this:
//!
//! - **The lock of this host comes first and is a must.** There is one for each storage and database, so that two
//!   configurations with different storages do not disturb each other. Where it cannot be kept the run does not begin.
//! - **A lease comes beside it, one for each storage.** A lease that another host holds ends the run, too. But a
//!   storage that *cannot* hold a lease does not: one that ignores conditions keeps only the runs of this host apart
//!   (`lease_not_exclusive`), and one that cannot be reached or refuses (`lease_failed`) will fail the run by itself
//!   in a moment if it is needed. A backup that two hosts make at once is two backups; none at all is worse. What
//!   removes objects asks [`Hold::is_leased`] first.
//! - **A lease that is there is judged by whether it changes**, on this process's own monotonic clock: anyone who
//!   renews it is alive, anyone who has not for as long as the lease lives is dead. Only a run of this very host is
//!   known to be dead at once, because we have the lock that it would have.
//! - **A lease is proven again before anything counts.** [`Hold::fence`] renews it by a conditional write, so nobody
//!   else can have taken it, nor can take it within its whole life from then on. What is left is a process that stands
//!   still for longer than that between the fence and the write behind it.
//! - **Where the leases live can be said.** One storage may hold the lease for all of them ([`Leases::In`]), for a bucket
//!   that forbids overwriting holds none; or none does ([`Leases::ThisHost`]), which takes the word of whoever set it up
//!   that no other host works on these storages. Both are told of.
//! - **Nothing is ever unlocked by hand.** [`Hold::release`] takes the leases away; a hold that is dropped without it,
//!   or a killed process, leaves them to die by themselves: at once for this host's next run, after the lease's life
//!   for others.

mod dead;
mod keeper;
mod take;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::stored::{NamedStorage, storage_failure};
use crate::context::Context;
use crate::lock::{self, HostLock, LockFolder, StateFolder};
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::id::DatabaseName;
use pgkeep_model::keys::{Leased, lease_key};
use pgkeep_model::lease::{Claim, Lease, shown, whole_seconds};
use pgkeep_model::origin::Origin;
pub use pgkeep_model::runs::BUSY;
use pgkeep_model::scan::Finding;

use keeper::{Fenced, Keeper};
use take::Taking;

/// How often a lock of this host is tried for again.
const LOCAL_PAUSE: Duration = Duration::from_millis(200);

/// How long a storage may take to answer a question about its lease. It is asked again; a lease lives longer.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// How long giving the leases back may take in all: a lease that stays dies by itself.
const RELEASE_LIMIT: Duration = Duration::from_secs(5);

/// The same for a run that is told to stop: it must end within ten seconds, and its commit may have taken eight.
const STOPPED_RELEASE_LIMIT: Duration = Duration::from_millis(1500);

/// How a run locks.
#[derive(Clone, Debug)]
pub struct LockSettings {
    /// Folders for the locks of this host, in order of preference.
    pub folders: Vec<StateFolder>,
    /// How long a lease lives after a sign of life.
    pub ttl: Duration,
    /// How long a run waits for another one that is alive.
    pub wait: Duration,
    /// Where the leases live.
    pub leases: Leases,
}

/// Where the leases of a run live.
#[derive(Clone, Default)]
pub enum Leases {
    /// In each storage that the run works on.
    #[default]
    Each,
    /// In this one, for all of them.
    In(NamedStorage),
    /// Nowhere: no other host works on these storages, as the configuration says.
    ThisHost,
}

impl fmt::Debug for Leases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Each => f.write_str("Each"),
            Self::In(named) => write!(f, "In({})", named.name),
            Self::ThisHost => f.write_str("ThisHost"),
        }
    }
}

impl Leases {
    /// Tells whether runs keep a lease in this storage.
    pub fn has(&self, named: &NamedStorage) -> bool {
        match self {
            Self::Each => true,
            Self::In(holder) => holder.storage.identity() == named.storage.identity(),
            Self::ThisHost => false,
        }
    }

    /// Returns the storages that hold leases for a run on these.
    fn storages(&self, worked_on: &[NamedStorage]) -> Vec<NamedStorage> {
        match self {
            Self::Each => worked_on.to_vec(),
            Self::In(named) => vec![named.clone()],
            Self::ThisHost => Vec::new(),
        }
    }
}

/// What is to be locked, and by whom.
pub struct LockRequest<'a> {
    /// The database.
    pub database: &'a DatabaseName,
    /// The storages that the run works on.
    pub storages: &'a [NamedStorage],
    /// The command, as it is called: `backup`.
    pub verb: &'a str,
    /// What it keeps others away from.
    pub leased: Leased,
    /// Where the run comes from.
    pub origin: &'a Origin,
    /// What is safe to say when it does not begin or must end: `nothing was stored`.
    pub safe: &'a str,
    /// How to lock.
    pub settings: &'a LockSettings,
    /// Told, once, whom the run waits for.
    pub on_wait: &'a (dyn Fn(&str) + Send + Sync),
}

/// What a run holds. Dropping it without [`Hold::release`] gives this host's lock back and leaves the leases to die.
pub struct Hold {
    /// What is being done, to begin a failure's message with.
    what: String,
    safe: String,
    context: Context,
    ttl: Duration,
    leases: Leases,
    /// The storages that hold leases.
    storages: Vec<NamedStorage>,
    /// Key of the lease in every storage.
    key: String,
    claim: Claim,
    /// What became of each of their leases, in their order.
    places: Vec<Place>,
    lost: CancellationToken,
    ended: CancellationToken,
    /// Leases that were taken over from runs that died.
    dead: Vec<Lease>,
    /// What was odd about the locks.
    pub warnings: Vec<Finding>,
    /// Given back last, after all leases.
    host: HostLock,
}

/// What became of one storage's lease.
enum Place {
    /// There is none, and nothing of ours is left.
    Without,
    /// It was asked for, and the outcome is not known.
    Asked(Box<Lease>),
    /// It is ours, and kept alive.
    Kept(Keeper),
    /// It is ours already: the storage at this position is the same by another name.
    Shared(usize),
}

/// Takes this host's locks and the leases, or fails with [`Kind::Busy`], holding nothing.
///
/// A stop that comes meanwhile is [`Kind::Interrupted`] or [`Kind::Terminated`].
pub async fn acquire(request: &LockRequest<'_>, context: &Context) -> Result<Hold> {
    let stop = context.stop.token();
    let what = format!("{} of `{}`", request.verb, request.database);
    let stopped = || context.stop.failure(&what).and_safe(request.safe);
    let started = Instant::now();
    let (folder, host) = tokio::select! {
        taken = lock_host(request, context, &what, started) => taken?,
        () = stop.cancelled() => return Err(stopped()),
    };
    let leases = request.settings.leases.clone();
    let storages = leases.storages(request.storages);
    let mut hold = Hold {
        safe: request.safe.to_owned(),
        context: context.clone(),
        ttl: request.settings.ttl,
        key: lease_key(request.database, request.leased),
        claim: claim(request, folder.identity()),
        places: storages.iter().map(|_| Place::Without).collect(),
        leases,
        storages,
        lost: CancellationToken::new(),
        ended: stop.child_token(),
        dead: Vec::new(),
        warnings: Vec::new(),
        host,
        what: what.clone(),
    };
    let taken = tokio::select! {
        taken = Taking::new(request, &mut hold, started).take_all() => taken,
        () = stop.cancelled() => Err(stopped()),
    };
    let dead = std::mem::take(&mut hold.dead);
    dead::leave_records(request, dead, context).await;
    match taken {
        Ok(()) => {
            hold.warnings.extend(hold.said());
            Ok(hold)
        }
        Err(failure) => {
            hold.release().await;
            Err(failure)
        }
    }
}

fn claim(request: &LockRequest<'_>, host: &str) -> Claim {
    Claim {
        holder: lock::token(),
        host: host.to_owned(),
        lock: String::new(),
        host_name: lock::host_name(),
        pid: std::process::id(),
        verb: request.verb.to_owned(),
        ttl: request.settings.ttl,
        origin: request.origin.clone(),
    }
}

/// Names the lock of a database in one storage.
fn lock_name(database: &DatabaseName, leased: Leased, named: &NamedStorage) -> String {
    let identity = named.storage.identity();
    let parts = [&identity, database.as_str(), leased.mark()];
    let count = if leased == Leased::Backups { 2 } else { 3 };
    lock::name_of(&parts[..count])
}

/// Takes the locks of this host, waiting for them as long as the request says.
async fn lock_host(
    request: &LockRequest<'_>,
    context: &Context,
    what: &str,
    started: Instant,
) -> Result<(Arc<LockFolder>, HostLock)> {
    // Anyone who finds a lease of this host dead holds the lock that its run had.
    let leased = request.settings.leases.storages(request.storages);
    let names: BTreeSet<String> = request
        .storages
        .iter()
        .chain(&leased)
        .map(|named| lock_name(request.database, request.leased, named))
        .collect();
    let holder = lock::Holder {
        pid: std::process::id(),
        verb: request.verb.to_owned(),
        since: context.clock.now(),
    };
    let folders = request.settings.folders.clone();
    let opened = blocking(move || LockFolder::open(&folders)).await;
    let folder = Arc::new(opened.map_err(|error| no_lock(what, request.safe, &error))?);
    let mut is_told = false;
    loop {
        let (at, names, holder) = (Arc::clone(&folder), names.clone(), holder.clone());
        let theirs = match blocking(move || at.take(&names, &holder)).await {
            Ok(lock) => return Ok((folder, lock)),
            Err(lock::Error::Busy(theirs)) => theirs,
            Err(error) => return Err(no_lock(what, request.safe, &error)),
        };
        let who = local_words(theirs.as_ref());
        if started.elapsed() >= request.settings.wait {
            return Err(busy(what, request.safe, &who));
        }
        if !std::mem::replace(&mut is_told, true) {
            (request.on_wait)(&format!("waiting for another run: {who}"));
        }
        sleep(LOCAL_PAUSE).await;
    }
}

/// Runs file work where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::result::Result<T, lock::Error> + Send + 'static,
) -> std::result::Result<T, lock::Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(lock::Error::Unusable(error.to_string())),
    }
}

fn local_words(holder: Option<&lock::Holder>) -> String {
    match holder {
        Some(lock::Holder { pid, verb, since }) => format!(
            "`{}` in process {pid} on this host since {}",
            shown(verb),
            whole_seconds(*since)
        ),
        None => "another process on this host".to_owned(),
    }
}

fn no_lock(what: &str, safe: &str, error: &lock::Error) -> Failure {
    let message = format!("{what} failed: there is no folder to keep its lock in: {error}; {safe}");
    Failure::new(Kind::Usage, "state_folder", message)
        .hint("set PGKEEP_STATE_DIR to a folder that only this user may write to")
}

fn busy(what: &str, safe: &str, who: &str) -> Failure {
    let message = format!("{what} failed: another run has the lock: {who}; {safe}");
    Failure::new(Kind::Busy, BUSY, message).hint(
        "`--lock-timeout 30m` waits for it; nothing has to be unlocked: a run that dies loses its lock",
    )
}

impl Hold {
    /// Returns what its failures end with: what is safe to say of the run that took it.
    pub fn safe(&self) -> &str {
        &self.safe
    }

    /// Returns a token that is cancelled when a lease turns out to be somebody else's.
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Returns a token that is cancelled when the lock is lost or a stop is asked for: what must end then waits for it.
    pub fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// Tells whether other hosts are kept away from the storage at this position: a lease is held for it, or the
    /// configuration says that there are no others.
    pub fn is_leased(&self, at: usize) -> bool {
        match self.place_for(at) {
            Some(place) => matches!(self.places[place], Place::Kept(_) | Place::Shared(_)),
            None => true,
        }
    }

    /// Returns where the lease for the storage at this position stands; none where no storage holds one.
    fn place_for(&self, at: usize) -> Option<usize> {
        match self.leases {
            Leases::Each => Some(at),
            Leases::In(_) => Some(0),
            Leases::ThisHost => None,
        }
    }

    /// Says where the lease is, unless it is where everybody looks for it.
    fn said(&self) -> Option<Finding> {
        let (id, text) = match &self.leases {
            Leases::Each => return None,
            // What is wrong with it is told already.
            Leases::In(_) if !self.is_leased(0) => return None,
            Leases::In(named) => (
                "lease_elsewhere",
                format!(
                    "the lease of this run is in the storage `{}` alone, as `lock.storage` says: a host that does not \
                     use it there is not kept away",
                    named.name
                ),
            ),
            Leases::ThisHost => (
                "lock_local",
                "`lock.storage: local` keeps the lock on this host: no other host is kept away from these storages"
                    .to_owned(),
            ),
        };
        Some(Finding::new(id, text, None))
    }

    /// Proves that the lease on the storage at this position is still ours, and renews it.
    ///
    /// `lock_lost` ([`Kind::Busy`]) if it is not; the storage's own failure if it is not known. A storage without lease
    /// has only this host's lock, which cannot be lost.
    pub async fn fence(&self, at: usize) -> Result<()> {
        if self.lost.is_cancelled() {
            return Err(self.lost_failure());
        }
        let Some(at) = self.place_for(at) else {
            return Ok(());
        };
        let at = match self.places[at] {
            Place::Shared(with) => with,
            _ => at,
        };
        let Place::Kept(keeper) = &self.places[at] else {
            return Ok(());
        };
        let fenced = tokio::select! {
            fenced = timeout(ANSWER_LIMIT, keeper.fence()) => fenced,
            () = self.context.stop.token().cancelled() => {
                return Err(self.context.stop.failure(&self.what).and_safe(&self.safe));
            }
        };
        let named = &self.storages[at];
        let what = format!("cannot renew the lease in `{}`", named.name);
        match fenced {
            Ok(Some(Fenced::Held)) => Ok(()),
            Ok(Some(Fenced::Failed(error))) => Err(storage_failure(&what, &error)),
            Ok(Some(Fenced::Lost) | None) => Err(self.lost_failure()),
            Err(_) => {
                let message = format!("{what}: it did not answer for {} s", ANSWER_LIMIT.as_secs());
                Err(Failure::new(Kind::Storage, "storage_failed", message))
            }
        }
    }

    /// Returns why the run must end where another run took its lock; none where a stop was asked for, which goes first.
    pub fn loss(&self) -> Option<Failure> {
        let is_lost = self.lost.is_cancelled() && !self.context.stop.is_requested();
        is_lost.then(|| self.lost_failure())
    }

    /// Looks at every lease whether it is still ours, and renews it. One whose storage does not answer is taken for ours.
    pub async fn loss_now(&self) -> Option<Failure> {
        // What was lost is noted by each of them.
        join_all((0..self.storages.len()).map(|at| self.fence(at))).await;
        self.loss()
    }

    /// Says that the lock was lost, and to whom where that is known.
    pub fn lost_failure(&self) -> Failure {
        let keepers = self.places.iter().zip(&self.storages);
        let words = keepers.filter_map(|(place, named)| match place {
            Place::Kept(keeper) => Some(format!("in `{}` {}", named.name, keeper.taken_by()?)),
            _ => None,
        });
        let who = words.collect::<Vec<_>>().join(", ");
        let message = format!(
            "{} failed: it lost its lock: {who}; {}",
            self.what, self.safe
        );
        let ttl = self.ttl.as_secs_f64();
        Failure::new(Kind::Busy, "lock_lost", message).hint(format!(
            "a run loses its lock when it makes no progress for longer than {ttl} s: was the machine suspended or \
             overloaded?"
        ))
    }

    /// Gives everything back. Returns what could not be taken away, as warnings; it dies by itself.
    pub async fn release(self) -> Vec<Finding> {
        let Self {
            places,
            storages,
            key,
            ttl,
            host,
            context,
            ..
        } = self;
        let (key, ttl) = (&key, ttl.as_secs_f64());
        let limit = if context.stop.is_requested() {
            STOPPED_RELEASE_LIMIT
        } else {
            RELEASE_LIMIT
        };
        let give_back = |(place, named): (Place, _)| async move {
            let named: &NamedStorage = named;
            let why = match timeout(limit, place.release(named, key)).await {
                Ok(Ok(())) => return None,
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer for {} s", limit.as_secs_f64()),
            };
            let text = format!(
                "the lease in `{}` could not be released: {why}; it ends by itself, for other hosts after {ttl} s",
                named.name
            );
            Some(Finding::new("lease_left", text, None))
        };
        let left = join_all(places.into_iter().zip(&storages).map(give_back)).await;
        drop(host);
        left.into_iter().flatten().collect()
    }
}
