//! A storage: one small object goes there and back, and is gone again whatever happened.

use std::time::Duration;

use bytes::Bytes;
use jiff::SignedDuration;
use tokio::time::timeout;

use super::protection::{self, Seen};
use super::{Line, Request, Verdict};
use crate::clock::MAX_SKEW;
use crate::context::Context;
use crate::op::stored::{NamedStorage, storage_failure};
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::words::{bytes, count, span};
use pgkeep_storage::{Error, Lock, Protection, Removed, Storage, Version};

/// How long a storage has for all of it. It is patient with itself for minutes, which is for backups.
const LIMIT: Duration = Duration::from_secs(15);

/// How long the removal of what was written may take behind that.
const REMOVE_LIMIT: Duration = Duration::from_secs(5);

/// What goes there and back.
const TEXT: &str = "pgkeep check: this object is removed at once\n";

/// One storage being looked at.
struct Probing<'a> {
    named: &'a NamedStorage,
    context: &'a Context,
    key: String,
    lines: Vec<Line>,
    /// Whether an object is written where it will have to stay.
    is_told_to_write: bool,
    /// Whether runs keep a lease here.
    holds_lease: bool,
    /// What the storage tells of its versions and locks.
    protection: Option<Protection>,
    /// Why nothing is written, if nothing is.
    unwritten: Option<String>,
}

/// Looks at a storage; returns its lines and how much room it has.
pub(super) async fn check(
    named: &NamedStorage,
    request: &Request,
    context: &Context,
) -> (Vec<Line>, Option<u64>) {
    // At the root, where no backup and no database's folder is, and with an ending that no part of a backup has.
    let random = context.clock.hex(4);
    let mut probing = Probing {
        named,
        context,
        key: format!("pgkeep-check-{random}.probe"),
        lines: Vec::new(),
        is_told_to_write: request.write,
        holds_lease: request.leases.has(named),
        protection: None,
        unwritten: None,
    };
    let ended = tokio::select! {
        ended = timeout(LIMIT, probing.look()) => ended.is_ok(),
        () = context.stop.token().cancelled() => true,
    };
    if !ended {
        let message = format!("it did not answer within {} s", LIMIT.as_secs());
        let failure = Failure::new(Kind::Storage, "storage_timed_out", message);
        let line = probing.fail("round_trip", failure);
        probing.lines.push(line);
    }
    let is_refused = probing.remove().await;
    let seen = (probing.protection.as_ref()).map(|found| Seen {
        found,
        is_append_only: named.storage.is_append_only(),
        is_refused,
    });
    let line = seen.map(|seen| protection::judge(&named.name, &seen));
    probing.lines.extend(line);
    let free = timeout(REMOVE_LIMIT, named.storage.free_bytes()).await;
    (probing.lines, free.ok().flatten())
}

