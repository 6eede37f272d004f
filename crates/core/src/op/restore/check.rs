//! Reads a restored database again through `pg_dump` and the scanner, and compares it with what was dumped.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::postgres::Error;
use crate::postgres::dump::{DumpRequest, Selection};
use crate::postgres::environment::Environment;
use crate::postgres::feed::Answers;
use crate::postgres::process::Output;
use crate::postgres::programs::{Found, Programs};
use crate::postgres::psql::Psql;
use crate::postgres::server::{ServerFacts, TableFacts, TableKind};
use crate::stream::pipeline::Progress;
use pgkeep_model::connection::Connection;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::name::{TableName, quote};
use pgkeep_model::restore::compare::{
    Expected, Reordered, TableOutcome, compare, compare_sequences, of_other_form, reordered,
};
use pgkeep_model::scan::{self, RowDigest, Scan, Scanner, SequenceValue, Table};
use pgkeep_model::supabase;
use pgkeep_model::text_form::TextForm;
use pgkeep_model::words::count;

/// Nobody else works in a database that was just restored.
const LOCK_WAIT: Duration = Duration::from_secs(60);

/// What `pg_dump` sets for its own session, so that one table's rows read alike.
const AS_PG_DUMP: &str = "SET search_path = ''; SET DateStyle = ISO; SET IntervalStyle = postgres; \
SET extra_float_digits = 3; SET row_security = off; SET statement_timeout = 0; SET synchronize_seqscans = off;";

/// A database to compare.
pub(crate) struct Check<'a> {
    pub found: &'a Found,
    pub environment: &'a Environment,
    pub connection: &'a Connection,
    /// Schemas that the restore made and the dump does not hold.
    pub ignored_schemas: &'a [String],
    /// Encoding of the dump's text.
    pub encoding: &'a str,
    /// Whether the dump is a hosting platform's, whose own schemas are the target's.
    pub is_platform: bool,
    /// Text form of the dump's values.
    pub form: &'a TextForm,
    pub progress: Arc<Progress>,
}

/// What the comparison said.
#[derive(Debug)]
pub(crate) struct Compared {
    pub tables: Vec<TableOutcome>,
    /// What is there besides.
    pub warnings: Vec<String>,
    /// Large objects that are there.
    pub large_objects: u64,
    /// Sequences that do not say what they were set to.
    pub sequences: Vec<String>,
}

