//! Every backup that is kept, into every storage: what is missing or damaged where, and what was done about it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::Request;
use super::carry_out::{Carrier, End, ended};
use super::examine::{Looking, Unseen};
use super::plan::{Aside, Examined, Held};
use crate::context::Context;
use crate::op::event::{Event, Observer};
use crate::op::lock::Hold;
use crate::op::stored::{Listing, OBJECT_EXISTS, StoredBackup};
use crate::stream::pipeline::Progress;
use pgkeep_model::failure::{Failure, Kind};
use pgkeep_model::keys::{Marks, Place};
use pgkeep_model::retention::{Candidate, plan};
use pgkeep_model::scan::Finding;

pub use super::plan::State;

/// A copy that is missing or damaged.
#[derive(Clone, Debug, Serialize)]
pub struct CopyLine {
    /// The backup.
    pub id: String,
    /// The storage that lacks it.
    pub storage: String,
    /// Whether it is missing or damaged there.
    pub state: State,
    /// What is missing or wrong.
    pub why: String,
    /// The storage that it is brought from; none where nothing has to be copied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// How many bytes are to be written.
    pub size_bytes: u64,
    /// Whether it is whole now.
    pub copied: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A backup of which no storage has everything.
#[derive(Clone, Debug, Serialize)]
pub struct Lost {
    /// The backup.
    pub id: String,
    /// What is wrong in each storage that has something of it.
    pub copies: Vec<String>,
}

/// What came of it.
#[derive(Default)]
pub(super) struct Repaired {
    pub kept: u64,
    pub copies: Vec<CopyLine>,
    pub lost: Vec<Lost>,
    pub copied_bytes: u64,
    /// Backups whose parts are never leftovers.
    pub spared: BTreeSet<Place>,
    pub warnings: Vec<Finding>,
    pub failures: Vec<Failure>,
    /// Storages that could not be listed, by their names.
    pub unlisted: Vec<(String, Failure)>,
}

/// A backup that is kept, as it was seen.
struct Kept {
    examined: Examined,
    is_lost: bool,
}

/// Looks at every backup that is kept, and with a hold brings what is missing.
pub(super) async fn repair(
    request: &Request,
    hold: Option<&Hold>,
    context: &Context,
    observer: &dyn Observer,
) -> Repaired {
    let ended = match hold {
        Some(hold) => hold.ended().clone(),
        None => context.stop.token().clone(),
    };
    let run = Run {
        request,
        hold,
        context,
        observer,
        ended,
        what: format!("sync of `{}`", request.database),
    };
    let mut repaired = Repaired::default();
    if let Err(failure) = run.repair(&mut repaired).await {
        repaired.failures.push(failure);
    }
    repaired
}

struct Run<'a> {
    request: &'a Request,
    hold: Option<&'a Hold>,
    context: &'a Context,
    observer: &'a dyn Observer,
    ended: CancellationToken,
    what: String,
}

