//! What `extract` is to do.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::{Setup, StorageOverrides};
use crate::copies::listing::Wanted;
use crate::op::extract::{Output, Request, RowFormat, Rows, Source};
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::name::parse_schema;
use pgkeep_model::rows::Filter;

/// Which rows, out of what, and how they are written.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Id of the backup, `latest`, a file that is there, or `-` for standard input.
    pub source: String,
    /// The table.
    pub table: String,
    /// How rows are written; as the file's name says where nobody else does.
    pub format: Option<RowFormat>,
    /// Only rows with these values: `COLUMN=VALUE`.
    pub where_columns: Vec<String>,
    /// Only rows in which these columns are null.
    pub where_nulls: Vec<String>,
    /// File to write; standard output where nobody names one.
    pub output: Option<PathBuf>,
    /// Replace a file that is there.
    pub force: bool,
    /// Where to look.
    pub storage: StorageOverrides,
}

/// Returns the request to extract rows.
pub fn request(overrides: &Overrides, setup: &Setup) -> Result<Request> {
    Ok(Request {
        rows: rows(overrides)?,
        output: target(overrides),
        source: source(overrides, setup)?,
        identities: setup.identities(&overrides.storage.identities)?,
    })
}

fn rows(overrides: &Overrides) -> Result<Rows> {
    let bad = |id: &'static str, what: String| Failure::new(Kind::Usage, id, what);
    let table = overrides.table.parse().map_err(|error| {
        bad(
            "bad_table_name",
            format!("cannot read `--table {}`: {error}", overrides.table),
        )
    })?;
    let column = |flag: &str, text: &str| {
        parse_schema(text).map_err(|error| {
            bad(
                "bad_column_name",
                format!("cannot read `{flag} {text}`: {error}"),
            )
        })
    };
    let equal = |text: &String| {
        let at = equals_sign(text).ok_or_else(|| {
            bad(
                "bad_where_column",
                format!("cannot read `--where-column {text}`: it has no `=`"),
            )
            .hint("`--where-null COLUMN` selects rows without a value")
        })?;
        let name = column("--where-column", &text[..at])?;
        Ok((name, text[at + 1..].to_owned()))
    };
    let equals = overrides
        .where_columns
        .iter()
        .map(equal)
        .collect::<Result<_>>()?;
    let nulls = overrides
        .where_nulls
        .iter()
        .map(|text| column("--where-null", text));
    Ok(Rows {
        table,
        format: format(overrides)?,
        filter: Filter {
            equals,
            nulls: nulls.collect::<Result<_>>()?,
        },
    })
}

/// Returns how rows are written: as somebody says, else as the name of the file ends.
fn format(overrides: &Overrides) -> Result<RowFormat> {
    let ending = overrides.output.as_deref().and_then(Path::extension);
    let by_name = match ending.and_then(OsStr::to_str) {
        Some("sql") => Some(RowFormat::Sql),
        Some("csv") => Some(RowFormat::Csv),
        Some("jsonl" | "ndjson") => Some(RowFormat::Jsonl),
        _ => None,
    };
    overrides.format.or(by_name).ok_or_else(|| {
        let message = "no format was given for the rows";
        Failure::new(Kind::Usage, "format_needed", message).hint(
            "`--format sql`, `csv` or `jsonl`; a file whose name ends so (`-o rows.csv`) needs no flag",
        )
    })
}

/// Finds the equals sign behind a column's name, which may hold one inside quotes.
fn equals_sign(text: &str) -> Option<usize> {
    let mut is_quoted = false;
    text.char_indices().find_map(|(at, c)| {
        is_quoted ^= c == '"';
        (c == '=' && !is_quoted).then_some(at)
    })
}

fn target(overrides: &Overrides) -> Output {
    match &overrides.output {
        Some(path) if path.as_os_str() != "-" => Output::File {
            path: path.clone(),
            replace: overrides.force,
        },
        _ => Output::Stdout,
    }
}

/// A file that is there is meant before a backup of that name.
fn source(overrides: &Overrides, setup: &Setup) -> Result<Source> {
    let path = Path::new(&overrides.source);
    if overrides.source == "-" {
        return Ok(Source::Stdin);
    }
    // A folder of a backup's name is nothing to read.
    if path.exists() && !path.is_dir() {
        return Ok(Source::File(path.to_owned()));
    }
    let looks_like_a_path = overrides.source.contains(['/', '.']);
    if looks_like_a_path {
        let message = format!("there is no file `{}`", overrides.source);
        return Err(Failure::new(Kind::NotFound, "no_such_file", message));
    }
    Ok(Source::Backup {
        wanted: Wanted::parse(&overrides.source)?,
        storages: setup.storages_to_read(&overrides.storage)?,
        database: setup.database_name()?,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_name_in_quotes_may_hold_an_equals_sign() {
        for (text, at) in [
            ("a=b", Some(1)),
            ("a==b", Some(1)),
            ("\"a=b\"=c", Some(5)),
            ("\"a=b", None),
            ("a", None),
        ] {
            assert_eq!(super::equals_sign(text), at, "{text}");
        }
    }
}
