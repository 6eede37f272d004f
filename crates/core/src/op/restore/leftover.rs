//! What a killed restore leaves on a server, how it is known, and how the next one sweeps it.
//!
//! Until it was compared, a database bears a name of ours: the wanted one, a mark, and sixteen hex digits, the first
//! eight of which are the second in which it was made. A comment says which process on which host restores into it.

use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::preflight::list;
use super::restorer;
use super::swap::beside;
use crate::clock::Clock;
use crate::lock::host_name;
use crate::postgres::databases::Databases;
use crate::postgres::error::Error;
use pgkeep_model::name::quote;

/// Marks in names, of a database that is being made and of one that is being filled.
const MAKING: &str = "_making_";
const RESTORING: &str = "_restoring_";

/// How the comment begins.
const TAG: &str = "pgkeep restores a backup into this database since ";

/// Hex digits at the end of a name.
const DIGITS: usize = 16;

/// Where nobody can see whether the process lives, what is this old was left behind.
const LEFT_BEHIND: Duration = Duration::from_secs(24 * 3600);

/// Names of one restore's database.
pub(super) struct Names {
    pub making: String,
    pub restoring: String,
}

impl Names {
    /// Returns names that nobody else has.
    pub(super) fn new(wanted: &str, clock: &dyn Clock) -> Self {
        let digits = format!("{:08x}{}", seconds(clock.now()), clock.hex(2));
        Self {
            making: beside(wanted, &format!("{MAKING}{digits}")),
            restoring: beside(wanted, &format!("{RESTORING}{digits}")),
        }
    }
}

/// Returns the comment of what this process makes.
pub(super) fn tag(now: Timestamp) -> String {
    let process = std::process::id();
    let start = start_of(process).unwrap_or_default();
    format!("{TAG}{now} (process {process}/{start} on {})", place())
}

/// Drops what killed restores left behind of this name, and says so.
pub(super) async fn sweep(
    databases: &Databases,
    wanted: &str,
    clock: &dyn Clock,
    cancel: &CancellationToken,
) -> Result<Vec<String>, Error> {
    let mut said = Vec::new();
    let now = clock.now();
    for mark in [MAKING, RESTORING] {
        let longest = beside(wanted, &format!("{mark}{}", "0".repeat(DIGITS)));
        let prefix = &longest[..longest.len() - DIGITS];
        for (name, comment) in databases.with_comments(prefix, cancel).await? {
            // Only what is being made has no comment yet.
            let is_told = comment.starts_with(TAG) || mark == MAKING;
            let made = made_at(&name, prefix).filter(|_| is_told);
            let life = made.map(|made| life(&comment, made, now));
            match life {
                // A `psql` of a killed process goes on until it has no more to read.
                Some(Life::Gone) => {}
                Some(Life::Old) if !databases.has_sessions(&name, cancel).await? => {}
                _ => continue,
            }
            said.push(match databases.drop_database(&name, cancel).await {
                Ok(()) => format!("`{name}`, which a killed restore left behind, was dropped"),
                Err(error) => {
                    format!("`{name}`, which a killed restore left behind, could not be dropped: {error}")
                }
            });
        }
    }
    said.extend(sweep_roles(databases, clock, cancel).await?);
    Ok(said)
}

/// Says what a sweep of roles found. Where it could not look, only the log says so.
pub(crate) fn said_of_roles(swept: Result<Vec<String>, Error>) -> Vec<String> {
    swept.unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot look for roles that killed restores left behind");
        Vec::new()
    })
}

/// Drops the roles that killed restores and drills left behind. One may be of a restore into any database, so it is no
/// news of this one and only noted in the log. What such a role owns was committed, and somebody may use it by now: then
/// it stays, cannot log in any more, and what is returned says how to go on.
pub(crate) async fn sweep_roles(
    databases: &Databases,
    clock: &dyn Clock,
    cancel: &CancellationToken,
) -> Result<Vec<String>, Error> {
    let (mut said, now) = (Vec::new(), clock.now());
    for (role, comment) in databases
        .roles_with_comments(restorer::PREFIX, cancel)
        .await?
    {
        let made = since(&comment).unwrap_or(now);
        match life(&comment, made, now) {
            Life::Gone => {}
            Life::Old if !databases.works_somewhere(&role, cancel).await? => {}
            _ => continue,
        }
        let owning = databases.where_it_owns(&role, cancel).await?;
        if !owning.is_empty() {
            let name = quote(&role);
            let closed = format!("ALTER ROLE {name} NOLOGIN");
            databases.execute(&closed, cancel).await?;
            said.push(format!(
                "a killed restore left things in {} that belong to its role `{role}`, which cannot log in any more: there, \
                 `REASSIGN OWNED BY {name} TO <owner>` keeps them, and `DROP OWNED BY {name}` drops them; `DROP ROLE {name}` is the last step",
                list(&owning)
            ));
            continue;
        }
        match restorer::drop_role(databases, &role, cancel).await {
            Ok(()) => tracing::info!(role, "a role that a killed restore left behind was dropped"),
            Err(error) => {
                tracing::warn!(role, %error, "a role that a killed restore left behind could not be dropped");
            }
        }
    }
    Ok(said)
}

