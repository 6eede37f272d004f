//! A database: the way to it, the programs, the login, and whether everything that a backup needs is there and
//! readable.

use std::time::Duration;

use tokio::time::timeout;

use super::storage::skew;
use super::{Checked, Line, Sizes, Verdict};
use crate::clock::ahead;
use crate::context::Context;
use crate::op::backup::encryption;
use crate::op::backup::selected::{Read, Selected};
use crate::op::status::{self, Status, Watched};
use crate::postgres::address::{self, Way};
use crate::postgres::error::{Error, LARGE_OBJECTS_HINT};
use crate::postgres::programs::{Found, Programs};
use crate::postgres::psql::Psql;
use crate::postgres::server::ServerFacts;
use crate::postgres::session::{LargeObjects, SessionFacts};
use pgkeep_model::connection::Connection;
use pgkeep_model::encryption::Fingerprint;
use pgkeep_model::failure::{Failure, Kind};
use pgkeep_model::freshness::{Freshness, age};
use pgkeep_model::key_sets;
use pgkeep_model::nearest::nearest_table;
use pgkeep_model::words::{bytes, count, span};

/// How long one database has for all questions to its server.
const LIMIT: Duration = Duration::from_secs(20);

/// How long libpq tries one address; a server that is up answers in much less.
const CONNECT_TIMEOUT: &str = "5";

/// How long looking for its newest backup may take.
const STATUS_LIMIT: Duration = Duration::from_secs(15);

/// Most names that one line tells.
const MAX_NAMES: usize = 20;

/// One database being looked at.
struct Looking<'a> {
    checked: &'a Checked,
    context: &'a Context,
    subject: &'a str,
    connection: Connection,
    lines: Vec<Line>,
    sizes: Sizes,
}

/// Looks at a database; returns its lines and what was learned of its size.
pub(super) async fn check(checked: &Checked, context: &Context) -> (Vec<Line>, Sizes) {
    let own = &checked.backup.connection;
    let connection = own.with_parameter("connect_timeout", CONNECT_TIMEOUT.to_owned());
    let mut looking = Looking {
        checked,
        context,
        subject: checked.backup.name.as_str(),
        connection: connection.unwrap_or_else(|_| own.clone()),
        lines: Vec::new(),
        sizes: Sizes::default(),
    };
    let (asked, found) = tokio::join!(
        timeout(LIMIT, looking.look()),
        timeout(STATUS_LIMIT, newest(checked, context))
    );
    if asked.is_err() {
        let message = format!("it did not answer within {} s", LIMIT.as_secs());
        looking.fail(
            "login",
            Failure::new(Kind::Source, "server_timed_out", message),
        );
    }
    match found {
        Ok(Ok(status)) => {
            looking.freshness(&status);
            looking.keys(&status).await;
        }
        Ok(Err(failure)) => looking.say(Verdict::Skipped, "freshness", failure.message),
        Err(_) => looking.say(Verdict::Skipped, "freshness", "a storage did not answer"),
    }
    (looking.lines, looking.sizes)
}

async fn newest(checked: &Checked, context: &Context) -> pgkeep_model::failure::Result<Status> {
    let backup = &checked.backup;
    let report = status::run(status::Request {
        storages: backup.storages.clone(),
        databases: Some(vec![Watched {
            name: backup.name.clone(),
            max_age: checked.max_age,
            retention: None,
            storages: Vec::new(),
            copies: None,
            is_found: false,
            is_drill_expected: false,
            drill_max_age: None,
        }]),
        max_age: None,
        now: context.clock.now(),
    });
    let first = report.await?.databases.into_iter().next();
    first.ok_or_else(|| Failure::new(Kind::Unexpected, "no_status", "it has no status"))
}

