//! What a program said, taken apart: its own words, the messages of statements that failed, and what both quote.
//!
//! Rows, names, SQL and the words of functions are somebody's data: a log table holds `Connection refused`. They stand
//! behind labels (`DETAIL:`, `CONTEXT:`, `Query was:`) and in quotation marks, and count for nothing here.

/// The programs whose lines begin with their names.
const PROGRAMS: &[&str] = &["psql", "pg_dump", "pg_dumpall", "pg_restore"];

/// Labels of the server behind which rows and SQL stand, or what functions print.
const QUOTING_LABELS: &[&str] = &[
    "DETAIL:",
    "CONTEXT:",
    "HINT:",
    "QUERY:",
    "STATEMENT:",
    "LOCATION:",
    "LINE ",
    "NOTICE:",
    "WARNING:",
    "INFO:",
    "LOG:",
    "DEBUG:",
];

/// Warnings of the server itself about the session, which it ends at once: `quickdie` of its `postgres.c`.
const LAST_WORDS: &[&str] = &[
    "WARNING:  terminating connection due to immediate shutdown command",
    "WARNING:  terminating connection because of crash of another server process",
];

/// The same of the programs.
const QUOTING_WORDS: &[&str] = &[
    "hint: ",
    "warning: ",
    "detail: Query was: ",
    "detail: Command was: ",
    "query was: ",
    "The command was: ",
];

/// The words of one program.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Said<'a> {
    /// Lines of the program and of the server about the session: whatever failed no statement.
    pub(super) session: Vec<&'a str>,
    /// The messages of failed statements, without `ERROR:`.
    pub(super) statements: Vec<&'a str>,
    /// Whether a script was at work, so that the session stood.
    pub(super) is_in_script: bool,
}

#[derive(Clone, Copy)]
enum Part {
    Session,
    /// What goes on with the message of a statement, which may be a function's own words.
    Statement,
    Quote,
}

/// Takes the lines of a program's standard error apart.
pub(super) fn read<'a>(lines: impl Iterator<Item = &'a str>) -> Said<'a> {
    let mut said = Said::default();
    let mut part = Part::Session;
    for line in lines {
        let begins = begins(line);
        part = begins.unwrap_or(part);
        match part {
            Part::Session => said.session.push(line),
            Part::Statement if begins.is_some() => said.statements.extend(message(line)),
            Part::Statement | Part::Quote => {}
        }
        said.is_in_script |= line.starts_with("psql:<stdin>:");
    }
    said.is_in_script |= !said.statements.is_empty();
    said
}

/// Tells what a line begins; none where it goes on with the one before it.
fn begins(line: &str) -> Option<Part> {
    let own = own(line);
    let text = own.map_or(line, |(_, text)| text);
    let begins_with = |labels: &[&str]| labels.iter().any(|label| text.starts_with(label));
    if own.is_none() && LAST_WORDS.contains(&line) {
        return Some(Part::Session);
    }
    if begins_with(QUOTING_LABELS) || own.is_some() && begins_with(QUOTING_WORDS) {
        return Some(Part::Quote);
    }
    if let Some((before, _)) = text.split_once("ERROR:  ")
        && (own.is_some() || before.is_empty())
    {
        // A pooler refuses a login by an ERROR. Of `psql`, what names no line of the script is about the connection.
        let is_login = before.contains("connection to ")
            || before.contains("could not connect")
            || own.is_some_and(|(name, _)| name == "psql");
        return Some(if is_login {
            Part::Session
        } else {
            Part::Statement
        });
    }
    let is_of_session = text.starts_with("FATAL:") || text.starts_with("PANIC:");
    (is_of_session || own.is_some()).then_some(Part::Session)
}

/// Splits a program's own line: its name, and the line of the script where one is named, from the text.
fn own(line: &str) -> Option<(&str, &str)> {
    let (name, text) = line.split_once(": ")?;
    let program = name.split(':').next()?;
    PROGRAMS.contains(&program).then_some((name, text))
}

fn message(line: &str) -> Option<&str> {
    line.split_once("ERROR:  ").map(|(_, message)| message)
}

/// Returns a line without what stands in quotation marks.
pub(super) fn without_quoted(line: &str) -> String {
    let pieces = line.split('"').enumerate();
    let kept = pieces.map(|(at, piece)| if at % 2 == 0 { piece } else { "" });
    kept.collect::<Vec<_>>().join("\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_statements_and_sessions_are_told_apart() {
        let text = "psql:<stdin>:9: NOTICE:  Connection refused\n\
                    psql:<stdin>:12: ERROR:  duplicate key value violates unique constraint \"logs_msg_key\"\n\
                    DETAIL:  Key (msg)=(Connection refused\nFATAL is no label) already exists.\n\
                    CONTEXT:  COPY logs, line 3\n\
                    FATAL:  terminating connection due to administrator command\n\
                    server closed the connection unexpectedly\n\
                    psql:<stdin>:13: error: connection to server was lost";
        let said = read(text.lines());
        assert_eq!(
            said.statements,
            ["duplicate key value violates unique constraint \"logs_msg_key\""]
        );
        assert_eq!(
            said.session,
            [
                "FATAL:  terminating connection due to administrator command",
                "server closed the connection unexpectedly",
                "psql:<stdin>:13: error: connection to server was lost",
            ]
        );
        assert!(said.is_in_script);
    }

    #[test]
    fn a_login_that_a_pooler_refuses_by_an_error_is_of_the_session() {
        for line in [
            "psql: error: connection to server at \"h\" (192.0.2.1), port 6432 failed: ERROR:  no such user: app",
            "psql: ERROR:  no such user: app",
            "pg_dump: error: connection to database \"d\" failed: ERROR:  no such user: app",
        ] {
            assert_eq!(read([line].into_iter()).session, [line]);
        }
        let query = "pg_dump: error: query failed: ERROR:  permission denied for table t";
        assert_eq!(
            read([query].into_iter()).statements,
            ["permission denied for table t"]
        );
    }

    #[test]
    fn quoted_names_are_left_out() {
        let line = "the table \"Connection refused\" of \"a\"";
        assert_eq!(without_quoted(line), "the table \"\" of \"\"");
        assert_eq!(without_quoted("plain"), "plain");
    }
}
