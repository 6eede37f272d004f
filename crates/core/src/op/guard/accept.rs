//! Whether a backup that is there already will do: the newest good one, young enough, whole, of this very database.
//!
//! Every doubt is a reason to make a new one; none is a reason to fail.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};

use crate::context::Context;
use crate::op::backup;
use crate::op::pin;
use crate::op::stored::{Listing, NamedStorage, StoredBackup, Wanted, read_manifest};
use crate::postgres::server::ServerFacts;
use pgkeep_model::config::Preset;
use pgkeep_model::freshness::age as in_words;
use pgkeep_model::keys::{Listed, Part};
use pgkeep_model::manifest::{Manifest, Trigger};
use pgkeep_model::pin::Pin;
use pgkeep_model::required::RequiredTable;
use pgkeep_model::retention::MAX_AHEAD;

/// A backup that will do.
pub(super) struct Accepted {
    pub manifest: Manifest,
    pub age_seconds: i64,
    pub warnings: Vec<String>,
}

/// Finds it and sees to it that it stays, or says why a new one is made.
pub(super) async fn accept(
    request: &backup::Request,
    max_age: Duration,
    context: &Context,
) -> Result<Accepted, String> {
    let now = context.clock.now();
    let listing = Listing::read(request.storages.clone(), Some(&request.name), now)
        .await
        .map_err(|failure| failure.message)?;
    let newest = listing.newest_good().ok_or("there is no good backup yet")?;
    let id = &newest.place.id;
    if newest.is_held() {
        return Err(format!("the newest good one, `{id}`, is held"));
    }
    if let Some(doubt) = age_doubt(id.started_at(), max_age, now) {
        return Err(format!("the newest good one, `{id}`, {doubt}"));
    }
    let (manifest, _) = read_manifest(&listing, newest)
        .await
        .map_err(|failure| failure.message)?;
    let copies = good_copies(newest, &manifest).len();
    if copies < request.copies.get() {
        let wanted = request.copies;
        return Err(format!(
            "`{id}` is complete in only {copies} of the {wanted} storages that must have it"
        ));
    }
    if let Some(doubt) = doubt(&manifest, request) {
        return Err(format!("`{id}` {doubt}"));
    }
    is_of_this_database(&manifest, request, context)
        .await
        .map_err(|why| format!("`{id}` {why}"))?;
    let warnings = keep(request, &listing, newest, &manifest, context).await?;
    Ok(Accepted {
        age_seconds: now.as_second() - id.started_at().as_second(),
        manifest,
        warnings,
    })
}

fn age_doubt(started_at: Timestamp, max_age: Duration, now: Timestamp) -> Option<String> {
    let age = now.duration_since(started_at);
    let max_age = SignedDuration::try_from(max_age).unwrap_or(SignedDuration::MAX);
    if age > max_age {
        return Some(format!("is {} old", in_words(age.as_secs())));
    }
    (-age > MAX_AHEAD).then(|| "has a start time in the future: a clock is wrong".to_owned())
}

/// Returns the positions of the storages whose listing is what the manifest says.
fn good_copies(backup: &StoredBackup, manifest: &Manifest) -> Vec<usize> {
    let is_whole = |copy: &Listed| copy.is_good() && copy.contradiction(manifest).is_none();
    let copies = backup.copies.iter();
    copies
        .filter(|(_, copy)| is_whole(copy))
        .map(|(&at, _)| at)
        .collect()
}

/// Says what speaks against the backup by its manifest alone.
fn doubt(manifest: &Manifest, request: &backup::Request) -> Option<String> {
    if manifest.preset.as_deref() != request.preset.map(Preset::as_str) {
        return Some("was made with another preset than the one in use now".to_owned());
    }
    if request.globals && manifest.globals.is_none() {
        return Some("has no roles and tablespaces stored with it".to_owned());
    }
    let missing = request
        .required
        .iter()
        .find(|required| !holds(manifest, required))?;
    Some(format!(
        "was not proven to hold the required table `{}` as it is required now",
        missing.table
    ))
}