impl Check<'_> {
    /// Dumps the database again and compares every expected table.
    pub(crate) async fn run(
        &self,
        expected: &[Expected],
        sequences: &[SequenceValue],
        cancel: &CancellationToken,
    ) -> std::result::Result<Compared, Error> {
        let newest = self.found.newest()?;
        let mut facts =
            ServerFacts::read(newest, self.environment, self.connection, cancel).await?;
        facts.wanted_encoding = Some(self.encoding.to_owned());
        let programs = self
            .found
            .choose(Some(facts.major()), self.connection.minimum_client_major())?;
        let scan = self.dump(programs, &facts, expected, cancel).await?;
        let mut again = HashMap::new();
        let mut doubtful = reordered(expected, &scan.tables);
        // Dumped in our own form, or in the target's where it takes no settings: equal values may look otherwise.
        if *self.form != TextForm::default() || !facts.session_settings_applied {
            doubtful.extend(of_other_form(expected, &scan.tables));
        }
        for table in doubtful {
            let is_root = kind_of(&facts, &table.name) == Some(TableKind::Partitioned);
            let read = self
                .read_table(programs, &facts, &table, is_root, cancel)
                .await?;
            again.insert(table.name, read);
        }
        Ok(Compared {
            tables: compare(expected, &scan.tables, &roots(&facts), &again),
            warnings: beside(expected, &scan),
            large_objects: scan.large_objects,
            sequences: compare_sequences(
                &of_ours(sequences, &self.platform_schemas(&facts, expected)),
                &scan.sequences,
            ),
        })
    }

    /// The platform's schemas belong to the target; its role may not even read them.
    fn platform_schemas(&self, facts: &ServerFacts, expected: &[Expected]) -> Vec<String> {
        if !self.is_platform {
            return Vec::new();
        }
        let mut schemas = supabase::platform_schemas(&facts.schema_owners);
        schemas.retain(|schema| {
            expected
                .iter()
                .all(|table| table.name.schema_or_public() != schema)
        });
        schemas
    }

    async fn dump(
        &self,
        programs: &Programs,
        facts: &ServerFacts,
        expected: &[Expected],
        cancel: &CancellationToken,
    ) -> std::result::Result<Scan, Error> {
        let mut exclude_schemas = self.platform_schemas(facts, expected);
        exclude_schemas.extend_from_slice(self.ignored_schemas);
        let selection = Selection {
            exclude_schemas,
            ..Selection::default()
        };
        let request = DumpRequest {
            programs,
            environment: self.environment,
            connection: self.connection,
            server: facts,
            selection: &selection,
            lock_wait_timeout: LOCK_WAIT,
            snapshot: None,
            read_by_others: &[],
            sections: &[],
        };
        let mut dump = request.start(cancel)?;
        let (output, progress) = (dump.take_output(), Arc::clone(&self.progress));
        let thread = tokio::task::spawn_blocking(move || scan_output(output, &[], &progress));
        let scanned = thread.await.expect("scanning does not panic");
        dump.wait().await?;
        // An exit status of 0 ends the output, so an error here is one of the pipe itself.
        scanned.map_err(|error| Error::new(crate::postgres::Reason::Unreadable(error.to_string())))
    }

    /// Reads one table in the dump's order of columns, as a COPY block that the scanner understands.
    async fn read_table(
        &self,
        programs: &Programs,
        facts: &ServerFacts,
        table: &Reordered,
        is_root: bool,
        cancel: &CancellationToken,
    ) -> std::result::Result<(u64, RowDigest), Error> {
        let name = format!(
            "{}.{}",
            quote(table.name.schema_or_public()),
            quote(&table.name.name)
        );
        let names: Vec<String> = table.columns.iter().map(|column| quote(column)).collect();
        let columns = names.join(", ");
        let what = if is_root {
            format!("(SELECT {columns} FROM {name})")
        } else {
            format!("{name} ({columns})")
        };
        let encoding = facts.dump_encoding();
        let sql = format!(
            "{AS_PG_DUMP}\n{}SET client_encoding = '{encoding}';\nCOPY {what} TO STDOUT;\n",
            self.form.for_comparing()
        );
        let psql = Psql::new(programs, self.environment, self.connection);
        // The form is set by statements, and what it leaves open is the session's own.
        let session = if facts.session_settings_applied {
            psql
        } else {
            psql.without_session_settings()
        };
        let mut running = session.program().input(sql).spawn(cancel)?;
        let (output, progress) = (running.take_output(), Arc::clone(&self.progress));
        let head = format!("COPY {name} FROM stdin;\n").into_bytes();
        let thread = tokio::task::spawn_blocking(move || scan_output(output, &head, &progress));
        let scanned = thread.await.expect("scanning does not panic");
        running.wait().await.into_result()?;
        let scan = scanned
            .map_err(|error| Error::new(crate::postgres::Reason::Unreadable(error.to_string())))?;
        let table = scan.tables.first();
        let rows = table.and_then(|table| table.rows).unwrap_or(0);
        Ok((
            rows,
            table.and_then(|table| table.digest).unwrap_or_default(),
        ))
    }
}

/// Scans a program's output to its end, `head` in front of it.
fn scan_output(mut output: Output, head: &[u8], progress: &Progress) -> io::Result<Scan> {
    let mut scanner = Scanner::new();
    scanner.push(head);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let count = output.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        scanner.push(&buffer[..count]);
        progress.note_scan(&scanner);
    }
    if !head.is_empty() {
        scanner.push(b"\\.\n");
    }
    Ok(scanner.finish())
}

fn kind_of(facts: &ServerFacts, name: &TableName) -> Option<TableKind> {
    let found = facts
        .tables
        .iter()
        .find(|table| table.table_name() == *name)?;
    Some(found.kind)
}

