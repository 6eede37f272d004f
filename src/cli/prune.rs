//! `pgkeep prune` on the terminal: each verdict with its reason, and what came of it.

use serde::Serialize;

use super::args::PruneArgs;
use super::backup::duration;
use super::output::{Output, bytes, number, table};
use super::retention::{flags, set_zone};
use super::settings::Settings;
use crate::context::Context;
use crate::failure::{Failure, Kind, Result};
use crate::model::config::{DatabaseConfig, Retention};
use crate::model::id::DatabaseName;
use crate::op::prune::{Account, Line, Report, Request, empty_policy, run as prune};
use crate::op::stored::{Listing, NamedStorage};

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
    settings: &Settings<'_>,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let requests = requests(args, settings, output).await?;
    let wait = duration("--lock-timeout", args.lock_timeout.as_deref())?;
    let mut reports = Vec::new();
    for (request, config_wait) in &requests {
        let lock = settings.lock(wait.or(*config_wait).unwrap_or_default())?;
        let report = prune(request, &lock, context).await;
        for warning in &report.warnings {
            output.warning(&format!("{}: {}", report.database, warning.message));
        }
        reports.push(report);
        if context.stop.is_requested() {
            break;
        }
    }
    let document = Document {
        dry_run: args.dry_run,
        databases: &reports,
    };
    output.document(&document, || reports.iter().map(text).collect());
    let count = reports.len();
    overall(
        count,
        reports.into_iter().filter_map(|report| report.failure),
    )
}

type Planned = (Request, Option<std::time::Duration>);

/// With `--storage` the one database there, otherwise every database of the configuration, or the one of `-d`.
async fn requests(
    args: &PruneArgs,
    settings: &Settings<'_>,
    output: &Output,
) -> Result<Vec<Planned>> {
    let flags = flags(&args.policy)?;
    let request = |database, storages, config: &DatabaseConfig, mut policy: Retention| {
        set_zone(&mut policy, &args.policy)?;
        let request = Request {
            database,
            storages,
            policy,
            keep_runs: config.keep_runs,
            allow_mass_delete: args.allow_mass_delete,
            dry_run: args.dry_run,
        };
        Ok((request, config.lock_timeout))
    };
    let config = match args.storage.storages.is_empty() {
        true => Some(settings.config_or_fail()?),
        false => settings.config()?,
    };
    let Some(config) = config.filter(|_| args.storage.storages.is_empty()) else {
        let policy = flags.ok_or_else(|| empty_policy("prune"))?;
        let storages = settings.storages_to_read(&args.storage)?;
        let database = only_database(settings, &storages).await?;
        let one = request(database, storages, &DatabaseConfig::default(), policy)?;
        return Ok(vec![one]);
    };
    let mut requests = Vec::new();
    for target in settings.configured(&config)? {
        let Some(policy) = flags.clone().or_else(|| target.config.retention.clone()) else {
            if settings.names_a_database() || config.databases.len() == 1 {
                return Err(empty_policy(&format!("prune of `{}`", target.name)));
            }
            output.note(&format!(
                "`{}` has no `retention`: all its backups are kept",
                target.name
            ));
            continue;
        };
        let storages = settings.open_named(&config, &target.config.storages)?;
        requests.push(request(target.name, storages, &target.config, policy)?);
    }
    Ok(requests)
}

pub(super) async fn only_database(
    settings: &Settings<'_>,
    storages: &[NamedStorage],
) -> Result<DatabaseName> {
    match settings.database_name()? {
        Some(name) => Ok(name),
        None => Listing::read(storages.to_vec(), None)
            .await?
            .only_database(),
    }
}

/// The failure of several databases: a stop comes first, and all others are told under the first one.
pub(super) fn overall(count: usize, failures: impl Iterator<Item = Failure>) -> Result<()> {
    let mut failures: Vec<Failure> = failures.collect();
    let is_stop = |failure: &Failure| matches!(failure.kind, Kind::Interrupted | Kind::Terminated);
    if let Some(at) = failures.iter().position(is_stop) {
        return Err(failures.swap_remove(at));
    }
    let mut rest = failures.into_iter();
    match rest.next() {
        None => Ok(()),
        Some(only) if count == 1 => Err(only),
        Some(first) => Err(first.with_details(rest.map(|failure| failure.message))),
    }
}

fn text(report: &Report) -> String {
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