impl Looking<'_> {
    fn say(&mut self, verdict: Verdict, check: &'static str, message: impl Into<String>) {
        self.lines
            .push(Line::new(self.subject, check, verdict, message));
    }

    fn fail(&mut self, check: &'static str, failure: Failure) {
        self.lines.push(Line::failed(self.subject, check, failure));
    }

    fn failed(&mut self, check: &'static str, error: &Error) {
        let mut failure = error.to_failure("", "");
        failure.message = error.to_string();
        self.fail(check, failure);
    }

    async fn look(&mut self) {
        self.way().await;
        let backup = &self.checked.backup;
        let stop = self.context.stop.token();
        let found = backup.search.find(&backup.environment, stop).await;
        let newest = match found.newest() {
            Ok(newest) => newest.clone(),
            Err(error) => {
                self.failed("programs", &error);
                return self.say(
                    Verdict::Skipped,
                    "login",
                    "there is no client program to log in with",
                );
            }
        };
        let read = ServerFacts::read(&newest, &backup.environment, &self.connection, stop).await;
        let facts = match read {
            Ok(facts) => facts,
            Err(error) => {
                self.programs_alone(&newest);
                self.failed("login", &error);
                return self.without_login();
            }
        };
        self.sizes.database = Some(facts.database.size_bytes);
        self.sizes.major = Some(facts.major());
        self.there_is_a_way();
        self.programs(&found, &facts);
        self.login(&facts);
        self.rights(&facts);
        self.selected(&facts);
        self.extension_rows(&facts);
        self.required(&facts);
        self.session(&newest, &facts).await;
    }

    /// Anyone who could log in has found a way: by another host of several, or by a name that only the C library knows.
    fn there_is_a_way(&mut self) {
        let lines = std::mem::take(&mut self.lines).into_iter();
        let mended = lines.map(|line| match (line.check, line.verdict) {
            ("address", Verdict::Fail) => line.into_warning("the login worked anyway"),
            _ => line,
        });
        self.lines = mended.collect();
    }

    /// The names of its hosts, and whether this machine can get there.
    async fn way(&mut self) {
        let environment = &self.checked.backup.environment;
        for (host, way) in address::ways(&self.connection, environment).await {
            let pooler = address::supabase_pooler(&host);
            let of_address =
                |verdict, message: String| Line::new(self.subject, "address", verdict, message);
            let line = match way {
                Way::NotLookedUp => continue,
                Way::Open {
                    is_only_ipv6: false,
                } => of_address(Verdict::Ok, format!("`{host}` can be reached by IPv4")),
                Way::Open { is_only_ipv6: true } => {
                    let text = format!(
                        "`{host}` has IPv6 only: hosts without it, such as GitHub's runners, cannot reach it"
                    );
                    let verdict = if pooler.is_some() {
                        Verdict::Warn
                    } else {
                        Verdict::Ok
                    };
                    pooler
                        .into_iter()
                        .fold(of_address(verdict, text), Line::hint)
                }
                Way::NoIpv6 => {
                    let message = format!("`{host}` has IPv6 only, and this machine has none");
                    let failure = Failure::new(Kind::Source, "no_ipv6", message);
                    let hint = pooler.unwrap_or_else(|| {
                        "use an address with IPv4, or give this machine IPv6".to_owned()
                    });
                    Line::failed(self.subject, "address", failure.hint(hint))
                }
                Way::Unknown(why) => {
                    let message = format!("`{host}` cannot be looked up: {why}");
                    Line::failed(
                        self.subject,
                        "address",
                        Failure::new(Kind::Source, "host_unknown", message),
                    )
                }
            };
            self.lines.push(line);
        }
    }

    /// Says what nobody could look at.
    fn without_login(&mut self) {
        for check in [
            "rights",
            "row_security",
            "required_tables",
            "large_objects",
            "clock",
            "time_limits",
        ] {
            self.say(Verdict::Skipped, check, "not known without a login");
        }
    }

    fn programs_alone(&mut self, programs: &Programs) {
        let message = format!(
            "pg_dump {} in `{}`",
            programs.version,
            programs.folder.display()
        );
        self.say(Verdict::Ok, "programs", message);
    }

    fn programs(&mut self, found: &Found, facts: &ServerFacts) {
        let minimum = self.connection.minimum_client_major();
        match found.choose(Some(facts.major()), minimum) {
            Err(error) => self.failed("programs", &error),
            Ok(programs) => match programs.advisory() {
                Some(advisory) => self.say(Verdict::Warn, "programs", advisory),
                None => {
                    let (version, folder) = (programs.version, programs.folder.display());
                    let server = &facts.version;
                    let message = format!("pg_dump {version} in `{folder}` for server {server}");
                    self.say(Verdict::Ok, "programs", message);
                }
            },
        }
    }

    fn login(&mut self, facts: &ServerFacts) {
        let (user, database) = (&facts.user, &facts.database.name);
        let size = bytes(facts.database.size_bytes);
        let message = format!("as `{user}` into `{database}`, {size} on the server");
        self.say(Verdict::Ok, "login", message);
        if facts.session_settings_applied {
            self.say(Verdict::Ok, "pooler", "one session from query to query")
        } else {
            self.lines.push(
                Line::new(
                    self.subject,
                    "pooler",
                    Verdict::Warn,
                    "a pooler refuses session settings: the text form of bytea and money is not fixed, and digests may differ",
                )
                .hint("connect to the server directly, or to the pooler's session port"),
            )
        }
    }

    /// Names every table and sequence in scope that the role may not read whole.
    fn rights(&mut self, facts: &ServerFacts) {
        let selection = self.checked.backup.selection_on(facts);
        let selected = Selected {
            selection: &selection,
            facts,
        };
        let read = selected.read();
        let names = |is_meant: fn(&&Read) -> bool| -> Vec<String> {
            read.iter().filter(is_meant).map(Read::words).collect()
        };
        let unreadable = names(|one| !one.can_read);
        let hidden = names(|one| one.can_read && one.hides_rows);
        let user = &facts.user;
        if unreadable.is_empty() {
            let message = format!(
                "`{user}` can read everything that is dumped (tables and sequences: {})",
                read.len()
            );
            self.say(Verdict::Ok, "rights", message);
        } else {
            let message = format!(
                "`{user}` cannot read {} of {} tables and sequences",
                unreadable.len(),
                read.len()
            );
            let failure = Failure::new(Kind::Source, "permission_denied", message)
                .with_details(shortened(unreadable))
                .hint("`GRANT pg_read_all_data TO …` (PostgreSQL 14 and later), or leave them out");
            self.fail("rights", failure);
        }
        if hidden.is_empty() {
            let message = format!("it hides no row from `{user}`");
            return self.say(Verdict::Ok, "row_security", message);
        }
        let message = format!(
            "it hides rows of {} from `{user}`",
            count(hidden.len() as u64, "table")
        );
        let failure = Failure::new(Kind::Source, "row_security", message)
            .with_details(shortened(hidden))
            .hint("dump as a role with BYPASSRLS, or as the owner where the table does not force it, or leave them out");
        self.fail("row_security", failure);
    }

    fn selected(&mut self, facts: &ServerFacts) {
        let selection = &self.checked.backup.selection;
        let selected = Selected { selection, facts };
        let dangling = selected.dangling();
        if !dangling.is_empty() {
            let message = "foreign keys refer to what is left out";
            let line = Line::new(self.subject, "foreign_keys", Verdict::Warn, message)
                .hint("leave the tables in, with their rows, or drop the keys");
            self.lines.push(line.with_details(shortened(dangling)));
        }
        let wrong = [selected.missing(), selected.not_dumped()].concat();
        let remarks = selected.remarks();
        if !wrong.is_empty() {
            let message = format!(
                "{} cannot be dumped",
                count(wrong.len() as u64, "selected name")
            );
            let failure = Failure::new(Kind::Proof, "selected_table_missing", message);
            self.fail("selection", failure.with_details(shortened(wrong)));
        }
        if !remarks.is_empty() {
            let line = Line::new(
                self.subject,
                "selection",
                Verdict::Warn,
                "some names change nothing",
            );
            self.lines.push(line.with_details(remarks));
        }
    }

    /// Names the tables of extensions whose rows are in no dump.
    fn extension_rows(&mut self, facts: &ServerFacts) {
        let selection = self.checked.backup.selection_on(facts);
        let selected = Selected {
            selection: &selection,
            facts,
        };
        let lost = selected.lost_rows();
        if !lost.is_empty() {
            let message = format!(
                "`pg_dump` leaves out the rows of {} that extensions do not mark by `pg_extension_config_dump`",
                count(lost.len() as u64, "table")
            );
            let line = Line::new(self.subject, "extension_rows", Verdict::Warn, message)
                .with_details(shortened(lost));
            self.lines.push(line.hint(
                "save them in another way, such as `COPY … TO`; rows that `CREATE EXTENSION` itself adds are not lost",
            ));
        }
    }

    fn required(&mut self, facts: &ServerFacts) {
        const CHECK: &str = "required_tables";
        let backup = &self.checked.backup;
        let selection = backup.selection_on(facts);
        let selected = Selected {
            selection: &selection,
            facts,
        };
        let tables = || facts.tables.iter().filter(|table| table.is_table());
        let problem = |name: &pgkeep_model::name::TableName| {
            let (schema, table) = (name.schema_or_public(), name.name.as_str());
            if let Some(why) = selected.why_not_dumped(name) {
                return Some(format!("`{name}` is not in a dump: {why}"));
            }
            if !tables().any(|one| one.schema == schema && one.name == table) {
                let known = tables().map(|one| (one.schema.as_str(), one.name.as_str()));
                let near =
                    nearest_table(name, known).map(|near| format!("; did you mean `{near}`?"));
                return Some(format!(
                    "`{name}` does not exist{}",
                    near.unwrap_or_default()
                ));
            }
            let is_dumped = selected.is_dumped(schema, table);
            (!is_dumped).then(|| format!("`{name}` is left out of the dump"))
        };
        let wanted = backup.required.iter().map(|required| &required.table);
        let problems: Vec<String> = wanted.filter_map(problem).collect();
        let all = backup.required.len();
        if all == 0 {
            let line = Line::new(
                self.subject,
                CHECK,
                Verdict::Warn,
                "no table is required, so the backup of an empty or wrong database would count as good",
            );
            return self
                .lines
                .push(line.hint("`required_tables: […]`, or `--require`"));
        }
        if problems.is_empty() {
            return self.say(
                Verdict::Ok,
                CHECK,
                if all == 1 {
                    "the one that is required is there".to_owned()
                } else {
                    format!("all {all} are there")
                },
            );
        }
        let message = format!("{} of {all} would not be in the dump", problems.len());
        let failure = Failure::new(Kind::Proof, "required_table_missing", message);
        self.fail(CHECK, failure.with_details(problems));
    }

    /// Its clock, its limits, its large objects, and what a standby would do to a long dump.
    async fn session(&mut self, programs: &Programs, facts: &ServerFacts) {
        let environment = &self.checked.backup.environment;
        let mut psql = Psql::new(programs, environment, &self.connection);
        if !facts.session_settings_applied {
            psql = psql.without_session_settings();
        }
        let before = self.context.clock.now();
        let session = match SessionFacts::read(&psql, self.context.stop.token()).await {
            Ok(session) => session,
            Err(error) => {
                for check in ["large_objects", "clock", "time_limits"] {
                    self.say(Verdict::Skipped, check, error.to_string());
                }
                return;
            }
        };
        let ahead = ahead(before, self.context.clock.now(), session.now);
        self.large_objects(facts, &session.closed_large_objects);
        self.lines.push(skew(self.subject, ahead));
        let limit = |name: &str| session.limits.get(name).copied().unwrap_or(0);
        self.time_limits(&limit, programs);
        if facts.is_standby {
            let line = standby(self.subject, limit("max_standby_streaming_delay"));
            self.lines.push(line);
        }
    }

    /// Names the large objects that the role may not read. `pg_dump` takes them all, or none where it is told which
    /// tables or schemas to dump.
    fn large_objects(&mut self, facts: &ServerFacts, closed: &[LargeObjects]) {
        const CHECK: &str = "large_objects";
        let user = &facts.user;
        let selection = self.checked.backup.selection_on(facts);
        if !selection.tables.is_empty() || !selection.schemas.is_empty() {
            let message = "none is dumped, because only selected schemas or tables are";
            return self.say(Verdict::Ok, CHECK, message);
        }
        if closed.is_empty() {
            return self.say(Verdict::Ok, CHECK, format!("`{user}` can read all of them"));
        }
        let all: u64 = closed.iter().map(|some| some.count).sum();
        let names = closed.iter().map(|some| {
            let (count, owner, first) = (some.count, &some.owner, some.first);
            match count {
                1 => format!("{first} of `{owner}`"),
                _ => format!("{count} of `{owner}`, such as {first}"),
            }
        });
        let message = format!("`{user}` cannot read {}", count(all, "large object"));
        let failure = Failure::new(Kind::Source, "permission_denied", message)
            .with_details(shortened(names.collect()))
            .hint(LARGE_OBJECTS_HINT);
        self.fail(CHECK, failure);
    }

    fn time_limits(&mut self, limit: &dyn Fn(&str) -> i64, programs: &Programs) {
        const SWITCHED_OFF: [&str; 3] = [
            "statement_timeout",
            "lock_timeout",
            "idle_in_transaction_session_timeout",
        ];
        let transaction = limit("transaction_timeout");
        if transaction > 0 && programs.version.major < 17 {
            let message = format!(
                "the role's `transaction_timeout` of {} ends longer dumps: pg_dump {} does not switch it off",
                span(transaction.unsigned_abs().div_ceil(1000)),
                programs.version
            );
            let line = Line::new(self.subject, "time_limits", Verdict::Warn, message);
            self.lines.push(
                line.hint("`ALTER ROLE … SET transaction_timeout = 0` for the backup's role"),
            );
            return;
        }
        let set: Vec<String> = SWITCHED_OFF
            .iter()
            .filter(|name| limit(name) > 0)
            .map(|name| format!("{name} {} ms", limit(name)))
            .collect();
        let message = if set.is_empty() {
            "none".to_owned()
        } else {
            format!("{}: switched off in our own sessions", set.join(", "))
        };
        self.say(Verdict::Ok, "time_limits", message);
    }

    /// Whether backups can be encrypted, and whether anybody can open them again.
    async fn keys(&mut self, status: &Status) {
        const CHECK: &str = "encryption";
        let backup = &self.checked.backup;
        let identities = backup
            .storages
            .iter()
            .find(|named| !named.identities.is_empty());
        if let Err(failure) = encryption::prove(backup, &self.context.stop).await {
            return self.fail(CHECK, failure);
        }
        let Some(recipients) = backup.form.recipients.as_ref().map(|all| all.texts()) else {
            let message = "backups are not encrypted: anyone who can read a storage can read them";
            let hint = "`encryption: {recipients: [age1…]}` encrypts them; `pgkeep keys generate` makes a key";
            let line = Line::new(self.subject, CHECK, Verdict::Skipped, message);
            return self.lines.push(line.hint(hint));
        };
        let opened = if identities.is_some() {
            " and opened again"
        } else {
            ""
        };
        let to = count(recipients.len() as u64, "recipient");
        let message = format!("a probe was encrypted to {to}{opened}");
        self.say(Verdict::Ok, CHECK, message);
        if identities.is_some() {
            let message = "the private key lies on this host, which writes the backups: anyone who takes the host over can \
                           read them all";
            let hint =
                "keep it where backups are restored, and prove it there with `pgkeep keys prove`";
            let line = Line::new(self.subject, "identity", Verdict::Warn, message);
            self.lines.push(line.hint(hint));
        }
        let missing = backup
            .storages
            .first()
            .map(|named| named.identities.unusable());
        for why in missing.into_iter().flatten() {
            self.say(Verdict::Warn, "identity", why.clone());
        }
        let mut told = status.of_keys.clone();
        let is_new = status
            .keys
            .first()
            .is_none_or(|set| set.fingerprint != Fingerprint::of(recipients));
        if is_new {
            told.push(
                "no backup is encrypted for the recipients of the configuration yet".to_owned(),
            );
        }
        if is_new && recipients.len() < 2 {
            told.push(key_sets::ONLY_ONE.to_owned());
        }
        for warning in told {
            self.say(Verdict::Warn, "key", warning);
        }
    }

    fn freshness(&mut self, status: &Status) {
        const CHECK: &str = "freshness";
        self.sizes.backup = status.newest_good.as_ref().map(|newest| newest.size_bytes);
        let Some(newest) = &status.newest_good else {
            let line = Line::new(
                self.subject,
                CHECK,
                Verdict::Warn,
                "there is no good backup yet",
            );
            return self.lines.push(line.hint("`pgkeep backup` makes one"));
        };
        let message = format!(
            "the newest good backup is `{}`, age: {}",
            newest.id,
            age(newest.age_seconds)
        );
        let line = match status.freshness {
            Freshness::Stale => {
                let failure = Failure::new(Kind::Stale, "stale", message);
                Line::failed(
                    self.subject,
                    CHECK,
                    failure.hint("`pgkeep status` shows the last runs"),
                )
            }
            Freshness::Fresh => Line::new(self.subject, CHECK, Verdict::Ok, message),
            Freshness::NotJudged => Line::new(self.subject, CHECK, Verdict::Ok, message)
                .hint("`max_age` says how old it may become"),
        };
        // What is said of keys has lines of its own.
        let mut odd = status.warnings.clone();
        odd.retain(|warning| !status.of_keys.contains(warning));
        self.lines.push(line.with_details(odd));
    }
}

