//! `pgkeep restore` on the terminal: a whole dump, single tables, or rows of single tables.

use super::args::RestoreArgs;
use super::log::{self, Ended};
use super::output::Output;
use super::progress::Shown;
use super::{restored, steps};
use pgkeep_core::context::Context;
use pgkeep_core::op::restore::{Outcome, run as restore};
use pgkeep_core::setup::Setup;
use pgkeep_core::setup::restore::{Overrides, request};
use pgkeep_model::failure::Result;

pub(super) async fn run(
    args: &RestoreArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let request = request(&args.into(), setup)?;
    let context = &setup.telling(context, &(&args.storage).into())?;
    let shown = Shown::new("restore", output);
    let outcome = restore(&request, context, &shown).await;
    let ended = match &outcome {
        Outcome::Whole(report) => Ended {
            database: report.database.as_deref(),
            backup_id: report.backup_id.as_deref(),
            duration_ms: report.took_ms,
            ..Ended::default()
        },
        Outcome::Tables(report) => Ended {
            backup_id: report.backup_id.as_deref(),
            duration_ms: report.took_ms,
            ..Ended::default()
        },
        Outcome::Rows(report) => Ended {
            backup_id: report.backup_id.as_deref(),
            duration_ms: report.took_ms,
            ..Ended::default()
        },
    };
    log::ended(&Ended {
        stage: "restore",
        failure: outcome.failure(),
        ..ended
    });
    output.step_summary(|| steps::of_restored(&outcome));
    output.summary(&outcome, outcome.warnings(), || restored::of(&outcome));
    outcome.failure().cloned().map_or(Ok(()), Err)
}

impl From<&RestoreArgs> for Overrides {
    fn from(args: &RestoreArgs) -> Self {
        Self {
            what: args.what.clone(),
            into: args.into.clone(),
            password_file: args.password_file.clone(),
            replace: args.replace,
            upsert: args.upsert,
            data_only: args.data_only,
            tables: args.tables.clone(),
            schema_map: args.schema_map.clone(),
            dry_run: args.dry_run,
            allow_superuser: args.allow_superuser,
            no_owner: args.no_owner,
            no_privileges: args.no_privileges,
            create_missing_roles: args.create_missing_roles,
            no_database_settings: args.no_database_settings,
            force_version: args.force_version,
            force_locale: args.force_locale,
            preset: args.preset.map(Into::into),
            accept_no_end_marker: args.accept_no_end_marker,
            no_compare: args.no_compare,
            jobs: args.jobs,
            stall_timeout: args.stall_timeout.clone(),
            lock_wait_timeout: args.lock_wait_timeout.clone(),
            dump_time_zone: args.dump_time_zone.clone(),
            bin_dir: args.bin_dir.clone(),
            storage: (&args.storage).into(),
        }
    }
}
