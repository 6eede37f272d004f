//! Workers that share many databases: `backup --due`, `verify --due`, `drill --oldest`.

use std::collections::BTreeSet;

use clap::Args;
use jiff::Timestamp;

use crate::cli::output::{Output, counted};
use pgkeep_core::context::Context;
use pgkeep_core::op::fleet::{Turn, due, is_drilled_since, oldest};
use pgkeep_core::op::slot;
use pgkeep_core::setup::Setup;
use pgkeep_core::setup::fleet::{Fleet, fleet, no_schedule};
use pgkeep_core::tracker::Tracked;
use pgkeep_model::failure::{Failure, Kind, Result, overall};
use pgkeep_model::id::{BackupId, DatabaseName};
use pgkeep_model::lease::whole_seconds;
use pgkeep_model::origin::Origin;

/// Flags of a command that takes what is due.
#[derive(Debug, Default, Args)]
pub struct DueArgs {
    /// Take the databases whose scheduled time has passed without a run, one after another
    ///
    /// Any number of workers may do so at once, on any hosts: each slot of a schedule is run once. A run that dies is
    /// made up for by whichever worker looks next.
    #[arg(long, help_heading = "Fleet")]
    pub due: bool,
    /// Take only this part of the databases, such as 2/8, the second of eight parts; 8 alone takes the number of the pod of
    /// an indexed Kubernetes Job
    #[arg(long, value_name = "I/N", requires = "due", help_heading = "Fleet")]
    pub shard: Option<String>,
}

/// Flags of `drill` for one that is done again and again.
#[derive(Debug, Default, Args)]
pub struct OldestArgs {
    /// Drill the databases whose last drill that passed is oldest; those that never passed one come first
    ///
    /// Run each night, every database has its turn. Any number of workers may do so at once. A database whose last drill
    /// failed this week comes last, so that it does not keep the others from theirs.
    #[arg(long, conflicts_with_all = ["id", "html", "all", "storages"], help_heading = "Fleet")]
    pub oldest: bool,
    /// How many databases to drill [default: 1]
    #[arg(long, value_name = "N", requires = "oldest", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Fleet")]
    pub limit: Option<u32>,
    /// Take only this part of the databases, such as 2/8, or 8 in a pod of an indexed Kubernetes Job
    #[arg(long, value_name = "I/N", requires = "oldest", help_heading = "Fleet")]
    pub shard: Option<String>,
}

/// What became of one database.
pub(super) enum Ended {
    /// It was run; well or not.
    Run {
        /// The backup that it made or was about.
        backup_id: Option<String>,
        /// Why it did not go well.
        failure: Option<Failure>,
    },
    /// Another worker has it, or had it.
    Elsewhere,
}

impl Ended {
    /// Tells how a run for a slot ended.
    pub(super) fn of(origin: &Origin, backup_id: Option<&str>, failure: Option<&Failure>) -> Self {
        if slot::is_left_to_others(origin, failure) {
            return Self::Elsewhere;
        }
        Self::Run {
            backup_id: backup_id.map(str::to_owned),
            failure: failure.cloned(),
        }
    }
}

/// A worker at work.
pub(super) struct Worker<'a> {
    verb: &'static str,
    setup: &'a Setup,
    output: &'a Output,
    context: &'a Context,
    fleet: Fleet,
    limit: usize,
    failures: Vec<Failure>,
    run: usize,
}

impl<'a> Worker<'a> {
    /// Reads what it looks after; it takes at most `limit` databases.
    pub(super) fn new(
        verb: &'static str,
        shard: Option<&str>,
        limit: Option<usize>,
        setup: &'a Setup,
        output: &'a Output,
        context: &'a Context,
    ) -> Result<Self> {
        Ok(Self {
            fleet: fleet(verb, shard, setup)?,
            limit: limit.unwrap_or(usize::MAX),
            verb,
            setup,
            output,
            context,
            failures: Vec::new(),
            run: 0,
        })
    }

    /// Returns the settings for one database alone, so that what is wrong with another one stops nothing.
    fn of(&self, database: &DatabaseName) -> Setup {
        let mut setup = self.setup.clone();
        setup.database = Some(database.to_string());
        setup
    }

    fn origin(&self, database: &DatabaseName, slot: Timestamp) -> Origin {
        let (now, dice) = (self.context.clock.now(), self.context.clock.suffix());
        Origin {
            run: Some(BackupId::new(database.clone(), now, dice)),
            slot: Some(slot),
            ..Origin::default()
        }
    }

