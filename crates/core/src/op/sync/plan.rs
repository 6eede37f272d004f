//! What is to be done for one backup, decided from what each storage holds of it. Reads and writes nothing.

use serde::Serialize;

use pgkeep_model::failure::Failure;
use pgkeep_model::keys::{Part, Place};
use pgkeep_model::words::number;

/// What comes along with a copy and is no part of what the manifest proves: why the backup is kept or held, that somebody
/// accepted it, who can open it, and the note of a drill.
pub(super) const BESIDE: [Part; 7] = [
    Part::Pin,
    Part::PreDeploy,
    Part::Guarded,
    Part::Held,
    Part::Accepted,
    Part::Recipients,
    Part::Drill,
];

/// A small object that lies beside a backup somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Beside {
    pub part: Part,
    pub key: String,
    pub size_bytes: u64,
    /// The storage that has it.
    pub at: usize,
}

/// An object as the manifest describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Described {
    pub key: String,
    /// Its size; none where the manifest says none, as of a long chunk index.
    pub size_bytes: Option<u64>,
    pub sha256: String,
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Passed {
    pub size_bytes: u64,
    pub sha256: String,
}

impl Described {
    /// Says how what was read differs; none where it is the object.
    pub(super) fn difference(&self, passed: &Passed) -> Option<String> {
        let key = &self.key;
        match self.size_bytes {
            Some(size) if size != passed.size_bytes => Some(format!(
                "`{key}` has {} bytes, not {}",
                number(passed.size_bytes),
                number(size)
            )),
            _ if self.sha256 != passed.sha256 => Some(format!(
                "`{key}` has another SHA-256 than the manifest says"
            )),
            _ => None,
        }
    }
}

/// What a storage holds of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Holding {
    /// Nothing.
    Missing,
    /// Something else, and how it differs.
    Wrong(String),
    /// What the listing shows is as it should be.
    Listed,
    /// It was read, and is as the manifest says.
    Proven,
}

impl Holding {
    pub(super) fn is_there(&self) -> bool {
        matches!(self, Self::Listed | Self::Proven)
    }
}

/// What one storage holds of a backup.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// The storage's position.
    pub at: usize,
    /// One for each object of the backup, in their order.
    pub objects: Vec<Holding>,
    pub manifest: Holding,
    /// Whether it carries the mark of a damaged copy.
    pub is_marked: bool,
    /// Which of the objects beside it are there.
    pub beside: Vec<Part>,
    /// Why nothing is done about it, and nothing is read from it.
    pub set_aside: Option<Aside>,
}

/// Why a copy is left alone.
#[derive(Clone, Debug)]
pub(super) enum Aside {
    /// Its manifest can be read and is another than elsewhere.
    Differs,
    /// The storage did not give what it lists.
    Unread(Failure),
}

impl Aside {
    pub(super) fn in_words(&self) -> &str {
        match self {
            Self::Differs => {
                "its manifest can be read and is another than elsewhere, so it is not known which of them is right"
            }
            Self::Unread(failure) => &failure.message,
        }
    }
}

/// Whether a copy is not there or not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// No backup of this id is committed there.
    Missing,
    /// It is, and something of it is missing or wrong.
    Damaged,
    /// It is whole, and lacks something small beside it: why it is kept, or who can open it.
    Unmarked,
}

/// What is known of a backup over all storages.
#[derive(Clone, Debug)]
pub(super) struct Examined {
    pub place: Place,
    /// Its objects, the dump first; the manifest is none of them.
    pub objects: Vec<Described>,
    /// The storage whose manifest speaks for it, and the size of that.
    pub manifest_at: usize,
    pub manifest_bytes: u64,
    /// One for each storage that answered.
    pub held: Vec<Held>,
    /// What lies beside it somewhere.
    pub beside: Vec<Beside>,
    /// Sizes by listing of objects whose manifest says none.
    pub listed_bytes: Vec<Option<u64>>,
}

impl Held {
    fn is_committed(&self) -> bool {
        self.manifest != Holding::Missing
    }

    /// Tells whether something that is there has to go first.
    pub(super) fn has_wrong(&self) -> bool {
        let mut all = self.objects.iter().chain([&self.manifest]);
        all.any(|holding| matches!(holding, Holding::Wrong(_)))
    }
}

