//! What it means when the server refuses a statement of a restore, whichever kind that is.

use super::{HINDERED, SQL_FAILED};
use crate::postgres::databases::{NotCreated, Why};
use crate::postgres::error::{Error, Reason};
use crate::postgres::process::Stop;
use pgkeep_model::failure::Failure;
use pgkeep_model::name::quote;

/// What the server ran out of: that says nothing of the dump.
fn exhausted(error: &Error) -> Option<(&'static str, &'static str, &'static str)> {
    let says = |text: &str| says(error, text);
    if says("No space left on device") || says("Disk quota exceeded") {
        let hint = "make room on the server, or restore elsewhere";
        return Some(("target_disk_full", "the server's disk is full", hint));
    }
    if says("out of shared memory") || says("max_locks_per_transaction") {
        let hint =
            "restore into a database that does not exist yet, or raise `max_locks_per_transaction`";
        return Some((
            "target_out_of_locks",
            "the server has no room for more locks",
            hint,
        ));
    }
    None
}

/// Makes the failure of what the server said to a statement: `what` failed, because of what is `said`.
pub(super) fn of_statement(mut failure: Failure, error: &Error, what: &str, said: &str) -> Failure {
    if says(error, "canceling statement due to lock timeout") {
        failure.hints.clear();
        failure.id = "lock_timeout";
        failure.message = format!("{what}: a statement waited too long for another session's lock");
        return failure.hint(
            "`pg_locks` and `pg_stat_activity` show which session holds it; end that session, or wait longer with \
             `--lock-wait-timeout` or `lock_wait_timeout`",
        );
    }
    let is_statement = matches!(
        error.reason,
        Reason::Other { code: 3 }
            | Reason::PermissionDenied { .. }
            | Reason::RowSecurity { .. }
            | Reason::TooLargeField { .. }
    );
    if is_statement {
        // What is known of these is known of dumping.
        failure.hints.clear();
        failure.id = if is_hindered(error) {
            HINDERED
        } else {
            SQL_FAILED
        };
        failure.message = format!("{what}: {said}");
    }
    if let Some((id, why, hint)) = exhausted(error) {
        failure.id = id;
        failure.message = format!("{what}: {why}");
        return failure.hint(hint);
    }
    failure
}