    /// Takes in how one ended, and lets the tracker hear of it. An error is told at once, since others may take hours.
    async fn ended(&mut self, database: &DatabaseName, slot: Timestamp, ended: Result<Ended>) {
        let (backup_id, failure) = match ended {
            Ok(Ended::Elsewhere) => {
                let verb = self.verb;
                self.output
                    .say(&format!("{database}: another worker has its {verb}"));
                return;
            }
            Ok(Ended::Run { backup_id, failure }) => (backup_id, failure),
            Err(failure) => (None, Some(failure)),
        };
        let tracked = Tracked {
            verb: self.verb,
            database: Some(database.as_str()),
            backup_id: backup_id.as_deref(),
            is_scheduled: true,
            slot: Some(slot),
        };
        slot::tell_end(&tracked, failure.as_ref(), self.context).await;
        if let Some(failure) = failure.as_ref().filter(|_| !self.output.json) {
            self.output.error(failure);
        }
        self.run += 1;
        self.failures.extend(failure);
    }

    fn is_over(&self) -> bool {
        self.run >= self.limit || self.context.stop.is_requested()
    }

    /// Runs what was due when it began, and what others leave behind that die meanwhile. Each gets settings of its own.
    pub(super) async fn take_due(
        mut self,
        mut run: impl AsyncFnMut(&Setup, Origin) -> Result<Ended>,
    ) -> Result<()> {
        if self.fleet.scheduled.is_empty() && !self.fleet.databases.is_empty() {
            return Err(no_schedule(self.verb));
        }
        let began = self.context.clock.now();
        let mut tried: BTreeSet<DatabaseName> = BTreeSet::new();
        while !self.is_over() {
            let now = self.context.clock.now();
            let (scheduled, storages) = (&self.fleet.scheduled, &self.fleet.storages);
            let mut turns = due(self.verb, scheduled, storages, began, now).await?;
            turns.retain(|turn| !tried.contains(&turn.database));
            if turns.is_empty() {
                break;
            }
            self.shuffle(&mut turns);
            for turn in turns {
                if self.is_over() {
                    break;
                }
                let origin = self.origin(&turn.database, turn.due.slot);
                let ended = run(&self.of(&turn.database), origin).await;
                self.ended(&turn.database, turn.due.slot, ended).await;
                tried.insert(turn.database);
            }
        }
        self.finish("is due")
    }

    /// Brings turns of the same slot into an order of this worker's own, so that workers seldom want the same one.
    fn shuffle(&self, turns: &mut [Turn]) {
        turns.sort_by_cached_key(|turn| (turn.due.slot, self.context.clock.suffix()));
    }

    /// Runs those that were drilled longest ago, as many as the limit says, in that order.
    pub(super) async fn take_oldest(
        mut self,
        mut run: impl AsyncFnMut(&Setup, Origin) -> Result<Ended>,
    ) -> Result<()> {
        // Stands for a slot: who finds another worker at it gives way, as in a schedule.
        let began = whole_seconds(self.context.clock.now());
        let (databases, storages) = (&self.fleet.databases, &self.fleet.storages);
        for database in oldest(databases, storages, began).await? {
            if self.is_over() {
                break;
            }
            let now = self.context.clock.now();
            if is_drilled_since(&database, &self.fleet.storages, began, now).await? {
                continue;
            }
            let origin = self.origin(&database, began);
            let ended = run(&self.of(&database), origin).await;
            self.ended(&database, began, ended).await;
        }
        self.finish("has a good backup to drill")
    }

    /// Says what was done. The worst failure decides; a wish to stop is one.
    fn finish(self, what: &str) -> Result<()> {
        if self.context.stop.is_requested() {
            let what = format!("{} of a fleet was stopped", self.verb);
            return Err(self.context.stop.failure(&what));
        }
        if self.run == 0 {
            self.output.say(&format!("nothing {what}"));
            return Ok(());
        }
        let (verb, all) = (self.verb, counted(self.run as u64, "database", "databases"));
        let failures: Vec<&Failure> = self.failures.iter().collect();
        let message = |failed| format!("{verb} of {failed} of {all} had failures");
        match overall(&failures, self.run, "some_failed", message) {
            Some(failure) => Err(failure),
            None => {
                self.output.say(&format!("{verb}: {all}, all well"));
                Ok(())
            }
        }
    }
}

/// Reads `--limit` where it means a number of databases.
pub(super) fn limit(texts: &[String]) -> Result<Option<usize>> {
    let bad = |text: &str| {
        let message =
            format!("cannot read `--limit {text}`: with `--due` it is a number of databases");
        Failure::new(Kind::Usage, "bad_limit", message)
            .hint("limits of tables stand in the configuration: `limits` of a database")
    };
    match texts {
        [] => Ok(None),
        [text] => match text.parse() {
            Ok(0) | Err(_) => Err(bad(text)),
            Ok(count) => Ok(Some(count)),
        },
        [.., last] => Err(bad(last)),
    }
}
