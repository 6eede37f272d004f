//! `check`: everything that can be wrong before it is wrong, a line each with its verdict and the next move.
//!
//! Nothing is changed but for one small object in each storage, which no listing takes for a backup and which is
//! removed again; where it could not be, because a lock keeps what is written, it is written only if somebody asks for
//! it. What hangs is given up; what does not depend on each other is asked side by side.

mod database;
mod here;
mod protection;
mod storage;

use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{BoxFuture, join_all};
use serde::Serialize;

use super::backup;
use super::lock::Leases;
use super::stored::{NamedStorage, room_behind};
use crate::context::Context;
use crate::postgres::environment::Environment;
use crate::postgres::programs::{Search, Version};
use pgkeep_model::failure::{Failure, Kind};

/// Subject of what is about this machine.
const HERE: &str = "this machine";

/// What to check.
pub struct Request {
    /// Databases, each with how its backup would be made.
    pub databases: Vec<Checked>,
    /// Storages.
    pub storages: Vec<NamedStorage>,
    /// What was found out already, such as who may read the configuration.
    pub known: Vec<Line>,
    /// Further probes, such as those of notifiers.
    pub probes: Vec<Box<dyn Probe>>,
    /// Where programs are looked for.
    pub search: Search,
    /// What programs may see of the environment.
    pub environment: Environment,
    /// Whether warnings make the check fail.
    pub strict: bool,
    /// Whether an object is written where it will have to stay.
    pub write: bool,
    /// Where the leases of runs live.
    pub leases: Leases,
}

/// One database.
pub struct Checked {
    /// How its backup would be made.
    pub backup: backup::Request,
    /// How old its newest good backup may be.
    pub max_age: Option<Duration>,
    /// Whether its drills have a server of their own, so that none is made here.
    pub has_drill_server: bool,
}

/// Something else that may be wrong. It bounds its own time and changes nothing.
#[async_trait]
pub trait Probe: Send + Sync {
    /// Looks, and says what it found.
    async fn look(&self, context: &Context) -> Vec<Line>;
}

/// What was found of one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// A backup works, and something is not as it should be.
    Warn,
    /// A backup or a restore would fail.
    Fail,
    /// It could not be looked at, or need not be.
    Skipped,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// The database, the storage, or `this machine`.
    pub subject: String,
    /// Stable name of what was looked at.
    pub check: &'static str,
    /// What was found.
    pub verdict: Verdict,
    /// The same in words.
    pub message: String,
    /// Names, or a program's own words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
    /// The next moves.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
    /// The failure's stable id, where it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'static str>,
    /// The exit code that it would end with, where it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
    #[serde(skip)]
    kind: Option<Kind>,
}

impl Line {
    /// Makes a line.
    pub fn new(
        subject: &str,
        check: &'static str,
        verdict: Verdict,
        message: impl Into<String>,
    ) -> Self {
        Self {
            subject: subject.to_owned(),
            check,
            verdict,
            message: message.into(),
            details: Vec::new(),
            hints: Vec::new(),
            id: None,
            code: None,
            kind: None,
        }
    }

    /// Makes the line of something that failed.
    pub fn failed(subject: &str, check: &'static str, failure: Failure) -> Self {
        Self {
            details: [failure.details, failure.causes].concat(),
            hints: failure.hints,
            id: Some(failure.id),
            code: Some(failure.kind.exit_code()),
            kind: Some(failure.kind),
            ..Self::new(subject, check, Verdict::Fail, failure.message)
        }
    }

    /// Turns a failure that turned out to be none into a warning, and says why it is none.
    fn into_warning(self, why: &str) -> Self {
        Self {
            verdict: Verdict::Warn,
            message: format!("{}; {why}", self.message),
            id: None,
            code: None,
            kind: None,
            ..self
        }
    }

    /// Adds names that are printed below it.
    pub fn with_details(mut self, details: impl IntoIterator<Item = String>) -> Self {
        self.details.extend(details);
        self
    }

    /// Adds a next move.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

/// Everything that was looked at. Text, JSON and exit code come from this value.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Every line, by subject.
    pub checks: Vec<Line>,
    /// How many are as they should be.
    pub ok: usize,
    /// How many are warnings.
    pub warned: usize,
    /// How many failed.
    pub failed: usize,
    /// How many were skipped.
    pub skipped: usize,
    /// The worst of it.
    #[serde(skip)]
    pub failure: Option<Failure>,
}

/// What a database's lines left for those of others.
#[derive(Default)]
struct Sizes {
    /// Its size on the server.
    database: Option<u64>,
    /// Major version of its server.
    major: Option<u32>,
    /// Size of its newest good backup.
    backup: Option<u64>,
}