fn holds(manifest: &Manifest, required: &RequiredTable) -> bool {
    let name = required.table.to_string();
    let proven = manifest
        .required_tables
        .iter()
        .find(|record| record.table == name);
    match (proven, required.min_rows) {
        (Some(record), None) => record.found,
        (Some(record), Some(min)) => record.found && record.rows.is_some_and(|rows| rows >= min),
        // Rows of partitions are summed up where the table was required.
        (None, Some(_)) => false,
        (None, None) => manifest.tables.iter().any(|table| {
            table.kind.is_some()
                && table.name == required.table.name
                && table.schema == required.table.schema_or_public()
        }),
    }
}

/// Two servers may back up databases of one name into one place, and a database that was swapped has another number.
async fn is_of_this_database(
    manifest: &Manifest,
    request: &backup::Request,
    context: &Context,
) -> Result<(), String> {
    let stop = context.stop.token();
    let found = request.search.find(&request.environment, stop).await;
    let reading = async {
        let newest = found.newest()?;
        ServerFacts::read(newest, &request.environment, &request.connection, stop).await
    };
    let facts = reading
        .await
        .map_err(|error| format!("cannot be compared with the database: {error}"))?;
    if !is_same(manifest, &facts) {
        return Err("was made of another database".to_owned());
    }
    // A preset leaves out schemas that only the server can tell.
    if manifest.selection == request.selection_on(&facts).record() {
        Ok(())
    } else {
        Err("leaves out other things than the configuration does now".to_owned())
    }
}

fn is_same(manifest: &Manifest, facts: &ServerFacts) -> bool {
    let server = &manifest.server;
    let is_same_cluster = match (&server.system_identifier, &facts.system_identifier) {
        (Some(theirs), Some(ours)) => theirs == ours,
        // Who may not read it connects as the same role as ever.
        (theirs, ours) => theirs.is_none() == ours.is_none(),
    };
    let is_same_number = server.database_oid == Some(u64::from(facts.database.oid));
    is_same_cluster && is_same_number && server.database == facts.database.name
}

/// Sees to it that retention keeps the backup: by a pin, or among those that were made before deploys.
async fn keep(
    request: &backup::Request,
    listing: &Listing,
    backup: &StoredBackup,
    manifest: &Manifest,
    context: &Context,
) -> Result<Vec<String>, String> {
    if let Some(reason) = &request.pin {
        let pinning = pin::Request {
            storages: listing.storages.clone(),
            database: Some(request.name.clone()),
            wanted: Wanted::Id(manifest.id.clone()),
            reason: Some(reason.clone()),
        };
        let report = pin::run(pinning, context)
            .await
            .map_err(|failure| failure.message)?;
        return Ok(report.failure.map(|f| f.message).into_iter().collect());
    }
    if request.trigger != Trigger::PreDeploy || backup.is_pre_deploy() {
        return Ok(Vec::new());
    }
    let copies = good_copies(backup, manifest);
    let marks = join_all(
        copies
            .iter()
            .map(|&at| mark(&listing.storages[at], backup, context)),
    )
    .await;
    if marks.iter().all(Result::is_err) {
        let why = marks.into_iter().find_map(Result::err).unwrap_or_default();
        return Err(why);
    }
    Ok(marks.into_iter().filter_map(Result::err).collect())
}

