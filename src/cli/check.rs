//! `pgkeep check` on the terminal.

use std::fs;

use super::args::CheckArgs;
use super::output::{Output, table};
use pgkeep_core::context::Context;
use pgkeep_core::op::check::{Report, Verdict, run as check};
use pgkeep_core::setup::Setup;
use pgkeep_core::setup::check::{Overrides, request};
use pgkeep_model::failure::{Failure, Result};

pub(super) async fn run(
    args: &CheckArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    // Opening a folder makes it; one that was not there is taken away again, if nothing is in it.
    let missing = setup.missing_folders(&(&args.storage).into())?;
    let report = check(&request(&args.into(), setup, context)?, context).await;
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

impl From<&CheckArgs> for Overrides {
    fn from(args: &CheckArgs) -> Self {
        Self {
            strict: args.strict,
            send_test: args.send_test,
            url: args.url.clone(),
            name: args.name.clone(),
            password_file: args.password_file.clone(),
            preset: args.preset.map(Into::into),
            required: args.required.clone(),
            bin_dir: args.bin_dir.clone(),
            storage: (&args.storage).into(),
        }
    }
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
