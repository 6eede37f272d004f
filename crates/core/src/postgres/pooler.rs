//! Finds out whether a pooler in transaction mode stands between us and the server, before any setting is made.
//!
//! Such a pooler gives a session of the server to whoever has the next statement. Settings of ours would stay in it, for
//! an application to meet them. By its name only a few services' are known; any other shows when a second client asks
//! while a first one is idle: both meet the same session.

use std::io::{self, Read};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::error::{Error, Reason};
use super::process::Output;
use super::psql::Psql;

/// The first answer is a login away.
const FIRST_TIMEOUT: Duration = Duration::from_secs(30);

/// A pooler in session mode whose sessions are all taken lets a second client wait, which one in transaction mode never
/// does for long.
const SECOND_TIMEOUT: Duration = Duration::from_secs(2);

/// It asks and stays, idle between one question and the next. Nothing is set.
const WHO: &str = "SELECT pg_catalog.pg_backend_pid();\n\\watch 2\n";

/// It asks and goes.
const WHO_ELSE: &str = "SELECT pg_catalog.pg_backend_pid( );\n";

/// Refuses a connection whose two clients meet one session.
pub async fn refuse(psql: &Psql, cancel: &CancellationToken) -> Result<(), Error> {
    if psql.is_direct() {
        return Ok(());
    }
    let psql = psql.clone().without_session_settings();
    // It ends with its handle.
    let mut first = psql.program().input(WHO).spawn(cancel)?;
    let mut output = first.take_output();
    let (sender, answer) = oneshot::channel();
    // It ends with the program, which goes on only while somebody reads what it prints.
    tokio::task::spawn_blocking(move || {
        let _ = sender.send(line(&mut output)); // nobody waits where it took too long
        io::copy(&mut output, &mut io::sink())
    });
    let answer = tokio::time::timeout(FIRST_TIMEOUT, answer).await;
    let Ok(Ok(Some(here))) = answer else {
        // It says itself what is wrong; without a word the questions that follow will.
        return match answer {
            Ok(_) => first.wait().await.into_result().map(drop),
            Err(_) => Ok(()),
        };
    };
    let second = psql
        .program()
        .input(WHO_ELSE)
        .run(cancel, SECOND_TIMEOUT, 1 << 10)
        .await;
    let is_same = second.is_ok_and(|there| {
        let there = String::from_utf8_lossy(&there.stdout);
        here.parse::<u32>().is_ok() && there.trim() == here
    });
    if is_same {
        Err(Error::new(Reason::TransactionPooler))
    } else {
        Ok(())
    }
}

/// Reads the first line of what a program prints; none where it ends before.
fn line(output: &mut Output) -> Option<String> {
    let (mut text, mut buffer) = (Vec::new(), [0; 256]);
    loop {
        let count = output.read(&mut buffer).ok().filter(|count| *count > 0)?;
        text.extend_from_slice(&buffer[..count]);
        if let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            return Some(String::from_utf8_lossy(&text[..end]).trim().to_owned());
        }
    }
}
