//! Takes a dump piece by piece, picks one table's rows out of it and writes them in the format that was asked for.

use std::io::{self, Write};
use std::path::PathBuf;

use super::target::{Ended, Target};
use super::{Output, RowFormat, Rows};
use crate::context::Stop;
use crate::stream::pipeline::Closed;
use pgkeep_model::copy::{Line, Lines, Row};
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::name::quote;
use pgkeep_model::restore::filter::is_sql_ascii;
use pgkeep_model::rows::{BoundFilter, Column, csv_header, csv_row, json_row};
use pgkeep_model::scan::{Notes, Scan, Scanner, Table, TextEncoding, Watch};
use pgkeep_model::text_form::{ENCODING_OF_DATABASE, TextForm};
use pgkeep_model::words::count;

/// What pg_dump sets in front of rows; without `row_security = off` rows could be refused in silence.
const SQL_SETTINGS: &str = "\
SET statement_timeout = 0;
SET lock_timeout = 0;
SET standard_conforming_strings = on;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
";

/// Picks rows out of a dump under way.
pub(super) struct Extractor {
    rows: Rows,
    what: String,
    stop: Stop,
    scanner: Scanner,
    /// Offset in what was pushed of the next byte.
    position: u64,
    lines: Lines,
    picked: Picked,
    failure: Option<Failure>,
    is_left: bool,
    /// SQL of a session that reads the rows as they were printed.
    form: String,
}

/// The rows so far.
struct Picked {
    table: Option<Known>,
    row: Row,
    target: Target,
    seen: u64,
    written: u64,
    not_utf8: u64,
}

/// What is known of the table once its rows begin.
struct Known {
    columns: Vec<Column>,
    filter: BoundFilter,
}

/// What was read, when all is read.
pub(super) struct End {
    /// What the scanner found.
    pub scan: Scan,
    /// The table, if its rows were met.
    pub table: Option<Table>,
    /// Whether nobody reads any more.
    pub is_left: bool,
    rows: Rows,
    picked: Picked,
}

/// What was written.
pub(super) struct Written {
    pub rows: u64,
    pub table_rows: u64,
    pub file: Option<PathBuf>,
    pub warnings: Vec<String>,
}

impl Extractor {
    /// With `takes_any`, all rows that come are known to be the table's.
    pub(super) fn new(
        rows: &Rows,
        output: &Output,
        takes_any: bool,
        what: &str,
        stop: Stop,
    ) -> Result<Self> {
        Ok(Self {
            rows: rows.clone(),
            what: what.to_owned(),
            stop,
            scanner: Scanner::noting(Notes::rows_of(rows.table.clone(), takes_any)),
            position: 0,
            lines: Lines::default(),
            picked: Picked {
                table: None,
                row: Row::default(),
                target: Target::open(output)?,
                seen: 0,
                written: 0,
                not_utf8: 0,
            },
            failure: None,
            is_left: false,
            form: String::new(),
        })
    }

    /// Says in which text form the rows are, for SQL that takes them back.
    pub(super) fn printed_as(&mut self, form: &TextForm) {
        self.form = form.for_reading();
    }

    /// Says what may be done with what went out so far.
    pub(super) fn trust(&self) -> &'static str {
        if self.picked.target.is_begun {
            "do not trust what was printed"
        } else {
            "nothing was written"
        }
    }

    /// Tells whether rows went out that cannot be taken back.
    pub(super) fn is_begun(&self) -> bool {
        self.picked.target.is_begun
    }

    /// Notes that the reading was left before its end: where somebody wishes to stop, that is why.
    pub(super) fn leave(&mut self) {
        if self.stop.is_requested() && !self.is_left {
            self.failure.get_or_insert(self.stop.failure_of_reading());
        }
    }

    /// Takes the next piece of the dump.
    pub(super) fn push(&mut self, piece: &[u8]) -> std::result::Result<(), Closed> {
        if self.stop.is_requested() {
            self.failure.get_or_insert(self.stop.failure_of_reading());
            return Err(Closed);
        }
        let start = self.position;
        self.scanner.push(piece);
        self.position += piece.len() as u64;
        let at = |offset: u64| (offset - start) as usize;
        for range in self.scanner.take_found().rows {
            let taken = self.take_rows(&piece[at(range.start)..at(range.end)]);
            match taken {
                Ok(()) => {}
                Err(Ended::Left) => {
                    self.is_left = true;
                    return Err(Closed);
                }
                Err(Ended::Failed(failure)) => {
                    self.failure = Some(failure);
                    return Err(Closed);
                }
            }
        }
        Ok(())
    }

    fn take_rows(&mut self, bytes: &[u8]) -> std::result::Result<(), Ended> {
        let Some(watch) = self.scanner.watch() else {
            return Ok(());
        };
        if self.picked.table.is_none() {
            let known = know(&self.rows, watch, &self.what).map_err(Ended::Failed)?;
            self.picked
                .begin(&self.rows, &known, &self.scanner, &self.form)?;
            self.picked.table = Some(known);
        }
        if watch.is_ambiguous() {
            let message = format!(
                "{}: several databases of the dump have such a table; {}",
                self.what,
                self.trust()
            );
            return Err(Ended::Failed(Failure::new(
                Kind::Refused,
                "several_databases",
                message,
            )));
        }
        let (picked, rows, encoding) = (&mut self.picked, &self.rows, self.scanner.encoding());
        let what = &self.what;
        self.lines
            .push(bytes, &mut |line| picked.take(line, rows, encoding, what))
    }

    /// Ends the reading.
    pub(super) fn end(self) -> Result<End> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let table = self.scanner.watched_table().cloned();
        let (mut picked, mut is_left) = (self.picked, self.is_left);
        // A table without rows has a block too, but no byte of a row came to begin with.
        if let (None, Some(_), Some(watch)) = (&picked.table, &table, self.scanner.watch()) {
            let known = know(&self.rows, watch, &self.what)?;
            match picked.begin(&self.rows, &known, &self.scanner, &self.form) {
                Ok(()) => {}
                Err(Ended::Left) => is_left = true,
                Err(Ended::Failed(failure)) => return Err(failure),
            }
            picked.table = Some(known);
        }
        Ok(End {
            scan: self.scanner.finish(),
            table,
            is_left,
            rows: self.rows,
            picked,
        })
    }
}

