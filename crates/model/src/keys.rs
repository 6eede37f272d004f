//! Keys of stored objects: built from ids, and read back into what they mean.

mod listed;

use super::encryption::{EXTENSION, Fingerprint};
use super::id::{BackupId, DatabaseName};

pub use listed::{Gathering, Listed, Marks, databases, gather};

/// Folder of one-off backups whose flags left something out; they count for nothing.
const PARTIAL: &str = "partial";

/// Folder of run records.
const RUNS: &str = "runs";

/// Folder of the records that a private key opened a backup.
const KEYS: &str = "keys";

/// Name of the object by which one run at a time holds a database; it is no backup, and nobody else's either.
const LEASE: &str = "lease.json";

/// What a lease keeps others away from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leased {
    /// What is stored of a database: whoever adds to it or removes from it.
    #[default]
    Backups,
    /// The drill of a server's schedule, which holds up no backup.
    Drill,
    /// The verification of a server's schedule.
    Verification,
}

impl Leased {
    /// Returns what a command keeps others away from; none where it takes no lease.
    pub fn of_verb(verb: &str) -> Option<Self> {
        match verb {
            "drill" => Some(Self::Drill),
            "verify" => Some(Self::Verification),
            "restore" => None,
            _ => Some(Self::Backups),
        }
    }

    /// What stands before the name of the lease, and behind that of the lock of a host.
    pub fn mark(self) -> &'static str {
        match self {
            Self::Backups => "",
            Self::Drill => "drill.",
            Self::Verification => "verify.",
        }
    }
}

/// Returns the key of a database's lease. One-off runs that leave something out hold the same one.
pub fn lease_key(database: &DatabaseName, leased: Leased) -> String {
    format!("{database}/{}{LEASE}", leased.mark())
}

/// Tells whether a key is that of a database's lease: ours, though of no backup.
pub fn is_lease(key: &str) -> bool {
    let is_name = |name: &str| {
        let mut all = [Leased::Backups, Leased::Drill, Leased::Verification].into_iter();
        all.any(|leased| name.strip_prefix(leased.mark()) == Some(LEASE))
    };
    key.split_once('/')
        .is_some_and(|(database, name)| is_name(name) && database.parse::<DatabaseName>().is_ok())
}

/// Tells whether a suffix is that of SQL text, compressed or not, encrypted or not.
fn is_sql(suffix: &str) -> bool {
    let plain = suffix.strip_suffix(EXTENSION).unwrap_or(suffix);
    matches!(plain, "sql" | "sql.gz" | "sql.zst")
}

/// Returns the key of a run's record.
pub fn run_key(run: &BackupId) -> String {
    format!("{}/{RUNS}/{run}.json", run.database())
}

/// Reads the key of a run's record; none when it is not one.
pub fn run_of_key(key: &str) -> Option<BackupId> {
    let (folder, name) = key.rsplit_once('/')?;
    let run: BackupId = name.strip_suffix(".json")?.parse().ok()?;
    let database = folder.strip_suffix(RUNS)?.strip_suffix('/')?;
    (database == run.database().as_str()).then_some(run)
}

/// Returns the key of the record that a private key opened a backup of these recipients, in this run.
pub fn key_proof_key(recipients: &Fingerprint, run: &BackupId) -> String {
    format!("{}/{KEYS}/{recipients}.{run}.json", run.database())
}

/// Reads the key of such a record; none when it is not one.
pub fn key_proof_of_key(key: &str) -> Option<(Fingerprint, BackupId)> {
    let (folder, name) = key.rsplit_once('/')?;
    let (recipients, run) = name.strip_suffix(".json")?.split_once('.')?;
    let run: BackupId = run.parse().ok()?;
    let database = folder.strip_suffix(KEYS)?.strip_suffix('/')?;
    (database == run.database().as_str()).then_some((Fingerprint::parse(recipients)?, run))
}

/// Tells whether pgkeep wrote an object of this key, be it of a backup, of a run, of a private key or a lease.
pub fn is_ours(key: &str) -> bool {
    Place::of_key(key).is_some()
        || run_of_key(key).is_some()
        || key_proof_of_key(key).is_some()
        || is_lease(key)
}

/// Which backup a key belongs to: a full one of a database, or a one-off partial one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The backup.
    pub id: BackupId,
    /// Whether it lies among the partial ones.
    pub is_partial: bool,
}

/// What an object of a backup is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The dump.
    Dump,
    /// Roles and tablespaces.
    Globals,
    /// The commit record.
    Manifest,
    /// The chunk index.
    Index,
    /// Whom it is encrypted for, told by its key: a listing shows which backups need which private key.
    Recipients,
    /// Kept until unpinned.
    Pin,
    /// Made before a deploy, which `keep_pre_deploy` counts by itself.
    PreDeploy,
    /// A deploy relied on it, though it was made for another reason: `keep_pre_deploy` counts it, too.
    Guarded,
    /// The last drill that passed.
    Drill,
    /// The stored bytes contradict the manifest.
    Damaged,
    /// It lost what the backups before it had, and counts for nothing until it is accepted.
    Held,
    /// It was held, and somebody accepted it.
    Accepted,
}

