//! Builds the manifest out of what a run found.

use bytes::Bytes;
use jiff::Timestamp;

use super::Request;
use crate::postgres::globals::Globals;
use crate::postgres::server::{Extension as ServerExtension, ServerFacts};
use crate::stream::compress::{Codec, Encoder, Frame};
use crate::stream::digest::sha256;
use crate::stream::pipeline::{Form, Passed};
use pgkeep_model::chunks::{ChunkIndex, ChunkOffsets};
use pgkeep_model::encryption::{EncryptionRecord, Fingerprint, METHOD};
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::keys::{Part, Place};
use pgkeep_model::limits::LimitRecord;
use pgkeep_model::manifest::{
    BlockRecord, Chunks, CompressionRecord, DumpRecord, Extension, FORMAT, GlobalsRecord, Manifest,
    RequiredRecord, SelectionRecord, Server, StoredObject, TableRecord, Tools,
};
use pgkeep_model::required::RequiredOutcome;
use pgkeep_model::scan::{Block, Finding, Scan, Table};

/// What a run found, beside what was asked for.
pub(super) struct Found<'a> {
    pub place: &'a Place,
    pub finished_at: Timestamp,
    pub server: Server,
    pub selection: Option<SelectionRecord>,
    pub pg_dump_version: String,
    pub passed: &'a Passed,
    pub tables: Vec<TableRecord>,
    pub limits: Vec<LimitRecord>,
    pub required: &'a [RequiredOutcome],
    pub globals: Option<GlobalsRecord>,
    pub chunks: Chunks,
    pub warnings: Vec<Finding>,
}

/// Builds the manifest.
pub(super) fn manifest(request: &Request, found: Found<'_>) -> Manifest {
    let Passed {
        scan,
        stored_bytes,
        sha256,
        ..
    } = found.passed;
    let form = &request.form;
    let key = found.place.key(Part::Dump, &form.extension());
    Manifest {
        format: FORMAT,
        id: found.place.id.clone(),
        database: request.name.clone(),
        trigger: request.trigger,
        started_at: found.place.id.started_at(),
        finished_at: found.finished_at,
        restore: restore_line(&found, form, &key),
        server: found.server,
        tools: Tools {
            pgkeep: env!("CARGO_PKG_VERSION").to_owned(),
            pg_dump: found.pg_dump_version,
        },
        selection: found.selection,
        preset: request.preset.map(|preset| preset.as_str().to_owned()),
        compression: compression(form.codec),
        encryption: encryption(form, found.passed),
        dump: dump(scan),
        object: StoredObject {
            key,
            size_bytes: *stored_bytes,
            sha256: sha256.clone(),
        },
        globals: found.globals,
        sections: scan.sections.clone(),
        tables: found.tables,
        limits: found.limits,
        large_objects: scan.large_objects,
        roles: scan.roles.clone(),
        tablespaces: scan.tablespaces.clone(),
        required_tables: found.required.iter().map(required).collect(),
        chunks: found.chunks,
        warnings: found.warnings,
        anomaly: None,
    }
}

fn compression(codec: Codec) -> CompressionRecord {
    let (method, level) = match codec {
        Codec::Gzip { level } => ("gzip", level.map(i64::from)),
        Codec::Zstd { level } => ("zstd", Some(i64::from(level))),
        Codec::None => ("none", None),
    };
    CompressionRecord {
        method: method.to_owned(),
        level,
    }
}

fn encryption(form: &Form, passed: &Passed) -> Option<EncryptionRecord> {
    let (recipients, header_bytes) = form.recipients.as_ref().zip(passed.header_bytes)?;
    Some(EncryptionRecord {
        method: METHOD.to_owned(),
        recipients: recipients.texts().to_vec(),
        header_bytes,
    })
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

/// A table's rows lie where no stored chunk holds them: the dump could be restored, but not read table by table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unplaced {
    /// The table.
    pub table: String,
    /// Where its rows should lie in the uncompressed dump.
    pub block: Block,
}

/// Records every table, with the place of its rows in the stored dump.
pub(super) fn tables(
    scan: &Scan,
    chunks: &ChunkIndex,
) -> std::result::Result<Vec<TableRecord>, Unplaced> {
    let offsets = chunks.offsets();
    let tables = scan.tables.iter();
    tables.map(|table| table_record(table, &offsets)).collect()
}

fn table_record(
    table: &Table,
    chunks: &ChunkOffsets,
) -> std::result::Result<TableRecord, Unplaced> {
    let place = |&block: &Block| match chunks.stored_range(block) {
        Some((range, _)) => Ok(BlockRecord {
            block,
            stored_offset: range.start,
            stored_length: range.end - range.start,
        }),
        None => Err(Unplaced {
            table: table.full_name().to_string(),
            block,
        }),
    };
    let blocks: std::result::Result<_, Unplaced> = table.blocks.iter().map(place).collect();
    Ok(TableRecord {
        schema: table.schema.clone(),
        name: table.name.clone(),
        kind: table.kind,
        parent: table.parent.clone(),
        columns: table.columns.clone(),
        rows: table.rows,
        bytes: table.bytes,
        digest: table.digest,
        blocks: blocks?,
    })
}

fn required(outcome: &RequiredOutcome) -> RequiredRecord {
    RequiredRecord {
        table: outcome.table.clone(),
        min_rows: outcome.min_rows,
        found: outcome.found,
        rows: outcome.rows,
    }
}

/// Settings of a database may hold keys (`app.jwt_secret`), which a plain dump does not contain and a manifest must not.
/// The names of PostgreSQL's own settings have no dot, and none of them holds a secret.
fn without_secret(setting: &str) -> String {
    match setting.split_once('=') {
        Some((name, _)) if name.contains('.') => format!("{name}=***"),
        _ => setting.to_owned(),
    }
}