/// Returns the topmost table of every partition.
fn roots(facts: &ServerFacts) -> HashMap<TableName, TableName> {
    let tables: HashMap<TableName, &TableFacts> = facts
        .tables
        .iter()
        .map(|table| (table.table_name(), table))
        .collect();
    let parent = |name: &TableName| -> Option<TableName> {
        let parents = tables.get(name)?.parents.iter();
        parents
            .map(|(schema, name)| TableName::new(schema, name))
            .find(|parent| {
                tables
                    .get(parent)
                    .is_some_and(|table| table.kind == TableKind::Partitioned)
            })
    };
    let root = |name: TableName| -> Option<(TableName, TableName)> {
        let mut top = parent(&name)?;
        while let Some(next) = parent(&top) {
            top = next;
        }
        Some((name, top))
    };
    let partitions = facts
        .tables
        .iter()
        .filter(|table| !table.parents.is_empty());
    partitions
        .filter_map(|table| root(table.table_name()))
        .collect()
}

fn beside(expected: &[Expected], scan: &Scan) -> Vec<String> {
    let known: HashSet<&TableName> = expected.iter().map(|table| &table.name).collect();
    let more = scan
        .tables
        .iter()
        .filter(|table| table.kind.is_some() && !known.contains(&table.full_name()));
    more.map(|table| format!("`{}` exists, but was not in the dump", table.full_name()))
        .collect()
}

/// What lies in the platform's schemas is not read again.
fn of_ours(sequences: &[SequenceValue], platform: &[String]) -> Vec<SequenceValue> {
    let is_ours = |sequence: &&SequenceValue| {
        !platform
            .iter()
            .any(|schema| schema == sequence.name.schema_or_public())
    };
    sequences.iter().filter(is_ours).cloned().collect()
}

/// What a session that has just restored a dump says of its catalog.
#[derive(Deserialize)]
struct Catalog {
    /// Schema and name of each table, and of the partitioned table that it is a part of.
    tables: Vec<(String, String, Option<String>, Option<String>)>,
    large_objects: u64,
}

const ONE_SEQUENCE: &str = "a sequence";

/// Asks for what rows do not tell, a line of JSON for each answer: tables, large objects, sequences.
pub(crate) fn catalog_questions(sequences: &[SequenceValue]) -> String {
    let mut sql = String::from(
        "SET client_encoding = 'UTF8';
SELECT jsonb_build_object('tables', coalesce(jsonb_agg(jsonb_build_array(n.nspname, c.relname, o.nspname, p.relname)), '[]'),
  'large_objects', (SELECT count(*) FROM pg_catalog.pg_largeobject_metadata))::text
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN (pg_catalog.pg_inherits i JOIN pg_catalog.pg_class p ON p.oid = i.inhparent AND p.relkind = 'p'
    JOIN pg_catalog.pg_namespace o ON o.oid = p.relnamespace) ON i.inhrelid = c.oid
WHERE c.relkind IN ('r', 'p', 'f');\n",
    );
    for (at, sequence) in asked(sequences) {
        sql += &format!(
            "SELECT jsonb_build_array({at}, last_value, is_called)::text FROM {}.{};\n",
            quote(sequence.name.schema_or_public()),
            quote(&sequence.name.name)
        );
    }
    sql
}

/// A name of no known encoding cannot be asked for.
fn asked(sequences: &[SequenceValue]) -> impl Iterator<Item = (usize, &SequenceValue)> {
    let is_readable = |name: &str| !name.contains(char::REPLACEMENT_CHARACTER);
    sequences.iter().enumerate().filter(move |(_, sequence)| {
        is_readable(&sequence.name.name) && is_readable(sequence.name.schema_or_public())
    })
}