fn seconds(now: Timestamp) -> u32 {
    u32::try_from(now.as_second()).unwrap_or_default()
}

/// Returns when a database of ours was made, by its name.
fn made_at(name: &str, prefix: &str) -> Option<Timestamp> {
    let digits = name.strip_prefix(prefix)?;
    let is_ours = digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let seconds = u32::from_str_radix(digits.get(..8)?, 16).ok()?;
    is_ours.then(|| Timestamp::from_second(seconds.into()).ok())?
}

/// What is known of the process that made something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// It may be at work.
    Possible,
    /// It was on this host and is gone.
    Gone,
    /// Nobody can see it, and it was long ago.
    Old,
}

fn life(comment: &str, made: Timestamp, now: Timestamp) -> Life {
    if let Some((process, start, host)) = maker(comment)
        && host == place()
    {
        let is_there = start_of(process).as_deref() == Some(start);
        return if is_there { Life::Possible } else { Life::Gone };
    }
    let age = Duration::try_from(now.duration_since(made));
    if age.is_ok_and(|age| age > LEFT_BEHIND) {
        Life::Old
    } else {
        Life::Possible
    }
}

/// Where processes have numbers of their own: containers may share a host's name.
fn place() -> String {
    let link = std::fs::read_link("/proc/self/ns/pid");
    let space = link.map_or_else(|_| String::new(), |link| format!(" {}", link.display()));
    format!("{}{space}", host_name())
}

fn since(comment: &str) -> Option<Timestamp> {
    let (since, _) = comment.strip_prefix(TAG)?.split_once(" (process ")?;
    since.parse().ok()
}

fn maker(comment: &str) -> Option<(u32, &str, &str)> {
    let (_, maker) = comment.strip_prefix(TAG)?.split_once(" (process ")?;
    let (process, host) = maker.strip_suffix(')')?.split_once(" on ")?;
    let (process, start) = process.split_once('/')?;
    Some((process.parse().ok()?, start, host))
}

/// Returns when a process began, in the kernel's ticks: its number alone may be another's by now.
fn start_of(process: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in parentheses may hold anything; the 22nd field is the 20th behind it.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours_and_dead_is_swept() {
        let now: Timestamp = "2026-01-03T00:00:00Z".parse().unwrap();
        let made: Timestamp = "2026-01-02T23:00:00Z".parse().unwrap();
        let mine = tag(now);
        assert_eq!(life(&mine, made, now), Life::Possible, "{mine}");
        let me = std::process::id();
        let other = mine.replace(&format!("process {me}/"), &format!("process {me}/9"));
        assert_eq!(life(&other, made, now), Life::Gone, "{other}");
        let far = mine.replace(&place(), "elsewhere");
        assert_eq!(life(&far, made, now), Life::Possible);
        let old: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(life(&far, old, now), Life::Old);
        assert_eq!(life("", old, now), Life::Old);
        assert_eq!(life("", made, now), Life::Possible);
        assert_eq!(since(&mine), Some(now));
        assert_eq!(since("somebody's"), None);
    }

    #[test]
    fn names_tell_when_they_were_made() {
        let prefix = "shop_restoring_";
        let at = made_at("shop_restoring_695856000123abcd", prefix).unwrap();
        assert_eq!(at.as_second(), 0x6958_5600);
        for foreign in [
            "shop_restoring_mine",
            "shop_restoring_69585600",
            "shop_restoring_zz5856000123abcd",
        ] {
            assert_eq!(made_at(foreign, prefix), None, "{foreign}");
        }
    }
}
