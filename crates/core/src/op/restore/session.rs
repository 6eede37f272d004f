//! The sessions of a restore: the one place that starts `psql` for it, feeds it a script, watches it, asks, commits or
//! rolls back, and finds out what became of a COMMIT whose answer was lost.
//!
//! `psql` takes the end of its input for the end of the script, so its input lives until it is gone ([`Feed`] holds it,
//! too): only a commit or a roll-back closes it.

use std::future::Future;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::Limits;
use super::feed::unreadable;
use super::sink::{Aside, Block, Broken, Sink};
use super::source::open_file;
use super::stall::{Pulse, Watchdog};
use crate::context::Context;
use crate::copies::listing::storage_failure;
use crate::copies::{Fault as Reading, Ranged, Seen, Stored, Tap, threads};
use crate::encryption::Identities;
use crate::postgres::databases::{end_sessions, fate_of};
use crate::postgres::error::Error;
use crate::postgres::feed::{Answers, Feed, FeedRequest};
use crate::postgres::psql::{Psql, lock_timeout_ms};
use crate::stream::pipeline::Progress;
use crate::stream::read::read_dump;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::restore::filter::{HeldBack, LateStatement};
use pgkeep_model::restore::script::{Asks, Ending, Rows, Script, Step};
use pgkeep_model::scan::{Scan, TextEncoding};
use pgkeep_model::text_form::TextForm;

pub(crate) use crate::postgres::databases::Fate;

/// Id of the failure of a program that is gone; what it said is better.
const GONE: &str = "psql_ended";

/// How long a program that is gone, or is not, may take to say why.
const LAST_WORDS: Duration = Duration::from_secs(10);
const LAST_WORDS_OF_THE_LIVING: Duration = Duration::from_millis(200);

/// A dump without a manifest may not unpack to more than this beside [`MAX_RATIO`] times its size.
const FREE_BYTES: u64 = 1 << 30;

/// SQL of equal rows packs to a hundredth; files that unpack to a thousand times their size are made to do so.
const MAX_RATIO: u64 = 500;

const UTF8: &str = "\nSET client_encoding = 'UTF8';\n";

/// Where the sessions of one restore go, and what holds for each of them.
pub(super) struct Sessions<'a> {
    /// What is being done, such as "restore into `app@db/shop`".
    pub doing: String,
    pub psql: &'a Psql,
    /// Looks after the sessions, and sees at least as much as they do.
    pub overseer: &'a Psql,
    /// The role of the sessions, where a superuser stands beside them as the overseer.
    pub plain_role: Option<&'a str>,
    /// Name that each session has on the server.
    pub application: &'a str,
    pub server_major: u32,
    /// Encoding of the dump's text.
    pub encoding: &'a str,
    /// Time zone that the dump was written in.
    pub time_zone: &'a str,
    /// Text form of the dump's values, as far as it is known before.
    pub form: &'a TextForm,
    /// Whether the database was there before and is never dropped, so that the fate of the transaction matters.
    pub is_lasting: bool,
    pub limits: Limits,
    /// What moves, for the watchdog.
    pub pulse: Arc<Pulse>,
    /// What moves, for anyone who shows it.
    pub progress: Arc<Progress>,
    pub context: &'a Context,
}

/// What the text and the rows of a script come from.
pub(super) struct Supply<'a> {
    pub from: From<'a>,
    /// Encoding of the dump's text.
    pub encoding: TextEncoding,
    /// Threads that decompress, for each session.
    pub threads: usize,
}

