//! A table out of a stored backup: its own chunks where there is an index, the whole object where there is none.

use std::sync::Arc;

use super::table::{End, Extractor, Written};
use super::{Report, Request, RowFormat, no_rows, no_table};
use crate::context::Context;
use crate::copies::listing::{NamedStorage, Wanted, storage_failure};
use crate::copies::{Fault, Pieces, Ranged, Stored, threads};
use crate::encryption::Identities;
use crate::stream::pipeline::Progress;
use crate::stream::stored::read_serially;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::id::DatabaseName;
use pgkeep_model::manifest::{Manifest, TableRecord};
use pgkeep_model::name::TableName;
use pgkeep_model::scan::{Block, SectionName};
use pgkeep_storage::Error;

/// Reads the table from the first storage that has a good copy of it.
pub(super) async fn run(
    request: &Request,
    storages: &[NamedStorage],
    database: Option<&DatabaseName>,
    wanted: &Wanted,
    context: &Context,
    progress: &Arc<Progress>,
) -> Result<Report> {
    let stored = Stored::open(storages, database.cloned(), wanted, context.clock.now()).await?;
    let what = format!(
        "cannot extract `{}` from `{}`",
        request.rows.table, stored.manifest.id
    );
    let manifest = Arc::new(stored.manifest.clone());
    let record = Arc::new(record(&manifest, &request.rows.table, &what)?);
    let mut warnings = stored.warnings();
    stored.unlock(&what, &context.stop).await?;
    let extracted = stored
        .try_copies(&what, &mut warnings, async |at| {
            let proof = Proof {
                manifest: Arc::clone(&manifest),
                record: Arc::clone(&record),
                what: format!("{what} in `{}`", stored.storage_name(at)),
            };
            let copy = Copy {
                stored: &stored,
                at,
                request,
                context,
                progress,
                proof,
            };
            copy.extract(&what).await
        })
        .await;
    match extracted {
        Ok(mut report) => {
            warnings.append(&mut report.warnings);
            Ok(Report {
                warnings,
                failure: stored.doubt(),
                ..report
            })
        }
        Err(failure) => Err(stored.unless_removed(&what, failure).await),
    }
}

fn record(manifest: &Manifest, name: &TableName, what: &str) -> Result<TableRecord> {
    let is_it = |record: &&TableRecord| {
        record.name == name.name && record.schema == name.schema_or_public()
    };
    let found = manifest.tables.iter().find(is_it);
    let known = manifest.tables.iter().map(TableRecord::full_name);
    let record = found.ok_or_else(|| no_table(what, name, known))?;
    if record.rows.is_none() || record.blocks.is_empty() {
        let is_partitioned = record
            .kind
            .is_some_and(|kind| kind.as_str() == "partitioned");
        return Err(no_rows(what, is_partitioned));
    }
    Ok(record.clone())
}

/// One storage's copy of the backup.
struct Copy<'a> {
    stored: &'a Stored,
    at: usize,
    request: &'a Request,
    context: &'a Context,
    progress: &'a Arc<Progress>,
    proof: Proof,
}

/// What the table must be for its last rows to go out.
#[derive(Clone)]
struct Proof {
    manifest: Arc<Manifest>,
    record: Arc<TableRecord>,
    what: String,
}

impl Copy<'_> {
    async fn extract(&self, what: &str) -> Result<Report> {
        let stop = self.context.stop.clone();
        let opened = Ranged::open_if_indexed(self.stored, self.at, what, stop).await?;
        let blocks = self.blocks();
        let usable = opened.and_then(|ranged| {
            if blocks.iter().all(|block| ranged.holds(*block)) {
                Ok(ranged.telling(self.progress))
            } else {
                Err("the table starts after its end".to_owned())
            }
        });
        let (written, read_bytes) = match &usable {
            Ok(ranged) => self.ranged(ranged, &blocks).await?,
            Err(_) => self.whole().await?,
        };
        let id = self.proof.manifest.id.to_string();
        let mut report = super::report(id, &self.request.rows.table, written, read_bytes);
        report.ranged = usable.is_ok();
        report.storage = Some(self.stored.storage_name(self.at).to_owned());
        report.warnings.extend(usable.err().map(|why| {
            format!("the chunk index cannot be used ({why}): the whole backup was read")
        }));
        Ok(report)
    }

    /// Returns what to read: the structure in front of the rows where column types matter, then the table's blocks.
    fn blocks(&self) -> Vec<Block> {
        let sections = self.proof.manifest.sections.iter();
        let structure = sections
            .filter(|section| {
                section.name == SectionName::PreData && self.request.rows.format == RowFormat::Jsonl
            })
            .map(|section| section.block);
        let blocks = self.proof.record.blocks.iter().map(|record| record.block);
        structure.chain(blocks).collect()
    }

    fn extractor(&self, takes_any: bool) -> Result<Extractor> {
        let Request { rows, output, .. } = self.request;
        let stop = self.context.stop.clone();
        let mut extractor = Extractor::new(rows, output, takes_any, &self.proof.what, stop)?;
        extractor.printed_as(&self.proof.manifest.server.text_form());
        Ok(extractor)
    }

    async fn ranged(&self, ranged: &Ranged<'_>, blocks: &[Block]) -> Result<(Written, u64)> {
        let mut extractor = self.extractor(true)?;
        if let Some(encoding) = self.proof.encoding() {
            let _ = extractor.push(format!("SET client_encoding = '{encoding}';\n").as_bytes()); // no row is in it
        }
        let mut read_bytes = 0;
        for block in blocks {
            let progress = Arc::clone(self.progress);
            let take = move |extractor: &mut Extractor, text: &[u8]| {
                progress.note_more(text.len() as u64, 0);
                extractor.push(text)
            };
            let (handed_back, count, read) = ranged.hand(*block, threads(), extractor, take).await;
            extractor = handed_back;
            read_bytes += count;
            match read {
                Ok(()) => {}
                Err(Fault::Left) => {
                    extractor.leave();
                    break;
                }
                Err(Fault::Storage(error)) => {
                    return Err(self.proof.storage_failed(&extractor, &error));
                }
                Err(Fault::Damaged(why)) => {
                    return Err(self.proof.damaged(&why, extractor.is_begun()));
                }
            }
        }
        let proof = self.proof.clone();
        // Awaited here; standard output and disks may block.
        let thread = tokio::task::spawn_blocking(move || proof.finish(extractor, None));
        let written = thread.await.expect("writing does not panic")?;
        Ok((written, read_bytes))
    }

    async fn whole(&self) -> Result<(Written, u64)> {
        let extractor = self.extractor(false)?;
        let (proof, progress) = (self.proof.clone(), Arc::clone(self.progress));
        let identities = Arc::clone(self.stored.identities(self.at));
        let work = move |pieces| proof.read_whole(pieces, &identities, extractor, &progress);
        let read = self.stored.read_pieces(self.at, &self.proof.what, work);
        let written = read.await??;
        Ok((written, self.proof.manifest.object.size_bytes))
    }
}

