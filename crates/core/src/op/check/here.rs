//! This machine: whether a drill could make its throw-away server here.

use std::time::Duration;

use tokio::time::timeout;

use super::{HERE, Line, Request, Verdict};
use crate::context::Context;
use crate::postgres::scratch::{ScratchOptions, survey};
use pgkeep_model::words::bytes;

/// Programs are asked for their versions, five seconds each at most, one after the other.
const LIMIT: Duration = Duration::from_secs(20);

const CHECK: &str = "scratch_server";

/// Looks whether a throw-away server can be made; returns how much room it would have.
pub(super) async fn check(request: &Request, context: &Context) -> (Vec<Line>, Option<u64>) {
    let line = |verdict, message: &str| Line::new(HERE, CHECK, verdict, message);
    let has_own = request.databases.iter().all(|one| one.has_drill_server);
    if has_own && !request.databases.is_empty() {
        let line = line(
            Verdict::Skipped,
            "drills have a server of their own (`drill.url`)",
        );
        return (vec![line], None);
    }
    let options = ScratchOptions::new(request.search.clone());
    let looked = survey(&options, &request.environment, context.stop.token());
    match timeout(LIMIT, looked).await {
        Ok(Ok(found)) => {
            let message = format!(
                "PostgreSQL {} in `{}`: drills can start one",
                found.version,
                found.programs.display()
            );
            (vec![line(Verdict::Ok, &message)], Some(found.free_bytes))
        }
        Ok(Err(error)) => {
            let message = format!("a drill could not start a server here: {error}");
            let hint = "or give drills a server: `drill.url`, `--drill-url`";
            let line = error
                .hints()
                .into_iter()
                .fold(line(Verdict::Warn, &message), Line::hint);
            (vec![line.hint(hint)], None)
        }
        Err(_) => (
            vec![line(Verdict::Warn, "PostgreSQL's programs did not answer")],
            None,
        ),
    }
}

/// Judges the room that a drill's server would have against the largest database.
pub(super) fn space(free: Option<u64>, largest: Option<u64>) -> Option<Line> {
    let (free, largest) = (free?, largest?);
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
