//! The manifest: the JSON that makes a stored object a backup.
//!
//! It is written last and is the commit. A reader refuses what it cannot understand with a reason, ignores fields it
//! does not know, and never takes a key from it: keys are built from the id ([`crate::keys`]).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::anomaly::record::AnomalyRecord;
use super::chunks::{ChunkIndex, is_sha256};
use super::encryption::EncryptionRecord;
use super::id::{BackupId, DatabaseName};
use super::limits::LimitRecord;
use super::scan::{Block, Columns, Finding, Parent, RowDigest, Section, Table, TableKind};
use super::text_form::TextForm;

/// The newest format that this program writes and reads.
pub const FORMAT: u64 = 1;

/// Largest manifest that is read: one of 100,000 tables has about 40 MiB.
pub const MAX_MANIFEST_BYTES: u64 = 64 * 1024 * 1024;

/// Most chunks whose index stands in the manifest itself; a longer one lies beside it.
pub const MAX_INLINE_CHUNKS: usize = 2048;

/// The commit record of one backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always [`FORMAT`].
    pub format: u64,
    /// The backup's id.
    pub id: BackupId,
    /// The database's name in the configuration.
    pub database: DatabaseName,
    /// Why the run happened.
    pub trigger: Trigger,
    /// When the run started; the same second as in the id.
    pub started_at: Timestamp,
    /// When the dump was stored.
    pub finished_at: Timestamp,
    /// What the dump was made from.
    pub server: Server,
    /// What made it.
    pub tools: Tools,
    /// What was left out by choice; none when the backup holds the whole database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<SelectionRecord>,
    /// Rules of a hosting platform by which it was made; a restore follows them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// How the dump is compressed.
    pub compression: CompressionRecord,
    /// How its objects are encrypted; none when they are not.
    #[serde(default)]
    pub encryption: Option<EncryptionRecord>,
    /// The uncompressed dump.
    pub dump: DumpRecord,
    /// The stored dump, the same in every storage that has it.
    pub object: StoredObject,
    /// Roles and tablespaces beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub globals: Option<GlobalsRecord>,
    /// Where structure and data lie in the uncompressed dump.
    pub sections: Vec<Section>,
    /// Every table of the dump.
    pub tables: Vec<TableRecord>,
    /// Which tables are not dumped whole, and what was kept of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<LimitRecord>,
    /// How many large objects the dump holds.
    #[serde(default)]
    pub large_objects: u64,
    /// Roles that the dump refers to.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Tablespaces that the dump puts things into.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tablespaces: Vec<String>,
    /// What was required and what was found.
    #[serde(default)]
    pub required_tables: Vec<RequiredRecord>,
    /// The chunk index, or the fact that it lies beside the manifest.
    pub chunks: Chunks,
    /// What was odd.
    #[serde(default)]
    pub warnings: Vec<Finding>,
    /// What the anomaly gate said of it; none where it was not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anomaly: Option<AnomalyRecord>,
    /// The shell line that restores the backup without pgkeep.
    pub restore: String,
}

/// Extensions that put storage of their own under tables, which the server's COPY options may not suit.
const OWN_STORAGE: &[&str] = &[
    "citus",
    "citus_columnar",
    "columnar",
    "orioledb",
    "timescaledb",
];

impl Manifest {
    /// Tells whether tables are stored as PostgreSQL itself stores them, as far as the extensions tell.
    pub fn has_plain_storage(&self) -> bool {
        let mut extensions = self.server.extensions.iter();
        !extensions.any(|extension| OWN_STORAGE.contains(&extension.name.as_str()))
    }
}

/// Why a run happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// Somebody asked for it.
    #[default]
    Manual,
    /// A schedule.
    Schedule,
    /// A deployment is about to start.
    PreDeploy,
}

impl Trigger {
    /// Returns the trigger as it stands in JSON and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Schedule => "schedule",
            Self::PreDeploy => "pre-deploy",
        }
    }
}

/// The database that was dumped.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Server {
    /// The server's version in its own words.
    pub version: String,
    /// `server_version_num`, such as 150018.
    pub version_num: u32,
    /// The database's encoding.
    pub encoding: String,
    /// The database's name on the server.
    pub database: String,
    /// Size on the server in bytes.
    pub size_bytes: u64,
    /// Identifies the cluster, where the role may read it.
    #[serde(default)]
    pub system_identifier: Option<String>,
    /// The database's object id.
    #[serde(default)]
    pub database_oid: Option<u64>,
    /// Installed extensions.
    #[serde(default)]
    pub extensions: Vec<Extension>,
    /// Properties that a plain dump leaves out: owner, locale, ACL, `ALTER DATABASE … SET`.
    #[serde(default)]
    pub properties: Value,
    /// Whether the settings that fix the text form of rows were applied.
    pub fixed_text_form: bool,
    /// The text form that the rows have; none in older manifests, whose form is ours where it was fixed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_form: Option<TextForm>,
}