impl Proof {
    fn read_whole(
        &self,
        pieces: Pieces,
        identities: &Identities,
        mut extractor: Extractor,
        progress: &Progress,
    ) -> Result<Written> {
        let limit = self.manifest.dump.bytes;
        let read = read_serially(pieces, identities, limit, progress, &mut |piece| {
            progress.note_more(piece.len() as u64, 0);
            extractor.push(piece)
        });
        let outcome = match read {
            Ok(outcome) => outcome,
            Err(error) => return Err(self.storage_failed(&extractor, &error)),
        };
        let object = &self.manifest.object;
        let is_same = outcome.stored_bytes == object.size_bytes && outcome.sha256 == object.sha256;
        let why = match &outcome.fault {
            Some(fault) => Some(fault.in_words()),
            None if !is_same && !outcome.is_left => {
                Some("the stored file does not match the manifest".to_owned())
            }
            None => None,
        };
        self.finish(extractor, why)
    }

    /// Compares what was read with the manifest, and only then lets the last rows go.
    fn finish(&self, extractor: Extractor, why: Option<String>) -> Result<Written> {
        let is_begun = extractor.is_begun();
        let end = extractor
            .end()
            .map_err(|failure| handed_on(failure, is_begun))?;
        if !end.is_left
            && let Some(why) = why.or_else(|| self.difference(&end))
        {
            return Err(self.damaged(&why, is_begun));
        }
        end.finish()
    }

    fn difference(&self, end: &End) -> Option<String> {
        let Some(table) = &end.table else {
            return Some("no row of the table is at the place that the manifest names".to_owned());
        };
        if table.rows != self.record.rows {
            let count = |rows: Option<u64>| rows.unwrap_or(0);
            return Some(format!(
                "it has {} rows, but the manifest says {}",
                count(table.rows),
                count(self.record.rows)
            ));
        }
        if table.digest != self.record.digest {
            return Some("its rows do not match the manifest".to_owned());
        }
        (table.columns != self.record.columns)
            .then(|| "its columns do not match the manifest".to_owned())
    }

    fn damaged(&self, why: &str, is_begun: bool) -> Failure {
        let trust = if is_begun {
            "do not trust what was printed"
        } else {
            "nothing was written"
        };
        let message = format!("{}: {why}; {trust}", self.what);
        let hint = format!(
            "`pgkeep verify {}` reports what is damaged",
            self.manifest.id
        );
        let failure = Failure::new(Kind::Damaged, "rows_damaged", message);
        handed_on(failure.hint(hint).of_copy(), is_begun)
    }

    fn storage_failed(&self, extractor: &Extractor, error: &Error) -> Failure {
        let mut failure = storage_failure(&self.what, error);
        failure.message += &format!("; {}", extractor.trust());
        handed_on(failure, extractor.is_begun())
    }

    /// The dump's encoding, where it is a plain word; a manifest is not to be trusted with SQL.
    fn encoding(&self) -> Option<&str> {
        let encoding = self.manifest.dump.client_encoding.as_deref()?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        encoding.bytes().all(is_plain).then_some(encoding)
    }
}

/// Rows that went out cannot be taken back.
fn handed_on(failure: Failure, is_begun: bool) -> Failure {
    if is_begun {
        failure.handed_on()
    } else {
        failure
    }
}
