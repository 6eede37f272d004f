//! Which run a request joins, and what is remembered. None is carried out here.

use secrecy::SecretString;

use super::*;
use pgkeep_core::clock::SystemClock;
use pgkeep_core::setup::Door;
use pgkeep_model::config::Config;
use pgkeep_model::failure::Kind;
use pgkeep_model::redact::Redactor;

struct Shut;

impl Door for Shut {
    fn hide(&self, _: &[SecretString]) {}

    fn hide_guessed(&self, _: &[SecretString]) {}

    fn redactor(&self) -> Redactor {
        Redactor::default()
    }

    fn configured(&self, _: &Config, _: Option<&str>) {}
}

/// A registry in which nothing begins.
fn runs() -> Runs {
    let setup = Setup::new(HashMap::new(), Arc::new(Shut));
    let context = Context::new(Arc::new(SystemClock));
    let limits = Limits {
        all: 0,
        per_server: 0,
    };
    Runs::new(setup, context, limits, HashMap::new())
}

fn ask(verb: Verb, backup: Option<&str>, key: Option<&str>) -> Ask {
    Ask {
        verb,
        database: "shop".parse().unwrap(),
        backup: backup.map(|id| id.parse().unwrap()),
        rows: None,
        by: Some("ci".to_owned()),
        slot: None,
        request_key: key.map(str::to_owned),
    }
}

const ONE: Option<&str> = Some("shop-20260102T030405Z-0001");
const OTHER: Option<&str> = Some("shop-20260102T030405Z-0002");

fn end(runs: &Runs, id: &BackupId, failure: Option<Failure>) -> Arc<Entry> {
    let entry = runs.find(id).unwrap();
    let outcome = Outcome {
        failure,
        backup_id: ONE.map(str::to_owned),
        size_bytes: None,
        rows: None,
        report: None,
    };
    entry.end(outcome, Timestamp::UNIX_EPOCH);
    entry
}

#[test]
fn only_the_same_is_joined() {
    let runs = runs();
    let first = runs.start(ask(Verb::Drill, ONE, None)).unwrap();
    assert!(!first.is_joined);
    let same = runs.start(ask(Verb::Drill, ONE, None)).unwrap();
    assert_eq!(same, Started::joined(first.id.clone()));
    for other in [
        ask(Verb::Drill, OTHER, None),
        ask(Verb::Drill, None, None),
        ask(Verb::Verify, ONE, None),
    ] {
        let started = runs.start(other.clone()).unwrap();
        assert!(!started.is_joined, "{other:?}");
    }
    end(&runs, &first.id, None);
    let next = runs.start(ask(Verb::Drill, ONE, None)).unwrap();
    assert!(!next.is_joined, "it has ended");
}

#[test]
fn a_key_is_one_request_of_one_token() {
    let runs = runs();
    let first = ask(Verb::Verify, ONE, Some("k"));
    let started = runs.start(first.clone()).unwrap();
    end(&runs, &started.id, None);
    let again = Ok(Started::joined(started.id.clone()));
    assert_eq!(runs.by_key(&first), Some(again.clone()));
    assert_eq!(runs.start(first.clone()), again, "although it has ended");
    for backup in [None, OTHER] {
        let reused = runs.start(ask(Verb::Verify, backup, Some("k")));
        assert_eq!(reused, Err(KeyReused), "{backup:?}");
    }
    let of_another = Ask {
        by: Some("me".to_owned()),
        ..first
    };
    assert!(!runs.start(of_another).unwrap().is_joined);
    assert!(
        !runs
            .start(ask(Verb::Drill, ONE, Some("k")))
            .unwrap()
            .is_joined
    );
}

#[test]
fn what_was_kept_away_leaves_room_for_the_rest() {
    let runs = runs();
    let slot = "2026-01-02T03:15:00Z".parse().ok();
    let of_slot = || Ask {
        slot,
        ..ask(Verb::Backup, None, None)
    };
    let busy = || Failure::new(Kind::Busy, BUSY, "another run has the lock");
    let by_hand = runs.start(ask(Verb::Drill, ONE, None)).unwrap().id;
    end(&runs, &by_hand, Some(busy()));
    // Ids of one millisecond may be equal.
    std::thread::sleep(std::time::Duration::from_millis(2));
    for _ in 0..3 * MAX_ENDED {
        let id = runs.start(of_slot()).unwrap().id;
        assert!(end(&runs, &id, Some(busy())).was_kept_away());
    }
    let all = runs.all();
    assert_eq!(
        all.len(),
        2,
        "the last of them, and what was asked for by hand"
    );
    assert_eq!(all[1].id, by_hand);
    assert_eq!(runs.slots(&"shop".parse().unwrap(), Verb::Backup), []);
}

#[test]
fn a_run_that_was_stopped_is_interrupted() {
    let runs = runs();
    for (kind, state) in [
        (Kind::Terminated, State::Interrupted),
        (Kind::Interrupted, State::Interrupted),
        (Kind::Damaged, State::Failed),
        (Kind::AfterGood, State::Done),
    ] {
        let id = runs.start(ask(Verb::Drill, ONE, None)).unwrap().id;
        let failure = Failure::new(kind, "x", "why");
        assert_eq!(
            end(&runs, &id, Some(failure)).view().state,
            state,
            "{kind:?}"
        );
    }
}
