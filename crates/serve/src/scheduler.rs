//! Starts what is due. It asks again and again and remembers nothing: what has run is known by records and leases.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use crate::plans::Plans;
use crate::runs::{Ask, Runs};
use crate::snapshot::{MAX_AGE, Snapshot};
use pgkeep_core::context::Context;

/// How often it asks. No longer sleep: a machine that slept, or a clock that was set, is noticed at the next tick.
const TICK: Duration = Duration::from_secs(10);

/// A process whose last tick is older than this hangs.
const ALIVE_WITHIN: SignedDuration = SignedDuration::from_mins(2);

/// When the scheduler ticked last; clones are the same.
#[derive(Clone, Default)]
pub struct Heart(Arc<AtomicI64>);

impl Heart {
    fn beat(&self, now: Timestamp) {
        self.0.store(now.as_second(), Ordering::Relaxed);
    }

    /// Tells whether it ticked lately.
    pub fn is_alive(&self, now: Timestamp) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        now.as_second() - last < ALIVE_WITHIN.as_secs()
    }
}

/// Starts what is due until a stop is asked for.
pub async fn run(
    plans: Plans,
    runs: Runs,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    context: Context,
    heart: Heart,
) {
    loop {
        let now = context.clock.now();
        heart.beat(now);
        let known = Arc::clone(&snapshot.borrow());
        // Where it is not known what has run, nothing is started: under the lock it is asked once more all the same.
        if now.duration_since(known.at).abs() < MAX_AGE {
            for (database, verb, due) in plans.due(&known, &runs, now) {
                let started = runs.start(Ask {
                    verb,
                    database: database.clone(),
                    backup: None,
                    rows: None,
                    by: None,
                    slot: Some(due.slot),
                    request_key: None,
                });
                let (verb, slot) = (verb.as_str(), due.slot.to_string());
                if started.is_ok_and(|started| !started.is_joined) {
                    tracing::info!(target: "pgkeep", %database, verb, slot, attempt = due.attempt, "started by schedule");
                }
            }
        }
        tokio::select! {
            () = context.stop.token().cancelled() => return,
            () = tokio::time::sleep(TICK) => {}
        }
    }
}
