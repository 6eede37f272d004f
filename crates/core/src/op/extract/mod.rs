//! `extract`: one table's rows out of a backup or a dump, without any server.
//!
//! Out of a stored backup it reads the table's own chunks only. Rows go out as they come, but never the last of them
//! before rows and digest were found to be those of the manifest.

mod stored;
mod table;
mod target;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::stored::{NamedStorage, Wanted};
use crate::context::Context;
use crate::encryption::{IDENTITY_HINT, Identities};
use crate::stream::pipeline::Progress;
use crate::stream::stored::{Outcome, read_serially};
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::id::DatabaseName;
use pgkeep_model::name::TableName;
use pgkeep_model::nearest::did_you_mean;
use pgkeep_model::rows::Filter;
use pgkeep_model::scan::{Scan, Table};
use table::{Extractor, Written};

/// Size of the pieces that a file is read in.
const PIECE_BYTES: usize = 256 * 1024;

/// What to extract.
#[derive(Clone)]
pub struct Request {
    /// Where the rows come from.
    pub source: Source,
    /// Which rows.
    pub rows: Rows,
    /// Where they go.
    pub output: Output,
    /// What opens an encrypted file; backups have those of their storages.
    pub identities: Arc<Identities>,
}

/// Which rows, and how they are written.
#[derive(Clone, Debug)]
pub struct Rows {
    /// The table.
    pub table: TableName,
    /// How rows are written.
    pub format: RowFormat,
    /// Which of them.
    pub filter: Filter,
}

/// Where rows come from.
#[derive(Clone)]
pub enum Source {
    /// A backup.
    Backup {
        /// Where to look.
        storages: Vec<NamedStorage>,
        /// Only this database.
        database: Option<DatabaseName>,
        /// Which backup.
        wanted: Wanted,
    },
    /// A dump.
    File(PathBuf),
    /// A dump on standard input.
    Stdin,
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowFormat {
    /// A COPY block in a transaction of its own.
    Sql,
    /// RFC 4180.
    Csv,
    /// One JSON object a line.
    Jsonl,
}

/// Where rows go.
#[derive(Clone, Debug)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// A file.
    File {
        /// Its path.
        path: PathBuf,
        /// Whether one that is there may be replaced.
        replace: bool,
    },
}

/// What was extracted.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The backup's id, or the dump's file.
    pub source: String,
    /// The table, with its schema.
    pub table: String,
    /// Rows that were written.
    pub rows: u64,
    /// Rows of the table.
    pub table_rows: u64,
    /// Stored bytes that were read.
    pub read_bytes: u64,
    /// Whether only the table's own bytes were read.
    pub ranged: bool,
    /// The storage; none for a dump.
    pub storage: Option<String>,
    /// The file that was written; none for standard output.
    pub file: Option<String>,
    /// What was odd.
    pub warnings: Vec<String>,
    /// A storage that did not answer while others did: the newest backup there may be another.
    #[serde(skip)]
    pub failure: Option<Failure>,
}

/// Extracts the rows of one table; `progress` counts the bytes of the dump that were looked at.
pub async fn run(request: Request, context: &Context, progress: &Arc<Progress>) -> Result<Report> {
    target::check(&request.output)?;
    if let Source::Backup {
        storages,
        database,
        wanted,
    } = &request.source
    {
        let database = database.as_ref();
        return stored::run(&request, storages, database, wanted, context, progress).await;
    }
    let (stop, progress) = (context.stop.clone(), Arc::clone(progress));
    // Awaited here; when somebody wants to stop, it ends at its next piece.
    let thread = tokio::task::spawn_blocking(move || from_dump(&request, stop, &progress));
    thread.await.map_err(|error| {
        let message = format!("a reading thread ended: {error}");
        Failure::new(Kind::Unexpected, "thread_ended", message)
    })?
}

fn from_dump(request: &Request, stop: crate::context::Stop, progress: &Progress) -> Result<Report> {
    let (name, input): (String, Box<dyn Read + Send>) = match &request.source {
        Source::File(path) => (path.display().to_string(), Box::new(open(path)?)),
        Source::Stdin | Source::Backup { .. } => ("-".to_owned(), Box::new(io::stdin())),
    };
    let what = format!("cannot extract `{}` from `{name}`", request.rows.table);
    let mut extractor = Extractor::new(&request.rows, &request.output, false, &what, stop)?;
    let read = read_serially(
        pieces(input),
        &request.identities,
        u64::MAX,
        progress,
        &mut |piece| {
            progress.note_more(piece.len() as u64, 0);
            extractor.push(piece)
        },
    );
    let outcome = read.map_err(|error| {
        let message = format!("{what}: cannot read on: {error}; {}", extractor.trust());
        Failure::new(Kind::Usage, "cannot_read", message)
    })?;
    let trust = extractor.trust();
    let end = extractor.end()?;
    if !end.is_left {
        judge_dump(&what, trust, &outcome, &end.scan, &request.rows.table)?;
    }
    let written = end.finish()?;
    Ok(report(
        name,
        &request.rows.table,
        written,
        outcome.stored_bytes,
    ))
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|error| {
        let message = format!("cannot open `{}`: {error}", path.display());
        Failure::new(Kind::Usage, "cannot_open", message)
    })
}