impl Probing<'_> {
    fn storage(&self) -> &dyn Storage {
        self.named.storage.as_ref()
    }

    fn line(&self, check: &'static str, verdict: Verdict, message: impl Into<String>) -> Line {
        Line::new(&self.named.name, check, verdict, message)
    }

    fn fail(&self, check: &'static str, failure: Failure) -> Line {
        Line::failed(&self.named.name, check, failure)
    }

    fn say(&mut self, verdict: Verdict, check: &'static str, message: impl Into<String>) {
        let line = self.line(check, verdict, message);
        self.lines.push(line);
    }

    fn failed(&mut self, check: &'static str, what: &str, error: &Error) {
        let what = format!("{what} `{}`", self.storage().label());
        let line = self.fail(check, storage_failure(&what, error));
        self.lines.push(line);
    }

    async fn look(&mut self) {
        if let Some(login) = self.storage().login() {
            let line = self.line("credentials", Verdict::Ok, login);
            self.lines.push(line);
        }
        let is_listed = self.list("list").await;
        self.protection = self.storage().protection().await;
        self.unwritten = self.why_not_written();
        if let Some(why) = self.unwritten.clone() {
            for check in ["round_trip", "conditional_writes", "clock"] {
                let line = self.line(check, Verdict::Skipped, &why);
                let hint = "`--write` writes a small object that stays there";
                self.lines.push(match check {
                    "round_trip" => line.hint(hint),
                    _ => line,
                });
            }
            return;
        }
        let version = match self.write().await {
            Ok(version) => version,
            Err(line) => {
                self.lines.push(line);
                for check in ["conditional_writes", "clock"] {
                    self.say(Verdict::Skipped, check, "nothing could be written");
                }
                return;
            }
        };
        if let Err(failure) = self.read_back(is_listed).await {
            let line = self.fail("round_trip", failure);
            self.lines.push(line);
        } else {
            self.say(Verdict::Ok, "round_trip", "written, read and listed");
        }
        self.conditions(version).await;
        self.clock().await;
    }

    /// Says why an object would have to stay, unless somebody wants it written all the same.
    fn why_not_written(&self) -> Option<String> {
        if self.is_told_to_write {
            return None;
        }
        if self.storage().is_append_only() {
            return Some("not tried: the storage is `append_only`".to_owned());
        }
        let lock = self.protection.as_ref()?.lock.known()?;
        match lock {
            Lock::Default { period, .. } => Some(format!(
                "not tried: the bucket locks what is written for {period}"
            )),
            Lock::Policy => {
                Some("not tried: the container keeps what is written for a time".to_owned())
            }
            Lock::Off | Lock::NoDefault => None,
        }
    }

    async fn list(&mut self, check: &'static str) -> bool {
        match self.storage().list("").await {
            Ok(objects) => {
                self.say(Verdict::Ok, check, count(objects.len() as u64, "object"));
                true
            }
            Err(error) => {
                self.failed(check, "cannot list", &error);
                false
            }
        }
    }

    /// Writes the object; none where the storage knows no conditions, and another way of writing did it.
    async fn write(&self) -> std::result::Result<Option<Version>, Line> {
        let bytes = Bytes::from_static(TEXT.as_bytes());
        let written = match self.storage().create(&self.key, bytes.clone()).await {
            Err(Error::Unconditional(_)) => {
                self.storage().put(&self.key, bytes).await.map(|()| None)
            }
            created => created.map(Some),
        };
        written.map_err(|error| {
            let what = format!("cannot write to `{}`", self.storage().label());
            self.fail("round_trip", storage_failure(&what, &error))
        })
    }

    async fn read_back(&self, is_listed: bool) -> Result<()> {
        let label = self.storage().label();
        let wrong = |what: &str| {
            let message = format!("`{label}` {what}");
            Err(Failure::new(Kind::Storage, "storage_forgets", message))
        };
        let read = self
            .storage()
            .get(&self.key, 4096)
            .await
            .map_err(|error| storage_failure(&format!("cannot read from `{label}`"), &error))?;
        if read != TEXT.as_bytes() {
            return wrong("returns other bytes than were written");
        }
        if !is_listed {
            return Ok(());
        }
        let listed = self
            .storage()
            .list(&self.key)
            .await
            .map_err(|error| storage_failure(&format!("cannot list `{label}`"), &error))?;
        let is_there = listed
            .iter()
            .any(|object| object.key == self.key && object.size_bytes == TEXT.len() as u64);
        if is_there {
            Ok(())
        } else {
            wrong("does not list what was just written")
        }
    }

    /// Two writes that must be refused and one that must not, as a lease asks for them.
    async fn conditions(&mut self, version: Option<Version>) {
        const WITHOUT: &str = "only runs on the same host wait for each other";
        const CHECK: &str = "conditional_writes";
        if !self.holds_lease {
            let message = "not needed: `lock.storage` says that no lease is kept here";
            return self.say(Verdict::Skipped, CHECK, message);
        }
        let Some(version) = version else {
            return self.say(
                Verdict::Warn,
                CHECK,
                format!("it does not support conditional writes: {WITHOUT}"),
            );
        };
        let other = || Bytes::from_static(b"overwritten\n");
        let again = self.storage().create(&self.key, other()).await;
        let replaced = self
            .storage()
            .replace(&self.key, other(), &Version::never())
            .await;
        match (again, replaced) {
            (Err(Error::Exists(_)), Err(Error::Changed(_))) => {}
            (Err(Error::Exists(_)), Err(Error::Retained { .. })) => {
                return self.not_overwritten();
            }
            (Ok(_), _) | (_, Ok(_)) => {
                return self.say(
                    Verdict::Warn,
                    CHECK,
                    format!("it overwrites objects although the condition forbids it: {WITHOUT}"),
                );
            }
            (Err(Error::Exists(_)), Err(error)) | (Err(error), _) => {
                return self.say(Verdict::Warn, CHECK, format!("{error}: {WITHOUT}"));
            }
        }
        let same = Bytes::from_static(TEXT.as_bytes());
        match self.storage().replace(&self.key, same, &version).await {
            Ok(_) => self.say(Verdict::Ok, CHECK, "writes that must be refused are"),
            Err(Error::Retained { .. }) => self.not_overwritten(),
            Err(error) => self.say(Verdict::Warn, CHECK, format!("{error}: {WITHOUT}")),
        }
    }

    fn not_overwritten(&mut self) {
        let message = "it forbids overwriting, so it cannot hold a lease: only runs on the same host wait for each other";
        let line = self.line("conditional_writes", Verdict::Warn, message);
        self.lines.push(line.hint(
            "`lock: {storage: NAME}` puts the lease into a storage that can hold it, `lock: {storage: local}` does without",
        ));
    }

    /// The storage's clock, by the time that it gives to what was just written.
    async fn clock(&mut self) {
        let found = self.storage().head(&self.key).await;
        let line = match found {
            Ok(object) => skew(
                &self.named.name,
                object.modified_at.duration_since(self.context.clock.now()),
            ),
            Err(error) => self.line("clock", Verdict::Skipped, error.to_string()),
        };
        self.lines.push(line);
    }

    /// Takes the object away, which may be there although its write failed. Tells whether the storage refused that.
    async fn remove(&mut self) -> bool {
        const CHECK: &str = "remove";
        if let Some(why) = self.unwritten.clone() {
            self.say(Verdict::Skipped, CHECK, why);
            return false;
        }
        let removed = timeout(REMOVE_LIMIT, self.storage().remove(&self.key)).await;
        let was_written = !self
            .lines
            .iter()
            .any(|line| line.check == "round_trip" && line.verdict == Verdict::Fail);
        match removed {
            Ok(Ok(Removed::Freed)) if was_written => {
                self.say(Verdict::Ok, CHECK, "removed again");
            }
            Ok(Ok(Removed::Hidden)) if was_written => self.say(
                Verdict::Ok,
                CHECK,
                "hidden, not freed: the storage keeps what is removed, until its lifecycle frees it",
            ),
            Ok(Ok(_)) => {}
            // Where nothing could be written, nothing has to go.
            _ if !was_written => {
                self.say(Verdict::Skipped, CHECK, "nothing was proven to be there");
            }
            Ok(Err(error @ (Error::Denied { .. } | Error::Retained { .. }))) => {
                self.refused(&error);
                // Where pgkeep itself does not try, nobody knows what the key may do.
                return !self.storage().is_append_only();
            }
            Ok(Err(error)) => self.left_behind(&error),
            Err(_) => self.left_behind(&Error::failed("it did not answer")),
        }
        false
    }

    /// Backups work without removals; retention does not.
    fn refused(&mut self, error: &Error) {
        let key = &self.key;
        if self.storage().is_append_only() {
            let message = format!("`{key}` stays, as everything in an `append_only` storage");
            return self.say(Verdict::Ok, "remove", message);
        }
        let message = format!("`{key}` stays, and so will old backups: {error}");
        let line = self.line("remove", Verdict::Warn, message);
        self.lines.push(line.hint(
            "`append_only: true` tells pgkeep that nothing is to be removed there; see the chapter on immutable storages",
        ));
    }

    fn left_behind(&mut self, error: &Error) {
        let what = format!("cannot remove `{}`, which stays, from", self.key);
        self.failed("remove", &what, error);
    }
}

