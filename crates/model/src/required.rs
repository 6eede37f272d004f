//! Required tables: what a dump must create, and what to say when it does not.

use serde::Serialize;

use super::name::TableName;
use super::nearest::nearest_table;
use super::scan::Scan;
use super::words::count;

/// A table that must have its CREATE TABLE in the dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequiredTable {
    /// Its name; `public` is meant where no schema is written.
    pub table: TableName,
    /// Least number of rows that must be in the dump.
    pub min_rows: Option<u64>,
}

/// What was found of a required table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RequiredOutcome {
    /// Its name as SQL writes it.
    pub table: String,
    /// Least number of rows asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_rows: Option<u64>,
    /// Whether the dump creates it.
    pub found: bool,
    /// Rows found, those of its partitions included; none where the dump holds no data of it.
    pub rows: Option<u64>,
    /// Why it does not fulfil what is required, with the nearest table; none when it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl RequiredTable {
    /// Makes a requirement without a number of rows.
    pub fn new(table: TableName) -> Self {
        Self {
            table,
            min_rows: None,
        }
    }

    /// Adds requirements to others. A table that is required twice counts once, with the larger number of rows.
    pub fn add(all: &mut Vec<Self>, more: impl IntoIterator<Item = Self>) {
        for one in more {
            match all
                .iter_mut()
                .find(|known| is_same(&known.table, &one.table))
            {
                Some(known) => known.min_rows = known.min_rows.max(one.min_rows),
                None => all.push(one),
            }
        }
    }

    /// Looks for the table in what a scan found.
    pub fn look_up(&self, scan: &Scan) -> RequiredOutcome {
        let found = scan.table(&self.table);
        let rows = found.and_then(|table| scan.rows_with_partitions(table));
        let problem = match found {
            None => Some(self.missing(scan)),
            Some(_) => self.too_few(rows),
        };
        RequiredOutcome {
            table: self.table.to_string(),
            min_rows: self.min_rows,
            found: found.is_some(),
            rows,
            problem,
        }
    }

    fn too_few(&self, rows: Option<u64>) -> Option<String> {
        let min_rows = self.min_rows?;
        match rows {
            Some(rows) if rows >= min_rows => None,
            Some(rows) => Some(format!(
                "has {}, but must have at least {min_rows}",
                count(rows, "row")
            )),
            None => Some(format!(
                "has no data in the dump, but must have at least {}",
                count(min_rows, "row")
            )),
        }
    }

    fn missing(&self, scan: &Scan) -> String {
        let made = scan
            .tables
            .iter()
            .filter(|table| table.kind.is_some())
            .map(|table| (table.schema.as_str(), table.name.as_str()));
        match nearest_table(&self.table, made) {
            Some(table) => format!("is not in the dump; there is `{table}`"),
            None => "is not in the dump".to_owned(),
        }
    }
}

