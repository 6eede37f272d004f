//! Opens what is restored: a stored backup with its manifest, a file that is proven before it is used, or a pipe.

use std::fs::File;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use super::preflight::{ALWAYS_THERE, Needs};
use crate::copies::Stored;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::manifest::Manifest;
use pgkeep_model::restore::compare::Expected;
use pgkeep_model::restore::filter::Extension;
use pgkeep_model::scan::Scan;

/// What is restored, opened as far as it can be without reading it.
pub(crate) enum Opened {
    /// A backup.
    Stored(Box<Stored>),
    /// A file, read once already.
    File {
        path: std::path::PathBuf,
        scan: Box<Scan>,
        /// Schemas that it makes, where a preset wants to know.
        schemas: Vec<String>,
        /// Extensions that it makes, in its order.
        extensions: Vec<Extension>,
    },
    /// A pipe, of which nothing is known before it was read.
    Pipe,
}

impl Opened {
    /// Returns what must be there in the end, as far as it is known before the dump was read.
    pub(crate) fn expected(&self) -> Option<Vec<Expected>> {
        match self {
            Self::Stored(stored) => {
                Some(stored.manifest.tables.iter().map(Expected::from).collect())
            }
            Self::File { scan, .. } => Some(scan.tables.iter().map(Expected::from).collect()),
            Self::Pipe => None,
        }
    }

    /// Returns the extensions that it makes.
    pub(crate) fn extensions(&self) -> Vec<Extension> {
        match self {
            Self::Stored(stored) => {
                let wanted = Needs::of_manifest(&stored.manifest).extensions;
                let all = stored.manifest.server.extensions.iter();
                all.filter(|extension| {
                    wanted.contains(&extension.name) && extension.name != ALWAYS_THERE
                })
                .map(|extension| Extension {
                    name: extension.name.clone(),
                    schema: Some(extension.schema.clone()),
                })
                .collect()
            }
            Self::File { extensions, .. } => extensions.clone(),
            Self::Pipe => Vec::new(),
        }
    }

    /// Returns the manifest of a backup.
    pub(crate) fn manifest(&self) -> Option<&Manifest> {
        match self {
            Self::Stored(stored) => Some(&stored.manifest),
            _ => None,
        }
    }
}

/// Opens a plain dump.
pub(crate) fn open_file(path: &Path) -> Result<File> {
    let fail = |why: String| {
        let message = format!(
            "cannot restore `{}`: {why}; nothing was changed",
            path.display()
        );
        Failure::new(Kind::Usage, "cannot_open", message)
    };
    if path.is_dir() {
        return Err(fail("it is a folder".to_owned()));
    }
    // A file is read twice, and opening a pipe waits for whoever writes.
    if path
        .metadata()
        .is_ok_and(|metadata| metadata.file_type().is_fifo())
    {
        let words = "it is a pipe, and a file is proven before it is restored";
        return Err(fail(words.to_owned()).hint("`pgkeep restore -` restores standard input"));
    }
    File::open(path).map_err(|error| fail(error.to_string()))
}
