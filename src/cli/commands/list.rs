//! `pgkeep list` on the terminal.

use clap::Args;

use crate::cli::args::StorageArgs;
use crate::cli::output::{Output, bytes};
use crate::cli::screen::Screen;
use crate::cli::table::Table;
use pgkeep_core::context::Context;
use pgkeep_core::op::list::{Report, run as list};
use pgkeep_core::setup::Setup;
use pgkeep_core::setup::stored::{Overrides, list as request};
use pgkeep_model::failure::Result;
use pgkeep_model::freshness::age;

/// Flags of `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Where to look.
    #[command(flatten)]
    pub storage: StorageArgs,
}

impl From<&ListArgs> for Overrides {
    fn from(args: &ListArgs) -> Self {
        Self {
            storage: (&args.storage).into(),
            ..Self::default()
        }
    }
}

pub(super) async fn run(
    args: &ListArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let request = request(&args.into(), setup, context.clock.now())?;
    let report = list(request).await?;
    output.document(&report, || text(&report, output.screen));
    for id in &report.unfinished {
        output.note(&format!(
            "`{id}` is not a backup: it has no manifest, because its run is under way or was cut off"
        ));
    }
    match report.failure {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

fn text(report: &Report, screen: Screen) -> String {
    if report.backups.is_empty() {
        let places: Vec<&str> = report
            .storages
            .iter()
            .map(|state| state.url.as_str())
            .collect();
        return screen.fitted(&format!("no backups in {}\n", places.join(", ")));
    }
    // An id says when its backup started.
    let mut out = Table::new(&["id", "started (UTC)", "age", "size", "storages", "notes"])
        .right(&[3])
        .texts(&[4, 5])
        .spare(&[1]);
    for backup in &report.backups {
        let mut marks: Vec<String> = [
            (backup.drilled, "drilled"),
            (backup.held, "HELD"),
            (backup.accepted, "accepted"),
            (backup.damaged, "DAMAGED"),
            (backup.partial, "partial"),
        ]
        .into_iter()
        .filter(|(is, _)| *is)
        .map(|(_, mark)| mark.to_owned())
        .collect();
        if backup.pinned {
            let reason = backup
                .pin_reason
                .as_deref()
                .filter(|reason| !reason.is_empty());
            marks.push(reason.map_or("pinned".to_owned(), |reason| format!("pinned: {reason}")));
        }
        out.add_row([
            backup.id.clone(),
            backup.started_at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
            age(backup.age_seconds),
            bytes(backup.size_bytes),
            backup.storages.join(", "),
            marks.join(", "),
        ]);
    }
    out.shown(screen)
}
