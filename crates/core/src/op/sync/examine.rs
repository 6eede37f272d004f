//! What each storage holds of one backup: by its listing, and by reading where a listing proves nothing.

use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::plan::{Aside, BESIDE, Beside, Described, Examined, Held, Holding};
use super::transfer::{Broken, prove};
use crate::op::stored::{
    Listing, StoredBackup, manifest_failure, manifest_of_copy, storage_failure,
};
use crate::stream::pipeline::Progress;
use pgkeep_model::failure::Failure;
use pgkeep_model::keys::{Listed, Part, Place};
use pgkeep_model::manifest::{Chunks, Manifest, ManifestError};
use pgkeep_model::words::number;
use pgkeep_storage::Error;

/// How backups are looked at.
pub(super) struct Looking<'a> {
    pub listing: &'a Listing,
    /// Positions of the storages that answered, each storage once.
    pub storages: &'a [usize],
    /// Whether everything is read.
    pub verify: bool,
    pub ended: &'a CancellationToken,
    pub progress: &'a Arc<Progress>,
}

/// Why a backup could not be looked at.
pub(super) enum Unseen {
    /// The run is to end.
    Stopped,
    /// No storage has a manifest that can be read; why of each.
    Lost(Vec<String>),
    /// It is not known.
    Failed(Failure),
}

/// A manifest as a storage has it.
enum Read {
    /// It can be read.
    Good(Bytes, Box<Manifest>),
    /// It is not what was written.
    Wrong(String),
    /// The storage did not give it.
    Unknown(Failure),
}

impl Looking<'_> {
    fn name(&self, at: usize) -> &str {
        &self.listing.storages[at].name
    }

    /// Looks at one backup in every storage.
    pub(super) async fn examine(&self, backup: &StoredBackup) -> Result<Examined, Unseen> {
        let (manifest_at, bytes, manifest, seen) = self.speaker(backup).await?;
        let objects = objects_of(&backup.place, &manifest)
            .map_err(|why| Unseen::Lost(vec![format!("in `{}`: {why}", self.name(manifest_at))]))?;
        let listed_bytes = objects
            .iter()
            .map(|object| self.listed_bytes(backup, &object.key))
            .collect();
        let mut held = Vec::new();
        for &at in self.storages {
            let of_this = seen.iter().find(|(place, _)| *place == at);
            let known = of_this.map(|(_, holding)| holding.clone());
            held.push(self.held(backup, at, &objects, &bytes, known).await?);
        }
        let beside = self.beside(backup);
        Ok(Examined {
            place: backup.place.clone(),
            objects,
            manifest_at,
            manifest_bytes: bytes.len() as u64,
            held,
            beside,
            listed_bytes,
        })
    }

    /// Finds the manifest that speaks for a backup: the first that can be read and whose storage lists what it says,
    /// else the first that can be read. Returns what was seen of others on the way.
    async fn speaker(
        &self,
        backup: &StoredBackup,
    ) -> Result<(usize, Bytes, Manifest, Vec<(usize, Holding)>), Unseen> {
        let mut seen = Vec::new();
        let mut unlikely = None;
        let (mut wrong, mut failed) = (Vec::new(), None);
        let committed = backup.readable_from().into_iter();
        for at in committed.filter(|at| self.storages.contains(at)) {
            match self.manifest(backup, at).await? {
                Read::Good(bytes, manifest) => {
                    let copy = &backup.copies[&at];
                    if copy.is_good() && copy.contradiction(&manifest).is_none() {
                        return Ok((at, bytes, *manifest, seen));
                    }
                    unlikely = unlikely.or(Some((at, bytes, *manifest)));
                }
                Read::Wrong(why) => {
                    wrong.push(format!("in `{}`: {why}", self.name(at)));
                    seen.push((at, Holding::Wrong(why)));
                }
                Read::Unknown(failure) => failed = failed.or(Some(failure)),
            }
        }
        match (unlikely, failed) {
            (Some((at, bytes, manifest)), _) => Ok((at, bytes, manifest, seen)),
            (None, Some(failure)) => Err(Unseen::Failed(failure)),
            (None, None) => Err(Unseen::Lost(wrong)),
        }
    }

    async fn manifest(&self, backup: &StoredBackup, at: usize) -> Result<Read, Unseen> {
        let named = &self.listing.storages[at];
        let reading = manifest_of_copy(named.storage.as_ref(), &backup.place);
        let read = tokio::select! {
            read = reading => read,
            () = self.ended.cancelled() => return Err(Unseen::Stopped),
        };
        let what = format!(
            "cannot read the manifest of `{}` in `{}`",
            backup.place.id, named.name
        );
        match read {
            Ok((bytes, Ok(manifest))) => Ok(Read::Good(bytes, Box::new(manifest))),
            // Nothing is known of what it describes.
            Ok((_, Err(error @ ManifestError::Newer { .. }))) => {
                Err(Unseen::Failed(manifest_failure(&what, &error)))
            }
            Ok((_, Err(error))) => Ok(Read::Wrong(format!("its manifest: {error}"))),
            Err(error @ (Error::NotFound(_) | Error::TooLarge { .. })) => {
                Ok(Read::Wrong(format!("its manifest: {error}")))
            }
            Err(error) => Ok(Read::Unknown(storage_failure(&what, &error))),
        }
    }

    /// Looks at one storage's copy. `known` is what was seen of its manifest already.
    async fn held(
        &self,
        backup: &StoredBackup,
        at: usize,
        objects: &[Described],
        manifest: &Bytes,
        known: Option<Holding>,
    ) -> Result<Held, Unseen> {
        let nothing = Listed::nothing(backup.place.clone());
        let listed = backup.copies.get(&at).unwrap_or(&nothing);
        let mut held = Held {
            at,
            objects: objects
                .iter()
                .map(|object| by_listing(object, listed))
                .collect(),
            manifest: Holding::Missing,
            is_marked: listed.has_part(Part::Damaged),
            beside: listed.parts().collect(),
            set_aside: None,
        };
        if listed.is_committed() {
            match known {
                Some(holding) => held.manifest = holding,
                None => {
                    self.compare_manifest(backup, &mut held, listed, manifest)
                        .await?
                }
            }
        }
        // What lies without its manifest, or is marked, may be anything.
        let is_doubtful = held.is_marked || held.manifest == Holding::Missing;
        if held.set_aside.is_none() && (self.verify || is_doubtful) {
            self.read(backup, &mut held, objects).await?;
        }
        Ok(held)
    }

    /// Compares a storage's manifest with the one that speaks for the backup: by its size, or byte for byte.
    async fn compare_manifest(
        &self,
        backup: &StoredBackup,
        held: &mut Held,
        listed: &Listed,
        manifest: &Bytes,
    ) -> Result<(), Unseen> {
        let key = backup.place.key(Part::Manifest, "");
        let size = listed.size_of(&key);
        held.manifest = Holding::Listed;
        // A mark may be about the manifest itself.
        if !self.verify && !held.is_marked && size == Some(manifest.len() as u64) {
            return Ok(());
        }
        match self.manifest(backup, held.at).await? {
            Read::Good(bytes, _) if bytes == manifest => held.manifest = Holding::Proven,
            Read::Good(..) => {
                held.set_aside = Some(Aside::Differs);
            }
            Read::Wrong(why) => held.manifest = Holding::Wrong(why),
            Read::Unknown(failure) => held.set_aside = Some(Aside::Unread(failure)),
        }
        Ok(())
    }

    /// Reads what the listing shows.
    async fn read(
        &self,
        backup: &StoredBackup,
        held: &mut Held,
        objects: &[Described],
    ) -> Result<(), Unseen> {
        let named = &self.listing.storages[held.at];
        for (holding, object) in held.objects.iter_mut().zip(objects) {
            if *holding != Holding::Listed {
                continue;
            }
            let proven = prove(named.storage.as_ref(), object, self.ended, self.progress).await;
            match proven {
                Ok(found) => *holding = found,
                Err(Broken::Stopped) => return Err(Unseen::Stopped),
                Err(Broken::Source(error) | Broken::Target(error)) => {
                    let what = format!("cannot read `{}` in `{}`", backup.place.id, named.name);
                    held.set_aside = Some(Aside::Unread(storage_failure(&what, &error)));
                    return Ok(());
                }
                Err(Broken::Differs(why)) => *holding = Holding::Wrong(why),
            }
        }
        Ok(())
    }

    /// Returns the size that a storage lists, for an object whose manifest says none.
    fn listed_bytes(&self, backup: &StoredBackup, key: &str) -> Option<u64> {
        let mut copies = backup.copies.values();
        copies.find_map(|copy| copy.size_of(key))
    }

    /// Finds what lies beside the copies that are committed.
    fn beside(&self, backup: &StoredBackup) -> Vec<Beside> {
        let find = |part: Part| {
            let mut copies = backup.copies.iter();
            copies.find_map(|(&at, copy)| {
                let is_told = copy.is_committed() && self.storages.contains(&at);
                let mut objects = copy.objects().filter(|_| is_told);
                let (_, key, size_bytes) = objects.find(|(found, ..)| *found == part)?;
                Some(Beside {
                    part,
                    key,
                    size_bytes,
                    at,
                })
            })
        };
        BESIDE.into_iter().filter_map(find).collect()
    }
}