/// Judges how far a clock is ahead of ours.
pub(super) fn skew(subject: &str, ahead: SignedDuration) -> Line {
    let far = span(ahead.as_secs().unsigned_abs());
    let side = if ahead.is_negative() {
        "behind"
    } else {
        "ahead of"
    };
    if ahead.abs() <= MAX_SKEW {
        return Line::new(
            subject,
            "clock",
            Verdict::Ok,
            "it agrees with this machine's",
        );
    }
    let message = format!("it is {far} {side} this machine's");
    Line::new(subject, "clock", Verdict::Warn, message).hint(
        "correct the wrong clock (NTP): ids, retention and freshness use this machine's, and S3 refuses requests \
         that are 15 minutes off",
    )
}

/// Judges the room of a storage against what the next backups will take.
pub(super) fn space(named: &NamedStorage, free: Option<u64>, needed: &[u64]) -> Line {
    const CHECK: &str = "free_space";
    let line = |verdict, message: String| Line::new(&named.name, CHECK, verdict, message);
    let Some(free) = free else {
        return line(
            Verdict::Skipped,
            "it does not report its free space".to_owned(),
        );
    };
    let sum = needed
        .iter()
        .fold(0u64, |sum, bytes| sum.saturating_add(*bytes));
    if needed.is_empty() {
        return line(Verdict::Ok, format!("{} free", bytes(free)));
    }
    let message = format!(
        "{} free, and the next backups need about {}",
        bytes(free),
        bytes(sum)
    );
    if free < sum {
        let failure = Failure::new(Kind::Storage, "no_space", message);
        return Line::failed(&named.name, CHECK, failure)
            .hint("make room, or let retention keep less");
    }
    // Old backups go only behind new ones.
    if free / 2 < sum {
        line(Verdict::Warn, message).hint("there is room for one more run only")
    } else {
        line(Verdict::Ok, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgkeep_storage::Memory;
    use std::sync::Arc;

    #[test]
    fn room_is_judged_by_the_next_backups() {
        let named = NamedStorage {
            identities: Arc::default(),
            name: "local".into(),
            storage: Arc::new(Memory::new()),
        };
        let verdict = |free, needed: &[u64]| space(&named, free, needed).verdict;
        assert_eq!(verdict(None, &[5]), Verdict::Skipped);
        assert_eq!(verdict(Some(5), &[]), Verdict::Ok);
        assert_eq!(verdict(Some(100), &[20, 20]), Verdict::Ok);
        assert_eq!(verdict(Some(100), &[40, 20]), Verdict::Warn);
        assert_eq!(verdict(Some(100), &[80, 21]), Verdict::Fail);
    }

    #[test]
    fn a_minute_apart_is_odd() {
        let verdict = |seconds| skew("x", SignedDuration::from_secs(seconds)).verdict;
        assert_eq!([verdict(60), verdict(-60)], [Verdict::Ok; 2]);
        assert_eq!([verdict(61), verdict(-61)], [Verdict::Warn; 2]);
        let told = skew("x", SignedDuration::from_secs(-90)).message;
        assert_eq!(told, "it is 90 s behind this machine's");
    }
}
