//! What a database holds now, read so that it differs from a backup by nothing but its content: the structure by `pg_dump`
//! with the flags of that backup, rows by exact counts, all in one snapshot.
//!
//! A count reads each table once and prints nothing, which takes a fraction of what a dump takes. It does not see an update
//! that keeps the number of rows; for that, all rows are read by a second `pg_dump` in the same snapshot.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read as _};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::Live;
use super::stored::encoding;
use crate::context::Context;
use crate::copies::{MAX_STRUCTURE, too_long};
use crate::op::backup::server_record;
use crate::postgres::counts::{Asked, Counted, count as count_rows};
use crate::postgres::dump::{DumpRequest, Section, Selection};
use crate::postgres::error::{Error, Reason};
use crate::postgres::process::Output;
use crate::postgres::programs::Programs;
use crate::postgres::psql::Psql;
use crate::postgres::server::{ServerFacts, TableFacts, TableKind};
use crate::postgres::snapshot::Snapshot;
use crate::stream::pipeline::Progress;
use pgkeep_model::diff::{Held, Objects, Side, Taken};
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::manifest::{Manifest, SelectionRecord};
use pgkeep_model::name::{TableName, parse_schema};
use pgkeep_model::scan::{Scan, Scanner, Table};
use pgkeep_model::words::count;

/// What is safe to say of a comparison that failed.
const SAFE: &str = "nothing was changed";

/// The rows of a database of 10 TB are counted in a day, on disks that read 100 MB/s.
const TIMEOUT: Duration = Duration::from_secs(48 * 3600);

/// How much of the structure is read at once.
const PIECE_BYTES: usize = 256 * 1024;

/// What a database holds.
pub(super) struct Now {
    pub side: Side,
    pub warnings: Vec<String>,
}

/// Reads what of the database a backup would hold that leaves out what `manifest` says.
pub(super) async fn side(
    live: &Live,
    manifest: &Manifest,
    what: &str,
    context: &Context,
    progress: &Arc<Progress>,
) -> Result<Now> {
    let failed = |error: Error| failure(what, &error);
    let cancel = context.stop.token();
    let found = live.search.find(&live.environment, cancel).await;
    let newest = found.newest().map_err(failed)?;
    let mut facts = ServerFacts::read(newest, &live.environment, &live.connection, cancel)
        .await
        .map_err(failed)?;
    facts.wanted_encoding = plain(manifest.dump.client_encoding.as_deref());
    let programs = found
        .choose(Some(facts.major()), live.connection.minimum_client_major())
        .map_err(failed)?;
    let reading = Reading {
        live,
        manifest,
        facts,
        programs,
        what,
        context,
        progress,
    };
    reading.read().await
}

fn failure(what: &str, error: &Error) -> Failure {
    let mut failure = error.to_failure(what, SAFE);
    // "cannot compare … failed" says it twice.
    failure.message = format!("{what}: {error}; {SAFE}");
    failure
}

/// A manifest is not to be trusted with arguments: an encoding is a plain word.
fn plain(encoding: Option<&str>) -> Option<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let encoding = encoding.filter(|name| !name.is_empty() && name.bytes().all(is_plain))?;
    Some(encoding.to_owned())
}

struct Reading<'a> {
    live: &'a Live,
    manifest: &'a Manifest,
    facts: ServerFacts,
    programs: &'a Programs,
    what: &'a str,
    context: &'a Context,
    progress: &'a Arc<Progress>,
}