fn by_listing(object: &Described, listed: &Listed) -> Holding {
    match (listed.size_of(&object.key), object.size_bytes) {
        (None, _) => Holding::Missing,
        (Some(found), Some(wanted)) if found != wanted => {
            let (found, wanted) = (number(found), number(wanted));
            Holding::Wrong(format!("`{}` has {found} bytes, not {wanted}", object.key))
        }
        (Some(0), None) => Holding::Wrong(format!("`{}` is empty", object.key)),
        (Some(_), _) => Holding::Listed,
    }
}

/// Returns the objects that a manifest describes, the dump first. A key is taken from it only where it is one of this
/// very backup's.
fn objects_of(place: &Place, manifest: &Manifest) -> Result<Vec<Described>, String> {
    let globals = manifest
        .globals
        .iter()
        .map(|globals| (Part::Globals, &globals.object));
    let named = [(Part::Dump, &manifest.object)].into_iter().chain(globals);
    let mut objects = Vec::new();
    for (part, object) in named {
        if Place::of_key(&object.key) != Some((place.clone(), part)) {
            return Err(format!(
                "the manifest names the key `{}`, which is none of this backup",
                object.key.escape_debug()
            ));
        }
        objects.push(Described {
            key: object.key.clone(),
            size_bytes: Some(object.size_bytes),
            sha256: object.sha256.clone(),
        });
    }
    if let Chunks::Beside { sha256, .. } = &manifest.chunks {
        objects.push(Described {
            key: place.key(Part::Index, ""),
            size_bytes: None,
            sha256: sha256.clone(),
        });
    }
    Ok(objects)
}
