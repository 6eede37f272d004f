//! Shows how far a backup or a restore has come: a bar on a terminal, a line now and then elsewhere, JSON Lines with `--json`.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::task::JoinHandle;

use super::args::When;
use super::log::Log;
use super::output::{Output, bytes};
use super::screen::Screen;
use pgkeep_core::op::event::{Event, Observer};
use pgkeep_core::stream::pipeline::Progress;
use pgkeep_model::failure::Failure;

/// How often the bar moves.
pub(super) const BAR_INTERVAL: Duration = Duration::from_millis(200);

/// How often a line is printed where there is no terminal: enough to see life in a log, not enough to fill it.
pub(super) const LINE_INTERVAL: Duration = Duration::from_secs(30);

/// How a run is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Bar,
    Lines,
    Json,
    Nothing,
}

impl Style {
    /// Chooses by the flags, and by whether a person may be looking.
    pub(super) fn choose(output: &Output) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        match (output.json, output.progress, output.quiet) {
            (_, When::Never, _) | (_, When::Auto, true) => Self::Nothing,
            // Its lines are data, and standard error ends with one object.
            (true, ..) if output.stdout_is_taken => Self::Nothing,
            (true, ..) => Self::Json,
            (false, ..) if is_terminal && !output.screen.is_dumb => Self::Bar,
            (false, ..) => Self::Lines,
        }
    }
}

/// Shows one run.
pub(super) struct Shown {
    database: String,
    style: Style,
    log: Log,
    screen: Screen,
    task: Mutex<Option<(JoinHandle<()>, Option<ProgressBar>)>>,
    /// The stage under way, the database where it is known by its name, and since when.
    stage: Mutex<Option<(&'static str, Option<String>, Instant)>>,
}

impl Shown {
    pub(super) fn new(database: &str, output: &Output) -> Self {
        Self {
            database: database.to_owned(),
            style: Style::choose(output),
            log: output.log.clone(),
            screen: output.screen,
            task: Mutex::new(None),
            stage: Mutex::new(None),
        }
    }

    /// Leaves standard output to data, or to one document: nothing goes there in between.
    pub(super) fn beside_data(mut self) -> Self {
        if self.style == Style::Json {
            self.style = Style::Nothing;
        }
        self
    }

    /// Shows the reading of something of unknown length.
    pub(super) fn reading(&self, stage: &'static str, progress: &Arc<Progress>) {
        self.turn_to(Some((stage, None)));
        self.start(stage, progress, 0, 0);
    }

    /// Takes the bar away, and logs the end of the last stage.
    pub(super) fn finish(&self) {
        self.clear();
        self.turn_to(None);
    }

    /// Logs the end of the stage under way, and begins another.
    fn turn_to(&self, next: Option<(&'static str, Option<&str>)>) {
        let next =
            next.map(|(stage, database)| (stage, database.map(str::to_owned), Instant::now()));
        let mut slot = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((stage, database, since)) = std::mem::replace(&mut *slot, next) {
            tracing::info!(
                target: "pgkeep",
                stage,
                database,
                duration_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
                "{stage} ended"
            );
        }
    }

    fn clear(&self) {
        let task = self.task.lock().ok().and_then(|mut task| task.take());
        if let Some((task, bar)) = task {
            task.abort();
            if let Some(bar) = bar {
                bar.finish_and_clear();
            }
        }
    }

    fn line(&self, text: &str) {
        match self.style {
            Style::Bar | Style::Lines => self.log.say(&format!("{}: {text}", self.database)),
            Style::Json | Style::Nothing => {}
        }
    }

    fn retry(&self, attempt: u32, failure: &Failure, delay: Duration) -> serde_json::Value {
        json!({
            "message_type": "retry",
            "database": self.database,
            "attempt": attempt,
            "delay_ms": delay.as_millis() as u64,
            "code": failure.kind.exit_code(),
            "id": failure.id,
            "message": failure.message,
        })
    }

    fn start(
        &self,
        stage: &'static str,
        progress: &Arc<Progress>,
        estimated_bytes: u64,
        tables: u64,
    ) {
        if self.style == Style::Nothing {
            return;
        }
        self.clear();
        let meter = Meter {
            database: self.database.clone(),
            stage,
            progress: Arc::clone(progress),
            estimated_bytes,
            tables,
            started: Instant::now(),
        };
        let bar = (self.style == Style::Bar).then(|| bar(&self.database, self.screen));
        let (style, shown) = (self.style, bar.clone());
        let log = self.log.clone();
        // It ends with `finish`, which every run calls.
        let task = tokio::spawn(async move {
            if style != Style::Bar {
                tokio::time::sleep(LINE_INTERVAL).await;
            }
            loop {
                match (style, &shown) {
                    (Style::Bar, Some(bar)) => bar.set_message(meter.text()),
                    (Style::Json, _) => println_json(&log, &meter.json()),
                    _ => log.say(&format!("{}: {}", meter.database, meter.text())),
                }
                tokio::time::sleep(if style == Style::Bar {
                    BAR_INTERVAL
                } else {
                    LINE_INTERVAL
                })
                .await;
            }
        });
        if let Ok(mut slot) = self.task.lock() {
            *slot = Some((task, bar));
        }
    }
}

impl Observer for Shown {
    fn note(&self, event: Event<'_>) {
        let database = Some(self.database.as_str());
        match event {
            Event::Connecting => self.turn_to(Some(("connect", database))),
            Event::Waiting { text } => self.line(text),
            Event::Dumping {
                progress,
                estimated_bytes,
                tables,
            } => {
                self.turn_to(Some(("dump", database)));
                self.start("dump", progress, estimated_bytes, tables);
            }
            Event::Storing => {
                self.clear();
                self.turn_to(Some(("store", database)));
            }
            Event::Retrying {
                attempt,
                failure,
                delay,
            } => {
                self.finish();
                if self.style == Style::Json {
                    println_json(&self.log, &self.retry(attempt, failure, delay));
                }
                self.line(&format!(
                    "{}; trying again in {:.0} s",
                    failure.message,
                    delay.as_secs_f64()
                ));
            }
            Event::Reading { progress } => {
                self.turn_to(Some(("read", None)));
                self.start("read", progress, 0, 0);
            }
            Event::Restoring {
                progress,
                bytes,
                tables,
            } => {
                self.turn_to(Some(("restore", None)));
                self.start("restore", progress, bytes, tables);
            }
            Event::Comparing {
                progress,
                bytes,
                tables,
            } => {
                self.turn_to(Some(("compare", None)));
                self.start("compare", progress, bytes, tables);
            }
            Event::Copying { progress, bytes } => {
                self.turn_to(Some(("copy", database)));
                self.start("copy", progress, bytes, 0);
            }
            Event::Ended => self.finish(),
            Event::Of { event, .. } => self.note(*event),
            // `verify` and `guard` show these in words of their own.
            Event::Verifying { .. }
            | Event::Verified(_)
            | Event::Making { .. }
            | Event::Ready { .. }
            | Event::Warned { .. }
            | Event::Running { .. }
            | Event::RollingBack { .. } => {}
        }
    }
}

/// What is known of a dump under way.
struct Meter {
    database: String,
    stage: &'static str,
    progress: Arc<Progress>,
    estimated_bytes: u64,
    tables: u64,
    started: Instant,
}

impl Meter {
    fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64().max(0.001)
    }

