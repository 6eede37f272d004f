//! Backups as a listing shows them, held in little space: a server keeps tens of thousands.

use std::collections::BTreeMap;

use super::{Part, Place, fingerprint};
use crate::encryption::{EXTENSION, Fingerprint};
use crate::id::DatabaseName;
use crate::manifest::Manifest;

/// What may stand behind `.sql`.
const SQL_EXTENSIONS: [&str; 6] = ["", ".gz", ".zst", ".age", ".gz.age", ".zst.age"];

/// One backup as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Which one.
    pub place: Place,
    /// Its objects, by part and key.
    objects: Vec<ListedObject>,
}

/// One object; its key is made anew out of the place, the part and the extension.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ListedObject {
    part: Part,
    extension: Extension,
    size_bytes: u64,
}

/// What stands in a key besides place and part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Extension {
    /// What compression and encryption add.
    Sql(&'static str),
    /// Whom a backup is encrypted for.
    Recipients(Fingerprint),
}

impl Extension {
    /// Reads it out of a key of this part.
    fn of_key(part: Part, key: &str) -> Self {
        if part == Part::Recipients
            && let Some((_, suffix)) = name_of(key).split_once('.')
            && let Some(recipients) = fingerprint(suffix)
        {
            return Self::Recipients(recipients);
        }
        let of_key = key.rsplit_once(".sql").map_or("", |(_, rest)| rest);
        let known = SQL_EXTENSIONS.into_iter().find(|known| *known == of_key);
        Self::Sql(known.unwrap_or_default())
    }
}

fn name_of(key: &str) -> &str {
    key.rsplit_once('/').map_or(key, |(_, name)| name)
}

/// What retention has to know of a backup besides its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Whether it is pinned.
    pub is_pinned: bool,
    /// Whether it was made before a deploy.
    pub is_pre_deploy: bool,
    /// Whether a deploy relied on it.
    pub is_guarded: bool,
    /// Whether it counts for nothing.
    pub is_damaged: bool,
    /// Whether it passed a drill.
    pub is_drilled: bool,
    /// Whether it is held, and nobody has accepted it.
    pub is_held: bool,
}

impl Listed {
    /// Makes one of which nothing is there.
    pub fn nothing(place: Place) -> Self {
        Self {
            place,
            objects: Vec::new(),
        }
    }

    /// Returns the parts that it has, in their order.
    pub fn parts(&self) -> impl Iterator<Item = Part> {
        let mut last = None;
        let parts = self.objects.iter().map(|object| object.part);
        parts.filter(move |part| last.replace(*part) != Some(*part))
    }

    /// Tells whether it has an object of this part.
    pub fn has_part(&self, part: Part) -> bool {
        self.objects.iter().any(|object| object.part == part)
    }

    /// Returns part, key and size of each of its objects.
    pub fn objects(&self) -> impl Iterator<Item = (Part, String, u64)> {
        let told = |object: &ListedObject| (object.part, self.key(object), object.size_bytes);
        self.objects.iter().map(told)
    }

    /// Returns the size that is listed for a key; none where it has no such object.
    pub fn size_of(&self, key: &str) -> Option<u64> {
        let mut objects = self.objects.iter();
        let found = objects.find(|object| self.key(object) == key)?;
        Some(found.size_bytes)
    }

    fn key(&self, object: &ListedObject) -> String {
        match object.extension {
            Extension::Sql(extension) => self.place.key(object.part, extension),
            Extension::Recipients(recipients) => {
                self.place.key(object.part, &recipients.to_string())
            }
        }
    }

    /// Returns what retention has to know of this copy.
    pub fn marks(&self) -> Marks {
        Marks {
            is_pinned: self.is_pinned(),
            is_pre_deploy: self.is_pre_deploy(),
            is_guarded: self.is_guarded(),
            is_damaged: self.is_damaged(),
            is_drilled: self.is_drilled(),
            is_held: self.is_held(),
        }
    }

    /// Tells whether it is committed, by its manifest: only then it is a backup.
    pub fn is_committed(&self) -> bool {
        self.has_part(Part::Manifest)
    }

    /// Tells whether its stored bytes are known to be damaged, or its dump is gone from behind its manifest, or empty.
    pub fn is_damaged(&self) -> bool {
        let has_dump = self.dumps().any(|dump| dump.size_bytes > 0);
        self.has_part(Part::Damaged) || (self.is_committed() && !has_dump)
    }

    fn dumps(&self) -> impl Iterator<Item = &ListedObject> {
        let objects = self.objects.iter();
        objects.filter(|object| object.part == Part::Dump)
    }

    /// Compares keys and sizes of a listing with what the manifest says; the problem in words, if there is one.
    pub fn contradiction(&self, manifest: &Manifest) -> Option<String> {
        let globals = manifest.globals.iter().map(|globals| &globals.object);
        for stored in [&manifest.object].into_iter().chain(globals) {
            match self.size_of(&stored.key) {
                None => return Some(format!("`{}` is missing", stored.key)),
                Some(size) if size != stored.size_bytes => {
                    let wanted = stored.size_bytes;
                    return Some(format!("`{}` has {size} bytes, not {wanted}", stored.key));
                }
                Some(_) => {}
            }
        }
        None
    }

