//! This machine: whether a drill could make its throw-away server here, and one that is new enough.

use std::time::Duration;

use tokio::time::timeout;

use super::{HERE, Line, Request, Verdict};
use crate::context::Context;
use crate::postgres::error::{Error, Reason};
use crate::postgres::scratch::{ScratchOptions, Survey, survey};
use pgkeep_model::words::bytes;

/// Programs are asked for their versions, five seconds each at most, one after the other.
const LIMIT: Duration = Duration::from_secs(20);

const CHECK: &str = "scratch_server";

/// The way out where no server can be started here.
const OWN_SERVER: &str = "or give drills a server: `drill.url`, `--drill-url`";

/// Looks whether a throw-away server can be made; returns what it would have, or the line that says why there is none.
pub(super) async fn look(request: &Request, context: &Context) -> Result<Survey, Line> {
    let line = |verdict, message: &str| Line::new(HERE, CHECK, verdict, message);
    let has_own = request.databases.iter().all(|one| one.has_drill_server);
    if has_own && !request.databases.is_empty() {
        let message = "drills have a server of their own (`drill.url`)";
        return Err(line(Verdict::Skipped, message));
    }
    let options = ScratchOptions::new(request.search.clone());
    let looked = survey(&options, &request.environment, context.stop.token());
    match timeout(LIMIT, looked).await {
        Ok(found) => found.map_err(|error| {
            let message = format!("no drill can start a server here: {error}");
            with_hints(line(Verdict::Warn, &message), &error)
        }),
        Err(_) => Err(line(Verdict::Warn, "PostgreSQL's programs did not answer")),
    }
}

/// Holds the newest server that can be started here against those that the dumps come from: `newer` names the databases
/// of newer servers, each with the major version.
pub(super) fn judge(found: &Survey, newer: &[(&str, u32)]) -> Line {
    let (version, folder) = (found.version, found.programs.display());
    let Some(major) = newer.iter().map(|(_, major)| *major).max() else {
        let message = format!("PostgreSQL {version} in `{folder}`: drills can start one");
        return Line::new(HERE, CHECK, Verdict::Ok, message);
    };
    let databases: Vec<String> = newer
        .iter()
        .map(|(name, major)| format!("`{name}` (PostgreSQL {major})"))
        .collect();
    let missing = Error::new(Reason::ProgramMissing {
        program: "initdb",
        wanted_major: Some(major),
        searched: Vec::new(),
        found: Vec::new(),
    });
    let message = format!(
        "no drill of {} can start a server here: the newest is PostgreSQL {version} in `{folder}`",
        databases.join(", ")
    );
    with_hints(Line::new(HERE, CHECK, Verdict::Warn, message), &missing)
}

fn with_hints(line: Line, error: &Error) -> Line {
    let hints = error.hints().into_iter();
    hints.fold(line, Line::hint).hint(OWN_SERVER)
}

/// Judges the room that a drill's server would have against the largest database.
pub(super) fn space(free: u64, largest: Option<u64>) -> Option<Line> {
    let largest = largest?;
    let message = format!(
        "{} free for a drill, and the largest database has {}",
        bytes(free),
        bytes(largest)
    );
    let line = |verdict| Line::new(HERE, "scratch_space", verdict, message.as_str());
    Some(if free < largest {
        line(Verdict::Warn).hint("give drills a server with more room: `drill.url`")
    } else {
        line(Verdict::Ok)
    })
}
