//! `pgkeep diff` on the terminal.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{ArgGroup, Args};

use crate::cli::args::StorageArgs;
use crate::cli::output::{Output, bytes, counted, number};
use crate::cli::progress::Shown;
use crate::cli::screen::{Screen, in_ascii};
use crate::cli::table::Table;
use pgkeep_core::context::Context;
use pgkeep_core::op::diff::{Report, SideReport, run as diff};
use pgkeep_core::setup::Setup;
use pgkeep_core::setup::diff::{Overrides, request};
use pgkeep_core::stream::pipeline::Progress;
use pgkeep_model::diff::{
    Change, ColumnChange, ObjectChange, Pair, RowsAre, SequencePoint, TableChange, ValueChange,
};
use pgkeep_model::failure::Result;
use pgkeep_model::name::{TableName, printable};

pub(super) const AFTER_HELP: &str = "\
Examples:
  pgkeep diff ID latest             what changed between two backups
  pgkeep diff latest --live         what changed in the database since
  pgkeep diff latest --url URL      the same for any other database
  pgkeep diff latest --live --sql   the structure only, as diff -u prints it

The order of the two does not matter: the older one is the left side. Tables, columns, rows, sizes and settings come \
from the manifests, and the structure by reading only its own bytes; no row is read. Rows of two backups are the same \
or others by their digests. In a database they are only counted, in one snapshot: an UPDATE that keeps the number of \
rows is not seen there without --rows, which takes as long as a backup.

Exit code 0: compared, whatever was found; with --exit-code 1 when anything differs, as in git. 10: no such backup. 12: \
the server refused the login, or no private key opens an encrypted backup whose structure is needed.";

/// Exit code of a difference, as git has it.
const DIFFERENT: u8 = 1;

/// Lines of each list that people get; a script gets all of them.
const MAX_LINES: usize = 100;

/// Flags of `diff`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("now").args(["live", "url"]).multiple(true))]
pub struct DiffArgs {
    /// Id of a backup, or `latest`
    #[arg(value_name = "A")]
    pub one: String,
    /// Id of the other backup, or `latest`
    #[arg(
        value_name = "B",
        required_unless_present = "now",
        conflicts_with = "now"
    )]
    pub other: Option<String>,
    /// Compare with what the database holds now: the backup's own of the configuration, else that of DATABASE_URL or libpq's variables
    #[arg(long)]
    pub live: bool,
    /// Compare with what this database holds now
    #[arg(long, value_name = "URL", hide_env_values = true)]
    pub url: Option<String>,
    /// File that holds the password of the database
    #[arg(long, value_name = "FILE", requires = "now")]
    pub password_file: Option<PathBuf>,
    /// Folder of the PostgreSQL programs
    #[arg(long, value_name = "FOLDER", requires = "now")]
    pub bin_dir: Option<PathBuf>,
    /// Read all rows of the database, as a backup does, instead of counting them: tells whether they are the same
    #[arg(long, requires = "now")]
    pub rows: bool,
    /// Print the differences of the structure as unified SQL
    #[arg(long)]
    pub sql: bool,
    /// Exit with code 1 when anything differs
    #[arg(long)]
    pub exit_code: bool,
    /// Where to look.
    #[command(flatten)]
    pub storage: StorageArgs,
}

impl From<&DiffArgs> for Overrides {
    fn from(args: &DiffArgs) -> Self {
        Self {
            one: args.one.clone(),
            other: args.other.clone(),
            url: args.url.clone(),
            password_file: args.password_file.clone(),
            bin_dir: args.bin_dir.clone(),
            with_sql: args.sql,
            reads_rows: args.rows,
            must_tell: args.exit_code,
            storage: (&args.storage).into(),
        }
    }
}

pub(super) async fn run(
    args: &DiffArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let request = request(&args.into(), setup)?;
    let progress = Arc::new(Progress::default());
    let shown = Shown::new(&args.one, output).beside_data();
    if args.rows {
        shown.reading("diff", &progress);
    }
    let ended = diff(&request, context, &progress).await;
    shown.finish();
    let report = ended?;
    output.document(&report, || match &report.sql {
        Some(sql) => sql.clone(),
        None => text(&report, output.screen),
    });
    if !output.json {
        // People read them above the lists, where there are any.
        let remarks = report.difference.remarks.iter().filter(|_| args.sql);
        for warning in report.warnings.iter().chain(remarks) {
            output.warning(warning);
        }
    }
    if let Some(failure) = report.failure {
        return Err(failure);
    }
    if args.exit_code && report.difference.different {
        output.end_with(DIFFERENT);
    }
    Ok(())
}