/// Compares what a session said before its COMMIT with what was dumped; none where the answer cannot be read.
pub(crate) fn compare_filled(
    expected: &[Expected],
    sequences: &[SequenceValue],
    answers: Answers,
) -> Option<Compared> {
    let mut lines = answers
        .notes
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty());
    let catalog: Catalog = serde_json::from_str(lines.next()?).ok()?;
    let mut values = Vec::new();
    for line in lines {
        let (at, value, is_called): (usize, i64, bool) = serde_json::from_str(line).ok()?;
        let name = sequences.get(at)?.name.clone();
        values.push(SequenceValue {
            name,
            value,
            is_called,
        });
    }
    let asked: Vec<SequenceValue> = asked(sequences)
        .map(|(_, sequence)| sequence.clone())
        .collect();
    let there: HashSet<TableName> = catalog
        .tables
        .iter()
        .map(|(schema, name, ..)| TableName::new(schema, name))
        .collect();
    let read: HashMap<TableName, Table> = answers
        .scan
        .tables
        .into_iter()
        .map(|table| (table.full_name(), table))
        .collect();
    let mut found = Vec::new();
    for table in expected.iter().filter(|table| there.contains(&table.name)) {
        let rows = read.get(&table.name).filter(|_| table.rows.is_some());
        found.push(Table {
            kind: table.kind,
            columns: table.columns.clone(),
            rows: rows.and_then(|read| read.rows),
            digest: rows.and_then(|read| read.digest),
            ..Table::new(table.name.schema_or_public(), table.name.name.as_str())
        });
    }
    Some(Compared {
        tables: compare(expected, &found, &catalog.roots(), &HashMap::new()),
        warnings: Vec::new(),
        large_objects: catalog.large_objects,
        sequences: compare_sequences(&asked, &values),
    })
}

impl Catalog {
    /// Returns the topmost table of every partition.
    fn roots(&self) -> HashMap<TableName, TableName> {
        let parents: HashMap<TableName, TableName> = self
            .tables
            .iter()
            .filter_map(|(schema, name, above, parent)| {
                let parent = TableName::new(above.as_ref()?, parent.as_ref()?);
                Some((TableName::new(schema, name), parent))
            })
            .collect();
        let top = |name: &TableName| {
            let mut top = name;
            while let Some(parent) = parents.get(top) {
                top = parent;
            }
            top.clone()
        };
        parents
            .keys()
            .map(|name| (name.clone(), top(name)))
            .collect()
    }
}

/// Returns what to ask of a session that has just restored a dump, name and query of each table with rows.
pub(crate) fn questions(expected: &[Expected]) -> Vec<(String, String)> {
    let with_rows = expected.iter().filter(|table| table.rows.is_some());
    with_rows
        .map(|table| {
            let name = format!(
                "{}.{}",
                quote(table.name.schema_or_public()),
                quote(&table.name.name)
            );
            let known = table.columns.as_deref().unwrap_or_default();
            let names = known.iter().map(|column| quote(column));
            let columns = names.collect::<Vec<_>>().join(", ");
            let is_root = table.kind == Some(scan::TableKind::Partitioned);
            let what = match (is_root, columns.as_str()) {
                (true, "") => format!("(SELECT * FROM {name})"),
                (true, _) => format!("(SELECT {columns} FROM {name})"),
                (false, "") => name.clone(),
                (false, _) => format!("{name} ({columns})"),
            };
            (name, what)
        })
        .collect()
}

/// Compares the answers with what was dumped; tables without rows were restored by the same transaction.
pub(crate) fn compare_answers(expected: &[Expected], answers: Scan) -> Compared {
    let columns: HashMap<&TableName, &Expected> =
        expected.iter().map(|table| (&table.name, table)).collect();
    let with_rows: Vec<Expected> = expected
        .iter()
        .filter(|table| table.rows.is_some())
        .cloned()
        .collect();
    let mut tables = answers.tables;
    for table in &mut tables {
        if let Some(expected) = columns.get(&table.full_name()) {
            table.kind = expected.kind;
            table.columns.clone_from(&expected.columns);
        }
    }
    Compared {
        tables: compare(&with_rows, &tables, &HashMap::new(), &HashMap::new()),
        warnings: Vec::new(),
        large_objects: 0,
        sequences: Vec::new(),
    }
}

