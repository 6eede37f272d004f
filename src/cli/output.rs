//! Where words go: data to standard output, all else to standard error, in text or JSON.

use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::actions::{Actions, Table as StepTable};
use super::args::{Global, When};
use super::log::Log;
use super::screen::Screen;
use super::table::Table;
use pgkeep_model::failure::{Failure, Kind};
use pgkeep_model::name::printable;
use pgkeep_model::scan::{RowDigest, TableKind};
pub(super) use pgkeep_model::words::{bytes, number, took};

/// How this run prints.
pub(super) struct Output {
    pub json: bool,
    pub quiet: bool,
    pub progress: When,
    /// What the reader can show.
    pub screen: Screen,
    /// Whether standard output belongs to another program, so that data goes to standard error as well.
    pub stdout_is_taken: bool,
    /// The runner of GitHub that reads along.
    actions: Option<Actions>,
    /// Standard error and the log file.
    pub log: Log,
    /// Exit code of a command that went well.
    code: AtomicU8,
    /// Why standard output took not all, unless its reader had left.
    lost: Mutex<Option<std::io::Error>>,
}

#[derive(Serialize)]
struct Summary<'a, R> {
    message_type: &'static str,
    #[serde(flatten)]
    report: &'a R,
}

const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();

impl Output {
    pub(super) fn new(global: &Global, screen: Screen, actions: Option<Actions>, log: Log) -> Self {
        Self {
            json: global.json,
            quiet: global.quiet,
            progress: global.progress,
            screen,
            stdout_is_taken: false,
            actions,
            log,
            code: AtomicU8::new(0),
            lost: Mutex::default(),
        }
    }

    /// Fails where standard output did not take the whole answer: half a document is none.
    pub(super) fn answered(&self) -> Result<(), Failure> {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(error) = lost.as_ref() else {
            return Ok(());
        };
        let message = format!("cannot write to standard output: {error}");
        Err(Failure::new(Kind::Unexpected, "output_lost", message))
    }

    /// Prints a document as JSON, or `text` for people.
    pub(super) fn document(&self, document: &impl Serialize, text: impl FnOnce() -> String) {
        if !self.json {
            return self.data(&text());
        }
        let text = serde_json::to_string_pretty(document)
            .expect("reports hold only JSON's own types")
            + "\n";
        self.raw(self.log.shielded_json(text).as_bytes());
    }

    /// Prints a report as JSON, or as text that fits the terminal.
    pub(super) fn report(&self, report: &impl Serialize, text: impl FnOnce() -> String) {
        self.document(report, || self.screen.fitted(&text()));
    }

    /// Prints one line of JSON Lines.
    pub(super) fn json_line(&self, document: &impl Serialize) {
        let text =
            serde_json::to_string(document).expect("reports hold only JSON's own types") + "\n";
        self.raw(self.log.shielded_json(text).as_bytes());
    }

    /// Prints text for people.
    pub(super) fn data(&self, text: &str) {
        if self.stdout_is_taken {
            return self.say(text.trim_end_matches('\n'));
        }
        self.raw(self.log.shielded(text.to_owned()).as_bytes());
    }

