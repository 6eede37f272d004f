//! `pgkeep prune` on the terminal: each verdict with its reason, and what came of it.

use std::time::Duration;

use serde::Serialize;

use super::args::PruneArgs;
use super::output::{Output, bytes, number, table};
use super::retention::{flags, set_zone};
use pgkeep_core::context::Context;
use pgkeep_core::op::prune::{Account, Line, Report, Request, empty_policy, run as prune, worst};
use pgkeep_core::op::stored::{Listing, NamedStorage};
use pgkeep_core::setup::Setup;
use pgkeep_core::setup::flags::duration_or_off;
use pgkeep_model::config::{DatabaseConfig, Retention};
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::id::DatabaseName;

/// Most objects of others that are named one by one.
const MAX_LEFT: usize = 10;

/// The document of the whole command.
#[derive(Serialize)]
struct Document<'a> {
    dry_run: bool,
    databases: &'a [Report],
}

pub(super) async fn run(
    args: &PruneArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let requests = requests(args, setup, output).await?;
    let wait = duration_or_off("--lock-timeout", args.lock_timeout.as_deref())?;
    let mut reports = Vec::new();
    for (request, config_wait) in &requests {
        let lock = setup.lock(wait.or(*config_wait).unwrap_or_default())?;
        let report = if context.stop.is_requested() {
            Report::failed(request, not_begun("prune", &request.database, context))
        } else {
            prune(request, &lock, context).await
        };
        for warning in &report.warnings {
            output.warning(&format!("{}: {}", report.database, warning.message));
        }
        reports.push(report);
    }
    let document = Document {
        dry_run: args.dry_run,
        databases: &reports,
    };
    output.document(&document, || reports.iter().map(text).collect());
    let failures = reports.into_iter().filter_map(|report| report.failure);
    worst(failures.collect()).map_or(Ok(()), Err)
}

/// The failure of a database that a stop came before.
pub(super) fn not_begun(verb: &str, database: &DatabaseName, context: &Context) -> Failure {
    let what = format!("{verb} of `{database}` was not begun");
    context.stop.failure(&what).and_safe("nothing was removed")
}

type Planned = (Request, Option<Duration>);

/// With `--storage` the one database there, otherwise every database of the configuration, or the one of `-d`.
async fn requests(args: &PruneArgs, setup: &Setup, output: &Output) -> Result<Vec<Planned>> {
    let flags = flags(&args.policy)?;
    let is_elsewhere = !args.storage.storages.is_empty();
    let request = |database, storages, config: &DatabaseConfig, policy| Request {
        database,
        storages,
        policy,
        keep_runs: config.keep_runs,
        allow_mass_delete: args.allow_mass_delete,
        dry_run: args.dry_run,
        must_exist: is_elsewhere,
    };
    if is_elsewhere {
        let config = if setup.names_a_database() {
            setup.retention().ok().flatten()
        } else {
            None
        };
        let policy = policy(flags, config, args)?.ok_or_else(|| empty_policy("prune"))?;
        let storages = setup.storages_to_read(&(&args.storage).into())?;
        let database = only_database(setup, &storages).await?;
        let one = request(database, storages, &DatabaseConfig::default(), policy);
        return Ok(vec![(one, None)]);
    }
    let config = setup.config_or_fail()?;
    let is_one = setup.names_a_database() || config.databases.len() == 1;
    if flags.is_some() && !is_one {
        let message = "a policy by flags is for one database, and the configuration has several";
        return Err(Failure::new(Kind::Usage, "database_needed", message)
            .hint("`-d NAME` says whose backups are meant"));
    }
    let mut requests = Vec::new();
    for target in setup.configured(config)? {
        let Some(policy) = policy(flags.clone(), target.config.retention.clone(), args)? else {
            if is_one {
                return Err(empty_policy(&format!("prune of `{}`", target.name)));
            }
            output.note(&format!(
                "`{}` has no `retention`: all its backups are kept",
                target.name
            ));
            continue;
        };
        let storages = setup.open_named(config, &target.config.storages)?;
        let wait = target.config.lock_timeout;
        requests.push((request(target.name, storages, &target.config, policy), wait));
    }
    Ok(requests)
}

/// Flags replace the rules that count backups. The zone, and what is said of pre-deploy backups, stay those of the
/// configuration: these are not pinned because they are a set of their own.
fn policy(
    flags: Option<Retention>,
    config: Option<Retention>,
    args: &PruneArgs,
) -> Result<Option<Retention>> {
    let mut policy = match (flags, config) {
        (Some(flags), Some(config)) => Retention {
            keep_pre_deploy: config.keep_pre_deploy,
            timezone: config.timezone,
            ..flags
        },
        (Some(policy), None) | (None, Some(policy)) => policy,
        (None, None) => return Ok(None),
    };
    set_zone(&mut policy, &args.policy)?;
    Ok(Some(policy))
}

pub(super) async fn only_database(
    setup: &Setup,
    storages: &[NamedStorage],
) -> Result<DatabaseName> {
    match setup.database_name()? {
        Some(name) => Ok(name),
        None => Listing::read(storages.to_vec(), None)
            .await?
            .only_database(),
    }
}

pub(super) fn text(report: &Report) -> String {
    let mut out = String::new();
    for account in &report.storages {
        out += &format!("{} in {}\n", report.database, account.url);
        out += &account_text(account, report.dry_run);
        out.push('\n');
    }
    out
}

fn account_text(account: &Account, is_dry: bool) -> String {
    let mut out = String::new();
    let mut lines: Vec<(&Line, bool)> = account.keep.iter().map(|line| (line, true)).collect();
    lines.extend(account.remove.iter().map(|line| (line, false)));
    lines.sort_by(|(one, _), (other, _)| {
        (other.started_at, &other.id).cmp(&(one.started_at, &one.id))
    });
    if !lines.is_empty() {
        let mut shown = table(&["", "id", "size", "because"]);
        for (line, is_kept) in &lines {
            let because = match &line.error {
                Some(error) => format!("{}; not removed: {error}", line.reasons.join(", ")),
                None => line.reasons.join(", "),
            };
            let mark = match (is_kept, line.removed, is_dry) {
                (true, ..) => "keep",
                (false, _, true) => "would remove",
                (false, Some(true), _) => "removed",
                (false, ..) => "NOT removed",
            };
            shown.add_row([
                mark.to_owned(),
                line.id.clone(),
                bytes(line.size_bytes),
                because,
            ]);
        }
        out += &format!("{shown}\n");
    }
    for left in account.left.iter().take(MAX_LEFT) {
        out += &format!("left alone: {} ({})\n", left.key, left.why);
    }
    if account.left.len() > MAX_LEFT {
        let more = (account.left.len() - MAX_LEFT) as u64;
        out += &format!("left alone: {} more objects\n", number(more));
    }
    let gone = account
        .remove
        .iter()
        .filter(|line| is_dry || line.removed == Some(true));
    let freed: u64 = gone.clone().map(|line| line.size_bytes).sum();
    out += &format!(
        "{} kept, {} {}{}\n",
        number(account.keep.len() as u64),
        number(gone.count() as u64),
        if is_dry {
            "would be removed"
        } else {
            "removed"
        },
        match freed {
            0 => String::new(),
            freed => format!(" ({})", bytes(freed)),
        }
    );
    out
}
