//! Reads a restored database again through `pg_dump` and the scanner, and compares it with what was dumped.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::failure::{Failure, Kind, Result};
use crate::model::connection::Connection;
use crate::model::name::{TableName, quote};
use crate::model::restore::compare::{Expected, Reordered, TableOutcome, compare, reordered};
use crate::model::scan::{self, RowDigest, Scan, Scanner};
use crate::model::supabase;
use crate::postgres::Error;
use crate::postgres::dump::{DumpRequest, Selection};
use crate::postgres::environment::Environment;
use crate::postgres::process::Output;
use crate::postgres::programs::{Found, Programs};
use crate::postgres::psql::Psql;
use crate::postgres::server::{ServerFacts, TableFacts, TableKind};
use crate::stream::pipeline::Progress;

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
}

impl Check<'_> {
    /// Dumps the database again and compares every expected table.
    pub(crate) async fn run(
        &self,
        expected: &[Expected],
        cancel: &CancellationToken,
    ) -> std::result::Result<Compared, Error> {
        let newest = self.found.newest()?;
        let facts = ServerFacts::read(newest, self.environment, self.connection, cancel).await?;
        let programs = self
            .found
            .choose(Some(facts.major()), self.connection.minimum_client_major())?;
        let scan = self.dump(programs, &facts, expected, cancel).await?;
        let mut again = HashMap::new();
        for table in reordered(expected, &scan.tables) {
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
        })
    }

    async fn dump(
        &self,
        programs: &Programs,
        facts: &ServerFacts,
        expected: &[Expected],
        cancel: &CancellationToken,
    ) -> std::result::Result<Scan, Error> {
        let selection = Selection {
            exclude_schemas: platform_schemas(facts, expected),
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
            sections: &[],
        };
        let mut dump = request.start(cancel)?;
        let (output, progress) = (dump.take_output(), Arc::clone(&self.progress));
        let scanned = tokio::task::spawn_blocking(move || scan_output(output, &[], &progress));
        let scanned = scanned.await.expect("scanning does not panic");
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
        let columns: Vec<String> = table.columns.iter().map(|column| quote(column)).collect();
        let columns = columns.join(", ");
        let what = match is_root {
            true => format!("(SELECT {columns} FROM {name})"),
            false => format!("{name} ({columns})"),
        };
        let encoding = if facts.is_sql_ascii() {
            "SQL_ASCII"
        } else {
            "UTF8"
        };
        let sql =
            format!("{AS_PG_DUMP} SET client_encoding = '{encoding}';\nCOPY {what} TO STDOUT;\n");
        let psql = Psql::new(programs, self.environment, self.connection);
        let psql = match facts.session_settings_applied {
            true => psql.with_session_settings(),
            false => psql.without_session_settings(),
        };
        let mut running = psql.program().input(sql).spawn(cancel)?;
        let (output, progress) = (running.take_output(), Arc::clone(&self.progress));
        let head = format!("COPY {name} FROM stdin;\n").into_bytes();
        let scanned = tokio::task::spawn_blocking(move || scan_output(output, &head, &progress));
        let scanned = scanned.await.expect("scanning does not panic");
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

/// The platform's schemas belong to the target; its role may not even read them.
fn platform_schemas(facts: &ServerFacts, expected: &[Expected]) -> Vec<String> {
    let is_supabase = facts
        .schemas
        .iter()
        .any(|name| name == "supabase_migrations" || name == "auth")
        && facts
            .schemas
            .iter()
            .any(|name| name == "realtime" || name == "vault");
    if !is_supabase {
        return Vec::new();
    }
    let mut schemas = supabase::managed(&facts.schemas);
    schemas.retain(|schema| {
        expected
            .iter()
            .all(|table| table.name.schema_or_public() != schema)
    });
    schemas
}

fn beside(expected: &[Expected], scan: &Scan) -> Vec<String> {
    let known: HashSet<&TableName> = expected.iter().map(|table| &table.name).collect();
    let more = scan
        .tables
        .iter()
        .filter(|table| table.kind.is_some() && !known.contains(&table.full_name()));
    more.map(|table| format!("`{}` is there and was not in the dump", table.full_name()))
        .collect()
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
            let columns = table.columns.iter().flatten().map(|column| quote(column));
            let columns = columns.collect::<Vec<_>>().join(", ");
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
    }
}

/// Judges a comparison: every table that differs is named.
pub(crate) fn judge(what: &str, compared: &Compared, large_objects: Option<u64>) -> Result<()> {
    let mut problems: Vec<String> = compared
        .tables
        .iter()
        .filter_map(|table| Some(format!("{}: {}", table.table, table.problem.as_ref()?)))
        .collect();
    let tables = problems.len();
    if let Some(wanted) = large_objects.filter(|wanted| *wanted != compared.large_objects) {
        problems.push(format!(
            "{wanted} large objects were dumped, {} came back",
            compared.large_objects
        ));
    }
    if problems.is_empty() {
        return Ok(());
    }
    let message = match tables {
        0 => format!("{what}: the large objects are not as they were dumped"),
        _ => format!(
            "{what}: {tables} of {} tables are not as they were dumped",
            compared.tables.len()
        ),
    };
    Err(Failure::new(Kind::Damaged, "restore_differs", message).with_details(problems))
}