    fn rate(&self) -> f64 {
        self.progress.raw_bytes() as f64 / self.seconds()
    }

    /// Share that is done by the server's own estimate, which knows pages and not text: never more than 99 %.
    fn share(&self) -> Option<f64> {
        let share = self.progress.raw_bytes() as f64 / self.estimated_bytes as f64;
        (self.estimated_bytes > 0).then_some(share.min(0.99))
    }

    fn seconds_left(&self) -> Option<u64> {
        let share = self
            .share()
            .filter(|share| *share > 0.02 && self.seconds() > 2.0)?;
        Some((self.seconds() / share - self.seconds()) as u64)
    }

    fn text(&self) -> String {
        let progress = &self.progress;
        let mut text = format!(
            "{} {}, {}/s",
            self.stage,
            bytes(progress.raw_bytes()),
            bytes(self.rate() as u64)
        );
        if self.tables > 0 {
            text += &format!(
                ", {} of {} tables",
                progress.tables_done().min(self.tables),
                self.tables
            );
        }
        if let Some(seconds) = self.seconds_left() {
            text += &format!(", about {} left", left(seconds));
        }
        if let Some(table) = progress.current_table() {
            text += &format!(", {table}");
        }
        text
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "message_type": "status",
            "database": self.database,
            "stage": self.stage,
            "bytes": self.progress.raw_bytes(),
            "stored_bytes": self.progress.stored_bytes(),
            "bytes_per_second": self.rate() as u64,
            "tables_done": self.progress.tables_done(),
            "tables": self.tables,
            "current_table": self.progress.current_table(),
            "share_done": self.share(),
            "seconds_left": self.seconds_left(),
        })
    }
}

pub(super) fn left(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

pub(super) fn bar(database: &str, screen: Screen) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner} {prefix}: {wide_msg}")
        .expect("the template is well-formed");
    bar.set_style(if screen.is_utf8 {
        style
    } else {
        style.tick_chars("-\\|/ ")
    });
    bar.set_prefix(database.to_owned());
    bar.enable_steady_tick(BAR_INTERVAL);
    bar
}

pub(super) fn println_json(log: &Log, value: &serde_json::Value) {
    use std::io::Write;
    let mut stdout = std::io::stdout().lock();
    let text = log.shielded_json(value.to_string());
    let _ = writeln!(stdout, "{text}"); // a reader that has left is no failure
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_left_read_well() {
        for (seconds, text) in [
            (5, "5 s"),
            (61, "2 min"),
            (3600, "1 h 0 min"),
            (7260, "2 h 1 min"),
        ] {
            assert_eq!(super::left(seconds), text);
        }
    }
}
