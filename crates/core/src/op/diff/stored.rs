//! The structure of a stored backup, by ranged reads.

use crate::context::Context;
use crate::copies::{Ranged, Stored};
use pgkeep_model::diff::Objects;
use pgkeep_model::failure::Result;
use pgkeep_model::scan::TextEncoding;

/// The text of a structure that was read.
pub(super) struct Read {
    pub text: Vec<u8>,
    pub encoding: TextEncoding,
    pub read_bytes: u64,
    pub warnings: Vec<String>,
}

impl Read {
    /// Takes the text apart.
    pub(super) async fn objects(self) -> Objects {
        let (text, encoding) = (self.text, self.encoding);
        // Awaited here; the text of tens of thousands of tables takes its time.
        let thread = tokio::task::spawn_blocking(move || Objects::read(&text, encoding));
        thread.await.expect("reading does not panic")
    }
}

/// Reads the structure from the first storage that has a good copy.
pub(super) async fn structure(stored: &Stored, what: &str, context: &Context) -> Result<Read> {
    let mut warnings = Vec::new();
    let manifest = &stored.manifest;
    stored.unlock(what, &context.stop).await?;
    let tried = stored
        .try_copies(what, &mut warnings, async |at| {
            let stop = context.stop.clone();
            let ranged = Ranged::open(stored, at, what, stop).await?;
            ranged.structure(manifest).await
        })
        .await;
    let read = match tried {
        Ok(read) => read,
        Err(_) if context.stop.is_requested() => return Err(context.stop.failure(what)),
        Err(failure) => return Err(stored.unless_removed(what, failure).await),
    };
    if !read.is_proven {
        warnings.push(format!(
            "`{}` is of an older version that recorded no hashes of its structure, which was read unproven",
            manifest.id
        ));
    }
    Ok(Read {
        text: read.text,
        encoding: encoding(manifest.dump.client_encoding.as_deref()),
        read_bytes: read.read_bytes,
        warnings,
    })
}

/// Returns the encoding of a dump's text.
pub(super) fn encoding(name: Option<&str>) -> TextEncoding {
    TextEncoding::named(name.unwrap_or("UTF8"))
}