impl Place {
    /// Returns the key of one of its objects; `extension` is what compression and encryption add to `.sql`, or the
    /// fingerprint of the recipients.
    pub fn key(&self, part: Part, extension: &str) -> String {
        let Self { id, is_partial } = self;
        let folder = if *is_partial {
            format!("{}/{PARTIAL}", id.database())
        } else {
            id.database().to_string()
        };
        match part {
            Part::Dump => format!("{folder}/{id}.sql{extension}"),
            Part::Globals => format!("{folder}/{id}.globals.sql{extension}"),
            Part::Manifest => format!("{folder}/{id}.manifest.json"),
            Part::Index => format!("{folder}/{id}.index"),
            Part::Recipients => format!("{folder}/{id}.recipients.{extension}.json"),
            Part::Pin => format!("{folder}/{id}.pin.json"),
            Part::PreDeploy => format!("{folder}/{id}.pre-deploy.json"),
            Part::Guarded => format!("{folder}/{id}.guarded.json"),
            Part::Drill => format!("{folder}/{id}.drill.json"),
            Part::Damaged => format!("{folder}/{id}.damaged.json"),
            Part::Held => format!("{folder}/{id}.held.json"),
            Part::Accepted => format!("{folder}/{id}.accepted.json"),
        }
    }

    /// Reads a key; none when it is not of a backup.
    pub fn of_key(key: &str) -> Option<(Self, Part)> {
        let (folder, name) = key.rsplit_once('/')?;
        let (id, suffix) = name.split_once('.')?;
        let id: BackupId = id.parse().ok()?;
        let part = match suffix {
            _ if is_sql(suffix) => Part::Dump,
            _ if suffix.strip_prefix("globals.").is_some_and(is_sql) => Part::Globals,
            "manifest.json" => Part::Manifest,
            "index" => Part::Index,
            _ if fingerprint(suffix).is_some() => Part::Recipients,
            "pin.json" => Part::Pin,
            "pre-deploy.json" => Part::PreDeploy,
            "guarded.json" => Part::Guarded,
            "drill.json" => Part::Drill,
            "damaged.json" => Part::Damaged,
            "held.json" => Part::Held,
            "accepted.json" => Part::Accepted,
            _ => return None,
        };
        let is_partial = match folder.strip_prefix(id.database().as_str())? {
            "" => false,
            rest if rest.strip_prefix('/') == Some(PARTIAL) => true,
            _ => return None,
        };
        Some((Self { id, is_partial }, part))
    }
}