impl Examined {
    /// Tells whether a copy's manifest is to be written: it is not there or not right, or it goes before an object does.
    /// The only one that there is stays: without it nobody would know what the objects are.
    pub(super) fn needs_manifest(&self, held: &Held) -> bool {
        let mut others = self.held.iter().filter(|other| other.at != held.at);
        let is_elsewhere =
            others.any(|other| other.set_aside.is_none() && other.manifest.is_there());
        !held.manifest.is_there() || (held.has_wrong() && is_elsewhere)
    }

    /// Says what is wrong with a storage's copy; none where it is whole.
    pub(super) fn lack(&self, held: &Held) -> Option<(State, String)> {
        if held.set_aside.is_some() {
            return None;
        }
        if !held.is_committed() {
            let is_any = held.objects.iter().any(Holding::is_there);
            let why = if is_any {
                "its manifest is missing".to_owned()
            } else {
                "it is missing".to_owned()
            };
            return Some((State::Missing, why));
        }
        let mut wrong: Vec<String> = Vec::new();
        if let Holding::Wrong(why) = &held.manifest {
            wrong.push(why.clone());
        }
        for (holding, object) in held.objects.iter().zip(&self.objects) {
            match holding {
                Holding::Missing => wrong.push(format!("`{}` is missing", object.key)),
                Holding::Wrong(why) => wrong.push(why.clone()),
                Holding::Listed | Holding::Proven => {}
            }
        }
        if wrong.is_empty() && held.is_marked {
            wrong.push("it is marked as damaged and is good".to_owned());
        }
        if !wrong.is_empty() {
            return Some((State::Damaged, wrong.join("; ")));
        }
        let beside = self.lacking_beside(held);
        let words: Vec<String> = beside
            .map(|beside| format!("`{}` is missing", beside.key))
            .collect();
        (!words.is_empty()).then(|| (State::Unmarked, words.join("; ")))
    }

    /// Returns what lies beside another copy and not beside this one.
    pub(super) fn lacking_beside<'e>(&'e self, held: &'e Held) -> impl Iterator<Item = &'e Beside> {
        let is_wanted = move |beside: &&Beside| match beside.part {
            // It was the bytes of a copy that were restored: those that are brought are the same.
            Part::Drill => self.needs_manifest(held),
            _ => true,
        };
        let wanted = self.beside.iter().filter(is_wanted);
        wanted.filter(|beside| !held.beside.contains(&beside.part))
    }

    /// Returns the storages that may have an object, those that proved it first.
    pub(super) fn holders(&self, object: usize) -> Vec<usize> {
        let usable = self.held.iter().filter(|held| held.set_aside.is_none());
        let mut holders: Vec<(bool, bool, usize)> = usable
            .filter(|held| held.objects[object].is_there())
            .map(|held| {
                let is_proven = held.objects[object] == Holding::Proven;
                (!is_proven, !held.is_committed(), held.at)
            })
            .collect();
        holders.sort_unstable();
        holders.into_iter().map(|(.., at)| at).collect()
    }

    /// Says of each storage what is wrong there, where no storage has some object; empty where there is nothing to fear.
    pub(super) fn lost(&self, name: impl Fn(usize) -> String) -> Vec<String> {
        let is_lost = (0..self.objects.len()).any(|object| self.holders(object).is_empty());
        if !is_lost {
            return Vec::new();
        }
        let why = |held: &Held| {
            let (_, why) = self.lack(held)?;
            held.is_committed()
                .then(|| format!("in `{}`: {why}", name(held.at)))
        };
        let mut whys: Vec<String> = self.held.iter().filter_map(why).collect();
        whys.extend(self.held.iter().filter_map(|held| {
            let why = held.set_aside.as_ref()?;
            Some(format!("in `{}`: {}", name(held.at), why.in_words()))
        }));
        whys
    }

