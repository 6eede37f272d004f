//! Compares a restored database with the dump that it came from, table by table.
//!
//! Both sides are what the scanner read, so a row counts as equal when its COPY line is. A table whose columns came
//! back in another order and a partition whose rows may lie in a sibling are told apart from real differences.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::Serialize;

use crate::manifest::TableRecord;
use crate::name::TableName;
use crate::scan::{Columns, RowDigest, SequenceValue, Table, TableKind};
use crate::words::count;

/// What was dumped of one table, and what must be there again.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    /// Its name.
    pub name: TableName,
    /// How it is made; none where the dump holds only rows.
    pub kind: Option<TableKind>,
    /// Columns in the order of the COPY lines.
    pub columns: Option<Columns>,
    /// Rows; none where the dump holds no data of it.
    pub rows: Option<u64>,
    /// Digest of the rows; none for INSERT statements.
    pub digest: Option<RowDigest>,
}

impl From<&TableRecord> for Expected {
    fn from(record: &TableRecord) -> Self {
        Self {
            name: TableName::new(&record.schema, &record.name),
            kind: record.kind,
            columns: record.columns.clone(),
            rows: record.rows,
            digest: record.digest,
        }
    }
}

impl From<&Table> for Expected {
    fn from(table: &Table) -> Self {
        Self {
            name: table.full_name(),
            kind: table.kind,
            columns: table.columns.clone(),
            rows: table.rows,
            digest: table.digest,
        }
    }
}

/// How one table compares.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableOutcome {
    /// Its name, as people write it.
    pub table: String,
    /// How it is made.
    pub kind: Option<TableKind>,
    /// Rows that were dumped.
    pub rows: Option<u64>,
    /// Digest of the rows that were dumped.
    pub digest: Option<RowDigest>,
    /// Rows that are there now.
    pub found_rows: Option<u64>,
    /// Digest of the rows that are there now.
    pub found_digest: Option<RowDigest>,
    /// What is different; none when all is equal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What was taken into account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl TableOutcome {
    /// Begins with what was dumped, not compared yet.
    pub fn new(expected: &Expected) -> Self {
        Self {
            table: expected.name.to_string(),
            kind: expected.kind,
            rows: expected.rows,
            digest: expected.digest,
            found_rows: None,
            found_digest: None,
            problem: None,
            note: None,
        }
    }

    fn differs(mut self, problem: impl Into<String>) -> Self {
        self.problem = Some(problem.into());
        self
    }
}

/// A table that came back with its columns in another order: its rows must be read once more, in the dump's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reordered {
    /// Which one.
    pub name: TableName,
    /// The columns as they were dumped.
    pub columns: Vec<String>,
}

/// Returns the tables whose digest says nothing because their columns came back in another order.
pub fn reordered(expected: &[Expected], found: &[Table]) -> Vec<Reordered> {
    let found = by_name(found);
    let is_other_order = |expected: &&Expected| {
        let before = expected.columns.as_deref();
        let now = found
            .get(&expected.name)
            .and_then(|table| table.columns.as_deref());
        matches!((before, now), (Some(before), Some(now)) if before != now && same_names(before, now))
    };
    expected
        .iter()
        .filter(is_other_order)
        .map(|expected| Reordered {
            name: expected.name.clone(),
            columns: expected.columns.as_deref().unwrap_or_default().to_vec(),
        })
        .collect()
}

/// Returns the tables whose rows are as many and look otherwise, though their columns came back as they were: to be
/// read once more where they may have been printed in another text form.
pub fn of_other_form(expected: &[Expected], found: &[Table]) -> Vec<Reordered> {
    let found = by_name(found);
    let is_other = |expected: &&Expected| {
        found.get(&expected.name).is_some_and(|table| {
            table.rows == expected.rows
                && table.columns == expected.columns
                && expected.digest.is_some()
                && expected
                    .columns
                    .as_ref()
                    .is_some_and(|columns| !columns.is_empty())
                && table.digest != expected.digest
        })
    };
    let other = expected.iter().filter(is_other);
    other
        .map(|expected| Reordered {
            name: expected.name.clone(),
            columns: expected.columns.as_deref().unwrap_or_default().to_vec(),
        })
        .collect()
}

fn same_names(a: &[String], b: &[String]) -> bool {
    a.iter().collect::<BTreeSet<_>>() == b.iter().collect::<BTreeSet<_>>()
}

/// Compares. `roots` names the topmost table of each partition that is there now; `read_again` holds the rows of
/// [`reordered`] tables in the dump's order.
pub fn compare(
    expected: &[Expected],
    found: &[Table],
    roots: &HashMap<TableName, TableName>,
    read_again: &HashMap<TableName, (u64, RowDigest)>,
) -> Vec<TableOutcome> {
    let by_name = by_name(found);
    let mut outcomes: Vec<TableOutcome> = expected
        .iter()
        .map(|expected| {
            let table = by_name.get(&expected.name).copied();
            one(expected, table, read_again.get(&expected.name))
        })
        .collect();
    accept_moved_rows(expected, found, roots, &mut outcomes);
    outcomes
}

