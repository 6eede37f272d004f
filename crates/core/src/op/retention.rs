//! `retention`: what a policy would keep of given times or of a schedule. Touches no storage and removes nothing.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use jiff::{Span, Timestamp};
use serde::Serialize;

use pgkeep_model::config::Retention;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::retention::{self, Candidate, Reason, Refusal, Tier, Verdict, read_times};
use pgkeep_model::schedule::Schedule;

/// Largest list of times: a million of them, with room for comments.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Most times that a schedule may give: hourly for a century is less than this, every minute for two years is not.
const MAX_SIMULATED: usize = 1_000_000;

/// How many bad lines are named; the rest is counted.
const MAX_BAD_LINES: usize = 10;

/// What to judge.
#[derive(Debug)]
pub struct Request {
    /// The policy.
    pub policy: Retention,
    /// The times.
    pub times: Times,
    /// The moment to look from.
    pub now: Timestamp,
}

/// Where times come from.
#[derive(Debug)]
pub enum Times {
    /// A file, one time per line.
    File(PathBuf),
    /// Standard input, one time per line.
    Stdin,
    /// A schedule that has been running for a while, up to now.
    Schedule {
        /// When it runs, in the zone of the policy.
        schedule: Box<Schedule>,
        /// For how long.
        length: Span,
    },
}

/// What the policy would do, each list in the order of the times.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What it keeps.
    pub keep: Vec<Judged>,
    /// What it removes.
    pub remove: Vec<Judged>,
}

/// One time and its fate.
#[derive(Debug, Serialize)]
pub struct Judged {
    /// The time, as an instant.
    pub time: Timestamp,
    /// Every reason.
    pub reasons: Vec<Reason>,
    /// What it counts as.
    pub tiers: Vec<Tier>,
}

/// Judges the times. It blocks for as long as reading takes.
pub fn run(request: &Request) -> Result<Report> {
    // Nobody should have to type in times to learn this.
    if retention::is_empty(&request.policy) {
        return Err(refused(Refusal::EmptyPolicy));
    }
    let times = read(request)?;
    let candidates: Vec<Candidate> = times.iter().copied().map(Candidate::new).collect();
    // A simulated schedule is judged once: pruning after each backup leaves the same.
    let plan = retention::plan(&request.policy, &candidates, request.now).map_err(refused)?;
    let (keep, remove): (Vec<_>, Vec<_>) = times
        .into_iter()
        .zip(plan.verdicts)
        .partition(|(_, verdict)| verdict.keep);
    let judged = |pairs: Vec<(Timestamp, Verdict)>| pairs.into_iter().map(judge).collect();
    Ok(Report {
        keep: judged(keep),
        remove: judged(remove),
    })
}

fn judge((time, verdict): (Timestamp, Verdict)) -> Judged {
    Judged {
        time,
        tiers: verdict.tiers(),
        reasons: verdict.reasons,
    }
}

fn refused(refusal: Refusal) -> Failure {
    let Refusal::EmptyPolicy = refusal;
    let message = format!("will not judge any backup: {refusal}; nothing was removed");
    Failure::new(Kind::Refused, "empty_policy", message).hint(
        "give at least one rule, such as `--keep-daily 7`, or `retention` in the configuration",
    )
}

fn read(request: &Request) -> Result<Vec<Timestamp>> {
    let (name, bytes) = match &request.times {
        Times::File(path) => {
            let name = format!("`{}`", path.display());
            let bytes = File::open(path).and_then(read_all);
            (name, bytes)
        }
        Times::Stdin => ("standard input".to_owned(), read_all(io::stdin().lock())),
        Times::Schedule { schedule, length } => return simulate(request, schedule, *length),
    };
    let failed = |id, why| {
        let message = format!("cannot read the times in {name}: {why}");
        Failure::new(Kind::Usage, id, message)
    };
    let bytes = bytes.map_err(|error| failed("cannot_read", error.to_string()))?;
    read_times(&bytes).map_err(|bad| {
        let (first, rest) = bad.split_first().expect("a refusal names a line");
        let failure = failed("bad_time", first.to_string());
        let unnamed = rest.len().saturating_sub(MAX_BAD_LINES);
        let failure =
            failure.with_details(rest.iter().take(MAX_BAD_LINES).map(ToString::to_string));
        match unnamed {
            0 => failure,
            more => failure.with_details([format!("and {more} more lines")]),
        }
    })
}

fn read_all(input: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        let why = "it is longer than 64 MiB, which no list of backups is";
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(bytes)
}

fn simulate(request: &Request, schedule: &Schedule, length: Span) -> Result<Vec<Timestamp>> {
    let failed = |id, why: &str| {
        let message = format!("cannot simulate the schedule `{schedule}`: {why}");
        Failure::new(Kind::Usage, id, message)
    };
    let zone = &request.policy.timezone;
    let start = request
        .now
        .to_zoned(zone.clone())
        .checked_sub(length)
        .map_err(|_| {
            failed(
                "bad_length",
                "it would begin before the first date that pgkeep knows",
            )
        })?;
    let times: Vec<Timestamp> = schedule
        .between(start.timestamp(), request.now, zone)
        .take(MAX_SIMULATED + 1)
        .collect();
    if times.len() > MAX_SIMULATED {
        return Err(failed("too_many_times", "it has more than 1,000,000 times")
            .hint("use a shorter `--for` or a schedule with fewer runs"));
    }
    Ok(times)
}
