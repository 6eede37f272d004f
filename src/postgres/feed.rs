//! Feeds SQL to `psql`, which takes the end of its input for the end of the script.
//!
//! So nobody lets it see the end before the whole dump was proven: all is one transaction whose COMMIT only
//! [`Feed::commit`] writes, and a feed that is dropped or stopped kills `psql` before its input is closed.

use std::io::{self, PipeWriter, Read, Write};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::error::Error;
use super::process::{Ended, Running, Stop};
use super::programs::Version;
use super::psql::{PREAMBLE, Psql};

/// The first minor of each major whose `psql` knows `\restrict`; from 18 on all do.
const KNOWS_RESTRICT: &[(u32, u32)] = &[(13, 22), (14, 19), (15, 14), (16, 10), (17, 6)];

/// A program that does not tell its version in this time is not one that we can use.
const VERSION_TIMEOUT: Duration = Duration::from_secs(5);

/// How a dump is fed.
#[derive(Clone, Debug)]
pub struct FeedRequest<'a> {
    /// Where to.
    pub psql: &'a Psql,
    /// Name that the session has on the server.
    pub application: &'a str,
    /// Whether all is one transaction.
    pub one_transaction: bool,
    /// Major version of the server.
    pub server_major: u32,
    /// Random letters and digits that close `psql`'s restricted mode.
    pub key: &'a str,
}

/// A `psql` that takes a dump. Dropping it kills the program, which undoes an open transaction.
pub struct Feed {
    // The program is dropped, and so killed, before its input is closed.
    running: Running,
    input: Option<PipeWriter>,
    one_transaction: bool,
}

impl FeedRequest<'_> {
    /// Starts `psql` and opens the transaction.
    pub async fn start(&self, cancel: &CancellationToken) -> Result<Feed, Error> {
        let psql = self.psql.clone().with_application_name(self.application);
        let version = psql.version(cancel, VERSION_TIMEOUT).await;
        let mut running = psql
            .program()
            .args(["-f", "-"])
            .piped_input()
            .spawn(cancel)?;
        let mut output = running.take_output();
        // It ends with the program; what the dump's SELECTs print is of no interest, but must not fill the pipe.
        tokio::task::spawn_blocking(move || {
            let mut buffer = vec![0; 64 << 10];
            while matches!(output.read(&mut buffer), Ok(1..)) {}
        });
        let mut input = running.take_input();
        let opening = self.opening(version.is_some_and(knows_restrict));
        if let Some(input) = &mut input {
            // A program that is gone already says why at its end.
            let _ = input.write_all(opening.as_bytes());
        }
        Ok(Feed {
            running,
            input,
            one_transaction: self.one_transaction,
        })
    }

    /// In restricted mode `psql` itself refuses commands: a second line behind the filter.
    fn opening(&self, can_restrict: bool) -> String {
        let restrict = if can_restrict {
            format!("\\restrict {}\n", self.key)
        } else {
            String::new()
        };
        let timeout = if self.server_major >= 17 {
            "SET transaction_timeout = 0;\n"
        } else {
            ""
        };
        let begin = if self.one_transaction { "BEGIN;\n" } else { "" };
        format!("{restrict}{PREAMBLE}{timeout}RESET client_encoding;\n{begin}")
    }
}

impl Feed {
    /// Returns what takes the SQL, for a thread that may block. It must come back by [`Feed::commit`]; a thread that
    /// fails must keep it until the program was stopped.
    pub fn take_input(&mut self) -> PipeWriter {
        self.input.take().expect("the input is taken once")
    }

    /// Ends the transaction and the program: all that was fed is there when this returns without an error.
    pub async fn commit(self, mut input: PipeWriter) -> Result<Vec<String>, Error> {
        let ending: &[u8] = if self.one_transaction {
            b"\nCOMMIT;\n"
        } else {
            b"\n"
        };
        let written = tokio::task::spawn_blocking(move || -> io::Result<()> {
            input.write_all(ending)?;
            drop(input);
            Ok(())
        });
        // Where the program is gone its own words say why.
        let _ = written.await.expect("writing to a pipe does not panic");
        self.running.wait().await.into_result()
    }

    /// Waits for the program's end, which before [`Feed::commit`] is always a failure.
    pub async fn ended(&self) -> Ended {
        self.running.wait().await
    }

    /// Ends the program, whatever it is doing; returns when it is gone.
    pub async fn stop(&self) -> Ended {
        self.running.stopper().stop(Stop::Interrupted).await;
        self.running.wait().await
    }
}

fn knows_restrict(version: Version) -> bool {
    version.major >= 18
        || KNOWS_RESTRICT
            .iter()
            .any(|&(major, minor)| version.major == major && version.minor >= minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_patched_programs_know_restrict() {
        for (text, knows) in [
            ("15.13", false),
            ("15.14", true),
            ("12.22", false),
            ("17.5", false),
            ("18.0", true),
        ] {
            assert_eq!(
                knows_restrict(Version::parse(text).unwrap()),
                knows,
                "{text}"
            );
        }
    }
}