impl Server {
    /// Returns the text form that the dump's rows have, as far as the manifest tells.
    pub fn text_form(&self) -> TextForm {
        self.text_form.clone().unwrap_or_default().of_ours()
    }
}

/// An installed extension.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The schema it lies in.
    pub schema: String,
}

/// Versions of the programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tools {
    /// pgkeep's version.
    pub pgkeep: String,
    /// `pg_dump --version`, the version alone.
    pub pg_dump: String,
}

/// What a run left out by choice. Names are as people write them, quoted where SQL needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelectionRecord {
    /// Only these tables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<String>,
    /// Not these tables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_tables: Vec<String>,
    /// Only these schemas.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schemas: Vec<String>,
    /// Not these schemas.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_schemas: Vec<String>,
    /// No rows of these tables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub structure_only: Vec<String>,
}

impl SelectionRecord {
    /// Says what the backup holds, such as "all but the tables `events`, and no rows of `logs`".
    pub fn in_words(&self) -> String {
        let list = |names: &[String]| {
            let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            names.join(", ")
        };
        let mut words = Vec::new();
        for (names, what) in [
            (&self.tables, "only the tables"),
            (&self.schemas, "only the schemas"),
            (&self.exclude_tables, "all but the tables"),
            (&self.exclude_schemas, "all but the schemas"),
            (&self.structure_only, "no rows of"),
        ] {
            if !names.is_empty() {
                words.push(format!("{what} {}", list(names)));
            }
        }
        words.join(", and ")
    }
}

/// How the dump is compressed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompressionRecord {
    /// `gzip`, `zstd` or `none`.
    pub method: String,
    /// Level, where the method has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<i64>,
}

/// The uncompressed dump.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpRecord {
    /// Its length.
    pub bytes: u64,
    /// Rows of all tables.
    pub rows: u64,
    /// Its `client_encoding`.
    pub client_encoding: Option<String>,
    /// `pg_dump`'s version as the dump says it.
    pub pg_dump_version: Option<String>,
    /// The server's version as the dump says it.
    pub server_version: Option<String>,
}

/// Stored bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredObject {
    /// Key below the storage's prefix, for people; readers build it from the id.
    pub key: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// SHA-256 in hex.
    pub sha256: String,
}

/// Roles and tablespaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GlobalsRecord {
    /// The stored bytes.
    #[serde(flatten)]
    pub object: StoredObject,
    /// Whether the roles' passwords are in it.
    pub role_passwords: bool,
}

/// One table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableRecord {
    /// Real name of its schema.
    pub schema: String,
    /// Its real name.
    pub name: String,
    /// How it is made; none where the dump holds only rows.
    pub kind: Option<TableKind>,
    /// The partitioned table that it is a partition of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// Columns in the order of the COPY lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Columns>,
    /// Rows; none where the dump holds no data of it.
    pub rows: Option<u64>,
    /// Bytes of the rows.
    pub bytes: u64,
    /// Digest of the rows.
    pub digest: Option<RowDigest>,
    /// Where its COPY blocks lie.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocks: Vec<BlockRecord>,
}

impl From<&TableRecord> for Table {
    fn from(record: &TableRecord) -> Self {
        Self {
            database: None,
            schema: record.schema.clone(),
            name: record.name.clone(),
            kind: record.kind,
            parent: record.parent.clone(),
            rows: record.rows,
            bytes: record.bytes,
            digest: record.digest,
            columns: record.columns.clone(),
            blocks: record.blocks.iter().map(|record| record.block).collect(),
        }
    }
}

/// One COPY block, in the dump and in the stored object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockRecord {
    /// Where it lies in the uncompressed dump.
    #[serde(flatten)]
    pub block: Block,
    /// Offset in the stored object of the chunk it begins with.
    pub stored_offset: u64,
    /// Stored length of its chunks.
    pub stored_length: u64,
}

/// One required table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequiredRecord {
    /// Its name as it was asked for.
    pub table: String,
    /// Least number of rows asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_rows: Option<u64>,
    /// Whether the dump creates it.
    pub found: bool,
    /// Rows found, those of its partitions included.
    pub rows: Option<u64>,
}

/// The chunk index of the stored dump.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Chunks {
    /// Here.
    Inline(ChunkIndex),
    /// In the object `<id>.index`, as JSON.
    Beside {
        /// Number of chunks.
        count: u64,
        /// SHA-256 of the index object in hex.
        sha256: String,
    },
}

/// Why a manifest cannot be used.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// Written by a newer program.
    #[error("it has format {found}, and this pgkeep reads formats up to {FORMAT}")]
    Newer {
        /// The format it has.
        found: u64,
    },
    /// Not JSON, cut short, or fields missing or of another type.
    #[error("it is damaged: {0}")]
    Damaged(#[source] serde_json::Error),
    /// Its parts contradict each other or its place.
    #[error("it is damaged: {0}")]
    Contradiction(String),
}

/// The one field that every format has.
#[derive(Deserialize)]
struct FormatOnly {
    format: u64,
}