impl Run<'_> {
    /// An error is one that ends the run: a stop, or a lock that was lost.
    async fn repair(&self, repaired: &mut Repaired) -> Result<(), Failure> {
        let now = self.context.clock.now();
        let (storages, database) = (self.request.storages.clone(), &self.request.database);
        let read = tokio::select! {
            read = Listing::read(storages, Some(database), now) => read,
            () = self.ended.cancelled() => return Err(self.stopped()),
        };
        let listing = match read {
            Ok(listing) => listing,
            Err(failure) => {
                let names = self.request.storages.iter().map(|named| named.name.clone());
                repaired.unlisted = names.map(|name| (name, failure.clone())).collect();
                return Ok(());
            }
        };
        let silent = listing.states.iter().filter(|state| state.error.is_some());
        let unlisted = silent.map(|state| state.name.clone());
        repaired.unlisted = unlisted.zip(listing.failures().iter().cloned()).collect();
        let usable = usable(&listing);
        let progress = Arc::new(Progress::default());
        if self.request.verify {
            self.observer.note(Event::Reading {
                progress: &progress,
            });
        }
        let looking = Looking {
            listing: &listing,
            storages: &usable,
            verify: self.request.verify,
            ended: &self.ended,
            progress: &progress,
        };
        let mut kept = self.look(&looking, repaired).await?;
        self.note_aside(&listing, &kept, repaired);
        match self.hold {
            None => {
                for one in kept.iter().filter(|one| !one.is_lost) {
                    self.tell(&listing, &one.examined, repaired);
                }
                repaired.copied_bytes = repaired.copies.iter().map(|line| line.size_bytes).sum();
                Ok(())
            }
            Some(hold) => self.bring(&listing, hold, &mut kept, repaired).await,
        }
    }

    fn stopped(&self) -> Failure {
        ended(&self.what, self.hold, self.context)
    }

    /// Looks at the backups that are kept, newest first. One that turns out to be nowhere whole counts for nothing, so
    /// that others may be kept in its place; those are looked at, too.
    async fn look(
        &self,
        looking: &Looking<'_>,
        repaired: &mut Repaired,
    ) -> Result<Vec<Kept>, Failure> {
        let backups: Vec<&StoredBackup> = looking
            .listing
            .backups
            .iter()
            .filter(|backup| {
                let place = &backup.place;
                let is_of = place.id.database() == &self.request.database && !place.is_partial;
                is_of && backup.is_committed()
            })
            .collect();
        // Copies that are each damaged in another object make a whole backup together: only looking tells.
        let candidate = |backup: &&StoredBackup| {
            let marks = Marks {
                is_damaged: false,
                ..backup.marks()
            };
            Candidate::stored(backup.place.id.started_at(), marks)
        };
        let mut candidates: Vec<Candidate> = backups.iter().map(candidate).collect();
        let mut seen: BTreeMap<usize, Option<Kept>> = BTreeMap::new();
        let keep = loop {
            let keep = self.keep(&candidates);
            let mut is_changed = false;
            for at in (0..backups.len()).rev().filter(|at| keep[*at]) {
                if seen.contains_key(&at) {
                    continue;
                }
                let one = self.look_at(looking, backups[at], repaired).await?;
                if one.as_ref().is_none_or(|one| one.is_lost) {
                    candidates[at].unreadable = Some("it is nowhere whole".to_owned());
                    is_changed = true;
                }
                seen.insert(at, one);
            }
            if !is_changed {
                break keep;
            }
        };
        repaired.kept = keep.iter().filter(|keep| **keep).count() as u64;
        // A part without its manifest may be the last good one of a backup whose manifest another storage has.
        let committed = looking
            .listing
            .backups
            .iter()
            .filter(|one| one.is_committed());
        repaired.spared = committed.map(|backup| backup.place.clone()).collect();
        let seen = seen.into_iter().rev().filter(|(at, _)| keep[*at]);
        Ok(seen.filter_map(|(_, one)| one).collect())
    }

    /// Tells which backups the policy keeps; without one, or with one that has no rule, all are.
    fn keep(&self, candidates: &[Candidate]) -> Vec<bool> {
        let now = self.context.clock.now();
        let policy = self.request.policy.as_ref();
        match policy.and_then(|policy| plan(policy, candidates, now).ok()) {
            Some(plan) => plan.verdicts.iter().map(|verdict| verdict.keep).collect(),
            None => vec![true; candidates.len()],
        }
    }

    async fn look_at(
        &self,
        looking: &Looking<'_>,
        backup: &StoredBackup,
        repaired: &mut Repaired,
    ) -> Result<Option<Kept>, Failure> {
        let name = |at: usize| looking.listing.storages[at].name.clone();
        match looking.examine(backup).await {
            Ok(examined) => {
                let whys = examined.lost(name);
                let is_lost = !whys.is_empty();
                if is_lost {
                    self.lose(
                        looking.listing,
                        &examined.place,
                        whys,
                        &examined.held,
                        repaired,
                    );
                }
                Ok(Some(Kept { examined, is_lost }))
            }
            Err(Unseen::Stopped) => Err(self.stopped()),
            Err(Unseen::Lost(whys)) => {
                self.lose(looking.listing, &backup.place, whys, &[], repaired);
                Ok(None)
            }
            Err(Unseen::Failed(failure)) => {
                repaired.failures.push(failure);
                Ok(None)
            }
        }
    }

    /// Takes note of a backup of which no storage has everything. Where one did not answer, it may.
    fn lose(
        &self,
        listing: &Listing,
        place: &Place,
        whys: Vec<String>,
        held: &[Held],
        repaired: &mut Repaired,
    ) {
        let is_unread = |held: &Held| matches!(held.set_aside, Some(Aside::Unread(_)));
        let is_known = listing.failures().is_empty() && !held.iter().any(is_unread);
        if is_known {
            let message = format!(
                "no storage has a good copy of `{}`; nothing of it was changed",
                place.id
            );
            let failure = Failure::new(Kind::Damaged, "backup_damaged", message);
            let hint = "`pgkeep restore` and `extract` still read the tables that are whole; `prune` removes it 30 days \
                        after a newer good backup";
            repaired
                .failures
                .push(failure.with_details(whys.clone()).hint(hint));
        }
        repaired.lost.push(Lost {
            id: place.id.to_string(),
            copies: whys,
        });
    }

    /// Says which copies are left alone, each storage that cannot be read once.
    fn note_aside(&self, listing: &Listing, kept: &[Kept], repaired: &mut Repaired) {
        let mut told = BTreeSet::new();
        for one in kept {
            for held in &one.examined.held {
                let name = &listing.storages[held.at].name;
                match &held.set_aside {
                    Some(Aside::Unread(failure)) if told.insert(held.at) => {
                        repaired.failures.push(failure.clone());
                    }
                    Some(aside @ Aside::Differs) => {
                        let id = &one.examined.place.id;
                        let text = format!("`{id}` in `{name}`: {}", aside.in_words());
                        repaired
                            .warnings
                            .push(Finding::new("manifests_differ", text, None));
                    }
                    Some(Aside::Unread(_)) | None => {}
                }
            }
        }
    }

    /// Adds a line for each copy of a backup that is missing or damaged.
    fn tell(&self, listing: &Listing, examined: &Examined, repaired: &mut Repaired) {
        let lines = examined
            .held
            .iter()
            .filter_map(|held| line(listing, examined, held));
        repaired.copies.extend(lines);
    }

    async fn bring(
        &self,
        listing: &Listing,
        hold: &Hold,
        kept: &mut [Kept],
        repaired: &mut Repaired,
    ) -> Result<(), Failure> {
        let progress = Arc::new(Progress::default());
        let all = kept
            .iter()
            .filter(|one| !one.is_lost)
            .map(|one| &one.examined);
        let lacking = all.flat_map(|examined| {
            let lacks = examined
                .held
                .iter()
                .filter(|held| examined.lack(held).is_some());
            lacks.map(|held| examined.lacking_bytes(held))
        });
        let bytes = lacking.sum();
        if bytes > 0 {
            let progress = &progress;
            self.observer.note(Event::Copying { progress, bytes });
        }
        let mut carrier = Carrier {
            listing,
            hold,
            context: self.context,
            ended: &self.ended,
            progress: &progress,
            warnings: Vec::new(),
        };
        let mut given_up: BTreeMap<usize, String> = BTreeMap::new();
        let mut end = Ok(());
        for one in kept.iter_mut().filter(|one| !one.is_lost) {
            if end.is_err() {
                self.tell(listing, &one.examined, repaired);
                continue;
            }
            end = self
                .bring_one(&mut carrier, &mut one.examined, &mut given_up, repaired)
                .await;
        }
        let warnings = carrier.warnings.into_iter();
        let found = warnings.map(|text| Finding::new("copy_damaged", text, None));
        repaired.warnings.extend(found);
        end
    }

    /// Brings one backup to every storage that lacks it. A source that turns out to be damaged is one of them then.
    async fn bring_one(
        &self,
        carrier: &mut Carrier<'_>,
        examined: &mut Examined,
        given_up: &mut BTreeMap<usize, String>,
        repaired: &mut Repaired,
    ) -> Result<(), Failure> {
        let mut tried = BTreeSet::new();
        let mut is_lost = false;
        loop {
            let mut found = examined.held.iter().enumerate();
            let next = found.find_map(|(index, held)| {
                let line = line(carrier.listing, examined, held)?;
                (!tried.contains(&held.at)).then_some((index, held.at, line))
            });
            let Some((index, at, mut line)) = next else {
                break;
            };
            tried.insert(at);
            if let Some(why) = given_up.get(&at) {
                line.error = Some(why.clone());
                repaired.copies.push(line);
                continue;
            }
            let brought = carrier.bring(examined, index).await;
            match brought {
                Ok(written) => {
                    line.copied = true;
                    repaired.copied_bytes += written;
                }
                Err(End::Stopped) => {
                    repaired.copies.push(line);
                    return Err(self.stopped());
                }
                Err(End::Target(failure)) => {
                    line.error = Some(failure.message.clone());
                    // A storage that refuses to let go of one copy, or has it meanwhile, may take another.
                    let is_of_this_copy = failure.kind == Kind::Refused
                        || failure.id == OBJECT_EXISTS
                        || (line.state == State::Damaged && failure.id == "storage_denied");
                    if !is_of_this_copy {
                        let why = format!("not tried: `{}` failed before", line.storage);
                        given_up.insert(at, why);
                    }
                    repaired.failures.push(failure);
                }
                Err(End::Source(failure)) => {
                    line.error = Some(failure.message.clone());
                    is_lost = failure.kind == Kind::Damaged;
                    if !is_lost {
                        repaired.failures.push(failure);
                    }
                }
            }
            repaired.copies.push(line);
        }
        if is_lost {
            let whys = examined.lost(|at| carrier.listing.storages[at].name.clone());
            self.lose(
                carrier.listing,
                &examined.place,
                whys,
                &examined.held,
                repaired,
            );
        }
        Ok(())
    }
}

/// Returns the positions of the storages that answered; one that has two names is meant once.
fn usable(listing: &Listing) -> Vec<usize> {
    let mut known = BTreeSet::new();
    let all = listing.storages.iter().zip(&listing.states).enumerate();
    let answered = all.filter(|(_, (_, state))| state.error.is_none());
    let once = answered.filter(|(_, (named, _))| known.insert(named.storage.identity()));
    once.map(|(at, _)| at).collect()
}

fn line(listing: &Listing, examined: &Examined, held: &Held) -> Option<CopyLine> {
    let (state, why) = examined.lack(held)?;
    let lacking = (0..held.objects.len()).find(|object| !held.objects[*object].is_there());
    let from = match lacking {
        Some(object) => examined.holders(object).first().copied(),
        None => (examined.lacking_bytes(held) > 0).then_some(examined.manifest_at),
    };
    Some(CopyLine {
        id: examined.place.id.to_string(),
        storage: listing.storages[held.at].name.clone(),
        state,
        why,
        from: from.map(|at| listing.storages[at].name.clone()),
        size_bytes: examined.lacking_bytes(held),
        copied: false,
        error: None,
    })
}