/// Compares what sequences were set to with what they say now; returns each difference, with the sequence's name.
pub fn compare_sequences(expected: &[SequenceValue], found: &[SequenceValue]) -> Vec<String> {
    let found: HashMap<&TableName, &SequenceValue> =
        found.iter().map(|value| (&value.name, value)).collect();
    let words = |sequence: &SequenceValue| {
        if sequence.is_called {
            format!("{} is its last value", sequence.value)
        } else {
            format!("{} is its next value", sequence.value)
        }
    };
    let differs = |wanted: &SequenceValue| match found.get(&wanted.name) {
        None => Some(format!("sequence {}: it is missing", wanted.name)),
        Some(now) if *now == wanted => None,
        Some(now) => Some(format!(
            "sequence {}: {} in the dump, and {} now",
            wanted.name,
            words(wanted),
            words(now)
        )),
    };
    expected.iter().filter_map(differs).collect()
}

fn by_name(tables: &[Table]) -> HashMap<TableName, &Table> {
    tables
        .iter()
        .map(|table| (table.full_name(), table))
        .collect()
}

fn one(
    expected: &Expected,
    found: Option<&Table>,
    again: Option<&(u64, RowDigest)>,
) -> TableOutcome {
    let mut outcome = TableOutcome::new(expected);
    let Some(found) = found.filter(|found| expected.kind.is_none() || found.kind.is_some()) else {
        return outcome.differs("it is missing");
    };
    (outcome.found_rows, outcome.found_digest) = (found.rows, found.digest);
    if let Some((rows, digest)) = again {
        (outcome.found_rows, outcome.found_digest) = (Some(*rows), Some(*digest));
        let is_other_order = expected.columns != found.columns;
        let as_dumped = if is_other_order {
            "order of the columns"
        } else {
            "text form"
        };
        outcome.note = Some(format!("compared in the {as_dumped} as dumped"));
    }
    match (expected.rows, outcome.found_rows) {
        (None, _) => return outcome,
        (Some(rows), found) if Some(rows) != found => {
            let found = found.map_or("no data".to_owned(), |found| count(found, "row"));
            return outcome.differs(format!(
                "{} in the dump, but {found} restored",
                count(rows, "row")
            ));
        }
        _ => {}
    }
    match (expected.digest, outcome.found_digest) {
        (Some(before), Some(now)) if before != now => {
            let columns = expected.columns.as_ref().zip(found.columns.as_ref());
            if columns.is_some_and(|(before, now)| !same_names(before, now)) {
                outcome.differs("its columns differ")
            } else {
                outcome.differs("restored rows have other values")
            }
        }
        (None, _) => {
            outcome.note =
                Some("its rows are INSERT statements: only their number was compared".to_owned());
            outcome
        }
        _ => outcome,
    }
}

/// Rows of hash partitions may come back in another leaf (the hash of an enum follows the type's object id), or were
/// dumped through the root on one side only. The sum over the whole tree tells whether a row is missing or changed;
/// range and list partitions cannot hold a row that is not theirs, so nothing is let through there.
fn accept_moved_rows(
    expected: &[Expected],
    found: &[Table],
    roots: &HashMap<TableName, TableName>,
    outcomes: &mut [TableOutcome],
) {
    let root_of = |name: &TableName| roots.get(name).unwrap_or(name).clone();
    let tops: HashSet<&TableName> = roots.values().collect();
    let mut doubtful: BTreeMap<TableName, Vec<usize>> = BTreeMap::new();
    for (at, outcome) in outcomes.iter().enumerate() {
        let name = &expected[at].name;
        let is_in_tree = roots.contains_key(name) || tops.contains(name);
        let is_missing =
            outcome.found_rows.is_none() && outcome.problem.as_deref() == Some("it is missing");
        if outcome.problem.is_some() && is_in_tree && !is_missing {
            doubtful
                .entry(root_of(&expected[at].name))
                .or_default()
                .push(at);
        }
    }
    for (root, members) in doubtful {
        let before = sum(expected
            .iter()
            .filter(|table| root_of(&table.name) == root)
            .map(|table| (table.rows, table.digest)));
        let now = sum(found
            .iter()
            .filter(|table| root_of(&table.full_name()) == root)
            .map(|table| (table.rows, table.digest)));
        if before == now {
            for at in members {
                outcomes[at].problem = None;
                outcomes[at].note = Some(format!(
                    "its rows moved between partitions of {root}; their sum is equal"
                ));
            }
        }
    }
}

