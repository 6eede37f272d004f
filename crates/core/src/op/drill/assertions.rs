//! Asks a restored database what must hold in it: a query, or an application's own smoke test.

use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::url::url_of;
use super::{ASSERTION_TIMEOUT, Request};
use crate::postgres::environment::redactor;
use crate::postgres::error::{Error, Reason};
use crate::postgres::process::Program;
use crate::postgres::psql::Psql;
use pgkeep_model::connection::Connection;
use pgkeep_model::drill::{Assertion, Expect, Question};
use pgkeep_model::name::printable;
use pgkeep_model::redact::Redactor;

/// Variables by which a smoke test finds the scratch database.
const URL_VARIABLES: [&str; 2] = ["PGKEEP_SCRATCH_URL", "DATABASE_URL"];

/// Most that a smoke test may print; its last lines on stderr are told when it fails.
const MAX_OUTPUT: usize = 64 << 20;

/// Longest answer that is shown.
const MAX_SHOWN: usize = 200;

/// What became of one assertion.
#[derive(Clone, Debug, Serialize)]
pub struct AssertionOutcome {
    /// Its name.
    pub name: String,
    /// Whether it holds.
    pub passed: bool,
    /// What was expected.
    pub expected: String,
    /// What was found, in words.
    pub found: String,
}

/// Asks; a question that cannot be answered does not hold. An error is one of the way there, and no answer.
pub(super) async fn ask(
    assertion: &Assertion,
    request: &Request,
    scratch: &Connection,
    cancel: &CancellationToken,
) -> Result<AssertionOutcome, Error> {
    let (expected, answer) = match &assertion.question {
        Question::Sql { sql, expect } => {
            let answer = query(sql, expect, request, scratch, cancel).await;
            (expect.to_string(), answer)
        }
        Question::Command(command) => {
            let answer = command_of(command, request, scratch, cancel).await;
            ("exit status 0".to_owned(), answer)
        }
    };
    let (passed, found) = match answer {
        Ok((passed, found)) => (passed, found),
        Err(error) if is_of_the_way(&assertion.question, &error) => return Err(error),
        Err(error) => (false, told(&error)),
    };
    Ok(AssertionOutcome {
        name: assertion.name.clone(),
        passed,
        expected,
        found,
    })
}

/// A program's own words about connections are its answer; a query has none where the server was not reached.
fn is_of_the_way(question: &Question, error: &Error) -> bool {
    let is_unreached = matches!(
        error.reason,
        Reason::ConnectionLost | Reason::Unreachable { .. } | Reason::LoginRefused
    );
    matches!(
        error.reason,
        Reason::NotStarted { .. } | Reason::ProgramMissing { .. }
    ) || (is_unreached && matches!(question, Question::Sql { .. }))
}

async fn query(
    sql: &str,
    expect: &Expect,
    request: &Request,
    scratch: &Connection,
    cancel: &CancellationToken,
) -> Result<(bool, String), Error> {
    let found = request.search.find(&request.environment, cancel).await;
    let psql = Psql::new(found.newest()?, &request.environment, scratch);
    // A query without its semicolon would never be sent.
    let printed = psql
        .query(
            &format!("RESET search_path;\n{sql}\n;"),
            cancel,
            ASSERTION_TIMEOUT,
        )
        .await?;
    let answer = String::from_utf8_lossy(&printed);
    let shown: String = printable(answer.trim_end())
        .chars()
        .take(MAX_SHOWN)
        .collect();
    let words = if shown.is_empty() {
        "it answered nothing".to_owned()
    } else {
        format!("it answered {shown}")
    };
    Ok((expect.is_met(&answer), words))
}

async fn command_of(
    command: &[SecretString],
    request: &Request,
    scratch: &Connection,
    cancel: &CancellationToken,
) -> Result<(bool, String), Error> {
    let Some((program, arguments)) = command.split_first() else {
        return Ok((false, "no program is named".to_owned()));
    };
    let mut environment = request.environment.for_connection(scratch);
    let url = url_of(scratch);
    for name in URL_VARIABLES {
        environment.set(name, url.as_str());
    }
    let secrets: Redactor = redactor(scratch);
    let program = Program::new(program.expose_secret(), &environment)
        .args(arguments.iter().map(ExposeSecret::expose_secret))
        .redact(&secrets);
    program.run(cancel, ASSERTION_TIMEOUT, MAX_OUTPUT).await?;
    Ok((true, "exit status 0".to_owned()))
}

fn told(error: &Error) -> String {
    let lines = &error.stderr;
    let worst = lines.iter().find(|line| line.contains("ERROR:"));
    match worst.or(lines.last()) {
        Some(line) => format!("{error}: {}", printable(line)),
        None => error.to_string(),
    }
}