fn shortened(mut names: Vec<String>) -> Vec<String> {
    let more = names.len().saturating_sub(MAX_NAMES);
    names.truncate(MAX_NAMES);
    names.extend((more > 0).then(|| format!("and {more} more")));
    names
}

fn standby(subject: &str, delay_ms: i64) -> Line {
    let (verdict, how) = match delay_ms {
        ..0 => (
            Verdict::Ok,
            "waits for dumps (`max_standby_streaming_delay` is -1)".to_owned(),
        ),
        _ => (
            Verdict::Warn,
            format!(
                "cancels a dump that delays recovery by more than {} (`max_standby_streaming_delay`)",
                span(delay_ms.unsigned_abs().div_ceil(1000))
            ),
        ),
    };
    let line = Line::new(
        subject,
        "standby",
        verdict,
        format!("the server is a standby, and {how}"),
    );
    match verdict {
        Verdict::Ok => line,
        _ => line.hint("`hot_standby_feedback = on` there, or a longer `max_standby_streaming_delay`; a run that was ended is tried again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_warns_unless_it_waits() {
        assert_eq!(standby("x", -1).verdict, Verdict::Ok);
        let warned = standby("x", 30_000);
        assert_eq!(warned.verdict, Verdict::Warn);
        assert!(warned.message.contains("more than 30 s") && !warned.hints.is_empty());
    }

    #[test]
    fn long_lists_are_cut() {
        let names = |count: usize| (0..count).map(|at| at.to_string()).collect::<Vec<_>>();
        assert_eq!(shortened(names(20)).len(), 20);
        assert_eq!(shortened(names(25)).last().unwrap(), "and 5 more");
    }
}
