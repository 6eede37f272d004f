//! One run, from the configuration to its report: the same requests and operations as the commands have.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::outcome::Outcome;
use super::watch::Teller;
use super::{Entry, Rows};
use crate::snapshot::Verb;
use pgkeep_core::context::Context;
use pgkeep_core::op::{self, restore};
use pgkeep_core::setup::{
    Setup, StorageOverrides, backup, connection_of, drill, restore as settings, verify,
};
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::id::BackupId;
use pgkeep_model::manifest::Trigger;
use pgkeep_model::origin::Origin;

fn json(report: &impl Serialize) -> Option<Value> {
    serde_json::to_value(report).ok()
}

/// Carries a run out. A failure is an outcome like any other.
pub(super) async fn run(entry: &Entry, setup: &Setup, context: &Context) -> Outcome {
    let done = match entry.ask.verb {
        Verb::Backup => backup_one(entry, setup, context).await,
        Verb::Drill => drill_one(entry, setup, context).await,
        Verb::Verify => verify_one(entry, setup, context).await,
        Verb::Restore => restore_one(entry, setup, context).await,
    };
    done.unwrap_or_else(Outcome::of)
}

fn setup_of(entry: &Entry, setup: &Setup) -> Setup {
    let mut setup = setup.clone();
    setup.database = Some(entry.ask.database.to_string());
    setup
}

fn origin_of(entry: &Entry) -> Origin {
    Origin {
        run: Some(entry.id.clone()),
        slot: entry.ask.slot,
        by: entry.ask.by.clone(),
        request_key: entry.ask.request_key.clone(),
    }
}

async fn backup_one(entry: &Entry, setup: &Setup, context: &Context) -> Result<Outcome> {
    let setup = setup_of(entry, setup);
    let trigger = match entry.ask.slot {
        Some(_) => Trigger::Schedule,
        None => Trigger::Manual,
    };
    let overrides = backup::Overrides {
        trigger: Some(trigger),
        ..backup::Overrides::default()
    };
    let mut request = backup::request_of_one(&overrides, &setup)?;
    let context = setup.telling(context, &StorageOverrides::default())?;
    let teller = Teller {
        entry,
        clock: context.clock.as_ref(),
    };
    request.origin = origin_of(entry);
    let report = op::backup::run(&request, &context, &teller).await;
    Ok(Outcome {
        backup_id: report.backup_id.clone().filter(|_| report.stored),
        size_bytes: report.stored.then_some(report.size_bytes),
        rows: report.stored.then_some(report.rows),
        report: json(&report),
        failure: report.failure,
    })
}

async fn drill_one(entry: &Entry, setup: &Setup, context: &Context) -> Result<Outcome> {
    let setup = setup_of(entry, setup);
    let overrides = drill::Overrides {
        id: entry.ask.backup.as_ref().map(ToString::to_string),
        ..drill::Overrides::default()
    };
    let mut request = drill::request(&overrides, &setup)?;
    request.origin = origin_of(entry);
    request.lock = Some(setup.lock(Duration::ZERO)?);
    let context = setup.telling(context, &StorageOverrides::default())?;
    let teller = Teller {
        entry,
        clock: context.clock.as_ref(),
    };
    let report = op::drill::run(&request, &context, &teller).await;
    Ok(Outcome {
        backup_id: report.backup_id.clone(),
        size_bytes: None,
        rows: report.restore.as_ref().map(|restore| restore.rows),
        report: json(&report),
        failure: report.failure,
    })
}

/// Makes the request to put rows back into the database that they are from, or only to try it.
pub fn rows_request(
    setup: &Setup,
    backup: &BackupId,
    rows: &Rows,
    is_dry_run: bool,
) -> Result<restore::Request> {
    let config = setup.config_or_fail()?;
    let database = config.database(backup.database().as_str());
    let connection = database.and_then(connection_of);
    let named = connection.as_ref().and_then(|found| found.database_name());
    let name = named.ok_or_else(|| {
        let message = format!(
            "cannot put rows back: the connection of `{}` names no database",
            backup.database()
        );
        Failure::new(Kind::Usage, "no_target", message)
            .hint("`pgkeep restore --upsert` takes a target by `--into`")
    })?;
    let overrides = settings::Overrides {
        what: backup.to_string(),
        into: name.to_owned(),
        tables: vec![rows.table.clone()],
        upsert: !rows.is_append,
        data_only: rows.is_append,
        dry_run: is_dry_run,
        ..settings::Overrides::default()
    };
    settings::request(&overrides, setup)
}

async fn restore_one(entry: &Entry, setup: &Setup, context: &Context) -> Result<Outcome> {
    let setup = setup_of(entry, setup);
    let asked = entry.ask.backup.as_ref().zip(entry.ask.rows.as_ref());
    let (backup, rows) = asked.expect("a restore is asked for with a backup and a table");
    let mut request = rows_request(&setup, backup, rows, false)?;
    request.options.origin = origin_of(entry);
    let context = setup.telling(context, &StorageOverrides::default())?;
    let teller = Teller {
        entry,
        clock: context.clock.as_ref(),
    };
    let outcome = restore::run(&request, &context, &teller).await;
    Ok(Outcome {
        backup_id: Some(backup.to_string()),
        size_bytes: None,
        rows: None,
        report: json(&outcome),
        failure: outcome.failure().cloned(),
    })
}

async fn verify_one(entry: &Entry, setup: &Setup, context: &Context) -> Result<Outcome> {
    let setup = setup_of(entry, setup);
    let overrides = verify::Overrides {
        id: entry.ask.backup.as_ref().map(ToString::to_string),
        ..verify::Overrides::default()
    };
    let mut request = verify::request(&overrides, &setup)?;
    request.origin = origin_of(entry);
    request.lock = Some(setup.lock(Duration::ZERO)?);
    let context = setup.telling(context, &StorageOverrides::default())?;
    let teller = Teller {
        entry,
        clock: context.clock.as_ref(),
    };
    let report = op::verify::run(request, &context, &teller).await?;
    let first = report.copies.first();
    Ok(Outcome {
        backup_id: first.map(|copy| copy.id.clone()),
        size_bytes: None,
        rows: None,
        report: json(&report),
        failure: report.failure,
    })
}
