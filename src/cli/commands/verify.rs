//! `pgkeep verify` on the terminal.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::json;
use tokio::task::JoinHandle;

use super::fleet::{DueArgs, Ended as Turned, Worker};
use crate::cli::args::StorageArgs;
use crate::cli::log::{self, Ended};
use crate::cli::output::{Output, bytes, counted, took};
use crate::cli::progress::{BAR_INTERVAL, LINE_INTERVAL, Style, bar, left, println_json};
use crate::cli::steps;
use pgkeep_core::context::Context;
use pgkeep_core::op::event::{Event, Observer};
use pgkeep_core::op::notices::undelivered;
use pgkeep_core::op::verify::{CopyReport, Report, place_in_words, run as verify};
use pgkeep_core::setup::verify::{Overrides, request};
use pgkeep_core::setup::{Setup, StorageOverrides};
use pgkeep_core::stream::pipeline::Progress;
use pgkeep_model::failure::{Kind, Result};

pub(super) const AFTER_HELP: &str = "\
Examples:
  pgkeep verify --storage ./backups      the newest good backup, in each storage
  pgkeep verify --all
  pgkeep verify --sample 3 --json

verify reads every byte, and compares size, SHA-256, compression, end marker, and the rows and digest of each table with \
the manifest. A copy that differs is read again. If it differs in the same way, it is marked as damaged: no command uses \
it, until verify finds it good again.

Exit code 23: a copy is damaged; the hint names the newest good backup. 22: a storage could not be read, and nothing was \
marked.";

/// Flags of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Id of the backup, or `latest` [default: latest]
    #[arg(value_name = "ID", conflicts_with_all = ["all", "sample", "due"])]
    pub id: Option<String>,
    /// Verify every backup [with --due: of each database that is due]
    #[arg(long, conflicts_with = "sample")]
    pub all: bool,
    /// Verify N backups at random, and the newest of each database
    #[arg(long, value_name = "N")]
    pub sample: Option<usize>,
    /// Where to look.
    #[command(flatten)]
    pub storage: StorageArgs,
    /// Which of many.
    #[command(flatten)]
    pub due: DueArgs,
    /// With --due: at most this many databases
    #[arg(long, value_name = "N", requires = "due", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Fleet")]
    pub limit: Option<u32>,
}

impl From<&VerifyArgs> for Overrides {
    fn from(args: &VerifyArgs) -> Self {
        Self {
            id: args.id.clone(),
            all: args.all,
            sample: args.sample,
            storage: (&args.storage).into(),
        }
    }
}

pub(super) async fn run(
    args: &VerifyArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    if args.due.due {
        return run_due(args, setup, output, context).await;
    }
    let request = request(&args.into(), setup)?;
    let context = &setup.telling(context, &(&args.storage).into())?;
    let report = verify(request, context, &Shown::new(output)).await?;
    tell(report, output)
}

/// Verifies what is due, each database with its own settings.
async fn run_due(
    args: &VerifyArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let context = &setup.telling(context, &StorageOverrides::default())?;
    let limit = args.limit.map(|limit| limit as usize);
    let shard = args.due.shard.as_deref();
    let worker = Worker::new("verify", shard, limit, setup, output, context)?;
    let verified = worker.take_due(async |setup, origin| {
        let mut request = request(&args.into(), setup)?;
        request.lock = Some(setup.lock(Duration::ZERO)?);
        request.origin = origin.clone();
        let verified = verify(request, context, &Shown::new(output)).await;
        let failure = verified.and_then(|report| tell(report, output)).err();
        Ok(Turned::of(&origin, None, failure.as_ref()))
    });
    verified.await
}

fn tell(report: Report, output: &Output) -> Result<()> {
    output.step_summary(|| steps::of_copies(&report));
    if output.json {
        output.json_line(&Summary {
            message_type: "summary",
            report: &report,
        });
    }
    if !output.json {
        for warning in undelivered(&report.notices) {
            output.warning(&warning);
        }
    }
    report.failure.map_or(Ok(()), |mut failure| {
        if !output.json {
            // The line of each copy has said it, but not whose key is needed.
            if failure.kind != Kind::Login {
                failure.details.clear();
            }
        }
        Err(failure)
    })
}

#[derive(Serialize)]
struct Summary<'a> {
    message_type: &'static str,
    #[serde(flatten)]
    report: &'a Report,
}

/// Shows each copy: how far its reading has come, and what came of it.
struct Shown<'a> {
    output: &'a Output,
    style: Style,
    task: Mutex<Option<(JoinHandle<()>, Option<ProgressBar>)>>,
}

impl<'a> Shown<'a> {
    fn new(output: &'a Output) -> Self {
        Self {
            output,
            style: Style::choose(output),
            task: Mutex::default(),
        }
    }

    /// Takes the bar away.
    fn finish(&self) {
        let task = self.task.lock().ok().and_then(|mut task| task.take());
        if let Some((task, bar)) = task {
            task.abort();
            if let Some(bar) = bar {
                bar.finish_and_clear();
            }
        }
    }

