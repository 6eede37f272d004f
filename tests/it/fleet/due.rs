//! `--due`: each slot is run once, by whichever worker is first.

use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::Fleet;

/// One slot a year, which any moment of the year may make up for.
const YEARLY: &str =
    "  schedule: '0 0 1 1 *'\n  catch_up: 9000h\n  verify: {schedule: '0 0 1 1 *'}\n";

fn databases(summary: &Value) -> Vec<&str> {
    let backups = summary["backups"].as_array().unwrap();
    let of_all = backups.iter().map(|backup| backup["database"].as_str());
    let mut names: Vec<&str> = of_all.map(Option::unwrap).collect();
    names.sort_unstable();
    names
}

#[test]
fn what_is_due_is_run_once_and_then_nothing_is() {
    let Some(fleet) = Fleet::new(4, YEARLY) else {
        return;
    };
    let run = |flags: &[&str]| {
        fleet
            .sandbox
            .pgkeep([&["backup", "--due", "--json"], flags].concat())
    };
    let first = run(&["--limit", "1"]).run().expect(0);
    assert_eq!(databases(&first.summary()).len(), 1);
    let second = run(&[]).run().expect(0);
    assert_eq!(databases(&second.summary()).len(), 3);
    let third = run(&[]).run().expect(0);
    assert_eq!(databases(&third.summary()), Vec::<&str>::new());
    let slots = fleet.slots("backup");
    assert_eq!(slots.len(), 4, "{slots:#?}");
    for ((_, slot), records) in &slots {
        assert!(slot.ends_with("-01-01T00:00:00Z"), "{slot}");
        assert_eq!(records.len(), 1);
        assert_eq!(
            (&records[0]["trigger"], &records[0]["exit_code"]),
            (&"schedule".into(), &0.into())
        );
    }
    // The same for what is stored.
    fleet.sandbox.pgkeep(["verify", "--due"]).run().expect(0);
    assert_eq!(fleet.slots("verify").len(), 4);
    let said = fleet.sandbox.pgkeep(["verify", "--due"]).run().expect(0);
    assert!(
        said.stderr().contains("nothing is due"),
        "{}",
        said.stderr()
    );
}

#[test]
fn shards_are_parts_of_the_whole() {
    let Some(fleet) = Fleet::new(5, YEARLY) else {
        return;
    };
    let mut all = Vec::new();
    for shard in ["1/3", "2/3"] {
        let run = fleet
            .sandbox
            .pgkeep(["backup", "--due", "--json", "--shard", shard]);
        let summary = run.run().expect(0).summary();
        all.extend(databases(&summary).into_iter().map(str::to_owned));
    }
    // A pod of an indexed Job is told its number by the cluster.
    let pod = fleet
        .sandbox
        .pgkeep(["backup", "--due", "--json", "--shard", "3"]);
    let summary = pod
        .env("JOB_COMPLETION_INDEX", "2")
        .run()
        .expect(0)
        .summary();
    all.extend(databases(&summary).into_iter().map(str::to_owned));
    all.sort();
    assert_eq!(all, ["t0", "t1", "t2", "t3", "t4"]);
    for shard in ["0/3", "4/3", "3", "x"] {
        let run = fleet
            .sandbox
            .pgkeep(["backup", "--due", "--shard", shard, "--json"]);
        assert_eq!(
            run.run().expect(2).exit_error()["id"],
            "bad_shard",
            "{shard}"
        );
    }
}

#[test]
fn what_is_wrong_with_one_stops_no_other() {
    let keys = format!("{YEARLY}  required_tables: [users]\n");
    let Some(fleet) = Fleet::new(2, &keys) else {
        return;
    };
    let file = fleet.sandbox.path("pgkeep.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let bad = "  t8: {url: 'postgresql:///nothing?host=/nowhere'}\n";
    std::fs::write(&file, format!("{text}{bad}")).unwrap();
    let ended = fleet.sandbox.pgkeep(["backup", "--due", "--json"]).run();
    let failure = ended.exit_error();
    assert_eq!(
        (&failure["id"], &failure["code"]),
        (&"some_failed".into(), &20.into()),
        "{failure:#}"
    );
    assert!(databases(&ended.summary()).contains(&"t0"));
    assert!(databases(&ended.summary()).contains(&"t1"));
}

#[test]
fn flags_of_one_backup_do_not_go_with_a_schedule() {
    let Some(fleet) = Fleet::new(1, "") else {
        return;
    };
    for (flags, id) in [
        (&["--table", "users"][..], "flags_with_due"),
        (&["--url", "postgresql:///x"], "flags_with_due"),
        (&["--preset", "supabase"], "flags_with_due"),
        (&["--limit", "users=newest:3:id"], "bad_limit"),
        (&["--limit", "0"], "bad_limit"),
        (&[], "no_schedule"),
    ] {
        let run = fleet
            .sandbox
            .pgkeep([&["backup", "--due", "--json"], flags].concat());
        assert_eq!(run.run().expect(2).exit_error()["id"], id, "{flags:?}");
    }
}

/// Several workers, one of which is killed in the middle: every database has one backup for its slot.
#[test]
fn workers_share_the_work_and_make_up_for_one_that_dies() {
    let Some(fleet) = Fleet::new(8, YEARLY) else {
        return;
    };
    let worker = || {
        fleet
            .sandbox
            .pgkeep(["backup", "--due"])
            .limit(Duration::from_secs(120))
            .start()
    };
    let (one, two, three) = (worker(), worker(), worker());
    let began = Instant::now();
    let lease = |number: usize| fleet.sandbox.path(format!("backups/t{number}/lease.json"));
    while !(0..8).any(|number| lease(number).exists()) {
        assert!(began.elapsed() < Duration::from_secs(60), "no worker began");
        sleep(Duration::from_millis(2));
    }
    one.signal(Signal::KILL);
    assert!(one.wait().signal().is_some());
    two.wait().expect(0);
    three.wait().expect(0);
    // What the dead one had may be left for whoever looks next, once its lease is dead.
    sleep(Duration::from_secs(3));
    fleet.sandbox.pgkeep(["backup", "--due"]).run().expect(0);
    let slots = fleet.slots("backup");
    assert_eq!(slots.len(), 8, "{slots:#?}");
    for (of, records) in &slots {
        let good = records.iter().filter(|record| record["exit_code"] == 0);
        assert_eq!(good.count(), 1, "{of:?} {records:#?}");
        let died = records.iter().filter(|record| record["exit_code"] != 0);
        assert!(
            died.clone()
                .all(|record| record["failure_id"] == "run_interrupted"),
            "{records:#?}"
        );
        assert!(died.count() <= 1, "{records:#?}");
    }
}
