//! Whether a prune waits: while the newest backup is held, what went before it may be all that is left of what was lost.

use crate::op::stored::NamedStorage;
use jiff::Timestamp;
use pgkeep_model::failure::Result;
use pgkeep_model::id::BackupId;
use pgkeep_model::keys::{Listed, gather};
use pgkeep_model::retention::is_ahead;
use pgkeep_model::scan::Finding;
use pgkeep_storage::Object;

use super::Request;
use super::plan::listing_failed;
use crate::op::removal::Right;

/// Lists what one storage has of the database.
pub(super) async fn list(
    request: &Request,
    named: &NamedStorage,
    right: &Right<'_>,
) -> Result<Vec<Object>> {
    let prefix = format!("{}/", request.database);
    let listed = right.ask(named.storage.list(&prefix)).await?;
    listed.map_err(|error| listing_failed(right.what, &error))
}

/// Returns the newest good backup over all storages where it is held and accepted in none of them.
pub(super) fn held_newest<'o>(
    listings: impl IntoIterator<Item = &'o Vec<Object>>,
    now: Timestamp,
) -> Option<BackupId> {
    let all: Vec<Listed> = listings
        .into_iter()
        .flat_map(|objects| gather(objects.iter().map(|o| (o.key.as_str(), o.size_bytes))))
        .collect();
    let counts = |backup: &&Listed| {
        let started_at = backup.place.id.started_at();
        !backup.place.is_partial && backup.is_good() && !is_ahead(started_at, now)
    };
    let newest = all
        .iter()
        .filter(counts)
        .map(|backup| &backup.place)
        .max()?;
    let mut copies = all.iter().filter(|backup| &backup.place == newest);
    let is_held = copies.clone().any(Listed::was_held) && !copies.any(Listed::is_accepted);
    is_held.then(|| newest.id.clone())
}

/// Says that nothing is removed, and what ends that.
pub(super) fn waits(held: &BackupId) -> Finding {
    let text = format!(
        "prune waits and removes nothing: the newest backup `{held}` is held, because it lost what the ones before it had; \
         `pgkeep accept {held} 'REASON'`, or a new backup that is not held, ends that"
    );
    Finding::new("prune_waits", text, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(keys: &[&str]) -> Vec<Object> {
        let object = |key: &&str| Object {
            key: format!("shop/shop-2026010{key}"),
            size_bytes: 5,
            modified_at: Timestamp::UNIX_EPOCH,
        };
        keys.iter().map(object).collect()
    }

    #[test]
    fn the_newest_good_one_of_all_storages_decides() {
        let now = "2026-01-04T00:00:00Z".parse().unwrap();
        let held = |storages: &[&[&str]]| {
            let listings: Vec<_> = storages.iter().map(|keys| objects(keys)).collect();
            held_newest(&listings, now).map(|id| id.to_string())
        };
        let old = ["1T000000Z-0001.sql", "1T000000Z-0001.manifest.json"];
        let new = ["2T000000Z-0002.sql", "2T000000Z-0002.manifest.json"];
        let mark = ["2T000000Z-0002.held.json"];
        let accepted = ["2T000000Z-0002.accepted.json"];
        let ahead = ["9T000000Z-0009.sql", "9T000000Z-0009.manifest.json"];
        let id = Some("shop-20260102T000000Z-0002".to_owned());
        assert_eq!(held(&[&old]), None);
        assert_eq!(held(&[&old, &[&old[..], &new].concat()]), None);
        // One storage alone has it.
        assert_eq!(held(&[&old, &[&new[..], &mark].concat()]), id);
        assert_eq!(held(&[&[&old[..], &new, &mark, &ahead].concat()]), id);
        let both = [&new[..], &mark, &accepted].concat();
        assert_eq!(held(&[&[&new[..], &mark].concat(), &both]), None);
        // Dumps without a manifest are no backups.
        assert_eq!(held(&[&old, &[&mark[..], &new[..1]].concat()]), None);
    }
}