    /// Returns how many bytes a copy lacks.
    pub(super) fn lacking_bytes(&self, held: &Held) -> u64 {
        let size = |at: usize| self.objects[at].size_bytes.or(self.listed_bytes[at]);
        let lacking = (0..self.objects.len()).filter(|at| !held.objects[*at].is_there());
        let objects: u64 = lacking.filter_map(size).sum();
        let manifest = if self.needs_manifest(held) {
            self.manifest_bytes
        } else {
            0
        };
        let beside = self.lacking_beside(held).map(|beside| beside.size_bytes);
        objects + manifest + beside.sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examined(held: Vec<Held>) -> Examined {
        let object = |key: &str, size_bytes| Described {
            key: key.to_owned(),
            size_bytes: Some(size_bytes),
            sha256: String::new(),
        };
        Examined {
            place: Place {
                id: "shop-20260102T030405Z-7f3a".parse().unwrap(),
                is_partial: false,
            },
            objects: vec![object("dump", 100), object("globals", 10)],
            manifest_at: 0,
            manifest_bytes: 7,
            held,
            beside: [(Part::Pin, 1), (Part::Drill, 2)]
                .map(|(part, size_bytes)| Beside {
                    part,
                    key: String::new(),
                    size_bytes,
                    at: 0,
                })
                .into(),
            listed_bytes: vec![None, None],
        }
    }

    fn held(at: usize, manifest: Holding, objects: [Holding; 2]) -> Held {
        Held {
            at,
            objects: objects.to_vec(),
            manifest,
            is_marked: false,
            beside: vec![Part::Pin],
            set_aside: None,
        }
    }

    #[test]
    fn a_copy_lacks_what_it_does_not_hold() {
        use Holding::{Listed, Missing, Proven, Wrong};
        let wrong = || Wrong("cut".to_owned());
        for (manifest, objects, state, bytes) in [
            (Listed, [Listed, Proven], None, 0),
            (Missing, [Missing, Missing], Some(State::Missing), 119),
            (Missing, [Proven, Missing], Some(State::Missing), 19),
            // What is only missing is put beside the manifest that is there.
            (Listed, [Listed, Missing], Some(State::Damaged), 10),
            // What is wrong goes first, and its manifest before it.
            (Listed, [wrong(), Listed], Some(State::Damaged), 109),
            (wrong(), [Listed, Listed], Some(State::Damaged), 9),
        ] {
            let one = held(1, manifest.clone(), objects.clone());
            let whole = held(0, Listed, [Listed, Listed]);
            let examined = examined(vec![whole, one.clone()]);
            let lack = examined.lack(&one).map(|(state, _)| state);
            assert_eq!(lack, state, "{manifest:?} {objects:?}");
            assert_eq!(
                examined.lacking_bytes(&one),
                bytes,
                "{manifest:?} {objects:?}"
            );
        }
        let mut unpinned = held(1, Listed, [Listed, Listed]);
        unpinned.beside.clear();
        let examined = examined(vec![unpinned.clone()]);
        let lacking: Vec<Part> = examined
            .lacking_beside(&unpinned)
            .map(|beside| beside.part)
            .collect();
        assert_eq!(lacking, [Part::Pin]);
        assert_eq!(examined.lacking_bytes(&unpinned), 1);
        assert_eq!(examined.lack(&unpinned).unwrap().0, State::Unmarked);
    }

    #[test]
    fn each_object_comes_from_whoever_has_it() {
        use Holding::{Listed, Missing, Proven, Wrong};
        let examined = examined(vec![
            held(0, Listed, [Missing, Listed]),
            held(1, Missing, [Proven, Missing]),
            held(2, Listed, [Listed, Wrong("cut".to_owned())]),
        ]);
        assert_eq!(examined.holders(0), [1, 2]);
        assert_eq!(examined.holders(1), [0]);
        assert_eq!(examined.lost(|at| at.to_string()), [""; 0]);
    }

    #[test]
    fn what_nobody_has_is_lost() {
        use Holding::{Listed, Missing, Wrong};
        let wrong = |why: &str| Wrong(why.to_owned());
        let mut aside = held(2, Listed, [Listed, Listed]);
        aside.set_aside = Some(Aside::Differs);
        let examined = examined(vec![
            held(0, Listed, [wrong("cut"), Listed]),
            held(1, Missing, [Missing, Missing]),
            aside,
        ]);
        let told = examined.lost(|at| format!("s{at}"));
        assert_eq!(told[0], "in `s0`: cut");
        assert!(told[1].starts_with("in `s2`: its manifest"), "{told:?}");
        assert_eq!(told.len(), 2);
    }
}