/// Looks at everything.
pub async fn run(request: &Request, context: &Context) -> Report {
    let databases = join_all(
        request
            .databases
            .iter()
            .map(|checked| database::check(checked, context)),
    );
    let storages = join_all(
        request
            .storages
            .iter()
            .map(|named| storage::check(named, request, context)),
    );
    let more: Vec<BoxFuture<'_, Vec<Line>>> = request
        .probes
        .iter()
        .map(|probe| probe.look(context))
        .collect();
    let (databases, storages, here, more) = tokio::join!(
        databases,
        storages,
        here::look(request, context),
        join_all(more)
    );
    let mut lines = request.known.clone();
    let mut sizes = Vec::new();
    for (found, size) in databases {
        lines.extend(found);
        sizes.push(size);
    }
    for (named, (found, free_bytes)) in request.storages.iter().zip(storages) {
        lines.extend(found);
        lines.push(storage::space(
            named,
            free_bytes,
            &needed(request, named, &sizes),
        ));
    }
    let largest = sizes.iter().filter_map(|size| size.database).max();
    match here {
        Ok(found) => {
            lines.push(here::judge(&found, &newer(request, &sizes, found.version)));
            lines.extend(here::space(found.free_bytes, largest));
        }
        Err(line) => lines.push(line),
    }
    lines.extend(more.into_iter().flatten());
    let mut report = Report::of(lines, request.strict);
    if context.stop.is_requested() {
        report.failure = Some(context.stop.failure_of_reading());
    }
    report
}

/// Returns the databases whose drills start a server of their own, and for whose dumps this version is too old.
fn newer<'a>(request: &'a Request, sizes: &[Sizes], here: Version) -> Vec<(&'a str, u32)> {
    let pairs = request.databases.iter().zip(sizes);
    pairs
        .filter(|(checked, _)| !checked.has_drill_server)
        .filter_map(|(checked, size)| Some((checked.backup.name.as_str(), size.major?)))
        .filter(|(_, major)| *major > here.major)
        .collect()
}

/// What the next backup of each database in a storage must find free: what a backup itself wants behind the last one,
/// or else a quarter of the database, which dumps compress to.
fn needed(request: &Request, named: &NamedStorage, sizes: &[Sizes]) -> Vec<u64> {
    let is_there = |checked: &Checked| {
        let storages = checked.backup.storages.iter();
        storages
            .map(|other| other.storage.identity())
            .any(|identity| identity == named.storage.identity())
    };
    let pairs = request.databases.iter().zip(sizes);
    pairs
        .filter(|(checked, _)| is_there(checked))
        .filter_map(|(_, size)| {
            let by_last = size.backup.map(room_behind);
            by_last.or(size.database.map(|bytes| bytes / 4))
        })
        .collect()
}

impl Report {
    fn of(checks: Vec<Line>, strict: bool) -> Self {
        let count = |verdict| checks.iter().filter(|line| line.verdict == verdict).count();
        let (warned, failed) = (count(Verdict::Warn), count(Verdict::Fail));
        Self {
            ok: count(Verdict::Ok),
            skipped: count(Verdict::Skipped),
            failure: overall(&checks, strict),
            warned,
            failed,
            checks,
        }
    }
}

/// The worst failed line decides. What stands in front of everything else comes first: without programs nobody logs in,
/// and who cannot log in reads no table.
const WORST_FIRST: [Kind; 9] = [
    Kind::Usage,
    Kind::Program,
    Kind::Login,
    Kind::Source,
    Kind::Storage,
    Kind::Proof,
    Kind::Damaged,
    Kind::Refused,
    Kind::Stale,
];

fn overall(lines: &[Line], strict: bool) -> Option<Failure> {
    let told = |verdict| {
        let lines = lines.iter().filter(move |line| line.verdict == verdict);
        lines.map(|line| format!("{}: {}: {}", line.subject, line.check, line.message))
    };
    let rank = |kind: Kind| WORST_FIRST.iter().position(|worse| *worse == kind);
    let failed = lines.iter().filter_map(|line| Some((line.kind?, line.id?)));
    let worst = failed.min_by_key(|(kind, _)| rank(*kind).unwrap_or(WORST_FIRST.len()));
    let failed: Vec<String> = told(Verdict::Fail).collect();
    if let Some((kind, id)) = worst {
        let message = format!("{} of {} checks failed", failed.len(), lines.len());
        return Some(Failure::new(kind, id, message).with_details(failed));
    }
    let warned: Vec<String> = told(Verdict::Warn).collect();
    let message = format!("{} of {} checks gave warnings", warned.len(), lines.len());
    let failure = Failure::new(Kind::AfterGood, "check_warned", message).with_details(warned);
    (strict && !failure.details.is_empty()).then_some(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(kind: Kind) -> Line {
        Line::failed("shop", "x", Failure::new(kind, "some_id", "broken"))
    }

    #[test]
    fn the_worst_line_decides() {
        let ok = Line::new("shop", "x", Verdict::Ok, "fine");
        let warn = Line::new("shop", "x", Verdict::Warn, "odd");
        let code = |lines: &[Line], strict| {
            let failure = Report::of(lines.to_vec(), strict).failure;
            failure.map_or(0, |failure| failure.kind.exit_code())
        };
        assert_eq!(code(&[], true), 0);
        assert_eq!(code(&[ok.clone(), warn.clone()], false), 0);
        assert_eq!(code(&[ok.clone(), warn.clone()], true), 3);
        assert_eq!(code(&[warn.clone(), failed(Kind::Stale)], true), 24);
        let all = [Kind::Stale, Kind::Storage, Kind::Login, Kind::Source];
        assert_eq!(code(&all.map(failed), false), 12);
        assert_eq!(code(&[failed(Kind::Unexpected)], false), 1);
        let report = Report::of(vec![ok, warn, failed(Kind::Proof)], false);
        assert_eq!((report.ok, report.warned, report.failed), (1, 1, 1));
    }
}