/// Adds the next move where the server's words name one for which whole restores and single tables have flags.
pub(super) fn with_hint(failure: Failure, error: &Error) -> Failure {
    if let Some(hint) = function_hint(&error.stderr) {
        return failure.hint(hint);
    }
    match sql_hint(error) {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// The next move where a function of the dump finds nothing, because every dump is restored with an empty
/// `search_path`.
fn function_hint(stderr: &[String]) -> Option<String> {
    let is_missing = |line: &String| line.contains("ERROR:") && line.contains("does not exist");
    let at = stderr.iter().position(is_missing)?;
    let rest = stderr[at..].iter();
    let context = rest
        .filter_map(|line| line.trim().strip_prefix("CONTEXT:"))
        .find_map(|context| {
            let (_, function) = context.split_once("function ")?;
            let ends = [" line ", " during ", " statement "];
            let end = ends.iter().filter_map(|end| function.find(end)).min()?;
            Some(function[..end].to_owned())
        })?;
    Some(format!(
        "the dump's own function {context} names something without its schema, and every dump is restored with an \
         empty `search_path`: for the next backup, run `ALTER FUNCTION … SET search_path = …` in the source; for \
         this one, first create the schema by hand with the function corrected"
    ))
}

/// The next move where the server's words tell one.
fn sql_hint(error: &Error) -> Option<String> {
    let messages = error.messages();
    if let Some(owner) = messages.iter().find_map(|line| owner_to_be(line)) {
        return Some(format!(
            "a role can give objects only to roles that it is a member of: `GRANT {owner} TO …` for the restoring \
             role, or `--no-owner` leaves owners out"
        ));
    }
    if let Some(schema) = messages.iter().find_map(|line| closed_schema(line)) {
        return Some(format!(
            "`GRANT CREATE ON SCHEMA {schema} TO …` for the restoring role and for the owners in the dump (PostgreSQL 15 \
             and later do not give it on `public` to every role), or `--no-owner --no-privileges` leaves owners and \
             rights out"
        ));
    }
    let says = |text: &str| messages.iter().any(|line| line.contains(text));
    let lacks_rights = [
        "permission denied for ",
        "must be owner of ",
        "must be superuser",
    ];
    let hint = if says("invalid byte sequence for encoding") {
        "some rows hold bytes that are not text in the target's encoding; `--into` a new name makes a database with \
         the dump's encoding; if that is the same one, correct the rows in the source"
    } else if says("tablespace \"") || says("permission denied for tablespace") {
        "`--no-tablespaces` puts everything into the database's own tablespace"
    } else if lacks_rights.iter().any(|text| says(text)) {
        "make the restoring role a member of the roles that own things, or leave those out with `--no-owner \
         --no-privileges`; a superuser (`--allow-superuser`) may do all but what a role of the dump does itself, such \
         as filling its materialized view"
    } else if says("shared_preload_libraries") || says("can only create extension in database") {
        "`--skip-extension NAME` restores without an extension that the server must load at its start, or that lives in \
         another database"
    } else if messages.iter().any(|line| line.starts_with("role \"")) {
        "`--create-missing-roles` makes the roles; `--no-owner --no-privileges` leaves owners and rights out"
    } else {
        return None;
    };
    Some(hint.to_owned())
}

/// Returns the schema that a role may not create things in.
fn closed_schema(line: &str) -> Option<String> {
    let (_, name) = line.split_once("permission denied for schema ")?;
    Some(quote(name.trim()))
}

/// Returns the role that something could not be given to, as the server quotes it.
fn owner_to_be(line: &str) -> Option<&str> {
    // PostgreSQL up to 15, and from 16 on.
    ["must be member of role ", "must be able to SET ROLE "]
        .iter()
        .find_map(|said| line.strip_prefix(said))
}

pub(super) fn is_timed_out(error: &Error) -> bool {
    error.reason == Reason::Stopped(Stop::TimedOut)
}

/// Tells whether a statement was refused for what the role may not do, or for what others did, and not for what it
/// says.
fn is_hindered(error: &Error) -> bool {
    const SIGNS: [&str; 8] = [
        "permission denied",
        "must be owner of",
        "must be superuser",
        "must be able to SET ROLE",
        "must be member of role",
        "deadlock detected",
        "canceling statement due to",
        "terminating connection",
    ];
    let is_sign = |line: &&str| SIGNS.iter().any(|sign| line.contains(sign));
    error.messages().iter().any(is_sign)
}

pub(super) fn lacks_locale<E>(not_created: &NotCreated<E>) -> bool {
    matches!(&not_created.why, Why::Failed(error) if is_about_locale(error))
}

pub(super) fn is_about_locale(error: &Error) -> bool {
    let says = |text: &str| error.stderr.iter().any(|line| line.contains(text));
    says("locale") || says("LC_COLLATE") || says("LC_CTYPE")
}

/// Tells whether the server said it itself: a row that says it counts for nothing.
fn says(error: &Error, text: &str) -> bool {
    error.messages().iter().any(|line| line.contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_that_is_closed_is_named() {
        for (line, says) in [
            (
                "ERROR:  permission denied for schema public",
                "`GRANT CREATE ON SCHEMA \"public\" TO …`",
            ),
            (
                "ERROR:  permission denied for schema My app",
                "SCHEMA \"My app\" TO",
            ),
            (
                "ERROR:  permission denied for tablespace fast",
                "--no-tablespaces",
            ),
            ("ERROR:  permission denied for table t", "--no-owner"),
        ] {
            let mut error = Error::new(Reason::Other { code: 3 });
            error.stderr = vec![format!("psql:<stdin>:7: {line}")];
            let hint = sql_hint(&error).unwrap();
            assert!(hint.contains(says), "{line}: {hint}");
        }
    }
}