/// Reads whom a backup is encrypted for out of what stands behind its id.
fn fingerprint(suffix: &str) -> Option<Fingerprint> {
    let text = suffix.strip_prefix("recipients.")?.strip_suffix(".json")?;
    Fingerprint::parse(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(is_partial: bool) -> Place {
        Place {
            id: "shop-20260102T030405Z-7f3a".parse().unwrap(),
            is_partial,
        }
    }

    #[test]
    fn keys_read_back() {
        for is_partial in [false, true] {
            let place = place(is_partial);
            for (part, extension) in [
                (Part::Dump, ".gz"),
                (Part::Dump, ".zst"),
                (Part::Dump, ".gz.age"),
                (Part::Dump, ""),
                (Part::Globals, ".gz"),
                (Part::Manifest, ""),
                (Part::Index, ""),
                (Part::Recipients, "0123456789abcdef"),
                (Part::Pin, ""),
                (Part::PreDeploy, ""),
                (Part::Guarded, ""),
                (Part::Drill, ""),
                (Part::Damaged, ""),
            ] {
                let key = place.key(part, extension);
                assert_eq!(Place::of_key(&key), Some((place.clone(), part)), "{key}");
            }
        }
        assert_eq!(
            place(false).key(Part::Dump, ".gz"),
            "shop/shop-20260102T030405Z-7f3a.sql.gz"
        );
    }

    #[test]
    fn foreign_keys_are_none() {
        for key in [
            "shop/notes.txt",
            "shop-20260102T030405Z-7f3a.sql.gz",
            "other/shop-20260102T030405Z-7f3a.sql.gz",
            "shop_staging/shop-20260102T030405Z-7f3a.manifest.json",
            "shop/x/shop-20260102T030405Z-7f3a.manifest.json",
            "shop/shop-20260102T030405Z-7f3a.sql.gz.part",
            "shop/runs/shop-20260102T030405Z-7f3a.json",
            "shop/shop-20260102T030405Z-7f3a.recipients.json",
            "shop/shop-20260102T030405Z-7f3a.recipients.0123456789ABCDEF.json",
        ] {
            assert_eq!(Place::of_key(key), None, "{key}");
        }
    }

    #[test]
    fn run_records_are_ours_and_no_backups() {
        let run: BackupId = "shop-20260102T030405Z-7f3a".parse().unwrap();
        let key = run_key(&run);
        assert_eq!(key, "shop/runs/shop-20260102T030405Z-7f3a.json");
        assert_eq!(run_of_key(&key), Some(run));
        assert!(is_ours(&key) && gather([(key.as_str(), 400)]).is_empty());
        for key in [
            "runs/shop-20260102T030405Z-7f3a.json",
            "other/runs/shop-20260102T030405Z-7f3a.json",
            "shop/partial/runs/shop-20260102T030405Z-7f3a.json",
            "shop/runs/shop-20260102T030405Z-7f3a.json.bak",
            "shop/notes.txt",
            "shop_staging/x",
        ] {
            assert!(run_of_key(key).is_none() && !is_ours(key), "{key}");
        }
    }

    #[test]
    fn proofs_of_keys_are_ours_and_no_backups() {
        let run: BackupId = "shop-20260102T030405Z-7f3a".parse().unwrap();
        let recipients = Fingerprint::parse("0123456789abcdef").unwrap();
        let key = key_proof_key(&recipients, &run);
        assert_eq!(
            key,
            "shop/keys/0123456789abcdef.shop-20260102T030405Z-7f3a.json"
        );
        assert_eq!(key_proof_of_key(&key), Some((recipients, run)));
        assert!(is_ours(&key) && gather([(key.as_str(), 400)]).is_empty());
        for key in [
            "other/keys/0123456789abcdef.shop-20260102T030405Z-7f3a.json",
            "shop/keys/shop-20260102T030405Z-7f3a.json",
            "shop/keys/x.shop-20260102T030405Z-7f3a.json",
            "keys/0123456789abcdef.shop-20260102T030405Z-7f3a.json",
        ] {
            assert!(key_proof_of_key(key).is_none() && !is_ours(key), "{key}");
        }
    }

    #[test]
    fn a_listing_tells_whom_a_backup_is_encrypted_for() {
        let id = "shop-20260102T030405Z-7f3a";
        let keys = [
            format!("shop/{id}.sql.gz.age"),
            format!("shop/{id}.recipients.0123456789abcdef.json"),
            format!("shop/{id}.manifest.json"),
        ];
        let listed = &gather(keys.iter().map(|key| (key.as_str(), 5)))[0];
        let (key, recipients) = listed.recipients().unwrap();
        assert_eq!(
            (key, recipients.to_string()),
            (keys[1].clone(), "0123456789abcdef".to_owned())
        );
        assert!(listed.is_encrypted() && listed.is_good());
        let plain = &gather([(format!("shop/{id}.sql.gz").as_str(), 5)])[0];
        assert!(plain.recipients().is_none() && !plain.is_encrypted());
    }

    #[test]
    fn a_lease_is_ours_and_no_backup() {
        for (leased, expected) in [
            (Leased::Backups, "shop/lease.json"),
            (Leased::Drill, "shop/drill.lease.json"),
            (Leased::Verification, "shop/verify.lease.json"),
        ] {
            let key = lease_key(&"shop".parse().unwrap(), leased);
            assert_eq!(key, expected);
            assert!(is_lease(&key) && is_ours(&key));
            assert_eq!(Place::of_key(&key), None);
            assert_eq!(gather([(key.as_str(), 400)]), []);
        }
        for key in [
            "lease.json",
            "shop/partial/lease.json",
            "shop/lease.json.bak",
            "my shop/lease.json",
            "/lease.json",
        ] {
            assert!(!is_lease(key), "{key}");
        }
    }

    #[test]
    fn a_backup_without_manifest_is_none() {
        let id = "shop-20260102T030405Z-7f3a";
        let (dump, manifest) = (
            format!("shop/{id}.sql.gz"),
            format!("shop/{id}.manifest.json"),
        );
        let one = gather([(dump.as_str(), 5)]);
        assert!(!one[0].is_committed());
        let both = gather([
            (dump.as_str(), 5),
            (manifest.as_str(), 2),
            ("shop/readme", 1),
        ]);
        assert_eq!(
            (both.len(), both[0].is_good(), both[0].size_bytes()),
            (1, true, 7)
        );
        let damaged = format!("shop/{id}.damaged.json");
        assert!(
            !gather([
                (dump.as_str(), 5),
                (manifest.as_str(), 2),
                (damaged.as_str(), 1)
            ])[0]
                .is_good()
        );
    }
}