    /// Tells whether it is kept until unpinned.
    pub fn is_pinned(&self) -> bool {
        self.has_part(Part::Pin)
    }

    /// Tells whether it was made before a deploy.
    pub fn is_pre_deploy(&self) -> bool {
        self.has_part(Part::PreDeploy)
    }

    /// Tells whether a deploy relied on it.
    pub fn is_guarded(&self) -> bool {
        self.has_part(Part::Guarded)
    }

    /// Tells whether a drill passed.
    pub fn is_drilled(&self) -> bool {
        self.has_part(Part::Drill)
    }

    /// Tells whether it is held, and nobody has accepted it.
    pub fn is_held(&self) -> bool {
        self.was_held() && !self.is_accepted()
    }

    /// Tells whether it was held when it was made.
    pub fn was_held(&self) -> bool {
        self.has_part(Part::Held)
    }

    /// Tells whether somebody accepted it.
    pub fn is_accepted(&self) -> bool {
        self.has_part(Part::Accepted)
    }

    /// Returns whom it is encrypted for, and the key that says so; none where it is not encrypted, or where that is told
    /// by its manifest alone.
    pub fn recipients(&self) -> Option<(String, Fingerprint)> {
        let mut objects = self.objects.iter();
        objects.find_map(|object| match object.extension {
            Extension::Recipients(recipients) => Some((self.key(object), recipients)),
            Extension::Sql(_) => None,
        })
    }

    /// Tells whether its dump is encrypted.
    pub fn is_encrypted(&self) -> bool {
        let is_encrypted = |dump: &ListedObject| matches!(dump.extension, Extension::Sql(extension) if extension.ends_with(EXTENSION));
        self.dumps().any(is_encrypted)
    }

    /// Tells whether it may be chosen as the latest.
    pub fn is_good(&self) -> bool {
        self.is_committed() && !self.is_damaged()
    }

    /// Returns the size of all its objects.
    pub fn size_bytes(&self) -> u64 {
        self.objects.iter().map(|object| object.size_bytes).sum()
    }
}

/// Gathers backups out of the objects of a listing, in whatever order they come.
#[derive(Default)]
pub struct Gathering {
    found: BTreeMap<Place, Vec<ListedObject>>,
    name: Option<DatabaseName>,
}

impl Gathering {
    /// Takes an object; one that is of no backup is left out.
    pub fn take(&mut self, key: &str, size_bytes: u64) {
        let Some((mut place, part)) = Place::of_key(key) else {
            return;
        };
        place.id.share_name(&mut self.name);
        self.found.entry(place).or_default().push(ListedObject {
            part,
            extension: Extension::of_key(part, key),
            size_bytes,
        });
    }

    /// Returns the backups, oldest first.
    pub fn finish(self) -> impl Iterator<Item = Listed> {
        self.found.into_iter().map(|(place, mut objects)| {
            objects.sort();
            objects.shrink_to_fit();
            Listed { place, objects }
        })
    }
}

/// Gathers what a listing holds of backups, oldest first; keys that are no backup's are left out.
pub fn gather<'a>(objects: impl IntoIterator<Item = (&'a str, u64)>) -> Vec<Listed> {
    let mut gathering = Gathering::default();
    for (key, size_bytes) in objects {
        gathering.take(key, size_bytes);
    }
    gathering.finish().collect()
}

/// Returns the databases that a listing holds backups of.
pub fn databases<'a>(listed: impl IntoIterator<Item = &'a Place>) -> Vec<DatabaseName> {
    let of_all = listed.into_iter().map(|place| place.id.database());
    let mut names: Vec<DatabaseName> = of_all.cloned().collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_have_the_keys_that_they_were_listed_by() {
        let id = "shop-20260102T030405Z-7f3a";
        let sql = SQL_EXTENSIONS.map(|extension| format!("shop/{id}.sql{extension}"));
        let globals = SQL_EXTENSIONS.map(|extension| format!("shop/{id}.globals.sql{extension}"));
        let others = [
            "accepted.json",
            "damaged.json",
            "drill.json",
            "guarded.json",
            "held.json",
            "index",
            "manifest.json",
            "pin.json",
            "pre-deploy.json",
            "recipients.0123456789abcdef.json",
        ]
        .map(|suffix| format!("shop/{id}.{suffix}"));
        let mut keys: Vec<String> = [sql.to_vec(), globals.to_vec(), others.to_vec()].concat();
        let listed = gather(keys.iter().map(|key| (key.as_str(), key.len() as u64)));
        assert_eq!(listed.len(), 1);
        let mut found: Vec<String> = Vec::new();
        for (part, key, size) in listed[0].objects() {
            assert_eq!(size, key.len() as u64, "{key}");
            assert_eq!(listed[0].size_of(&key), Some(size));
            assert_eq!(Place::of_key(&key).map(|(_, part)| part), Some(part));
            found.push(key);
        }
        found.sort();
        keys.sort();
        assert_eq!(found, keys);
    }
}
