//! Runs as a table shows them, be they under way, on record, or slots that nobody ran.

use jiff::Timestamp;

use crate::page::words::exit_hint;
use crate::runs::{RunView, State};
use crate::snapshot::{Held, Missed};
use pgkeep_model::runs::{End, RunRecord};

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// It waits for its turn.
    Queued,
    /// It is under way.
    Running,
    /// It went well.
    Good,
    /// What it made is good, and something behind it is not.
    Warned,
    /// It failed.
    Failed,
    /// It died.
    Interrupted,
    /// It should have run, and nothing came.
    Missed,
}

impl RunState {
    /// Returns the state as it stands in a link.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Good => "good",
            Self::Warned => "warned",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Missed => "missed",
        }
    }
}

/// One run.
#[derive(Clone, Debug)]
pub struct RunRow {
    /// Its id; none for a slot that nobody ran, and where a lease does not tell it.
    pub id: Option<String>,
    /// The database.
    pub database: String,
    /// The command.
    pub verb: String,
    /// How it stands.
    pub state: RunState,
    /// Why it ran.
    pub trigger: Option<String>,
    /// Who started it.
    pub by: Option<String>,
    /// When it began, or should have.
    pub at: Timestamp,
    /// How long it took, in milliseconds.
    pub took_ms: Option<u64>,
    /// Size of the stored dump.
    pub size_bytes: Option<u64>,
    /// Rows of all tables.
    pub rows: Option<u64>,
    /// Its exit code.
    pub exit_code: Option<u8>,
    /// Why it failed, or what there is to say of it.
    pub failure: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// The backup that it made or was about.
    pub backup_id: Option<String>,
}

/// Says how a run on record ended.
pub(crate) fn state_of(record: &RunRecord) -> RunState {
    match record.end() {
        End::Good => RunState::Good,
        End::Warned => RunState::Warned,
        End::Failed => RunState::Failed,
        End::Interrupted => RunState::Interrupted,
    }
}

/// Shows a run that is on record.
pub fn of_record(record: &RunRecord) -> RunRow {
    let database = record.database.to_string();
    RunRow {
        id: Some(record.id.to_string()),
        verb: record.verb.clone(),
        state: state_of(record),
        trigger: record.trigger.clone(),
        by: record.by.clone(),
        at: record.started_at,
        took_ms: Some(record.took_ms),
        size_bytes: record.size_bytes,
        rows: record.rows,
        exit_code: Some(record.exit_code),
        failure: record.failure.clone().or_else(|| record.reason.clone()),
        hint: exit_hint(record.exit_code, &database),
        backup_id: record.backup_id.clone(),
        database,
    }
}

/// Shows a run of this process.
pub fn of_live(run: &RunView) -> RunRow {
    let state = match run.state {
        State::Queued => RunState::Queued,
        State::Running => RunState::Running,
        State::Done if run.failure.is_some() => RunState::Warned,
        State::Done => RunState::Good,
        State::Failed => RunState::Failed,
        State::Interrupted => RunState::Interrupted,
    };
    let failure = run.failure.as_ref();
    RunRow {
        id: Some(run.id.to_string()),
        database: run.database.clone(),
        verb: run.verb.clone(),
        state,
        trigger: Some(run.trigger.clone()),
        by: run.by.clone(),
        at: run.started_at.unwrap_or(run.queued_at),
        took_ms: run.ended_at.zip(run.started_at).map(|(ended, started)| {
            u64::try_from(ended.duration_since(started).as_millis()).unwrap_or(0)
        }),
        size_bytes: run.size_bytes,
        rows: run.rows,
        exit_code: run.exit_code,
        failure: match (&run.message, state) {
            (Some(message), _) => Some(message.clone()),
            (None, RunState::Running) => Some(run.phase.clone()),
            (None, _) => None,
        },
        hint: match (failure, run.exit_code) {
            (Some(failure), _) => failure.hints.first().cloned(),
            (None, Some(code)) => exit_hint(code, &run.database),
            (None, None) => None,
        },
        backup_id: run.backup_id.clone(),
    }
}

/// Shows a run that is known by its lease alone.
pub(crate) fn of_held(held: &Held) -> RunRow {
    let place = format!("{}, process {}", held.host, held.pid);
    let last = super::super::words::moment(held.last_sign);
    let (state, words) = if held.is_dead {
        (
            RunState::Interrupted,
            format!("interrupted: no sign of life from {place} since {last}; nothing was stored"),
        )
    } else {
        (
            RunState::Running,
            format!("on {place}, last sign of life at {last}"),
        )
    };
    RunRow {
        id: held.run.as_ref().map(ToString::to_string),
        database: held.database.to_string(),
        verb: held.verb.clone(),
        state,
        trigger: held.slot.map(|_| "schedule".to_owned()),
        by: held.by.clone(),
        at: held.since,
        took_ms: None,
        size_bytes: None,
        rows: None,
        exit_code: None,
        failure: Some(words),
        hint: None,
        backup_id: None,
    }
}

/// Shows a slot that nobody ran.
pub(crate) fn of_missed(missed: &Missed) -> RunRow {
    RunRow {
        id: None,
        database: missed.database.to_string(),
        verb: missed.verb.as_str().to_owned(),
        state: RunState::Missed,
        trigger: Some("schedule".to_owned()),
        by: None,
        at: missed.slot,
        took_ms: None,
        size_bytes: None,
        rows: None,
        exit_code: None,
        failure: Some("expected, and nothing came".to_owned()),
        hint: None,
        backup_id: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgkeep_model::runs::INTERRUPTED;

    #[test]
    fn each_end_of_a_run_has_its_word() {
        let id: pgkeep_model::id::BackupId = "shop-20260102T030405Z-7f3a".parse().unwrap();
        let record = |code: u8, failure: &str| {
            let record = RunRecord::new(id.clone(), "backup", id.started_at(), 5);
            state_of(&if code == 0 {
                record
            } else {
                record.failed(code, failure, "why")
            })
        };
        assert_eq!(record(0, ""), RunState::Good);
        assert_eq!(record(3, "prune_incomplete"), RunState::Warned);
        assert_eq!(record(20, "dump_failed"), RunState::Failed);
        assert_eq!(record(137, INTERRUPTED), RunState::Interrupted);
        assert_eq!(record(1, INTERRUPTED), RunState::Interrupted);
        assert_eq!(record(143, "terminated"), RunState::Interrupted);
    }
}
