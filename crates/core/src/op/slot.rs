//! A slot of a schedule is run once: asked under the lock, where no other run can begin it any more.

use jiff::Timestamp;

use super::history::read_records;
use super::lock::{self, BUSY, Hold, LockRequest};
use crate::context::Context;
use crate::copies::listing::Listing;
use crate::tracker::Tracked;
use pgkeep_model::due::{ATTEMPTS_OF_WORKERS, CLOCKS_APART, Outcome, SlotRun};
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::origin::Origin;
use pgkeep_model::runs::RunRecord;

/// Id of the failure of a run whose slot another run has had.
const SLOT_TAKEN: &str = "slot_taken";

/// How often a slot's run may be stopped or die before it may not be begun again. A server gives it up before.
const MAX_DEATHS: usize = ATTEMPTS_OF_WORKERS as usize;

/// Takes the locks, and fails with [`Kind::Busy`] where the run's slot was run already.
pub(super) async fn acquire(request: &LockRequest<'_>, context: &Context) -> Result<Hold> {
    let hold = lock::acquire(request, context).await?;
    match check(request, context).await {
        Ok(()) => {
            tell_begin(request, context);
            Ok(hold)
        }
        Err(failure) => {
            hold.release().await;
            Err(failure)
        }
    }
}

/// From here on no other run can have the slot: the tracker hears that this one begins.
fn tell_begin(request: &LockRequest<'_>, context: &Context) {
    if request.origin.slot.is_some() {
        context.tracker.begun(&Tracked {
            verb: request.verb,
            database: Some(request.database.as_str()),
            backup_id: None,
            is_scheduled: true,
            slot: request.origin.slot,
        });
    }
}

async fn check(request: &LockRequest<'_>, context: &Context) -> Result<()> {
    let Some(slot) = request.origin.slot else {
        return Ok(());
    };
    let now = context.clock.now();
    let listing = Listing::read(request.storages.to_vec(), Some(request.database), now).await?;
    let since = slot - CLOCKS_APART;
    let lately = listing.runs.keys().filter(|run| run.started_at() >= since);
    let records = read_records(&listing, lately).await;
    if !is_over(&records, request.verb, slot) {
        return Ok(());
    }
    let (verb, database) = (request.verb, request.database);
    let message = format!(
        "{verb} of `{database}` for {slot} is done already; {}",
        request.safe
    );
    Err(Failure::new(Kind::Busy, SLOT_TAKEN, message))
}

/// Tells whether nothing is to be run for a slot any more: a run of it ended, or too many of them did not get that far.
fn is_over(records: &[RunRecord], verb: &str, slot: Timestamp) -> bool {
    let runs = records
        .iter()
        .filter_map(|record| SlotRun::of(record, verb));
    let of_slot = runs.filter(|run| run.slot == slot);
    let (died, ended): (Vec<_>, Vec<_>) =
        of_slot.partition(|run| run.outcome == Outcome::Interrupted);
    !ended.is_empty() || died.len() >= MAX_DEATHS
}

/// Tells the tracker how a run ended; one that was left to others is not told.
pub async fn tell_end(run: &Tracked<'_>, failure: Option<&Failure>, context: &Context) {
    let origin = Origin {
        slot: run.slot,
        ..Origin::default()
    };
    if !is_left_to_others(&origin, failure) {
        context.tracker.ended(run, failure, &context.stop).await;
    }
}

/// Tells whether a run for a slot never began, because another one has had the slot or has the lock: that one tells for
/// itself how it ends, and the scheduler asks again.
pub fn is_left_to_others(origin: &Origin, failure: Option<&Failure>) -> bool {
    let is_other = |failure: &Failure| matches!(failure.id, SLOT_TAKEN | BUSY);
    origin.slot.is_some() && failure.is_some_and(is_other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgkeep_model::runs::INTERRUPTED;

    #[test]
    fn a_slot_whose_run_was_stopped_may_be_begun_again_some_times() {
        let slot: Timestamp = "2026-01-02T03:15:00Z".parse().unwrap();
        let record = |code: u8, id: &str| {
            let run = "shop-20260102T031500Z-7f3a".parse().unwrap();
            let mut record = RunRecord::new(run, "drill", slot, 5);
            record.slot = Some(slot);
            record.backup_id = Some("shop-20260102T030000Z-0001".to_owned());
            if code == 0 {
                record
            } else {
                record.failed(code, id, "x")
            }
        };
        let stopped = || record(143, "terminated");
        let died = || record(137, INTERRUPTED);
        let failed = || record(22, "storage_failed");
        for (records, expected) in [
            (vec![], false),
            (vec![stopped()], false),
            (vec![died()], false),
            (vec![stopped(), died(), died(), died()], false),
            (vec![stopped(), stopped(), died(), died(), died()], true),
            (vec![failed()], true),
            (vec![stopped(), record(0, "")], true),
        ] {
            assert_eq!(is_over(&records, "drill", slot), expected, "{records:?}");
            assert!(!is_over(&records, "backup", slot));
        }
    }

    #[test]
    fn a_run_that_began_tells_how_it_ended() {
        let slot = Origin {
            slot: Some("2026-01-02T03:15:00Z".parse().unwrap()),
            ..Origin::default()
        };
        let by_hand = Origin::default();
        for (id, of_slot) in [(SLOT_TAKEN, true), (BUSY, true), ("lock_lost", false)] {
            let failure = Failure::new(Kind::Busy, id, "x");
            assert_eq!(is_left_to_others(&slot, Some(&failure)), of_slot, "{id}");
            assert!(!is_left_to_others(&by_hand, Some(&failure)), "{id}");
        }
        assert!(!is_left_to_others(&slot, None));
    }
}
