//! A `psql` that is asked one thing after the other in one session, and whose answers are rows.
//!
//! Each question is one COPY, and a second one behind it prints the line `\.`, which no row can look like. So an answer
//! that came to its end is whole, however it was cut on its way.

use std::io::{self, PipeWriter, Read, Write};
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::error::{Error, Reason};
use super::process::{Output, Running, Stop, Stopper};
use super::psql::{MORE_LIMITS, PREAMBLE, Psql};

/// How much of an answer is handed on at once.
const PIECE_BYTES: usize = 128 * 1024;

/// How long a pipe that gave little is left to fill.
const GATHER: Duration = Duration::from_micros(200);

/// Prints the line behind each answer: a null that is written so. The server carries both out as one message.
const END: &str = " \\; COPY (SELECT NULL) TO STDOUT (NULL '\\.');\n";

/// The line, with the end of the row in front of it.
const END_LINE: &[u8] = b"\n\\.\n";

/// One line of JSON comes as it is: neither of these characters stands in JSON unescaped.
const AS_IT_IS: &str = "(FORMAT csv, QUOTE E'\\001', ESCAPE E'\\001', DELIMITER E'\\002')";

/// A session that is open, and the program that keeps it. Dropping it kills the program, which ends the session.
pub(super) struct Conversation {
    running: Running,
    talk: Option<Talk>,
}

/// Both ends of it, for a plain thread.
pub(super) struct Talk {
    input: PipeWriter,
    output: Output,
}

/// Why an answer did not come.
pub(super) enum Unanswered {
    /// The program ended, or its pipes failed.
    Ended(io::Error),
    /// Whoever takes the answer wants no more.
    Closed,
}

impl Conversation {
    /// Starts `psql`, without any limit on how long a session may take.
    pub(super) fn start(psql: &Psql, cancel: &CancellationToken) -> Result<Self, Error> {
        let mut running = psql
            .program()
            // What failed is told with the statement, which says what was locked.
            .args(["-b", "-f", "-"])
            .piped_input()
            .spawn(cancel)?;
        let output = running.take_output().gather_for(GATHER);
        let input = running.take_input();
        let talk = input.map(|input| Talk { input, output });
        let mut conversation = Self { running, talk };
        if let Some(talk) = &mut conversation.talk {
            // One that is gone says why at its end.
            let _ = talk.say(&format!("{PREAMBLE}{MORE_LIMITS}"));
        }
        Ok(conversation)
    }

    /// Carries SQL out that prints nothing, then asks for what a query gives as one JSON value.
    pub(super) async fn ask_json<T: serde::de::DeserializeOwned + Send + 'static>(
        &mut self,
        sql: String,
        query: &str,
    ) -> Result<T, Error> {
        let question = format!("COPY ({query}) TO STDOUT {AS_IT_IS}");
        let answer = self.ask(sql, question).await?;
        serde_json::from_slice(&answer).map_err(|error| Error {
            program: "psql".into(),
            ..Error::new(Reason::Unreadable(error.to_string()))
        })
    }

    async fn ask(&mut self, sql: String, question: String) -> Result<Vec<u8>, Error> {
        let Some(mut talk) = self.talk.take() else {
            return Err(self.why_ended().await);
        };
        let asked = tokio::task::spawn_blocking(move || {
            let mut answer = Vec::new();
            let asked = talk.say(&sql).map_err(Unanswered::Ended).and_then(|()| {
                talk.ask(&question, &mut |bytes| {
                    answer.extend_from_slice(&bytes);
                    Ok(())
                })
            });
            asked.map(|()| (talk, answer))
        });
        match asked.await.expect("reading a pipe does not panic") {
            Ok((talk, answer)) => {
                self.talk = Some(talk);
                Ok(answer)
            }
            Err(_) => Err(self.why_ended().await),
        }
    }

    /// Hands both ends over, once.
    pub(super) fn take_talk(&mut self) -> Option<Talk> {
        self.talk.take()
    }

    /// Returns a handle that ends the program from elsewhere.
    pub(super) fn stopper(&self) -> Stopper {
        self.running.stopper()
    }

    /// Waits for the program's end, and says how it failed, unless it ended well or was made to.
    pub(super) async fn failure(&self) -> Option<Error> {
        let error = self.running.wait().await.into_result().err()?;
        (error.reason != Reason::Stopped(Stop::Interrupted)).then_some(error)
    }

    /// Waits for the end of a program that should not have ended yet.
    async fn why_ended(&self) -> Error {
        let early = |_| Error {
            program: "psql".into(),
            ..Error::new(Reason::Unreadable("it ended in the middle".to_owned()))
        };
        self.running
            .wait()
            .await
            .into_result()
            .map_or_else(|error| error, early)
    }
}