/// Judges a comparison: every table that differs is named.
pub(crate) fn judge(what: &str, compared: &Compared, large_objects: Option<u64>) -> Result<()> {
    let mut problems: Vec<String> = compared
        .tables
        .iter()
        .filter_map(|table| Some(format!("{}: {}", table.table, table.problem.as_ref()?)))
        .collect();
    let mut parts = Vec::new();
    if !problems.is_empty() {
        parts.push(format!(
            "{} of {} tables",
            problems.len(),
            compared.tables.len()
        ));
    }
    match compared.sequences.len() {
        0 => {}
        1 => parts.push(ONE_SEQUENCE.to_owned()),
        count => parts.push(format!("{count} sequences")),
    }
    problems.extend(compared.sequences.iter().cloned());
    if let Some(wanted) = large_objects.filter(|wanted| *wanted != compared.large_objects) {
        problems.push(format!(
            "{} in the dump, but {} restored",
            count(wanted, "large object"),
            compared.large_objects
        ));
        parts.push("the large objects".to_owned());
    }
    if problems.is_empty() {
        return Ok(());
    }
    let is_one = |part: &str| part == ONE_SEQUENCE || part.starts_with("1 of ");
    let message = match parts.as_slice() {
        [only] if is_one(only) => format!("{what}: {only} differs from the dump"),
        _ => format!("{what}: {} differ from the dump", parts.join(" and ")),
    };
    Err(Failure::new(Kind::Damaged, "restore_differs", message).with_details(problems))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, kind: scan::TableKind, rows: Option<&[&str]>) -> Table {
        let digest = rows.map(|rows| {
            let mut digest = RowDigest::default();
            rows.iter().for_each(|row| digest.add_row(row.as_bytes()));
            digest
        });
        Table {
            kind: Some(kind),
            rows: rows.map(|rows| rows.len() as u64),
            digest,
            ..Table::new("public", name)
        }
    }

    fn tree(a: &[&str], b: &[&str]) -> Vec<Table> {
        vec![
            table("root", scan::TableKind::Partitioned, None),
            table("a", scan::TableKind::Partition, Some(a)),
            table("b", scan::TableKind::Partition, Some(b)),
        ]
    }

    fn compared(before: &[Table], now: Vec<Table>, notes: &str) -> Compared {
        let expected: Vec<Expected> = before.iter().map(Expected::from).collect();
        let sequences = [SequenceValue {
            name: TableName::new("public", "s"),
            value: 7,
            is_called: true,
        }];
        let mut scan = Scanner::new().finish();
        scan.tables = now;
        let notes = notes.to_owned();
        compare_filled(&expected, &sequences, Answers { scan, notes }).unwrap()
    }

    /// Rows of hash partitions may lie in another leaf; a table that is not there is a difference without any row.
    #[test]
    fn partitions_are_summed_and_missing_tables_are_named() {
        let leaves = r#"["public","a","public","root"],["public","b","public","root"]"#;
        let whole = format!(
            r#"{{"tables": [["public","root",null,null],{leaves}], "large_objects": 2}}
               [0, 7, true]"#
        );
        let moved = compared(
            &tree(&["1", "2"], &["3"]),
            tree(&["1"], &["2", "3"]),
            &whole,
        );
        assert!(judge("x", &moved, Some(2)).is_ok(), "{moved:?}");
        let changed = compared(
            &tree(&["1", "2"], &["3"]),
            tree(&["1"], &["2", "4"]),
            &whole,
        );
        assert_eq!(judge("x", &changed, Some(2)).unwrap_err().details.len(), 2);
        let poor = format!(r#"{{"tables": [{leaves}], "large_objects": 1}}"#);
        let missing = compared(&tree(&["1"], &["3"]), tree(&["1"], &["3"]), &poor);
        let told = judge("x", &missing, Some(2)).unwrap_err();
        assert_eq!(
            told.message,
            "x: 1 of 3 tables and a sequence and the large objects differ from the dump"
        );
        assert_eq!(told.details[0], "public.root: it is missing");
    }
}