/// The shell line that restores the dump without pgkeep, into a database that it creates.
///
/// Nothing in it needs quoting: the id's grammar leaves nothing to quote, and an encoding that is no plain word is
/// left out, because the server is not to be trusted with a shell. Locales that fit only some encodings may be missing
/// elsewhere, so other encodings than UTF-8 get the locale that fits all.
fn restore_line(found: &Found<'_>, form: &Form, key: &str) -> String {
    let file = key.rsplit('/').next().unwrap_or(key);
    let unpack = match form.codec {
        Codec::Gzip { .. } => "gunzip -c",
        Codec::Zstd { .. } => "zstd -dc",
        Codec::None => "cat",
    };
    let read = match (&form.recipients, form.codec) {
        (None, _) => format!("{unpack} {file}"),
        (Some(_), Codec::None) => format!("age -d -i KEY {file}"),
        (Some(_), _) => format!("age -d -i KEY {file} | {unpack}"),
    };
    let encoding = &found.server.encoding;
    let is_plain = !encoding.is_empty()
        && encoding
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let options = match encoding.as_str() {
        "UTF8" => "-T template0 -E UTF8".to_owned(),
        encoding if is_plain => format!("-T template0 -E {encoding} --locale=C"),
        _ => "-T template0".to_owned(),
    };
    let target = format!("{}_restored", found.place.id.database());
    let form = found.server.text_form.as_ref();
    let (front, behind) = form
        .map(|form| form.for_psql(found.server.fixed_text_form))
        .unwrap_or_default();
    format!(
        "createdb {options} {target} && {read} | {front}psql -X -v ON_ERROR_STOP=1 -d {target}{behind}"
    )
}

/// Returns the note on the recipients, whose key tells them in every listing; none where nothing is encrypted.
pub(super) fn recipients(form: &Form, place: &Place) -> Option<(String, Bytes)> {
    let recipients = form.recipients.as_ref()?.texts();
    let key = place.key(Part::Recipients, &Fingerprint::of(recipients).to_string());
    let note = serde_json::json!({"format": 1, "recipients": recipients});
    Some((key, Bytes::from(format!("{note:#}\n"))))
}

/// Compresses and encrypts roles and tablespaces, and records them.
pub(super) fn pack_globals(
    place: &Place,
    form: &Form,
    globals: &Globals,
) -> Result<(GlobalsRecord, Bytes)> {
    let codec = form.codec;
    let pack = || {
        let mut frame = Frame::new(codec);
        let encoded = Encoder::new(codec)?.encode(&globals.sql)?;
        frame.add(&encoded);
        let packed = [&frame.header()[..], &encoded.bytes, &frame.trailer()].concat();
        match &form.recipients {
            Some(recipients) => recipients.seal_all(&packed),
            None => Ok(packed),
        }
    };
    let unexpected = |error: std::io::Error| {
        Failure::new(Kind::Unexpected, "compression_failed", error.to_string())
    };
    let bytes = pack().map_err(unexpected)?;
    let object = StoredObject {
        key: place.key(Part::Globals, &form.extension()),
        size_bytes: bytes.len() as u64,
        sha256: sha256(&bytes),
    };
    Ok((
        GlobalsRecord {
            object,
            role_passwords: globals.has_passwords,
        },
        bytes.into(),
    ))
}

/// Records the server.
pub(crate) fn server(facts: &ServerFacts) -> Server {
    let database = &facts.database;
    Server {
        version: facts.version.clone(),
        version_num: facts.version_num,
        encoding: database.encoding.clone(),
        database: database.name.clone(),
        size_bytes: database.size_bytes,
        system_identifier: facts.system_identifier.clone(),
        database_oid: Some(u64::from(database.oid)),
        extensions: facts.extensions.iter().map(extension).collect(),
        properties: serde_json::json!({
            "owner": database.owner,
            "collate": database.collate,
            "ctype": database.ctype,
            "locale_provider": database.locale_provider,
            "locale": database.locale,
            "icu_rules": database.icu_rules,
            "acl": database.acl,
            "settings": database.settings.iter().map(|entry| serde_json::json!({
                "role": entry.role,
                "settings": entry.settings.iter().map(|setting| without_secret(setting)).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
            "comment": database.comment,
            "connection_limit": database.connection_limit,
            "tablespace": database.tablespace,
        }),
        fixed_text_form: facts.session_settings_applied,
        text_form: facts.text_form(),
    }
}

fn extension(found: &ServerExtension) -> Extension {
    Extension {
        name: found.name.clone(),
        version: found.version.clone(),
        schema: found.schema.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgkeep_model::scan::Scanner;

    #[test]
    fn rows_that_no_chunk_holds_are_no_record() {
        let sql = b"CREATE TABLE a.t (x int);\nCOPY a.t (x) FROM stdin;\n1\n\\.\n";
        let mut scanner = Scanner::new();
        scanner.push(sql);
        let scan = scanner.finish();
        let mut chunks = ChunkIndex::default();
        chunks.push(u32::try_from(sql.len()).unwrap(), 20);
        let records = tables(&scan, &chunks).unwrap();
        assert_eq!(records[0].blocks[0].stored_length, 20);
        let short = ChunkIndex {
            raw: vec![u32::try_from(sql.len()).unwrap() - 1],
            ..chunks
        };
        let block = scan.tables[0].blocks[0];
        let table = "a.t".to_owned();
        assert_eq!(tables(&scan, &short), Err(Unplaced { table, block }));
    }
}
