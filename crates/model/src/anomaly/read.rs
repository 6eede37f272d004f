//! Reads of an older manifest only what the judge needs: a manifest may have 64 MiB, and seven of them are read.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};

use super::record::{AnomalyRecord, Verdict};
use super::sample::{Amounts, Part, Sample, hash_of, name_of, took_ms, under_roots};
use crate::id::BackupId;
use crate::limits::LimitRecord;
use crate::manifest::{FORMAT, SelectionRecord};
use crate::name::TableName;
use crate::scan::{Columns, Parent, RowDigest};

/// What two backups must share to be comparable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alike {
    /// What was left out by choice.
    pub selection: Option<SelectionRecord>,
    /// Rules of a hosting service by which the dump was made.
    pub preset: Option<String>,
    /// Major version of the server, such as 17.
    pub server_major: u32,
}

/// An older backup.
#[derive(Clone, Debug, PartialEq)]
pub struct Earlier {
    /// What it must share with the present one.
    pub alike: Alike,
    /// What it held.
    pub sample: Sample,
    /// What the gate said of it.
    pub anomaly: Option<AnomalyRecord>,
}

#[derive(Deserialize)]
struct Compact {
    format: u64,
    id: BackupId,
    started_at: Timestamp,
    finished_at: Timestamp,
    server: CompactServer,
    #[serde(default)]
    selection: Option<SelectionRecord>,
    #[serde(default)]
    preset: Option<String>,
    dump: CompactDump,
    tables: Vec<CompactTable>,
    #[serde(default)]
    limits: Vec<LimitRecord>,
    #[serde(default)]
    large_objects: u64,
    #[serde(default)]
    anomaly: Option<AnomalyRecord>,
}

#[derive(Deserialize)]
struct CompactServer {
    version_num: u32,
}

#[derive(Deserialize)]
struct CompactDump {
    bytes: u64,
}

#[derive(Deserialize)]
struct CompactTable {
    schema: String,
    name: String,
    #[serde(default)]
    parent: Option<Parent>,
    #[serde(default, deserialize_with = "hashed")]
    columns: Option<u64>,
    #[serde(default)]
    rows: Option<u64>,
    bytes: u64,
    #[serde(default)]
    digest: Option<RowDigest>,
}

/// Columns of a hundred thousand tables would be most of what is read, and are only compared.
fn hashed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let columns: Option<Columns> = Option::deserialize(deserializer)?;
    Ok(columns.as_ref().map(hash_of))
}

impl Earlier {
    /// Reads the manifest that was found under the key of `id`, or says why it tells nothing.
    pub fn read(bytes: &[u8], id: &BackupId) -> Result<Self, String> {
        let read: Compact = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if read.format > FORMAT {
            return Err(format!("it has format {}, which is newer", read.format));
        }
        if &read.id != id {
            return Err(format!("it says that it is `{}`", read.id));
        }
        let parts = read.tables.into_iter().map(|table| Part {
            table: TableName::new(table.schema, table.name),
            parent: table.parent.as_ref().map(name_of),
            amounts: Amounts {
                rows: table.rows.unwrap_or(0),
                bytes: table.bytes,
                columns: table.columns,
                digest: table.digest,
            },
        });
        Ok(Self {
            alike: Alike {
                selection: read.selection,
                preset: read.preset,
                server_major: major(read.server.version_num),
            },
            sample: Sample {
                dump_bytes: read.dump.bytes,
                took_ms: took_ms(read.started_at, read.finished_at),
                tables: under_roots(parts.collect(), read.large_objects),
            }
            .with_limits(&read.limits),
            anomaly: read.anomaly,
        })
    }

    /// Tells whether the gate held it when it was made.
    pub fn was_held(&self) -> bool {
        let record = self.anomaly.as_ref();
        record.is_some_and(|record| record.verdict == Verdict::Held)
    }
}

/// Returns the major version of `server_version_num`.
pub fn major(version_num: u32) -> u32 {
    version_num / 10_000
}