fn text(report: &Report, screen: Screen) -> String {
    let difference = &report.difference;
    let mut out = screen.fitted(&format!("{} → {}\n", side(&report.from), side(&report.to)));
    for remark in &difference.remarks {
        out += &screen.fitted(&format!("note: {}\n", printable(remark)));
    }
    let blocks = [
        tables(&difference.tables, screen),
        structure(report, screen),
        sequences(report, screen),
        values("extensions", &difference.extensions, screen),
        values("settings", &difference.settings, screen),
        roles(report, screen),
        screen.fitted(&large_objects(report)),
        not_compared(report, screen),
    ];
    for block in blocks.iter().filter(|block| !block.is_empty()) {
        out += &format!("\n{block}");
    }
    out + "\n" + &screen.fitted(&summary(report))
}

fn side(side: &SideReport) -> String {
    let name = match (&side.backup_id, &side.connection) {
        (Some(id), _) => id.clone(),
        (None, Some(place)) => format!("{} now", printable(place)),
        (None, None) => "now".to_owned(),
    };
    match side.stored_bytes {
        Some(size) => format!("{name} ({} stored)", bytes(size)),
        None => name,
    }
}

/// Cuts a long list, and says how much of it is missing.
fn cut<T>(all: &[T], line: impl FnMut(&T) -> String) -> Vec<String> {
    let mut lines: Vec<String> = all.iter().take(MAX_LINES).map(line).collect();
    if all.len() > MAX_LINES {
        let more = number((all.len() - MAX_LINES) as u64);
        lines.push(format!("  … and {more} more, which `--json` lists\n"));
    }
    lines
}

fn block(title: &str, lines: Vec<String>, screen: Screen) -> String {
    if lines.is_empty() {
        return String::new();
    }
    screen.fitted(&format!("{title}:\n{}", lines.concat()))
}

fn tables(changes: &[TableChange], screen: Screen) -> String {
    if changes.is_empty() {
        return String::new();
    }
    let mut out = Table::new(&["table", "rows", "bytes", "change"])
        .right(&[1, 2])
        .texts(&[3]);
    for change in changes.iter().take(MAX_LINES) {
        let is_new = change.change != Change::Changed;
        let bytes = |value| bytes(value);
        let found = [
            pair(change.rows, is_new, number),
            pair(known(change), is_new, bytes),
            printable(&what_changed(change)),
        ];
        let cells = found.map(|cell| {
            if screen.is_utf8 {
                cell
            } else {
                in_ascii(&cell)
            }
        });
        out.add_row([printable(&change.table)].into_iter().chain(cells));
    }
    let more = match changes.len().saturating_sub(MAX_LINES) {
        0 => String::new(),
        left => format!("… and {} more, which `--json` lists\n", number(left as u64)),
    };
    out.shown(screen) + &screen.fitted(&more)
}

/// Returns the bytes of the rows where both sides know them: half of a comparison says nothing.
fn known(change: &TableChange) -> Pair {
    let is_known = change.bytes.from.is_some() && change.bytes.to.is_some();
    if change.change == Change::Changed && !is_known {
        return Pair::default();
    }
    change.bytes
}

/// Writes both values, or one where they are equal or only one side has the thing.
fn pair(pair: Pair, is_one_sided: bool, words: impl Fn(u64) -> String) -> String {
    match (pair.from, pair.to) {
        (None, None) => String::new(),
        (Some(a), Some(b)) if a == b => words(a),
        (Some(a), Some(b)) => format!("{} → {}", words(a), words(b)),
        (Some(one), None) | (None, Some(one)) if is_one_sided => words(one),
        (Some(a), None) => format!("{} → ?", words(a)),
        (None, Some(b)) => format!("? → {}", words(b)),
    }
}

fn what_changed(change: &TableChange) -> String {
    let mut words: Vec<String> = Vec::new();
    match change.change {
        Change::Added => words.push("new table".to_owned()),
        Change::Removed => words.push("REMOVED".to_owned()),
        Change::Changed => {}
    }
    match (change.rows.from, change.rows.to) {
        (Some(a), Some(b)) if b > a => words.push(format!("+{}", counted(b - a, "row", "rows"))),
        (Some(a), Some(0)) if a > 0 => words.push("EMPTY".to_owned()),
        (Some(a), Some(b)) if a > b => words.push(format!("-{}", counted(a - b, "row", "rows"))),
        (Some(_), Some(_)) if change.rows_are == RowsAre::Other => {
            words.push("other rows".to_owned());
        }
        _ => {}
    }
    words.extend(change.columns.iter().map(column));
    words.extend(change.notes.iter().cloned());
    words.join("; ")
}

fn column(change: &ColumnChange) -> String {
    let name = &change.column;
    let definition = |text: &Option<String>| text.clone().unwrap_or_default();
    let words = match change.change {
        Change::Added => format!("+{name} {}", definition(&change.to)),
        Change::Removed => format!("-{name} {}", definition(&change.from)),
        Change::Changed => format!(
            "{name}: {} → {}",
            definition(&change.from),
            definition(&change.to)
        ),
    };
    words.trim_end().to_owned()
}

