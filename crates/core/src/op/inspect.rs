//! `inspect`: the proof of a backup, over any plain dump.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::encryption::{IDENTITY_HINT, Identities};
use crate::stream::read::{ReadError, read_dump};
use pgkeep_model::failure::{Failure, Kind};
use pgkeep_model::required::{RequiredOutcome, RequiredTable};
use pgkeep_model::scan::{Finding, Scan, Scanner};

/// What to inspect.
#[derive(Debug)]
pub struct Request {
    /// Where the dump comes from.
    pub source: Source,
    /// What opens an encrypted one.
    pub identities: Arc<Identities>,
    /// Tables that must be in it.
    pub required: Vec<RequiredTable>,
}

/// Where a dump comes from.
#[derive(Debug)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// Standard input.
    Stdin,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The file's name, or `-`.
    pub file: String,
    /// What the scanner found.
    #[serde(flatten)]
    pub scan: Scan,
    /// What was required and what was found of it.
    pub required_tables: Vec<RequiredOutcome>,
    /// Why it is not good; none when it is.
    #[serde(skip)]
    pub failure: Option<Failure>,
}

/// Scans a dump. It blocks for as long as reading takes.
pub fn run(request: &Request) -> Report {
    let (file, result) = match &request.source {
        Source::File(path) => (
            path.display().to_string(),
            open(path).map(|file| scan(file, &request.identities)),
        ),
        Source::Stdin => ("-".to_owned(), Ok(scan(io::stdin(), &request.identities))),
    };
    let (mut scan, read, opened) = match result {
        Ok((scan, read)) => (scan, read, None),
        Err(failure) => (Scanner::new().finish(), Ok(0), Some(failure)),
    };
    let hint = note_read_error(&mut scan, &read);
    if let Some(failure) = &opened {
        scan.problems = vec![Finding::new(failure.id, failure.message.clone(), None)];
    }
    scan.complete = scan.problems.is_empty();
    let required_tables: Vec<_> = request
        .required
        .iter()
        .map(|required| required.look_up(&scan))
        .collect();
    let failure = opened.or_else(|| judge(&file, &scan, &required_tables, hint));
    Report {
        file,
        scan,
        required_tables,
        failure,
    }
}

fn open(path: &Path) -> Result<File, Failure> {
    let what = format!("cannot inspect `{}`", path.display());
    if path.is_dir() {
        let is_directory_format = path.join("toc.dat").is_file();
        let why = if is_directory_format {
            "it is an archive in directory format (`pg_dump -Fd`), not a plain dump"
        } else {
            "it is a folder"
        };
        let failure = Failure::new(Kind::Proof, "not_a_plain_dump", format!("{what}: {why}"));
        return Err(if is_directory_format {
            failure.hint("`pg_restore -f - FOLDER | pgkeep inspect -` shows what it holds")
        } else {
            failure
        });
    }
    File::open(path)
        .map_err(|error| Failure::new(Kind::Usage, "cannot_open", format!("{what}: {error}")))
}

fn scan(input: impl Read + Send, identities: &Identities) -> (Scan, Result<u64, ReadError>) {
    let mut scanner = Scanner::new();
    let read = read_dump(input, identities, &mut |piece| scanner.push(piece));
    (scanner.finish(), read)
}

/// Puts what went wrong in reading in front of what follows from it, and returns the next move.
fn note_read_error(scan: &mut Scan, read: &Result<u64, ReadError>) -> Option<&'static str> {
    let Err(error) = read else { return None };
    let (id, hint) = match error {
        ReadError::Foreign(foreign) => {
            scan.problems.clear();
            ("not_a_plain_dump", foreign.hint())
        }
        ReadError::Damaged { .. } => ("compressed_stream_damaged", None),
        ReadError::Locked(error) => {
            scan.problems.clear();
            let id = error.id().unwrap_or("encrypted_file_damaged");
            (id, error.id().map(|_| IDENTITY_HINT))
        }
        ReadError::Io(_) => ("cannot_read", None),
    };
    scan.problems
        .insert(0, Finding::new(id, error.to_string(), None));
    hint
}

fn judge(
    file: &str,
    scan: &Scan,
    required: &[RequiredOutcome],
    hint: Option<&str>,
) -> Option<Failure> {
    let missing: Vec<String> = required
        .iter()
        .filter_map(|table| Some(format!("`{}` {}", table.table, table.problem.as_ref()?)))
        .collect();
    let failure = if !scan.complete {
        let first = scan.problems.first()?;
        let message = format!("`{file}` is not a complete dump: {}", first.message);
        let (kind, id) = match first.id.as_str() {
            "not_a_plain_dump" => (Kind::Proof, "not_a_plain_dump"),
            "no_identity" => (Kind::Login, "no_identity"),
            "wrong_identity" => (Kind::Login, "wrong_identity"),
            _ => (Kind::Proof, "dump_incomplete"),
        };
        let more = scan
            .problems
            .iter()
            .skip(1)
            .map(|problem| problem.message.clone());
        Failure::new(kind, id, message)
            .with_details(more)
            .with_details(missing)
    } else if !missing.is_empty() {
        let count = missing.len();
        let message = format!(
            "`{file}` lacks {count} of {} required tables",
            required.len()
        );
        Failure::new(Kind::Proof, "required_table_missing", message).with_details(missing)
    } else {
        return None;
    };
    Some(match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    })
}
