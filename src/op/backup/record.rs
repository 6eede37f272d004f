//! Builds the manifest out of what a run found.

use jiff::Timestamp;

use super::Request;
use crate::model::chunks::ChunkIndex;
use crate::model::keys::{Part, Place};
use crate::model::manifest::{
    BlockRecord, Chunks, CompressionRecord, DumpRecord, FORMAT, GlobalsRecord, Manifest,
    RequiredRecord, Server, StoredObject, TableRecord, Tools,
};
use crate::model::required::RequiredOutcome;
use crate::model::scan::{Finding, Scan, Table};
use crate::stream::compress::Codec;
use crate::stream::pipeline::Passed;

/// What a run found, beside what was asked for.
pub(super) struct Found<'a> {
    pub place: &'a Place,
    pub finished_at: Timestamp,
    pub server: Server,
    pub pg_dump_version: String,
    pub passed: &'a Passed,
    pub required: &'a [RequiredOutcome],
    pub globals: Option<GlobalsRecord>,
    pub chunks: Chunks,
    pub warnings: Vec<Finding>,
}

/// Builds the manifest.
pub(super) fn manifest(request: &Request, found: Found<'_>) -> Manifest {
    let Passed {
        scan,
        chunks,
        stored_bytes,
        sha256,
    } = found.passed;
    let key = found.place.key(Part::Dump, request.codec.extension());
    Manifest {
        format: FORMAT,
        id: found.place.id.clone(),
        database: request.name.clone(),
        trigger: request.trigger,
        started_at: found.place.id.started_at(),
        finished_at: found.finished_at,
        restore: restore_line(&found, request.codec, &key),
        server: found.server,
        tools: Tools {
            pgkeep: env!("CARGO_PKG_VERSION").to_owned(),
            pg_dump: found.pg_dump_version,
        },
        selection: request.selection.record(),
        compression: compression(request.codec),
        encryption: None,
        dump: dump(scan),
        object: StoredObject {
            key,
            size_bytes: *stored_bytes,
            sha256: sha256.clone(),
        },
        globals: found.globals,
        sections: scan.sections.clone(),
        tables: scan
            .tables
            .iter()
            .map(|table| table_record(table, chunks))
            .collect(),
        large_objects: scan.large_objects,
        roles: scan.roles.clone(),
        required_tables: found.required.iter().map(required).collect(),
        chunks: found.chunks,
        warnings: found.warnings,
    }
}

fn compression(codec: Codec) -> CompressionRecord {
    let (method, level) = match codec {
        Codec::Gzip { level } => ("gzip", Some(i64::from(level))),
        Codec::Zstd { level } => ("zstd", Some(i64::from(level))),
        Codec::None => ("none", None),
    };
    CompressionRecord {
        method: method.to_owned(),
        level,
    }
}

fn dump(scan: &Scan) -> DumpRecord {
    DumpRecord {
        bytes: scan.bytes,
        rows: scan.rows(),
        client_encoding: scan.client_encoding.clone(),
        pg_dump_version: scan.pg_dump_version.clone(),
        server_version: scan.server_version.clone(),
    }
}

fn table_record(table: &Table, chunks: &ChunkIndex) -> TableRecord {
    TableRecord {
        schema: table.schema.clone(),
        name: table.name.clone(),
        kind: table.kind,
        columns: table.columns.clone(),
        rows: table.rows,
        bytes: table.bytes,
        digest: table.digest,
        blocks: Vec::new(),
    }
    .with_blocks(table, chunks)
}

impl TableRecord {
    fn with_blocks(mut self, table: &Table, chunks: &ChunkIndex) -> Self {
        let record = |block| {
            let (range, _) = chunks.stored_range(block)?;
            Some(BlockRecord {
                block,
                stored_offset: range.start,
                stored_length: range.end - range.start,
            })
        };
        self.blocks = table
            .blocks
            .iter()
            .filter_map(|&block| record(block))
            .collect();
        self
    }
}

fn required(outcome: &RequiredOutcome) -> RequiredRecord {
    RequiredRecord {
        table: outcome.table.clone(),
        min_rows: outcome.min_rows,
        found: outcome.found,
        rows: outcome.rows,
    }
}

/// The shell line that restores the dump without pgkeep, into a database that it creates.
///
/// Names in it need no quoting: the id's grammar leaves nothing to quote, and the encoding is PostgreSQL's own word.
fn restore_line(found: &Found<'_>, codec: Codec, key: &str) -> String {
    let file = key.rsplit('/').next().unwrap_or(key);
    let unpack = match codec {
        Codec::Gzip { .. } => "gunzip -c",
        Codec::Zstd { .. } => "zstd -dc",
        Codec::None => "cat",
    };
    let encoding = &found.server.encoding;
    let target = format!("{}_restored", found.place.id.database());
    format!(
        "createdb -T template0 -E {encoding} {target} && {unpack} {file} | psql -X -v ON_ERROR_STOP=1 -d {target}"
    )
}
