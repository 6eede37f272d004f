//! `pgkeep check` on the terminal.

use std::fs;

use async_trait::async_trait;

use super::args::{BackupArgs, CheckArgs};
use super::output::{Output, table};
use pgkeep_core::context::Context;
use pgkeep_core::notify::{NOT_TRIED, Notifiers};
use pgkeep_core::op::check::{Checked, Line, Probe, Report, Request, Verdict, run as check};
use pgkeep_core::postgres::programs::Search;
use pgkeep_core::setup::Setup;
use pgkeep_core::setup::backup::requests;
use pgkeep_model::failure::{Failure, Result};

/// Id of the failure that says that no database is named.
const NO_DATABASE: &str = "no_database";

pub(super) async fn run(
    args: &CheckArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    // Opening a folder makes it; one that was not there is taken away again, if nothing is in it.
    let missing = setup.missing_folders(&(&args.storage).into())?;
    let report = check(&request(args, setup, context)?, context).await;
    for folder in missing {
        let _ = fs::remove_dir(folder); // one that is not empty stays
    }
    output.document(&report, || text(&report));
    report
        .failure
        .map_or(Ok(()), |failure| Err(in_short(failure, output)))
}

/// The lines have told everything to people; a script reads it from the error, too.
fn in_short(mut failure: Failure, output: &Output) -> Failure {
    if !output.json {
        failure.details.clear();
    }
    failure
}

fn request(args: &CheckArgs, setup: &Setup, context: &Context) -> Result<Request> {
    let config = setup.config()?;
    let backup = BackupArgs {
        url: args.url.clone(),
        name: args.name.clone(),
        password_file: args.password_file.clone(),
        required: args.required.clone(),
        preset: args.preset,
        bin_dir: args.bin_dir.clone(),
        storage: args.storage.clone(),
        ..BackupArgs::default()
    };
    let backups = match requests(&(&backup).into(), setup) {
        // Storages alone can be looked at, too.
        Err(failure) if failure.id == NO_DATABASE && !args.storage.storages.is_empty() => {
            Vec::new()
        }
        other => other?.0,
    };
    let database = |backup: pgkeep_core::op::backup::Request| {
        let own = config.as_ref().map(|config| {
            let found = config.database(backup.name.as_str());
            found.unwrap_or(&config.defaults)
        });
        Checked {
            max_age: own.and_then(|own| own.max_age),
            has_drill_server: own.is_some_and(|own| own.drill.url.is_some()),
            backup,
        }
    };
    let bin_dir = args.bin_dir.clone();
    let bin_dir = bin_dir.or_else(|| config.as_ref()?.postgres.bin_dir.clone());
    Ok(Request {
        databases: backups.into_iter().map(database).collect(),
        storages: setup.storages(&(&args.storage).into())?,
        known: configuration(setup),
        probes: vec![Box::new(Told {
            names: config
                .iter()
                .flat_map(|config| &config.notify)
                .map(|one| one.kind().to_owned())
                .collect(),
            notifiers: setup.notifiers(context)?.filter(|_| args.send_test),
        })],
        search: Search::new(bin_dir, setup.path()),
        environment: setup.program_environment(),
        strict: args.strict,
    })
}

/// Whom the configuration tells of runs.
struct Told {
    names: Vec<String>,
    /// Where a test is to be sent.
    notifiers: Option<Notifiers>,
}

#[async_trait]
impl Probe for Told {
    async fn look(&self, context: &Context) -> Vec<Line> {
        let line =
            |subject: &str, verdict, message: &str| Line::new(subject, "notice", verdict, message);
        if self.names.is_empty() {
            let message = "nobody is told how a run ends";
            let hint =
                "`notify:` in the configuration names e-mail, Slack, Discord, a webhook or a ping";
            return vec![line("notices", Verdict::Skipped, message).hint(hint)];
        }
        let Some(notifiers) = &self.notifiers else {
            let message = format!("not tried: {}", self.names.join(", "));
            let hint = "`--send-test` sends a test to each";
            return vec![line("notices", Verdict::Skipped, &message).hint(hint)];
        };
        let sent = notifiers.send_test(&context.stop).await;
        let lines = sent
            .into_iter()
            .map(|sent| match (sent.delivered, sent.error) {
                (true, None) => line(&sent.notifier, Verdict::Ok, "it took a test notice"),
                (true, Some(why)) => {
                    let why = format!("a test notice did not reach everybody: {why}");
                    line(&sent.notifier, Verdict::Warn, &why)
                }
                (false, Some(why)) if why.starts_with(NOT_TRIED) => {
                    line(&sent.notifier, Verdict::Skipped, &why)
                }
                (false, why) => {
                    let why = why.unwrap_or_default();
                    line(
                        &sent.notifier,
                        Verdict::Warn,
                        &format!("a test notice did not arrive: {why}"),
                    )
                }
            });
        lines.collect()
    }
}

/// What was found out by reading the configuration.
fn configuration(setup: &Setup) -> Vec<Line> {
    let line =
        |verdict, message: &str| Line::new("configuration", "configuration", verdict, message);
    let Some(path) = setup.config_path() else {
        return vec![line(Verdict::Skipped, "there is none")];
    };
    vec![match setup.open_config() {
        Some(text) => line(Verdict::Warn, text),
        None => line(Verdict::Ok, &format!("`{}`", path.display())),
    }]
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    let mut subjects: Vec<&str> = Vec::new();
    for line in &report.checks {
        if !subjects.contains(&line.subject.as_str()) {
            subjects.push(&line.subject);
        }
    }
    for subject in subjects {
        let mut shown = table(&[subject, "", ""]);
        let lines = report.checks.iter().filter(|line| line.subject == subject);
        for line in lines {
            let below = line.details.iter().map(|detail| format!("\n  {detail}"));
            let hints = line.hints.iter().map(|hint| format!("\nhint: {hint}"));
            let below: String = below.chain(hints).collect();
            shown.add_row([
                word(line.verdict).to_owned(),
                line.check.replace('_', " "),
                format!("{}{below}", line.message),
            ]);
        }
        out += &format!("{shown}\n\n");
    }
    out += &format!(
        "{} ok, {} warned, {} failed, {} skipped\n",
        report.ok, report.warned, report.failed, report.skipped
    );
    out
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Warn => "WARN",
        Verdict::Fail => "FAIL",
        Verdict::Skipped => "skipped",
    }
}