impl Reading<'_> {
    async fn read(self) -> Result<Now> {
        let failed = |error: Error| failure(self.what, &error);
        let cancel = self.context.stop.token();
        let (selection, is_empty) = self.selection();
        let asked = self.asked();
        let plain = Psql::new(self.programs, &self.live.environment, &self.live.connection);
        let psql = if self.facts.session_settings_applied {
            plain.with_session_settings()
        } else {
            plain.without_session_settings()
        };
        let wait = self.live.lock_wait_timeout;
        let mut snapshot = Snapshot::take(&psql, &asked.tables, wait, cancel)
            .await
            .map_err(failed)?;
        let id = snapshot.id().to_owned();
        let wanted = Asked {
            tables: if self.live.reads_rows {
                Vec::new()
            } else {
                asked.tables.clone()
            },
            sequences: asked.sequences.clone(),
        };
        // The session counts while `pg_dump` runs; what fails first ends both.
        let counting = async { count_rows(&mut snapshot, &wanted).await.map_err(failed) };
        let dumping = async {
            if is_empty {
                Ok((Vec::new(), None))
            } else {
                self.dumps(&selection, &id).await
            }
        };
        let reading = async { tokio::try_join!(counting, dumping) };
        let Ok(read) = timeout(TIMEOUT, reading).await else {
            let message = format!("{}: reading it took more than two days", self.what);
            return Err(Failure::new(Kind::Source, "stalled", message));
        };
        let (counted, (text, scan)) = read?;
        // Held until both have read.
        drop(snapshot);
        let encoding = encoding(Some(self.facts.dump_encoding()));
        let thread = tokio::task::spawn_blocking(move || Objects::read(&text, encoding));
        let objects = thread.await.expect("reading does not panic");
        Ok(self.now(objects, &asked, counted, scan))
    }

    /// Reads the structure, and all rows where they are wanted.
    async fn dumps(
        &self,
        selection: &Selection,
        snapshot: &str,
    ) -> Result<(Vec<u8>, Option<Scan>)> {
        let structure = [Section::PreData, Section::PostData];
        let read = self.dump(selection, snapshot, &structure, all).await?;
        let text = read.ok_or_else(|| too_long(self.what))?;
        if !self.live.reads_rows {
            return Ok((text, None));
        }
        let progress = Arc::clone(self.progress);
        let read = move |output: Output| scanned(output, &progress);
        let scan = self
            .dump(selection, snapshot, &[Section::Data], read)
            .await?;
        Ok((text, Some(scan)))
    }

    async fn dump<T: Send + 'static>(
        &self,
        selection: &Selection,
        snapshot: &str,
        sections: &[Section],
        read: impl FnOnce(Output) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let failed = |error: Error| failure(self.what, &error);
        let request = DumpRequest {
            programs: self.programs,
            environment: &self.live.environment,
            connection: &self.live.connection,
            server: &self.facts,
            selection,
            lock_wait_timeout: self.live.lock_wait_timeout,
            snapshot: Some(snapshot),
            read_by_others: &[],
            sections,
        };
        let mut dump = request.start(self.context.stop.token()).map_err(failed)?;
        let output = dump.take_output();
        // Awaited here; the program ends with its handle.
        let reading = tokio::task::spawn_blocking(move || read(output));
        let read = reading.await.expect("reading does not panic");
        dump.wait().await.map_err(failed)?;
        read.map_err(|error| failed(Error::new(Reason::Unreadable(error.to_string()))))
    }

    /// Returns the selection of the backup, and whether nothing of what it names is there any more.
    fn selection(&self) -> (Selection, bool) {
        let nothing = SelectionRecord::default();
        let record = self.manifest.selection.as_ref().unwrap_or(&nothing);
        let tables = |texts: &[String]| -> Vec<TableName> {
            texts.iter().filter_map(|text| text.parse().ok()).collect()
        };
        let schemas = |texts: &[String]| -> Vec<String> {
            let names = texts.iter().filter_map(|text| parse_schema(text).ok());
            names.collect()
        };
        let facts = &self.facts;
        let there: HashSet<TableName> = facts
            .tables
            .iter()
            .map(TableFacts::table_name)
            .chain(facts.others.iter().map(|other| other.table_name()))
            .collect();
        let is_there = |name: &TableName| {
            there.contains(&TableName::new(name.schema_or_public(), name.name.clone()))
        };
        let mut selection = Selection {
            tables: tables(&record.tables),
            exclude_tables: tables(&record.exclude_tables),
            structure_only: tables(&record.structure_only),
            schemas: schemas(&record.schemas),
            exclude_schemas: schemas(&record.exclude_schemas),
        };
        let is_open = selection.tables.is_empty() && selection.schemas.is_empty();
        // `pg_dump` refuses names that match nothing, and what is gone is what somebody wants to know.
        selection.tables.retain(is_there);
        selection
            .schemas
            .retain(|name| facts.schemas.contains(name));
        let is_empty = !is_open && selection.tables.is_empty() && selection.schemas.is_empty();
        (selection, is_empty)
    }

    /// Returns the tables whose rows the backup has or would have, and all sequences.
    fn asked(&self) -> Asked {
        let facts = &self.facts;
        let taken = Taken::new(self.manifest.selection.as_ref());
        let parents: HashMap<TableName, TableName> = facts
            .tables
            .iter()
            .filter_map(|table| {
                let (schema, name) = table.parents.first()?;
                Some((table.table_name(), TableName::new(schema, name)))
            })
            .collect();
        let recorded = self.manifest.tables.iter();
        let without_rows: HashSet<TableName> = recorded
            .filter(|record| record.rows.is_none())
            .map(|record| record.full_name())
            .collect();
        let is_asked = |table: &&TableFacts, kind: TableKind| {
            table.kind == kind
                && table.can_read
                && !table.row_security_applies
                // A standby has no rows of these.
                && !(facts.is_standby && table.is_unlogged)
                && !taken.leaves_out(&table.table_name(), &parents)
        };
        let of_kind = |kind: TableKind| {
            let tables = facts.tables.iter();
            tables
                .filter(move |table| is_asked(table, kind))
                .map(TableFacts::table_name)
        };
        Asked {
            tables: of_kind(TableKind::Table)
                .filter(|name| !without_rows.contains(name))
                .collect(),
            sequences: of_kind(TableKind::Sequence).collect(),
        }
    }

    fn now(self, mut objects: Objects, asked: &Asked, counted: Counted, scan: Option<Scan>) -> Now {
        let is_counted = scan.is_none();
        let mut read: HashMap<TableName, Table> = scan
            .into_iter()
            .flat_map(|scan| scan.tables)
            .map(|table| (table.full_name(), table))
            .collect();
        let rows: HashMap<&TableName, u64> = asked
            .tables
            .iter()
            .zip(counted.rows.iter().copied())
            .collect();
        let tables = std::mem::take(&mut objects.tables);
        let mut held = |table: Table| {
            let name = table.full_name();
            let parent = table.parent.as_ref();
            let counted = rows.get(&name).copied();
            let known = read
                .remove(&name)
                .map_or_else(|| Held::new(name), Held::from);
            Held {
                kind: table.kind,
                parent: parent.map(|parent| TableName::new(&parent.schema, &parent.name)),
                rows: known.rows.or(counted),
                ..known
            }
        };
        let mut tables: Vec<Held> = tables.into_iter().map(&mut held).collect();
        // Rows of extensions, whose tables no dump makes.
        tables.extend(read.into_values().map(Held::from));
        let unreadable: HashSet<TableName> = self
            .facts
            .unreadable()
            .map(TableFacts::table_name)
            .collect();
        let is_hidden = |table: &&Held| table.rows.is_none() && unreadable.contains(&table.name);
        let hidden: Vec<String> = tables
            .iter()
            .filter(is_hidden)
            .map(|table| table.name.to_string())
            .collect();
        let mut warnings = Vec::new();
        if let Some(first) = hidden.first() {
            warnings.push(format!(
                "the rows of {} were not counted, because `{}` cannot read all of them: {first}{}",
                count(hidden.len() as u64, "table"),
                self.facts.user,
                if hidden.len() > 1 { ", …" } else { "" }
            ));
        }
        let is_whole =
            self.manifest.selection.as_ref().is_none_or(|selection| {
                selection.tables.is_empty() && selection.schemas.is_empty()
            });
        let side = Side {
            limits: Vec::new(),
            server: server_record(&self.facts),
            selection: self.manifest.selection.clone(),
            preset: self.manifest.preset.clone(),
            encoding: Some(self.facts.dump_encoding().to_owned()),
            pg_dump: self.programs.version.to_string(),
            tables,
            large_objects: is_whole.then_some(counted.large_objects),
            roles: Some(std::mem::take(&mut objects.roles)),
            is_counted,
            structure: None,
            sequences: None,
        };
        objects.sequences = counted.sequences;
        Now {
            side: side.with_structure(objects),
            warnings,
        }
    }
}

/// Scans a program's output to its end.
fn scanned(mut output: Output, progress: &Progress) -> io::Result<Scan> {
    let mut scanner = Scanner::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = output.read(&mut piece)?;
        if read == 0 {
            return Ok(scanner.finish());
        }
        scanner.push(&piece[..read]);
        progress.note_scan(&scanner);
    }
}

/// Reads a program's output to its end; none where it is too long.
fn all(mut output: Output) -> io::Result<Option<Vec<u8>>> {
    let mut text = Vec::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = output.read(&mut piece)?;
        if read == 0 {
            return Ok(Some(text));
        }
        text.extend_from_slice(&piece[..read]);
        if text.len() as u64 > MAX_STRUCTURE {
            return Ok(None);
        }
    }
}