    /// Prints bytes as they are. A reader that has left, as `head` does, is no failure.
    pub(super) fn raw(&self, bytes: &[u8]) {
        if self.stdout_is_taken {
            let _ = anstream::stderr().lock().write_all(bytes);
            return;
        }
        let mut stdout = anstream::stdout().lock();
        let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
        if let Err(error) = written
            && error.kind() != std::io::ErrorKind::BrokenPipe
        {
            *self.lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    }

    /// Sets the exit code of a command that went well and answers by its code.
    pub(super) fn end_with(&self, code: u8) {
        self.code.store(code, Ordering::Relaxed);
    }

    /// Ends long work: its report as the `summary` line, or its warnings, and `text` where there is one for people.
    pub(super) fn summary(
        &self,
        report: &impl Serialize,
        warnings: &[String],
        text: impl FnOnce() -> Option<String>,
    ) {
        if self.json {
            return self.json_line(&Summary {
                message_type: "summary",
                report,
            });
        }
        warnings.iter().for_each(|warning| self.warning(warning));
        if !self.quiet
            && let Some(text) = text()
        {
            self.data(&self.screen.fitted(&text));
        }
    }

    /// Prints a warning.
    pub(super) fn warning(&self, text: &str) {
        warning(&self.log, text, self.quiet);
    }

    /// Adds a table to the summary of a GitHub step, where there is one.
    pub(super) fn step_summary(&self, table: impl FnOnce() -> StepTable) {
        if let Some(actions) = &self.actions
            && let Err(error) = actions.summarize(&table())
        {
            self.warning(&format!("the summary of the step was not written: {error}"));
        }
    }

    /// Sets outputs of a GitHub step, where there is one.
    pub(super) fn step_outputs(&self, outputs: &[(&str, String)]) {
        if let Some(actions) = &self.actions
            && let Err(error) = actions.set_outputs(outputs)
        {
            self.warning(&format!(
                "the outputs of the step were not written: {error}"
            ));
        }
    }

    /// Prints text for people on standard error.
    pub(super) fn say(&self, text: &str) {
        self.log.say(text);
    }

    /// Prints a failure for people.
    pub(super) fn error(&self, failure: &Failure) {
        let text = failure
            .to_string()
            .replacen("error:", &format!("{ERROR}error:{ERROR:#}"), 1)
            .replace("\nhint:", &format!("\n{HINT}hint:{HINT:#}"));
        if failure.kind == Kind::AfterGood {
            let text = text.replacen("error:", "warning:", 1);
            self.log.fail(&text, failure);
        } else {
            self.log.fail(&text, failure);
        }
    }

    /// Prints what a person may want to know and a script does not.
    pub(super) fn note(&self, text: &str) {
        if !self.quiet {
            self.say(text);
        }
    }

    /// Prints the failure, if any, and turns the result into an exit code.
    pub(super) fn exit(&self, result: Result<(), Failure>) -> ExitCode {
        let Err(failure) = result else {
            return ExitCode::from(self.code.load(Ordering::Relaxed));
        };
        if self.json {
            self.log.fail_in_json(&failure);
        } else {
            self.error(&failure);
        }
        ExitCode::from(failure.kind.exit_code())
    }
}

/// Prints a warning, before there is an [`Output`] or beside it; a quiet run keeps it for the log.
pub(super) fn warning(log: &Log, text: &str, is_quiet: bool) {
    let shown = format!("{WARNING}warning:{WARNING:#} {text}");
    log.warn((!is_quiet).then_some(&shown), text);
}

/// Prints a panic. It was redacted as far as the panicking thread could, and the log may be what panicked.
pub(super) fn say_in_panic(line: &str) {
    let mut stderr = anstream::stderr().lock();
    let _ = writeln!(stderr, "{line}");
}

/// One row of a list of tables: name, kind, rows, bytes, digest.
pub(super) type TableRow = (
    String,
    Option<TableKind>,
    Option<u64>,
    u64,
    Option<RowDigest>,
);

/// Lists the tables of a dump, alike for a file and for a manifest.
pub(super) fn dumped_tables(rows: impl IntoIterator<Item = TableRow>) -> Table {
    let mut out = Table::new(&["table", "kind", "rows", "bytes", "digest"])
        .right(&[2, 3])
        .spare(&[DIGEST]);
    for (name, kind, rows, size, digest) in rows {
        out.add_row([
            printable(&name),
            kind.map_or("rows only", |kind| kind.as_str()).to_owned(),
            rows.map_or_else(|| "no data".to_owned(), number),
            bytes(size),
            digest.map_or_else(|| "-".to_owned(), |digest| digest.to_string()),
        ]);
    }
    out
}

/// The column of digests, which only programs compare: a narrow terminal goes without.
const DIGEST: usize = 4;

/// Writes a number with its noun.
pub(super) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(count), if count == 1 { one } else { many })
}
