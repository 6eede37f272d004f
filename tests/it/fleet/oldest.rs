//! `drill --oldest`: every database has its turn.

use super::Fleet;

#[test]
fn those_that_were_drilled_longest_ago_come_first() {
    let Some(fleet) = Fleet::new(3, "") else {
        return;
    };
    fleet.sandbox.pgkeep(["-d", "t0", "backup"]).run().expect(0);
    fleet.sandbox.pgkeep(["-d", "t1", "backup"]).run().expect(0);
    // The third has no backup: there is nothing to drill.
    let drill = |flags: &[&str]| {
        let all = [&["drill", "--oldest", "--json"], flags].concat();
        let ended = fleet.sandbox.pgkeep(all).run().expect(0);
        let summaries = ended.json_lines().into_iter();
        let ids = summaries.filter_map(|line| Some(line.get("backup_id")?.as_str()?.to_owned()));
        ids.map(|id| id[..2].to_owned()).collect::<Vec<_>>()
    };
    let first = drill(&[]);
    let second = drill(&[]);
    assert_eq!([first.clone(), second.clone()].concat().len(), 2);
    assert_ne!(first, second);
    // Now the first one's drill is the oldest again.
    assert_eq!(drill(&[]), first);
    let both = drill(&["--limit", "5"]);
    assert_eq!(both, [second, first].concat());
    let records = fleet.slots("drill");
    assert_eq!(
        records.values().map(Vec::len).sum::<usize>(),
        5,
        "{records:#?}"
    );
}

/// One whose drill fails gives way to the others, so that it does not keep them from their turn.
#[test]
fn one_that_fails_gives_way() {
    let Some(fleet) = Fleet::new(2, "") else {
        return;
    };
    let file = fleet.sandbox.path("pgkeep.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let changed = text.replacen(
        "  t0: {url:",
        "  t0: {drill: {assertions: [{name: wrong, sql: 'SELECT 1', expect: no_rows}]}, url:",
        1,
    );
    std::fs::write(&file, changed).unwrap();
    fleet.sandbox.pgkeep(["backup"]).run().expect(0);
    let mut codes = Vec::new();
    for _ in 0..4 {
        codes.push(fleet.sandbox.pgkeep(["drill", "--oldest"]).run().code());
    }
    // At most one of them is of the database that fails: from then on the other one has all turns.
    assert!(
        codes.iter().filter(|code| **code == 23).count() <= 1,
        "{codes:?}"
    );
    assert_eq!(codes[2..], [0, 0], "{codes:?}");
}
