//! The words for a dump that cannot be restored: unreadable, refused by the filter, or incomplete.

use crate::copies::Seen;
use crate::encryption::IDENTITY_HINT;
use crate::stream::read::ReadError;
use pgkeep_model::failure::{Failure, Kind};
use pgkeep_model::restore::filter::Refusal;
use pgkeep_model::scan::Scan;

/// Returns the failure of a dump that cannot be read; `what` names what failed.
pub(crate) fn unreadable(what: &str, error: &ReadError, seen: &Seen) -> Failure {
    if let Some(why) = seen.failed() {
        return Failure::new(
            Kind::Storage,
            "cannot_read",
            format!("{what}: cannot read on: {why}"),
        )
        .of_copy();
    }
    let message = format!("{what}: {error}");
    match error {
        ReadError::Foreign(foreign) => {
            let is_empty = *foreign == pgkeep_model::format::Foreign::Empty;
            let kind = if is_empty { Kind::Damaged } else { Kind::Proof };
            let failure = Failure::new(kind, "not_a_plain_dump", message);
            match (foreign.filter(), foreign.hint()) {
                (Some(filter), _) => failure.hint(format!(
                    "`{filter} | pgkeep restore - --into DATABASE` restores what it holds"
                )),
                (None, Some(hint)) => failure.hint(hint),
                (None, None) => failure,
            }
        }
        ReadError::Damaged { .. } => {
            Failure::new(Kind::Damaged, "compressed_stream_damaged", message)
        }
        ReadError::Locked(error) => match error.id() {
            Some(id) => Failure::new(Kind::Login, id, message).hint(IDENTITY_HINT),
            None => Failure::new(Kind::Damaged, "encrypted_file_damaged", message),
        },
        ReadError::Io(_) => Failure::new(Kind::Storage, "cannot_read", message).of_copy(),
    }
}

/// Returns the failure of a dump that the filter refuses.
pub(crate) fn refused(what: &str, refusal: &Refusal) -> Failure {
    let kind = match refusal.id {
        "dump_damaged" => Kind::Damaged,
        _ => Kind::Refused,
    };
    let failure = Failure::new(kind, refusal.id, format!("{what}: {}", refusal.why));
    match refusal.hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// The proof of a file: it is whole, of one database, and has its end marker unless that was waived.
pub(crate) fn judge_file(
    what: &str,
    scan: &Scan,
    accept_no_end_marker: bool,
) -> Result<(), Failure> {
    if scan.cluster {
        let message = format!("{what}: it is the dump of a whole cluster");
        return Err(Failure::new(Kind::Refused, "cluster_dump_refused", message)
            .hint("restore the dump of one database; `pgkeep inspect` shows what the file holds"));
    }
    let is_waived =
        |id: &str| id == "end_marker_missing" && accept_no_end_marker && scan.statements > 0;
    let problems: Vec<_> = scan
        .problems
        .iter()
        .filter(|problem| !is_waived(&problem.id))
        .collect();
    let Some(first) = problems.first() else {
        return Ok(());
    };
    let message = format!("{what}: it is not a complete dump: {}", first.message);
    let more = problems
        .iter()
        .skip(1)
        .map(|problem| problem.message.clone());
    let failure = Failure::new(Kind::Damaged, "dump_incomplete", message).with_details(more);
    let lacks_only_the_marker =
        problems.len() == 1 && first.id == "end_marker_missing" && scan.statements > 0;
    Err(if lacks_only_the_marker {
        failure.hint(
            "if the program that wrote it leaves the end marker out, as `supabase db dump` does, \
                              `--accept-no-end-marker` restores it without that proof",
        )
    } else {
        failure
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgkeep_model::scan::Scanner;

    #[test]
    fn an_archive_is_restored_through_pg_restore() {
        let (_, seen) = crate::copies::Tap::new(std::io::empty(), false);
        let error = ReadError::Foreign(pgkeep_model::format::Foreign::Custom);
        let failure = unreadable("restore of `x` failed", &error, &seen);
        assert_eq!(
            failure.hints,
            ["`pg_restore -f - FILE | pgkeep restore - --into DATABASE` restores what it holds"]
        );
    }

    fn judge(sql: &str, accept: bool) -> Option<(&'static str, u8)> {
        let mut scanner = Scanner::new();
        scanner.push(sql.as_bytes());
        let judged = judge_file("restore of `x` failed", &scanner.finish(), accept);
        judged
            .err()
            .map(|failure| (failure.id, failure.kind.exit_code()))
    }

    #[test]
    fn a_missing_end_marker_can_be_waived_and_nothing_else() {
        let whole = "CREATE TABLE t (a int);\n--\n-- PostgreSQL database dump complete\n--\n";
        let bare = "CREATE TABLE t (a int);\n";
        assert_eq!(judge(whole, false), None);
        assert_eq!(judge(bare, false), Some(("dump_incomplete", 23)));
        assert_eq!(judge(bare, true), None);
        assert_eq!(
            judge("CREATE TABLE t (a int", true),
            Some(("dump_incomplete", 23))
        );
        assert_eq!(
            judge("CREATE TABLE t (a int);\nCOPY t (a) FROM stdin;\n1\n", true),
            Some(("dump_incomplete", 23))
        );
        assert_eq!(judge("", true), Some(("dump_incomplete", 23)));
        assert_eq!(judge("-- nothing\n", true), Some(("dump_incomplete", 23)));
        let function = "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'select 1';\n";
        assert_eq!(judge(function, true), None);
        assert_eq!(judge(function, false), Some(("dump_incomplete", 23)));
        let cluster = "--\n-- PostgreSQL database cluster dump\n--\n\n--\n-- PostgreSQL database cluster dump complete\n--\n";
        assert_eq!(judge(cluster, true), Some(("cluster_dump_refused", 25)));
    }
}