fn know(rows: &Rows, watch: &Watch, what: &str) -> Result<Known> {
    let names = watch.columns().unwrap_or_default();
    let columns: Vec<Column> = names
        .iter()
        .map(|name| Column {
            name: name.clone(),
            kind: watch.kind(name),
        })
        .collect();
    let filter = rows.filter.bind(&columns).map_err(|why| {
        let message = format!("{what}: {why}; nothing was written");
        Failure::new(Kind::Usage, "no_such_column", message)
    })?;
    Ok(Known { columns, filter })
}

impl Picked {
    /// Writes what stands in front of the first row.
    fn begin(
        &mut self,
        rows: &Rows,
        known: &Known,
        scanner: &Scanner,
        form: &str,
    ) -> std::result::Result<(), Ended> {
        match rows.format {
            RowFormat::Csv => self.target.put(|out| csv_header(&known.columns, out)),
            RowFormat::Jsonl => Ok(()),
            RowFormat::Sql => {
                let columns: Vec<String> = known
                    .columns
                    .iter()
                    .map(|column| quote(&column.name))
                    .collect();
                let name = &rows.table;
                let table = format!("{}.{}", quote(name.schema_or_public()), quote(&name.name));
                let name_of_encoding = scanner.client_encoding().unwrap_or("UTF8");
                let encoding = if is_sql_ascii(name_of_encoding) {
                    ENCODING_OF_DATABASE.to_owned()
                } else {
                    let plain = name_of_encoding.replace('\'', "");
                    format!("SET client_encoding = '{plain}';")
                };
                let sql = format!(
                    "BEGIN;\n{encoding}\n{form}{SQL_SETTINGS}COPY {table} ({}) FROM stdin;\n",
                    columns.join(", ")
                );
                let named_columns = !columns.is_empty();
                let sql = if named_columns {
                    sql
                } else {
                    sql.replace(" () FROM", " FROM")
                };
                // Names go out in the encoding that they came in, as the rows do.
                let head = scanner.encoding().encode(&sql);
                self.target.put(|out| out.write_all(&head))
            }
        }
    }

    fn take(
        &mut self,
        line: Line<'_>,
        rows: &Rows,
        encoding: TextEncoding,
        what: &str,
    ) -> std::result::Result<(), Ended> {
        let Some(known) = &self.table else {
            return Ok(());
        };
        self.seen += 1;
        if rows.format == RowFormat::Sql && known.filter.is_empty() {
            self.written += 1;
            return self.target.put(|out| write_line(line.bytes(), out));
        }
        self.row.read(line, known.columns.len(), encoding);
        if self.row.len() != known.columns.len() {
            return Err(Ended::Failed(odd_row(what, self, known.columns.len())));
        }
        if known.filter.wants(&self.row, encoding) {
            if encoding == TextEncoding::Utf8 {
                self.not_utf8 += u64::from(std::str::from_utf8(self.row.line()).is_err());
            }
            self.written += 1;
            let (row, columns) = (&mut self.row, &known.columns);
            self.target.put(|out| match rows.format {
                RowFormat::Sql => write_line(row.line(), out),
                RowFormat::Csv => {
                    row.unescape(encoding);
                    csv_row(row, encoding, out)
                }
                RowFormat::Jsonl => {
                    row.unescape(encoding);
                    json_row(columns, row, encoding, out)
                }
            })?;
        }
        self.row.release();
        Ok(())
    }
}

fn write_line(line: &[u8], out: &mut Target) -> io::Result<()> {
    out.write_all(line)?;
    out.write_all(b"\n")
}

fn odd_row(what: &str, picked: &Picked, columns: usize) -> Failure {
    let trust = if picked.target.is_begun {
        "do not trust what was printed"
    } else {
        "nothing was written"
    };
    let message = format!(
        "{what}: row {} has {} fields, and the table has {columns} columns; {trust}",
        picked.seen,
        picked.row.len()
    );
    Failure::new(Kind::Damaged, "odd_row", message).of_copy()
}

impl End {
    /// Writes what waited for the proof.
    pub(super) fn finish(mut self) -> Result<Written> {
        let mut warnings = Vec::new();
        if self.is_left {
            let message =
                "the output was closed early, so the rest was not read and nothing was proven";
            warnings.push(message.to_owned());
        } else if self.rows.format == RowFormat::Sql && self.picked.table.is_some() {
            self.picked.target.hold(b"\\.\nCOMMIT;\n");
        }
        if self.picked.not_utf8 > 0 {
            warnings.push(format!(
                "{} not in UTF-8: the values are read as ISO 8859-1",
                count(self.picked.not_utf8, "row")
            ));
        }
        Ok(Written {
            rows: self.picked.written,
            table_rows: self.picked.seen,
            file: self.picked.target.finish()?,
            warnings,
        })
    }
}