/// Puts the backup among those that deploys rely on, too. It stays what it is: a nightly one remains a nightly one.
async fn mark(
    named: &NamedStorage,
    backup: &StoredBackup,
    context: &Context,
) -> Result<(), String> {
    let (place, storage) = (&backup.place, named.storage.as_ref());
    let id = &place.id;
    let failed = |error: pgkeep_storage::Error| {
        format!(
            "`{id}` cannot be marked as relied on by a deploy in `{}`: {error}",
            named.name
        )
    };
    let text = Pin::new(id.clone(), context.clock.now(), Trigger::PreDeploy.as_str());
    let key = place.key(Part::Guarded, "");
    match storage.put(&key, Bytes::from(text.to_json())).await {
        Ok(()) | Err(pgkeep_storage::Error::Exists(_)) => {}
        Err(error) => return Err(failed(error)),
    }
    // A prune may have been faster; a mark without its backup is no use to anybody.
    match storage.head(&place.key(Part::Manifest, "")).await {
        Ok(_) => Ok(()),
        Err(error) => {
            if matches!(error, pgkeep_storage::Error::NotFound(_)) {
                storage.remove(&key).await.map_err(failed)?;
            }
            Err(failed(error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn manifest() -> Manifest {
        let id = "shop-20260102T030405Z-7f3a";
        let value = json!({
            "format": 1, "id": id, "database": "shop", "trigger": "manual",
            "started_at": "2026-01-02T03:04:05Z", "finished_at": "2026-01-02T03:05:05Z",
            "server": {"version": "15.18", "version_num": 150018, "encoding": "UTF8", "database": "shop",
                "size_bytes": 1, "fixed_text_form": true, "system_identifier": "7", "database_oid": 16384},
            "tools": {"pgkeep": "0.1.0", "pg_dump": "15.18"},
            "compression": {"method": "gzip", "level": 2},
            "dump": {"bytes": 10, "rows": 1, "client_encoding": "UTF8", "pg_dump_version": null,
                "server_version": null},
            "object": {"key": format!("shop/{id}.sql.gz"), "size_bytes": 5, "sha256": "a".repeat(64)},
            "sections": [],
            "tables": [{"schema": "public", "name": "users", "kind": "table", "rows": 3, "bytes": 2, "digest": null},
                {"schema": "public", "name": "bare", "kind": null, "rows": 3, "bytes": 2, "digest": null}],
            "required_tables": [{"table": "orders", "found": true, "rows": 5}],
            "chunks": {"inline": {"header_bytes": 10, "raw": [1], "stored": [2]}},
            "restore": "x",
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_required_table_was_proven_or_can_be_seen() {
        let holds = |name: &str, min_rows| {
            let table = name.parse().unwrap();
            super::holds(&manifest(), &RequiredTable { table, min_rows })
        };
        for (name, min_rows, expected) in [
            ("orders", None, true),
            ("orders", Some(5), true),
            ("orders", Some(6), false),
            ("users", None, true),
            ("public.users", None, true),
            ("users", Some(1), false),
            ("bare", None, false),
            ("other.users", None, false),
            ("nothing", None, false),
        ] {
            assert_eq!(holds(name, min_rows), expected, "{name} {min_rows:?}");
        }
    }

    #[test]
    fn another_database_of_the_same_name_will_not_do() {
        let facts = |identifier: Option<&str>, oid, name: &str| {
            let mut facts = ServerFacts {
                system_identifier: identifier.map(str::to_owned),
                ..ServerFacts::default()
            };
            facts.database.oid = oid;
            facts.database.name = name.to_owned();
            facts
        };
        for (facts, expected) in [
            (facts(Some("7"), 16_384, "shop"), true),
            (facts(Some("8"), 16_384, "shop"), false),
            (facts(None, 16_384, "shop"), false),
            (facts(Some("7"), 16_385, "shop"), false),
            (facts(Some("7"), 16_384, "blog"), false),
        ] {
            assert_eq!(is_same(&manifest(), &facts), expected, "{facts:?}");
        }
    }

    #[test]
    fn age_counts_from_the_start_and_the_future_is_no_youth() {
        let doubt = |now: &str| {
            let started_at = manifest().started_at;
            age_doubt(started_at, Duration::from_secs(600), now.parse().unwrap()).is_some()
        };
        assert!(!doubt("2026-01-02T03:14:05Z"));
        assert!(doubt("2026-01-02T03:14:06Z"));
        assert!(!doubt("2026-01-02T02:55:00Z"));
        assert!(doubt("2026-01-02T02:54:00Z"));
    }
}