impl Talk {
    /// Has SQL carried out that prints nothing.
    pub(super) fn say(&mut self, sql: &str) -> io::Result<()> {
        self.input.write_all(sql.as_bytes())
    }

    /// Asks by one COPY, and hands the rows over as they come.
    pub(super) fn ask(
        &mut self,
        copy: &str,
        take: &mut dyn FnMut(Bytes) -> Result<(), Unanswered>,
    ) -> Result<(), Unanswered> {
        self.say(&format!("{copy}{END}"))
            .map_err(Unanswered::Ended)?;
        self.output.await_more();
        answer(&mut self.output, take)
    }
}

/// Reads one answer to the line behind it. The program is silent behind that, so it is the end of what was read.
fn answer(
    output: &mut impl Read,
    take: &mut dyn FnMut(Bytes) -> Result<(), Unanswered>,
) -> Result<(), Unanswered> {
    let mut piece = Vec::new();
    let mut is_first = true;
    loop {
        let kept = piece.len();
        piece.resize(PIECE_BYTES, 0);
        let read = output.read(&mut piece[kept..]);
        let count = read.map_err(Unanswered::Ended)?;
        if count == 0 {
            let early = io::Error::new(io::ErrorKind::UnexpectedEof, "`psql` ended early");
            return Err(Unanswered::Ended(early));
        }
        piece.truncate(kept + count);
        if piece.ends_with(END_LINE) || is_first && piece == END_LINE[1..] {
            piece.truncate(piece.len() + 1 - END_LINE.len());
            if !piece.is_empty() {
                take(piece.into())?;
            }
            return Ok(());
        }
        // The line may be cut; so its length stays until more comes.
        let rest = piece.len().saturating_sub(END_LINE.len());
        if rest > 0 {
            let next = piece.split_off(rest);
            take(std::mem::replace(&mut piece, next).into())?;
            is_first = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Gives its bytes in pieces of these lengths.
    struct Cut<'a>(&'a [u8], Vec<usize>);

    impl Read for Cut<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.1.pop().unwrap_or(usize::MAX).max(1);
            let count = length.min(buffer.len()).min(self.0.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn read(bytes: &[u8], cuts: Vec<usize>) -> Option<Vec<u8>> {
        let mut found = Vec::new();
        let read = answer(&mut Cut(bytes, cuts), &mut |bytes| {
            found.extend_from_slice(&bytes);
            Ok(())
        });
        read.ok().map(|()| found)
    }

    #[test]
    fn an_answer_may_be_empty_and_a_cut_one_is_none() {
        assert_eq!(read(b"\\.\n", vec![]).unwrap(), b"");
        assert_eq!(read(b"\\.\n", vec![1, 1, 1]).unwrap(), b"");
        assert_eq!(read(b"\n\\.\n", vec![1, 2]).unwrap(), b"\n");
        for cut in ["", "\\", "\\.", "a\n", "a\n\\.", "\n\n"] {
            assert_eq!(read(cut.as_bytes(), vec![]), None, "{cut:?}");
        }
    }

    proptest! {
        /// Rows as COPY writes them: a backslash is never alone.
        #[test]
        fn rows_come_as_they_are_however_they_are_cut(
            rows in prop::collection::vec("([a.]|\\\\\\\\|\\\\n|\t){0,9}", 0..40),
            cuts in prop::collection::vec(1usize..9, 0..200),
        ) {
            let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
            let whole = format!("{text}\\.\n");
            prop_assert_eq!(read(whole.as_bytes(), cuts).unwrap(), text.as_bytes());
        }
    }
}