/// A name without a schema means the table in `public`.
fn is_same(one: &TableName, other: &TableName) -> bool {
    let full = |table: &TableName| {
        (
            table.schema.clone().unwrap_or_else(|| "public".to_owned()),
            table.name.clone(),
        )
    };
    full(one) == full(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::Scanner;

    #[test]
    fn a_table_that_is_required_twice_counts_once() {
        let with = |name: &str, min_rows| RequiredTable {
            min_rows,
            ..RequiredTable::new(name.parse().unwrap())
        };
        let mut all = vec![with("users", Some(3)), with("app.users", None)];
        let more = [
            with("public.users", None),
            with("app.users", Some(2)),
            with("t", None),
        ];
        RequiredTable::add(&mut all, more);
        let counted: Vec<_> = all
            .iter()
            .map(|one| (one.table.to_string(), one.min_rows))
            .collect();
        let wanted = [("users", Some(3)), ("app.users", Some(2)), ("t", None)];
        assert_eq!(counted, wanted.map(|(name, rows)| (name.to_owned(), rows)));
    }

    fn scan() -> Scan {
        let mut scanner = Scanner::new();
        scanner.push(
            b"CREATE TABLE public.\"AutoBook\" (a int);\nCREATE TABLE app.users (a int);\nCREATE VIEW public.v AS SELECT 1;\n\
              COPY public.\"AutoBook\" (a) FROM stdin;\n1\n2\n\\.\nCOPY public.bare (a) FROM stdin;\n\\.\n",
        );
        scanner.finish()
    }

    fn problem(name: &str, min_rows: Option<u64>) -> Option<String> {
        RequiredTable {
            table: name.parse().unwrap(),
            min_rows,
        }
        .look_up(&scan())
        .problem
    }

    #[test]
    fn finds_by_schema_and_name() {
        assert_eq!(problem("\"AutoBook\"", None), None);
        assert_eq!(problem("public.\"AutoBook\"", Some(2)), None);
        assert_eq!(problem("app.users", None), None);
    }

    /// A table of two levels, one of whose partitions has a partition of its own, and a table that merely inherits.
    const PARTITIONS: &str = "CREATE TABLE app.ev (a int) PARTITION BY LIST (a);\n\
        CREATE TABLE app.\"Ev 1\" (a int);\nCREATE TABLE old.ev_2 (a int) PARTITION BY LIST (a);\n\
        CREATE UNLOGGED TABLE old.ev_2_a (a int);\nCREATE TABLE app.child (a int) INHERITS (app.ev);\n\
        ALTER TABLE ONLY app.ev ATTACH PARTITION app.\"Ev 1\" FOR VALUES IN (1);\n\
        ALTER TABLE ONLY app.ev ATTACH PARTITION old.ev_2 DEFAULT;\n\
        ALTER TABLE ONLY old.ev_2 ATTACH PARTITION old.ev_2_a DEFAULT;\n";

    fn partitions(rows: &str, min_rows: u64) -> RequiredOutcome {
        let mut scanner = Scanner::new();
        scanner.push(PARTITIONS.as_bytes());
        scanner.push(rows.as_bytes());
        let table = "app.ev".parse().unwrap();
        let min_rows = Some(min_rows);
        RequiredTable { table, min_rows }.look_up(&scanner.finish())
    }

    #[test]
    fn a_partitioned_table_has_the_rows_of_its_leaves() {
        let leaves = "COPY app.\"Ev 1\" (a) FROM stdin;\n1\n1\n\\.\nCOPY old.ev_2_a (a) FROM stdin;\n2\n\\.\n\
            COPY app.child (a) FROM stdin;\n9\n\\.\n";
        let outcome = partitions(leaves, 3);
        assert_eq!((outcome.rows, outcome.problem), (Some(3), None));
        assert_eq!(
            partitions(leaves, 4).problem.unwrap(),
            "has 3 rows, but must have at least 4"
        );
        assert_eq!(partitions("", 1).rows, None);
    }

    #[test]
    fn rows_that_are_loaded_through_the_root_count_once() {
        let block = "COPY app.ev (a) FROM stdin;\n1\n2\n\\.\n";
        let outcome = partitions(&block.repeat(2), 4);
        assert_eq!((outcome.rows, outcome.problem), (Some(4), None));
    }

    #[test]
    fn a_circle_of_parents_ends() {
        let circle = "ALTER TABLE ONLY old.ev_2_a ATTACH PARTITION app.ev DEFAULT;\n\
            ALTER TABLE ONLY app.\"Ev 1\" ATTACH PARTITION app.\"Ev 1\" DEFAULT;\n\
            INSERT INTO old.ev_2 VALUES (1), (2);\n";
        assert_eq!(partitions(circle, 2).rows, Some(2));
    }

    #[test]
    fn says_what_is_wrong_and_what_is_near() {
        let text = |name, rows| problem(name, rows).unwrap();
        assert_eq!(
            text("AutoBook", None),
            "is not in the dump; there is `public.\"AutoBook\"`"
        );
        assert_eq!(
            text("users", None),
            "is not in the dump; there is `app.users`"
        );
        assert_eq!(text("v", None), "is not in the dump");
        assert_eq!(text("bare", None), "is not in the dump");
        assert_eq!(
            text("\"AutoBook\"", Some(3)),
            "has 2 rows, but must have at least 3"
        );
        assert_eq!(
            text("app.users", Some(1)),
            "has no data in the dump, but must have at least 1 row"
        );
    }
}