impl Manifest {
    /// Reads a manifest that was found under the key of `id`.
    pub fn read(bytes: &[u8], id: &BackupId) -> Result<Self, ManifestError> {
        let FormatOnly { format } =
            serde_json::from_slice(bytes).map_err(ManifestError::Damaged)?;
        if format > FORMAT {
            return Err(ManifestError::Newer { found: format });
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(ManifestError::Damaged)?;
        manifest.check(id).map_err(ManifestError::Contradiction)?;
        Ok(manifest)
    }

    /// Renders the manifest as it is stored.
    pub fn to_json(&self) -> Vec<u8> {
        let mut bytes =
            serde_json::to_vec_pretty(self).expect("a manifest holds only JSON's own types");
        bytes.push(b'\n');
        bytes
    }

    fn check(&self, id: &BackupId) -> Result<(), String> {
        if &self.id != id {
            return Err(format!("it is stored as `{id}`, but says `{}`", self.id));
        }
        if &self.database != id.database() {
            return Err(format!(
                "its database `{}` does not match its id",
                self.database
            ));
        }
        if let Some(encryption) = &self.encryption {
            encryption.check()?;
        }
        if !is_sha256(&self.object.sha256) {
            return Err("its SHA-256 is not 64 hex digits".to_owned());
        }
        if self
            .object
            .key
            .rsplit('/')
            .next()
            .is_none_or(|name| !name.starts_with(&format!("{id}.sql")))
        {
            return Err(format!(
                "its key `{}` does not match its id",
                self.object.key
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn id() -> BackupId {
        "shop-20260102T030405Z-7f3a".parse().unwrap()
    }

    fn sample() -> Value {
        json!({
            "format": 1, "id": id().to_string(), "database": "shop", "trigger": "manual",
            "started_at": "2026-01-02T03:04:05Z", "finished_at": "2026-01-02T03:05:05Z",
            "server": {"version": "15.18", "version_num": 150018, "encoding": "UTF8", "database": "shop",
                "size_bytes": 1, "fixed_text_form": true},
            "tools": {"pgkeep": "0.1.0", "pg_dump": "15.18"},
            "compression": {"method": "gzip", "level": 2},
            "dump": {"bytes": 10, "rows": 1, "client_encoding": "UTF8", "pg_dump_version": null,
                "server_version": null},
            "object": {"key": format!("shop/{}.sql.gz", id()), "size_bytes": 5, "sha256": "a".repeat(64)},
            "sections": [{"name": "pre-data", "offset": 0, "length": 10}],
            "tables": [{"schema": "public", "name": "t", "kind": "table", "rows": 1, "bytes": 2,
                "digest": "0".repeat(32),
                "blocks": [{"offset": 1, "length": 2, "stored_offset": 3, "stored_length": 4}]}],
            "chunks": {"inline": {"header_bytes": 10, "raw": [1], "stored": [2],
                "around_rows": {"front": ["a".repeat(64)], "behind": []}}},
            "restore": "gunzip -c x | psql",
        })
    }

    fn read(value: &Value) -> Result<Manifest, ManifestError> {
        Manifest::read(value.to_string().as_bytes(), &id())
    }

    #[test]
    fn reads_what_it_writes_and_ignores_what_it_does_not_know() {
        let mut value = sample();
        value["from_the_future"] = json!({"a": 1});
        let manifest = read(&value).unwrap();
        assert_eq!(
            Manifest::read(&manifest.to_json(), &id()).unwrap(),
            manifest
        );
    }

    #[test]
    fn refuses_newer_damaged_and_contradicting_ones() {
        let change = |path: &str, new: Value| {
            let mut value = sample();
            *value.pointer_mut(path).unwrap() = new;
            read(&value)
        };
        assert!(matches!(
            change("/format", json!(2)),
            Err(ManifestError::Newer { found: 2 })
        ));
        for (path, new) in [
            ("/id", json!("shop-20260102T030405Z-7f3b")),
            ("/id", json!("../x")),
            ("/database", json!("other")),
            ("/object/sha256", json!("zz")),
            ("/object/key", json!("../../etc/passwd")),
            ("/object/key", json!("shop/other.sql.gz")),
            ("/tables/0/digest", json!("nope")),
            ("/format", json!("1")),
        ] {
            let result = change(path, new);
            let is_refused = matches!(
                result,
                Err(ManifestError::Damaged(_) | ManifestError::Contradiction(_))
            );
            assert!(is_refused, "{path}: {result:?}");
        }
        let text = sample().to_string();
        let doubled = text.replacen("{", "{\"id\":\"shop-20260102T030405Z-7f3a\",", 1);
        assert!(matches!(
            Manifest::read(doubled.as_bytes(), &id()),
            Err(ManifestError::Damaged(_))
        ));
        for cut in 0..text.len() {
            assert!(Manifest::read(&text.as_bytes()[..cut], &id()).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Manifest::read(&bytes, &id());
        }
    }
}