fn sign(change: Change) -> char {
    match change {
        Change::Added => '+',
        Change::Removed => '-',
        Change::Changed => '~',
    }
}

/// Lists the objects of the structure; a table is left out whose columns stand above.
fn structure(report: &Report, screen: Screen) -> String {
    let tables = report.difference.tables.iter();
    let told: HashSet<&str> = tables
        .filter(|table| table.change != Change::Changed || !table.columns.is_empty())
        .map(|table| table.table.as_str())
        .collect();
    let is_told = |object: &ObjectChange| {
        let is_table = matches!(object.kind.as_str(), "TABLE" | "FOREIGN TABLE");
        let schema = object.schema.clone().unwrap_or_default();
        let name = TableName::new(schema, &object.name).to_string();
        is_table && told.contains(name.as_str())
    };
    let objects = report.difference.objects.iter();
    let untold: Vec<&ObjectChange> = objects.filter(|object| !is_told(object)).collect();
    let lines = cut(&untold, |object| {
        let name = match &object.schema {
            Some(schema) => printable(&format!("{schema}.{}", object.name)),
            None => printable(&object.name),
        };
        format!("  {} {} {name}\n", sign(object.change), object.kind)
    });
    block("structure", lines, screen)
}

fn sequences(report: &Report, screen: Screen) -> String {
    let value = |point: SequencePoint| {
        if point.is_called {
            point.value.to_string()
        } else {
            format!("{} next", point.value)
        }
    };
    let lines = cut(&report.difference.sequences, |change| {
        let (from, to) = (value(change.from), value(change.to));
        format!("  {}: {from} → {to}\n", printable(&change.sequence))
    });
    block("sequences", lines, screen)
}

fn values(title: &str, changes: &[ValueChange], screen: Screen) -> String {
    let value = |text: &Option<String>| match text {
        Some(text) => printable(text),
        None => "none".to_owned(),
    };
    let lines = cut(changes, |change| {
        let (from, to) = (value(&change.from), value(&change.to));
        format!("  {}: {from} → {to}\n", printable(&change.name))
    });
    block(title, lines, screen)
}

fn roles(report: &Report, screen: Screen) -> String {
    let lines = cut(&report.difference.roles, |role| {
        format!("  {} {}\n", sign(role.change), printable(&role.name))
    });
    block("roles that it names", lines, screen)
}

fn large_objects(report: &Report) -> String {
    match report.difference.totals.large_objects {
        Pair {
            from: Some(from),
            to: Some(to),
        } if from != to => format!("large objects: {} → {}\n", number(from), number(to)),
        _ => String::new(),
    }
}

fn not_compared(report: &Report, screen: Screen) -> String {
    let lines = cut(&report.difference.not_compared, |skipped| {
        format!("  {}: {}\n", printable(&skipped.table), skipped.why)
    });
    block("not compared", lines, screen)
}

/// Says what was compared, and what differs.
fn summary(report: &Report) -> String {
    let difference = &report.difference;
    let totals = &difference.totals;
    let both = |pair: Pair, one: &str, many: &str| match (pair.from, pair.to) {
        (Some(a), Some(b)) if a != b => format!("{} → {} {many}", number(a), number(b)),
        (Some(a), _) | (None, Some(a)) => counted(a, one, many),
        (None, None) => String::new(),
    };
    let counted_only = match totals.bytes.to {
        None => " by their number",
        Some(_) => "",
    };
    let mut compared = vec![
        both(totals.tables, "table", "tables"),
        both(totals.rows, "row", "rows") + counted_only,
    ];
    if let (Some(from), Some(to)) = (totals.bytes.from, totals.bytes.to) {
        compared.push(if from == to {
            format!("{} of rows", bytes(from))
        } else {
            format!("{} → {} of rows", bytes(from), bytes(to))
        });
    }
    if report.structure_compared {
        let objects = both(totals.objects, "object", "objects");
        // The same bytes are the same structure, which nobody had to read.
        let structure = if objects.is_empty() {
            "the structure".to_owned()
        } else {
            objects
        };
        compared.push(structure);
    }
    compared.push("extensions, settings".to_owned());
    let what = compared.join(", ");
    let size = match (totals.database_bytes.from, totals.database_bytes.to) {
        (Some(from), Some(to)) if from != to => {
            format!("\ndatabase on the server: {} → {}", bytes(from), bytes(to))
        }
        _ => String::new(),
    };
    if difference.different {
        format!("compared: {what}{size}\n")
    } else {
        format!("no differences: {what}{size}\n")
    }
}