fn sum(parts: impl Iterator<Item = (Option<u64>, Option<RowDigest>)>) -> (u64, RowDigest) {
    parts.fold(
        (0, RowDigest::default()),
        |(rows, mut digest), (more, part)| {
            digest.add(part.unwrap_or_default());
            (rows + more.unwrap_or(0), digest)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(rows: &[&str]) -> RowDigest {
        let mut digest = RowDigest::default();
        rows.iter().for_each(|row| digest.add_row(row.as_bytes()));
        digest
    }

    fn table(name: &str, kind: TableKind, rows: Option<&[&str]>, columns: &[&str]) -> Table {
        Table {
            database: None,
            schema: "public".into(),
            name: name.into(),
            parent: None,
            kind: Some(kind),
            rows: rows.map(|rows| rows.len() as u64),
            bytes: 0,
            digest: rows.map(digest),
            columns: rows.map(|_| columns.iter().map(|&c| c.to_owned()).collect()),
            blocks: Vec::new(),
        }
    }

    fn plain(name: &str, rows: &[&str]) -> Table {
        table(name, TableKind::Table, Some(rows), &["a"])
    }

    fn problems(before: &[Table], now: &[Table], roots: &[(&str, &str)]) -> Vec<Option<String>> {
        let expected: Vec<Expected> = before.iter().map(Expected::from).collect();
        let name = |name: &str| TableName::new("public", name);
        let roots = roots
            .iter()
            .map(|(leaf, root)| (name(leaf), name(root)))
            .collect();
        compare(&expected, now, &roots, &HashMap::new())
            .into_iter()
            .map(|outcome| outcome.problem)
            .collect()
    }

    #[test]
    fn equal_tables_are_equal_in_any_order() {
        let before = [plain("t", &["1", "2"]), plain("u", &[])];
        assert_eq!(
            problems(&before, &[plain("u", &[]), plain("t", &["2", "1"])], &[]),
            [None, None]
        );
    }

    #[test]
    fn names_each_difference() {
        for (now, says) in [
            (vec![], "missing"),
            (
                vec![plain("t", &["1"])],
                "2 rows in the dump, but 1 row restored",
            ),
            (vec![plain("t", &["1", "3"])], "other values"),
            (
                vec![table("t", TableKind::Table, Some(&["1", "3"]), &["b"])],
                "columns differ",
            ),
            (vec![table("t", TableKind::Table, None, &[])], "no data"),
        ] {
            let found = problems(&[plain("t", &["1", "2"])], &now, &[]);
            assert!(found[0].as_ref().unwrap().contains(says), "{found:?}");
        }
    }

    #[test]
    fn sequences_are_compared_by_value_and_call() {
        let value = |name: &str, value, is_called| SequenceValue {
            name: TableName::new("public", name),
            value,
            is_called,
        };
        let expected = [
            value("a", 5, true),
            value("b", 1, false),
            value("c", 2, true),
        ];
        assert_eq!(compare_sequences(&expected, &expected), [""; 0]);
        let now = [value("a", 4, true), value("b", 1, true)];
        let told = compare_sequences(&expected, &now);
        assert_eq!(told.len(), 3, "{told:?}");
        assert_eq!(
            told[0],
            "sequence public.a: 5 is its last value in the dump, and 4 is its last value now"
        );
        assert!(told[2].ends_with("it is missing"));
    }

    #[test]
    fn structure_alone_needs_only_its_table() {
        let before = [table("t", TableKind::Table, None, &[])];
        assert_eq!(problems(&before, &[plain("t", &[])], &[]), [None]);
        assert!(problems(&before, &[], &[])[0].is_some());
    }

    #[test]
    fn rows_may_move_between_partitions_but_not_change() {
        let tree = |a: &[&str], b: &[&str]| {
            vec![
                table("root", TableKind::Partitioned, None, &[]),
                plain("leaf_a", a),
                plain("leaf_b", b),
            ]
        };
        let roots = [("leaf_a", "root"), ("leaf_b", "root")];
        let before = tree(&["1", "2"], &["3"]);
        assert_eq!(
            problems(&before, &tree(&["1"], &["2", "3"]), &roots),
            [None, None, None]
        );
        let changed = problems(&before, &tree(&["1"], &["2", "4"]), &roots);
        assert!(changed[1].is_some() && changed[2].is_some());
        // The same move between tables that are no partitions is a difference.
        assert!(problems(&before, &tree(&["1"], &["2", "3"]), &[])[1].is_some());
        // Dumped by leaf, found by root.
        let by_root = vec![
            table(
                "root",
                TableKind::Partitioned,
                Some(&["3", "2", "1"]),
                &["a"],
            ),
            table("leaf_a", TableKind::Partition, None, &[]),
            table("leaf_b", TableKind::Partition, None, &[]),
        ];
        assert_eq!(problems(&before, &by_root, &roots), [None, None, None]);
    }

    #[test]
    fn columns_in_another_order_are_read_again() {
        let before = [table("t", TableKind::Table, Some(&["1\tx"]), &["a", "b"])];
        let now = [table("t", TableKind::Table, Some(&["x\t1"]), &["b", "a"])];
        let expected: Vec<Expected> = before.iter().map(Expected::from).collect();
        let again = reordered(&expected, &now);
        assert_eq!(again.len(), 1);
        assert_eq!(again[0].columns, ["a", "b"]);
        let read = HashMap::from([(again[0].name.clone(), (1, digest(&["1\tx"])))]);
        let outcome = compare(&expected, &now, &HashMap::new(), &read);
        assert_eq!(outcome[0].problem, None);
        assert!(
            compare(&expected, &now, &HashMap::new(), &HashMap::new())[0]
                .problem
                .is_some()
        );
    }
}