/// Reads an input piece by piece, up to its end or its first error.
fn pieces(mut input: Box<dyn Read + Send>) -> impl Iterator<Item = io::Result<Bytes>> + Send {
    std::iter::from_fn(move || {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match input.read(&mut piece) {
                Ok(0) => return None,
                Ok(count) => {
                    piece.truncate(count);
                    return Some(Ok(piece.into()));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Some(Err(error)),
            }
        }
    })
}

/// A dump without manifest is proven by itself: the table must be there, and the dump whole.
fn judge_dump(
    what: &str,
    trust: &str,
    outcome: &Outcome,
    scan: &Scan,
    name: &TableName,
) -> Result<()> {
    let incomplete = |why: &str| {
        Failure::new(
            Kind::Proof,
            "dump_incomplete",
            format!("{what}: {why}; {trust}"),
        )
        .hint("`pgkeep inspect FILE` shows what the dump holds")
    };
    if let Some(fault) = &outcome.fault {
        if let Some(id) = fault.locked {
            let message = format!("{what}: {}; {trust}", fault.message);
            return Err(Failure::new(Kind::Login, id, message).hint(IDENTITY_HINT));
        }
        return Err(incomplete(&fault.message));
    }
    let found = find(&scan.tables, name);
    match found {
        Some(table) if table.rows.is_some() && table.digest.is_none() => {
            let message = format!(
                "{what}: its rows are INSERT statements, which extract does not read; {trust}"
            );
            Err(Failure::new(Kind::Refused, "rows_are_inserts", message)
                .hint("`pg_dump` without `--inserts` writes COPY blocks"))
        }
        _ if !scan.complete => {
            let first = scan.problems.first();
            Err(incomplete(&format!(
                "the dump is not complete, so rows may be missing: {}",
                first.map_or("", |problem| problem.message.as_str())
            )))
        }
        Some(table) if table.rows.is_some() => Ok(()),
        Some(table) => Err(no_rows(
            what,
            table
                .kind
                .is_some_and(|kind| kind.as_str() == "partitioned"),
        )),
        None => Err(no_table(
            what,
            name,
            scan.tables.iter().map(Table::full_name),
        )),
    }
}

fn find<'a>(tables: &'a [Table], name: &TableName) -> Option<&'a Table> {
    tables
        .iter()
        .find(|table| table.name == name.name && table.schema == name.schema_or_public())
}

fn no_table(what: &str, name: &TableName, known: impl Iterator<Item = TableName>) -> Failure {
    let known: Vec<String> = known.map(|name| name.to_string()).collect();
    let full = TableName::new(name.schema_or_public(), name.name.clone()).to_string();
    let near = did_you_mean(&full, known.iter().map(String::as_str));
    // The same name in another schema is a likelier slip than a misspelt one.
    let elsewhere = known.iter().find(|known| {
        let known: Option<TableName> = known.parse().ok();
        known.is_some_and(|known| known.name == name.name)
    });
    let near = elsewhere.map_or(near, |known| format!("; did you mean `{known}`?"));
    Failure::new(
        Kind::NotFound,
        "no_such_table",
        format!("{what}: there is no such table{near}"),
    )
}

fn no_rows(what: &str, is_partitioned: bool) -> Failure {
    let why = if is_partitioned {
        "a partitioned table has no rows of its own: extract its partitions"
    } else {
        "the dump holds its structure only"
    };
    Failure::new(Kind::NotFound, "no_rows", format!("{what}: {why}"))
}

fn report(source: String, table: &TableName, written: Written, read_bytes: u64) -> Report {
    Report {
        source,
        table: TableName::new(table.schema_or_public(), table.name.clone()).to_string(),
        rows: written.rows,
        table_rows: written.table_rows,
        read_bytes,
        ranged: false,
        storage: None,
        file: written.file.map(|path| path.display().to_string()),
        warnings: written.warnings,
        failure: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Anyone who shows how far it has come sees every byte of the dump.
    #[tokio::test]
    async fn progress_counts_what_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sql");
        let dump = "CREATE TABLE t (a int);\nCOPY public.t (a) FROM stdin;\n1\n\\.\n\n\
                    --\n-- PostgreSQL database dump complete\n--\n";
        std::fs::write(&path, dump).unwrap();
        let request = Request {
            source: Source::File(path),
            rows: Rows {
                table: "t".parse().unwrap(),
                format: RowFormat::Csv,
                filter: Default::default(),
            },
            output: Output::File {
                path: folder.path().join("a.csv"),
                replace: false,
            },
            identities: Arc::default(),
        };
        let progress = Arc::new(Progress::default());
        let context = Context::new(Arc::new(crate::clock::SystemClock));
        let report = run(request, &context, &progress).await.unwrap();
        assert_eq!((report.rows, progress.raw_bytes()), (1, dump.len() as u64));
    }
}