/// Where a dump lies.
pub(super) enum From<'a> {
    /// One storage's copy of a backup, and how it is read by parts.
    Copy(&'a Stored, usize, Option<&'a Ranged<'a>>),
    /// A plain dump that was proven, and what opens it.
    File(&'a Path, &'a Arc<Identities>),
    /// Standard input, and what opens it.
    Pipe(&'a Arc<Identities>),
}

impl<'a> Supply<'a> {
    pub(super) fn new(from: From<'a>, encoding: TextEncoding) -> Self {
        Self {
            from,
            encoding,
            threads: threads(),
        }
    }
}

/// What was handed on.
#[derive(Debug, Default)]
pub(super) struct Handed {
    /// What each text that is whole by itself held.
    pub scans: Vec<Scan>,
    /// What of them was left out that the target does not have.
    pub lost: Vec<String>,
    /// What of them was held back. What hides rows is done by a session whose database is never dropped.
    pub held_back: HeldBack,
    /// What waits for a superuser.
    pub late: Vec<LateStatement>,
    /// Stored bytes that were read by parts.
    pub read_bytes: u64,
    /// What was seen of a dump that was read as a whole.
    pub seen: Option<Arc<Seen>>,
}

/// Holds what a session does against what is known.
pub(super) trait Judge: Send {
    /// Holds a text that ended, whole by itself, against what is known of it, before anything behind it is carried out.
    fn text_ended(&mut self, _scan: &Scan) -> Result<()> {
        Ok(())
    }

    /// Proves what was handed on, and says what to ask of the server; none where nothing is asked.
    fn prove(&mut self, handed: &Handed) -> Result<Option<Asks>>;

    /// Takes the answers. What is wrong with them undoes the transaction.
    fn judge(&mut self, answers: Answers) -> Result<()>;

    /// Returns the failure of a dump that cannot be handed on.
    fn broken(&self, broken: Broken) -> Failure;

    /// Returns the failure of what the server or the program said.
    fn refused(&self, error: &Error) -> Failure;
}

/// Why a restore came to nothing, and what became of its transaction.
pub(super) struct Failed {
    pub failure: Failure,
    pub fate: Fate,
    /// Why it cannot be seen whether the session is gone.
    pub stays: Option<Error>,
    /// Stored bytes that were read by parts.
    pub read_bytes: u64,
    /// Whether the last steps were carried out: no rollback takes back that sequences moved.
    pub is_commit_sent: bool,
}

/// How far a session came, for those who clean up behind it.
#[derive(Default)]
struct Track {
    /// Number of the transaction.
    transaction: OnceLock<String>,
    is_commit_sent: AtomicBool,
    read_bytes: AtomicU64,
}

/// Why steps ended early.
enum Fault {
    Failure(Failure),
    Broken(Broken),
    Stopped,
}

/// Lets the thread end that reads, whichever way its waiting ends.
struct GiveUp(Arc<Seen>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

impl Sessions<'_> {
    /// Carries out one script by itself: watched, and with its transaction's fate where it fails.
    pub(super) async fn one(
        &self,
        script: Script,
        supply: &Supply<'_>,
        judge: &mut dyn Judge,
    ) -> std::result::Result<Handed, Failed> {
        let track = Track::default();
        let stop = self.context.stop.token();
        let done = self
            .watched(self.carry_out(script, supply, judge, stop, &track))
            .await;
        match done {
            Ok(handed) => Ok(handed),
            // What a program says while it is made to end is of no interest.
            Err(_) if self.context.stop.is_requested() => {
                Err(self.settle(self.stopped(), &track).await)
            }
            Err(failure) => Err(self.settle(failure, &track).await),
        }
    }

    /// Carries out one of several scripts, in a database that is dropped where any of them fails. The caller watches
    /// them all, and ends them by `halt`.
    pub(super) async fn one_of_many(
        &self,
        script: Script,
        supply: &Supply<'_>,
        judge: &mut dyn Judge,
        halt: &CancellationToken,
    ) -> Result<Handed> {
        self.carry_out(script, supply, judge, halt, &Track::default())
            .await
    }

    /// Ends work that stands still, or that waits too long for another session's lock: a session that waits for a lock
    /// keeps all later ones from the table. `psql` ends with what started it.
    pub(super) async fn watched<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let counted = Arc::clone(&self.progress);
        self.pulse.follow(move || counted.raw_bytes());
        let watchdog = Watchdog {
            psql: self.overseer,
            application: self.application,
            limits: self.limits,
            pulse: &self.pulse,
            clock: &*self.context.clock,
        };
        let what = self.what();
        tokio::select! {
            done = work => done,
            failure = watchdog.stands_still(&what, self.context.stop.token()) => Err(failure),
        }
    }

    fn what(&self) -> String {
        format!("{} failed", self.doing)
    }

    async fn carry_out(
        &self,
        script: Script,
        supply: &Supply<'_>,
        judge: &mut dyn Judge,
        halt: &CancellationToken,
        track: &Track,
    ) -> Result<Handed> {
        let (key, prelude) = (self.context.clock.hex(8), self.prelude(&script.before));
        let request = FeedRequest {
            psql: self.psql,
            application: self.application,
            one_transaction: script.one_transaction,
            server_major: self.server_major,
            time_zone: self.time_zone,
            form: self.form,
            key: &key,
            prelude: &prelude,
            ending: &script.behind,
        };
        let mut feed = request
            .start(halt)
            .await
            .map_err(|error| judge.refused(&error))?;
        let aside = self.aside(&request, &mut feed, halt);
        let sink = Sink::new(feed.take_input(), &script.rules, &self.progress).with_aside(aside);
        let mut handed = Handed::default();
        let (steps, mut last_steps) = (script.steps, script.last);
        let (mut sink, done) = self
            .go(steps, supply, sink, &mut handed, judge, &feed, halt)
            .await;
        let proven = match done {
            Ok(()) => judge.prove(&handed),
            Err(fault) => Err(self.failure(fault, judge)),
        };
        let asks = match proven {
            Ok(asks) => asks,
            Err(failure) => return Err(self.end(&feed, failure, judge).await),
        };
        if let Some(asks) = asks {
            let (back, answered) = self
                .ask(&request, &asks, sink, &mut feed, halt, track)
                .await;
            sink = back;
            let judged = match answered {
                Ok(answers) => judge.judge(answers),
                Err(fault) => Err(self.failure(fault, judge)),
            };
            if let Err(failure) = judged {
                return Err(self.end(&feed, failure, judge).await);
            }
        }
        if self.is_lasting && !handed.held_back.behind.is_empty() {
            let behind = std::mem::take(&mut handed.held_back.behind).join("\n");
            last_steps.insert(0, Step::Own(format!("{UTF8}{behind}\n")));
        }
        track.read_bytes.store(handed.read_bytes, Ordering::Relaxed);
        let mut last = Handed::default();
        let (sink, done) = self
            .go(last_steps, supply, sink, &mut last, judge, &feed, halt)
            .await;
        let sink = match (done, sink) {
            (Ok(()), Some(sink)) if !halt.is_cancelled() => sink,
            (done, _sink) => {
                let fault = done.err().unwrap_or(Fault::Stopped);
                let failure = self.failure(fault, judge);
                return Err(self.end(&feed, failure, judge).await);
            }
        };
        let ended = match script.ending {
            Ending::Commit => {
                track.is_commit_sent.store(true, Ordering::Relaxed);
                feed.commit(sink.into_input()).await
            }
            Ending::RollBack => feed.roll_back(sink.into_input()).await,
        };
        handed.late.append(&mut last.late);
        match ended {
            Ok(_) => Ok(handed),
            Err(_) if halt.is_cancelled() => Err(self.stopped()),
            Err(error) => Err(judge.refused(&error)),
        }
    }

    /// What only a superuser may make is made beside the session. Where the database stays, all is one transaction,
    /// whose things nobody else sees.
    fn aside(
        &self,
        request: &FeedRequest<'_>,
        feed: &mut Feed,
        halt: &CancellationToken,
    ) -> Option<Aside> {
        let role = self.plain_role.filter(|_| !self.is_lasting)?;
        Some(Aside {
            psql: self.overseer.clone(),
            role: role.to_owned(),
            reply: request.reply(),
            replies: feed.take_replies(),
            one_transaction: request.one_transaction,
            stop: halt.clone(),
            runtime: Handle::current(),
        })
    }

    /// In a database that others use, the server itself ends a wait for a lock, should pgkeep be killed meanwhile.
    ///
    /// The watchdog comes first, because it can name who holds the lock: it needs two looks more than the limit, each a
    /// sixth of it. The header of a dump would set the server's limit to none again, so the filter leaves that out
    /// (`Rules::keeps_limits`).
    fn prelude(&self, before: &str) -> String {
        if !self.is_lasting {
            return before.to_owned();
        }
        let timeout_ms = limit_of_server(self.limits);
        format!("SET lock_timeout = {timeout_ms};\n{before}")
    }

    /// Carries out steps for as long as the program lives and no stop is asked for. The sink is lost with either.
    #[expect(
        clippy::too_many_arguments,
        reason = "what a session works with, and what ends it"
    )]
    async fn go(
        &self,
        steps: Vec<Step>,
        supply: &Supply<'_>,
        sink: impl Into<Option<Sink>>,
        handed: &mut Handed,
        judge: &mut dyn Judge,
        feed: &Feed,
        halt: &CancellationToken,
    ) -> (Option<Sink>, std::result::Result<(), Fault>) {
        let Some(sink) = sink.into() else {
            return (None, Err(Fault::Broken(Broken::Gone)));
        };
        tokio::select! {
            (sink, done) = self.carry_out_steps(steps, supply, sink, handed, judge) => (Some(sink), done),
            _ = feed.ended() => (None, Err(Fault::Broken(Broken::Gone))),
            () = halt.cancelled() => (None, Err(Fault::Stopped)),
        }
    }

    async fn carry_out_steps(
        &self,
        steps: Vec<Step>,
        supply: &Supply<'_>,
        mut sink: Sink,
        handed: &mut Handed,
        judge: &mut dyn Judge,
    ) -> (Sink, std::result::Result<(), Fault>) {
        for step in steps {
            let (back, done) = self.carry_out_step(step, supply, sink, handed, judge).await;
            sink = back;
            let done = done.and_then(|()| match sink.take_broken() {
                Some(broken) => Err(Fault::Broken(broken)),
                None => Ok(()),
            });
            if done.is_err() {
                return (sink, done);
            }
        }
        (sink, Ok(()))
    }

    async fn carry_out_step(
        &self,
        step: Step,
        supply: &Supply<'_>,
        mut sink: Sink,
        handed: &mut Handed,
        judge: &mut dyn Judge,
    ) -> (Sink, std::result::Result<(), Fault>) {
        match step {
            Step::Own(sql) => (blocking(sink, move |sink| sink.say(&sql)).await, Ok(())),
            Step::Text(text) => (blocking(sink, move |sink| sink.pass(&text)).await, Ok(())),
            Step::End => match sink.turn(&mut handed.lost, &mut handed.held_back) {
                Ok(scan) => {
                    let judged = judge.text_ended(&scan).map_err(Fault::Failure);
                    handed.scans.push(scan);
                    handed.late.extend(sink.take_late());
                    (sink, judged)
                }
                Err(broken) => (sink, Err(Fault::Broken(broken))),
            },
            Step::Whole => self.hand_on_whole(supply, sink, handed).await,
            Step::Part(block) => {
                let From::Copy(_, _, Some(ranged)) = supply.from else {
                    return (sink, Err(self.cannot_be_cut()));
                };
                let take = |sink: &mut Sink, text: &[u8]| {
                    sink.pass(text);
                    if sink.is_broken() {
                        Err(crate::stream::pipeline::Closed)
                    } else {
                        Ok(())
                    }
                };
                let (sink, count, read) = ranged.hand(block, supply.threads, sink, take).await;
                handed.read_bytes += count;
                let done = self.read(ranged, read, None, &sink);
                (sink, done)
            }
            Step::Rows(all) => match supply.from {
                From::Copy(_, _, Some(ranged)) => {
                    self.hand_on_rows(ranged, supply, all, sink, handed).await
                }
                From::File(path, identities) => {
                    self.hand_on_rows_of_file(path, identities, supply, all, sink)
                        .await
                }
                From::Copy(..) | From::Pipe(_) => (sink, Err(self.cannot_be_cut())),
            },
        }
    }

    fn cannot_be_cut(&self) -> Fault {
        let message = format!("{}: its dump cannot be read in parts", self.what());
        Fault::Failure(Failure::new(Kind::Unexpected, "cannot_be_cut", message))
    }

    /// Judges how a reading by parts ended; `of` names what was read.
    fn read(
        &self,
        ranged: &Ranged<'_>,
        read: std::result::Result<(), Reading>,
        of: Option<String>,
        sink: &Sink,
    ) -> std::result::Result<(), Fault> {
        match read {
            // The sink knows why it took no more, or that somebody wants to stop.
            Ok(()) | Err(Reading::Left) => Ok(()),
            Err(_) if sink.is_gone() => Ok(()),
            Err(Reading::Storage(error)) => {
                Err(Fault::Failure(storage_failure(ranged.what(), &error)))
            }
            Err(Reading::Damaged(why)) => Err(Fault::Broken(Broken::Damaged { of, why })),
        }
    }

    async fn hand_on_whole(
        &self,
        supply: &Supply<'_>,
        sink: Sink,
        handed: &mut Handed,
    ) -> (Sink, std::result::Result<(), Fault>) {
        type Input = Box<dyn Read + Send>;
        let (input, identities, length): (Input, _, _) = match supply.from {
            From::Copy(stored, at, _) => match stored.read(at).await {
                Ok(reader) => {
                    let length = Some(stored.manifest.dump.bytes);
                    (Box::new(reader), stored.identities(at), length)
                }
                Err(failure) => return (sink, Err(Fault::Failure(failure))),
            },
            From::File(path, identities) => match open_file(path) {
                Ok(file) => (Box::new(file), identities, None),
                Err(failure) => return (sink, Err(Fault::Failure(failure))),
            },
            From::Pipe(identities) => (Box::new(std::io::stdin()), identities, None),
        };
        let (identities, is_hashed) = (Arc::clone(identities), length.is_some());
        let (tap, seen) = Tap::new(input, is_hashed);
        let _give_up = GiveUp(Arc::clone(&seen));
        handed.seen = Some(Arc::clone(&seen));
        let watch = Arc::clone(&seen);
        // It ends with the dump, with `psql`, or with the wish to stop; a pipe that never gives another byte is left to
        // the end of the program.
        let moving = tokio::task::spawn_blocking(move || {
            let mut sink = sink;
            let read = read_dump(tap, &identities, &mut |piece| {
                sink.pass(piece);
                let free = || FREE_BYTES.max(seen.bytes().saturating_mul(MAX_RATIO));
                if sink.position() > length.unwrap_or_else(free) {
                    sink.break_off(Broken::TooLong);
                }
                if sink.is_broken() {
                    seen.give_up();
                }
            });
            (sink, read)
        });
        let (sink, read) = moving.await.expect("moving a dump does not panic");
        let done = match read {
            Err(error) if !sink.is_broken() => {
                let failure = unreadable(&self.what(), &error, &watch);
                Err(Fault::Broken(Broken::Unreadable(Box::new(failure))))
            }
            _ => Ok(()),
        };
        (sink, done)
    }

    async fn hand_on_rows(
        &self,
        ranged: &Ranged<'_>,
        supply: &Supply<'_>,
        all: Vec<Rows>,
        mut sink: Sink,
        handed: &mut Handed,
    ) -> (Sink, std::result::Result<(), Fault>) {
        for rows in all {
            for block in &rows.blocks {
                let under_way = Block::new(sink, &rows.of, &rows.into, supply.encoding);
                let (back, count, read) = ranged
                    .hand(*block, supply.threads, under_way, Block::take)
                    .await;
                handed.read_bytes += count;
                let is_read = read.is_ok();
                let of = format!("`{}`", rows.of);
                let done = self.read(ranged, read, Some(of), back.sink());
                sink = if is_read { back.end() } else { back.leave() };
                if done.is_err() || sink.is_broken() {
                    return (sink, done);
                }
            }
        }
        (sink, Ok(()))
    }

    async fn hand_on_rows_of_file(
        &self,
        path: &Path,
        identities: &Arc<Identities>,
        supply: &Supply<'_>,
        all: Vec<Rows>,
        sink: Sink,
    ) -> (Sink, std::result::Result<(), Fault>) {
        let opened = match open_file(path) {
            Ok(file) => file,
            Err(failure) => return (sink, Err(Fault::Failure(failure))),
        };
        let (tap, seen) = Tap::new(opened, false);
        let _give_up = GiveUp(Arc::clone(&seen));
        let (watch, encoding) = (Arc::clone(&seen), supply.encoding);
        let identities = Arc::clone(identities);
        // It ends with the file, with `psql`, or with the wish to stop.
        let moving = tokio::task::spawn_blocking(move || {
            let mut cut = Cut::new(&all, encoding, sink);
            let read = read_dump(tap, &identities, &mut |piece| {
                if cut.take(piece).is_err() {
                    seen.give_up();
                }
            });
            (cut.end(), read)
        });
        let (sink, read) = moving.await.expect("reading does not panic");
        let done = match read {
            // A sink that took no more says why itself.
            Err(error) if !sink.is_broken() => {
                let what = format!("reading `{}` again", path.display());
                let failure = unreadable(&what, &error, &watch);
                Err(Fault::Failure(failure))
            }
            _ => Ok(()),
        };
        (sink, done)
    }

    /// Asks what a judge wants to know, behind the number of the transaction.
    async fn ask(
        &self,
        request: &FeedRequest<'_>,
        asks: &Asks,
        sink: Option<Sink>,
        feed: &mut Feed,
        halt: &CancellationToken,
        track: &Track,
    ) -> (Option<Sink>, std::result::Result<Answers, Fault>) {
        let Some(sink) = sink else {
            return (None, Err(Fault::Broken(Broken::Gone)));
        };
        let sql = format!(
            "{UTF8}{}SELECT pg_catalog.txid_current();\n{}{}",
            request.notes(),
            asks.notes,
            request.questions(
                &asks.tables,
                asks.form.as_ref().unwrap_or(self.form),
                asks.encoding.as_deref().unwrap_or(self.encoding)
            )
        );
        let asking = async {
            // It ends with the questions, or with `psql`.
            let sink = blocking(sink, move |sink| sink.say(&sql)).await;
            (sink, feed.answers().await)
        };
        let (sink, answers) = tokio::select! {
            asked = asking => asked,
            () = halt.cancelled() => return (None, Err(Fault::Stopped)),
        };
        let Some(mut answers) = answers else {
            return (Some(sink), Err(Fault::Broken(Broken::Gone)));
        };
        let notes = answers.notes.trim_start();
        let (transaction, notes) = notes.split_once('\n').unwrap_or((notes, ""));
        let _ = track.transaction.set(transaction.trim().to_owned()); // asked once
        answers.notes = notes.to_owned();
        (Some(sink), Ok(answers))
    }

    fn failure(&self, fault: Fault, judge: &dyn Judge) -> Failure {
        match fault {
            Fault::Stopped => self.stopped(),
            Fault::Failure(failure) => failure,
            Fault::Broken(Broken::Gone) => {
                let message = format!("{}: `psql` ended early", self.what());
                Failure::new(Kind::Unexpected, GONE, message)
            }
            Fault::Broken(broken) => judge.broken(broken),
        }
    }

    fn stopped(&self) -> Failure {
        self.context.stop.failure(&self.doing)
    }

    /// Ends `psql`, and the transaction with it. Its own words are better than ours about a pipe that broke.
    async fn end(&self, feed: &Feed, failure: Failure, judge: &dyn Judge) -> Failure {
        let is_stopped = self.context.stop.is_requested();
        let patience = if failure.id == GONE && !is_stopped {
            LAST_WORDS
        } else {
            LAST_WORDS_OF_THE_LIVING
        };
        // A refusal or a failed proof is a verdict, whatever `psql` ran into meanwhile.
        let is_about_the_pipe = failure.id == GONE || failure.kind == Kind::Storage;
        let gone = tokio::time::timeout(patience, feed.ended()).await;
        let failure = match gone.map(|ended| ended.into_result()) {
            Ok(Err(error)) if !is_stopped && is_about_the_pipe => judge.refused(&error),
            _ => failure,
        };
        feed.stop().await;
        failure
    }

    /// Finds out what became of a transaction. Where the database is dropped or nothing was sent, nothing has to be
    /// asked.
    async fn settle(&self, failure: Failure, track: &Track) -> Failed {
        if !self.is_lasting {
            return Failed {
                failure,
                fate: Fate::Undone,
                stays: None,
                read_bytes: 0,
                is_commit_sent: false,
            };
        }
        let no_stop = self.context.stop.late();
        // A server may be busy with a statement of a client that is gone, and hold its locks until then.
        let stays = end_sessions(self.overseer, self.application, &no_stop)
            .await
            .err();
        let is_sent = track.is_commit_sent.load(Ordering::Relaxed);
        let fate = match track.transaction.get() {
            _ if !is_sent => Fate::Undone,
            Some(transaction) => fate_of(self.overseer, transaction, &no_stop).await,
            None => Fate::Unknown,
        };
        Failed {
            failure,
            fate,
            stays,
            read_bytes: track.read_bytes.load(Ordering::Relaxed),
            is_commit_sent: is_sent,
        }
    }
}