    fn start(&self, meter: Meter) {
        self.finish();
        if self.style == Style::Nothing {
            return;
        }
        let bar = (self.style == Style::Bar).then(|| bar(&meter.id, self.output.screen));
        let (style, shown) = (self.style, bar.clone());
        let log = self.output.log.clone();
        let interval = if style == Style::Bar {
            BAR_INTERVAL
        } else {
            LINE_INTERVAL
        };
        // It ends with `finish`, which every copy calls at its end, or with the runtime.
        let task = tokio::spawn(async move {
            loop {
                if let Some(bar) = &shown {
                    bar.set_message(meter.text());
                }
                tokio::time::sleep(interval).await;
                match style {
                    Style::Json => println_json(&log, &meter.json()),
                    Style::Lines => log.say(&format!("{}: {}", meter.id, meter.text())),
                    Style::Bar | Style::Nothing => {}
                }
            }
        });
        if let Ok(mut slot) = self.task.lock() {
            *slot = Some((task, bar));
        }
    }

    fn done(&self, copy: &CopyReport) {
        self.finish();
        log::ended(&Ended {
            stage: "verify",
            database: Some(&copy.database),
            backup_id: Some(&copy.id),
            duration_ms: copy.took_ms,
            size_bytes: Some(copy.bytes),
            failure: copy.failure.as_ref(),
        });
        if !self.output.json {
            // Quiet is for cron, which mails everything that is printed.
            if !self.output.quiet || !(copy.ok || copy.removed) {
                self.output.data(&self.output.screen.fitted(&line(copy)));
            }
            for warning in &copy.warnings {
                self.output
                    .warning(&format!("`{}` in `{}`: {warning}", copy.id, copy.storage));
            }
        }
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Observer for Shown<'_> {
    fn note(&self, event: Event<'_>) {
        match event {
            Event::Verifying {
                id,
                storage,
                size_bytes,
                progress,
                is_again,
            } => self.start(Meter {
                id: id.to_string(),
                storage: storage.to_owned(),
                size_bytes,
                progress: Arc::clone(progress),
                is_again,
                started: Instant::now(),
            }),
            Event::Verified(copy) => self.done(copy),
            _ => {}
        }
    }
}

pub(super) fn line(copy: &CopyReport) -> String {
    let verdict = match (copy.ok, copy.damaged) {
        (true, _) => "good",
        (false, true) => "DAMAGED",
        (false, false) if copy.removed => "removed in the meantime",
        (false, false) => "not proven",
    };
    let mut line = format!("{} in {}: {verdict}", copy.id, copy.storage);
    if copy.ok && !copy.opened {
        line += &format!(
            ", {} read, every byte as stored; encrypted, and not opened without a key (`--identity`), {}",
            bytes(copy.bytes),
            took(copy.took_ms)
        );
    } else if copy.ok {
        line += &format!(
            ", {} read, {}, {}, {}",
            bytes(copy.bytes),
            counted(copy.tables, "table", "tables"),
            counted(copy.rows, "row", "rows"),
            took(copy.took_ms)
        );
    }
    for problem in &copy.problems {
        line += &format!("\n  {}", place_in_words(problem));
    }
    line + "\n"
}

/// What is known of a reading under way.
struct Meter {
    id: String,
    storage: String,
    size_bytes: u64,
    progress: Arc<Progress>,
    is_again: bool,
    started: Instant,
}

impl Meter {
    fn share(&self) -> f64 {
        (self.progress.stored_bytes() as f64 / self.size_bytes.max(1) as f64).min(1.0)
    }

    fn seconds_left(&self) -> Option<u64> {
        let (share, seconds) = (self.share(), self.started.elapsed().as_secs_f64());
        (share > 0.02 && seconds > 2.0).then(|| (seconds / share - seconds) as u64)
    }

    fn text(&self) -> String {
        let stored = self.progress.stored_bytes();
        let again = if self.is_again { ", again" } else { "" };
        let rate = stored as f64 / self.started.elapsed().as_secs_f64().max(0.001);
        let mut text = format!(
            "{} of {} from {}{again}, {}/s",
            bytes(stored),
            bytes(self.size_bytes),
            self.storage,
            bytes(rate as u64)
        );
        if let Some(seconds) = self.seconds_left() {
            text += &format!(", about {} left", left(seconds));
        }
        if let Some(table) = self.progress.current_table() {
            text += &format!(", {table}");
        }
        text
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "message_type": "status",
            "stage": "verify",
            "id": self.id,
            "storage": self.storage,
            "is_again": self.is_again,
            "stored_bytes": self.progress.stored_bytes(),
            "bytes": self.progress.raw_bytes(),
            "current_table": self.progress.current_table(),
            "share_done": self.share(),
            "seconds_left": self.seconds_left(),
        })
    }
}