/// How long the server itself lets a session of ours wait for a lock where others work, in milliseconds: longer than
/// the watchdog, which can name who holds it.
pub(super) fn limit_of_server(limits: Limits) -> i32 {
    let wait = limits.lock_wait;
    lock_timeout_ms(wait + wait / 2 + Duration::from_secs(5))
}

/// Cuts the rows of tables out of a dump that is read from its beginning.
struct Cut {
    /// In the order of the dump, the next one last.
    left: Vec<(pgkeep_model::scan::Block, Rows)>,
    encoding: TextEncoding,
    position: u64,
    /// One of both has the sink.
    idle: Option<Sink>,
    under_way: Option<Block>,
}

impl Cut {
    fn new(all: &[Rows], encoding: TextEncoding, sink: Sink) -> Self {
        let mut left = Vec::new();
        for rows in all {
            left.extend(rows.blocks.iter().map(|block| (*block, rows.clone())));
        }
        left.sort_unstable_by_key(|(block, _)| std::cmp::Reverse(block.offset));
        Self {
            left,
            encoding,
            position: 0,
            idle: Some(sink),
            under_way: None,
        }
    }

    /// Takes the next piece of the dump.
    fn take(&mut self, piece: &[u8]) -> std::result::Result<(), crate::stream::pipeline::Closed> {
        let (from, to) = (self.position, self.position + piece.len() as u64);
        self.position = to;
        while let Some((block, rows)) = self.left.last()
            && block.offset < to
        {
            let end = block.offset + block.length;
            let (idle, encoding) = (&mut self.idle, self.encoding);
            let mut under_way = self.under_way.take().unwrap_or_else(|| {
                let sink = idle.take().expect("the sink is in one place");
                Block::new(sink, &rows.of, &rows.into, encoding)
            });
            let start = block.offset.max(from) - from;
            let taken = under_way.take(&piece[start as usize..(end.min(to) - from) as usize]);
            if end > to && taken.is_ok() {
                self.under_way = Some(under_way);
                return Ok(());
            }
            self.idle = Some(under_way.end());
            self.left.pop();
            taken?;
        }
        Ok(())
    }

    fn end(self) -> Sink {
        let sink = self.under_way.map(Block::end).or(self.idle);
        sink.expect("the sink is in one place")
    }
}

/// Works on a thread that may block; where the program is gone its own end says why.
async fn blocking(mut sink: Sink, work: impl FnOnce(&mut Sink) + Send + 'static) -> Sink {
    let working = tokio::task::spawn_blocking(move || {
        work(&mut sink);
        sink
    });
    working.await.expect("writing to a pipe does not panic")
}
