//! Stands between the scanner and `psql`: what of a dump is passed on, left out or refused.
//!
//! A dump is data, not a program: no backslash command reaches `psql`, nor any text of which `psql` and the scanner
//! might think differently. What is left out are whole statements, found by the scanner and never by a search.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use memchr::memmem;

use crate::name::{TableName, printable};
use crate::scan::{
    About, Carrier, Judged, JudgedKind, Late, Notes, Scan, Scanner, TableKind, TextEncoding, What,
};
use crate::supabase::{Place, Platform};
use crate::text_form::ENCODING_OF_DATABASE;

/// Most bytes of one statement that are held until it is judged. Statements about owners, rights and transactions have
/// a few hundred; an ALTER TABLE with an expression of this length has never been seen.
const MAX_HELD: usize = 4 << 20;

/// UTF-8 byte order mark: `psql` passes over it at the start of its input only, where our own statements stand.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The first server that knows `transaction_timeout`.
const KNOWS_TRANSACTION_TIMEOUT: u32 = 17;

/// Which tables' rows are written as frozen, so that no later reading has to write their pages a second time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Freeze {
    /// None.
    #[default]
    Never,
    /// Those that the dump made: all of it is one transaction, and nobody else can see the table before its end.
    Made,
    /// These, which are empty and are emptied again in the same transaction, as the server wants it.
    Emptied(Arc<HashSet<TableName>>),
}

/// What is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Statements that set owners.
    pub no_owner: bool,
    /// Statements that grant and revoke.
    pub no_privileges: bool,
    /// BEGIN and COMMIT: all is one transaction, which is not the dump's.
    pub one_transaction: bool,
    /// `SET lock_timeout` and `SET statement_timeout`: in a database that others use, the limits of the restore hold,
    /// and pg_dump sets both to none.
    pub keeps_limits: bool,
    /// Extensions that are not made.
    pub skip_extensions: Vec<String>,
    /// Major version of the server that it goes to.
    pub server_major: u32,
    /// Rows that are written as frozen.
    pub freeze: Freeze,
    /// Whether the database has a schema `public`, as every fresh one has; a dump of chosen schemas makes it, too.
    pub has_public: bool,
    /// What a hosting platform's dump leaves to the server that it goes to.
    pub platform: Option<Platform>,
    /// Whether a plain role restores: what only a superuser may do is set aside for one.
    pub is_divided: bool,
    /// Where a plain role restores: whether what reaches outside the database is left out. Else it is refused.
    pub leaves_beyond: bool,
    /// Whether the extensions are wanted that the dump makes.
    pub lists_extensions: bool,
    /// Schemas that were made for extensions before the dump comes, and are not made again.
    pub made_schemas: Vec<String>,
    /// SQL of our own, each in front of the first statement that begins at this offset or behind it; in order.
    pub insertions: Vec<(u64, &'static str)>,
    /// Whether the scan says what the text form of the dump's values is.
    pub notes_form: bool,
    /// Everything goes into the database's own tablespace.
    pub no_tablespaces: bool,
    /// What can only be done when all rows are there, or hides them, is held back: see [`HeldBack`].
    pub holds_back: bool,
    /// What is not there because its extension is left out.
    pub without: Without,
}

/// What goes with extensions that are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Without {
    /// Schemas that such an extension makes for itself.
    pub schemas: Vec<String>,
    /// Tables of such extensions whose rows the dump holds.
    pub tables: Vec<TableName>,
}

/// Statements of a dump that anyone who restores carries out himself, in UTF-8 and in the dump's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldBack {
    /// They let row-level security hold for the owners of tables, who see no row from then on, and make event
    /// triggers, which later statements or logins would fire.
    pub behind: Vec<String>,
    /// They fill materialized views.
    pub filling: Vec<String>,
}

impl HeldBack {
    /// Adds what another text held.
    pub fn extend(&mut self, other: Self) {
        self.behind.extend(other.behind);
        self.filling.extend(other.filling);
    }
}

/// Why a dump is not passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Stable name, such as `meta_command_refused`.
    pub id: &'static str,
    /// Why, in the middle of a sentence.
    pub why: String,
    /// The next move, where one is known.
    pub hint: Option<&'static str>,
}

/// What is passed on, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed<'a> {
    /// Text for the session that restores.
    Text(&'a [u8]),
    /// A whole statement that a superuser carries out once all text before it was carried out, decoded.
    Between(&'a str),
}

/// A statement that a superuser carries out behind all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateStatement {
    /// When.
    pub late: Late,
    /// The statement, with standard string literals.
    pub sql: String,
}

/// An extension that a dump makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Its name.
    pub name: String,
    /// The schema that is named for it.
    pub schema: Option<String>,
}

/// Passes a dump on while it is scanned.
pub struct Filter {
    scanner: Scanner,
    rules: Rules,
    /// What came and was neither passed on nor left out yet.
    held: Vec<u8>,
    /// Where COPY blocks began and ended, until it is asked for.
    cuts: Vec<u64>,
    /// Schemas that the dump makes.
    schemas: Vec<String>,
    /// What was left out that the target does not have, each thing once.
    lost: Vec<String>,
    /// What was held back.
    held_back: HeldBack,
    /// Whether rows are under way that are left out.
    is_dropping: bool,
    /// What was set aside for a superuser.
    late: Vec<LateStatement>,
    extensions: Vec<Extension>,
    /// How statements name what is nobody's: `FUNCTION public.f(`.
    gone: Vec<Vec<u8>>,
    /// Foreign servers that read the server's own files, or run its programs.
    file_servers: Vec<String>,
    /// Where statements began in which a backslash escapes, and that were not judged yet.
    escaping: Vec<u64>,
}

impl Filter {
    /// Starts with the first byte of a dump.
    pub fn new(rules: Rules) -> Self {
        let mut scanner = Scanner::noting(Notes::Judged {
            with_about: rules.platform.is_some()
                || rules.is_divided
                || rules.lists_extensions
                || !rules.without.schemas.is_empty(),
        });
        if rules.notes_form {
            scanner.note_form();
        }
        Self {
            scanner,
            rules,
            held: Vec::new(),
            cuts: Vec::new(),
            schemas: Vec::new(),
            lost: Vec::new(),
            held_back: HeldBack::default(),
            is_dropping: false,
            late: Vec::new(),
            extensions: Vec::new(),
            gone: Vec::new(),
            file_servers: Vec::new(),
            escaping: Vec::new(),
        }
    }

    /// Takes the next piece and hands on what may reach `psql`. Behind a refusal nothing may be handed on. What a
    /// superuser does in between is not handed on: [`Filter::push_divided`] does.
    pub fn push(&mut self, bytes: &[u8], out: &mut dyn FnMut(&[u8])) -> Result<(), Refusal> {
        self.push_divided(bytes, &mut |passed| match passed {
            Passed::Text(text) => out(text),
            Passed::Between(_) => {}
        })
    }

    /// Takes the next piece and hands on what each session is to carry out. Behind a refusal nothing may be handed on.
    pub fn push_divided(
        &mut self,
        bytes: &[u8],
        pass: &mut dyn FnMut(Passed<'_>),
    ) -> Result<(), Refusal> {
        let from = self.scanner.position() - self.held.len() as u64;
        self.scanner.push(bytes);
        let found = self.scanner.take_found();
        let cuts = found.cuts;
        self.cuts.extend_from_slice(&cuts);
        if let Some(offset) = self.scanner.first_nul() {
            return Err(nul(offset));
        }
        let text = if self.held.is_empty() {
            Cow::Borrowed(bytes)
        } else {
            self.held.extend_from_slice(bytes);
            Cow::Owned(std::mem::take(&mut self.held))
        };
        let mut at = self.skip_mark(from, &text);
        let place_of = |offset: u64| {
            usize::try_from(offset - from)
                .unwrap_or(usize::MAX)
                .min(text.len())
        };
        let end_of_rows = |start: u64| cuts.iter().copied().find(|cut| *cut > start);
        if self.is_dropping {
            // Nothing but the block's end lies behind the rows that came before.
            let end = cuts.first().copied();
            at = end.map_or(text.len(), place_of);
            self.is_dropping = end.is_none();
        }
        let mut settled = self
            .settle(from, &text, &found.begun)?
            .into_iter()
            .peekable();
        for judged in found.judged {
            self.note_schema(judged.about.as_ref());
            if let Carrier::Early { name, schema } = &judged.carrier {
                self.extensions.push(Extension {
                    name: name.clone(),
                    schema: schema.clone(),
                });
            }
            let place = self.rules.place(&judged);
            if place == Place::LeftOut {
                self.note_lost(judged.about.as_ref());
            }
            let sql = || &text[place_of(judged.start)..place_of(judged.end)];
            let mut is_left_out = self.rules.leave_out(&judged)?
                || place == Place::LeftOut
                || self.rules.is_without(&judged)
                || self.hold_back(&judged.kind, sql);
            let (frozen, is_not_valid) = (self.rules.frozen(&judged), place == Place::NotValid);
            while let Some((start, sql)) = settled.next_if(|(start, _)| *start <= judged.start) {
                pass(Passed::Text(&text[at..place_of(start).max(at)]));
                at = place_of(start).max(at);
                pass(Passed::Text(sql.as_bytes()));
            }
            let mut between = None;
            if self.rules.is_divided && !is_left_out {
                let statement = place_of(judged.start).max(at)..place_of(judged.end).max(at);
                let is_between = self.divide(&judged, &text[statement.clone()])?;
                is_left_out = !self.is_restorers(&judged.carrier, &text[statement.clone()])
                    || self.rules.is_made(&judged)
                    || self.is_gone(&text[statement.clone()]);
                between = is_between.then_some(statement);
            }
            let instead = match &judged.kind {
                JudgedKind::ClientEncoding(name) if is_sql_ascii(name) => ENCODING_OF_DATABASE,
                _ => "",
            };
            if is_left_out || !instead.is_empty() {
                pass(Passed::Text(&text[at..place_of(judged.start).max(at)]));
                pass(Passed::Text(instead.as_bytes()));
                at = place_of(judged.end).max(at);
                if matches!(judged.kind, JudgedKind::Rows(..)) {
                    let end = end_of_rows(judged.start);
                    at = end.map_or(text.len(), place_of);
                    self.is_dropping = end.is_none();
                    continue;
                }
            }
            if let Some(statement) = between {
                let decoded = self.scanner.encoding().decode(&text[statement]);
                pass(Passed::Between(&decoded));
            }
            if let Some(emptying) = frozen {
                pass(Passed::Text(&text[at..place_of(judged.start).max(at)]));
                pass(Passed::Text(emptying.as_bytes()));
                // In front of the semicolon: a COPY is held until it was judged.
                let semicolon = place_of(judged.end - 1);
                pass(Passed::Text(
                    &text[place_of(judged.start).max(at)..semicolon],
                ));
                pass(Passed::Text(b" WITH (FREEZE)"));
                at = semicolon;
            }
            if is_not_valid && !is_left_out {
                let semicolon = place_of(judged.end - 1);
                pass(Passed::Text(&text[at..semicolon]));
                pass(Passed::Text(b" NOT VALID"));
                at = semicolon;
            }
        }
        for (start, sql) in settled {
            pass(Passed::Text(&text[at..place_of(start).max(at)]));
            at = place_of(start).max(at);
            pass(Passed::Text(sql.as_bytes()));
        }
        let until = place_of(self.scanner.judged_until()).max(at);
        pass(Passed::Text(&text[at..until]));
        self.held = text[until..].to_vec();
        if self.held.len() > MAX_HELD {
            Err(too_long(from + until as u64))
        } else {
            Ok(())
        }
    }

    /// Finds the statements in front of which the setting must be told by which this filter reads their literals.
    ///
    /// Any function that a dump calls can change it, and `psql` would then find the end of a literal elsewhere and take
    /// its text for commands. It matters only where a backslash stands in front of a quote, or may stand in what is
    /// still to come.
    fn settle(
        &mut self,
        from: u64,
        text: &[u8],
        begun: &[(u64, bool)],
    ) -> Result<Vec<(u64, &'static str)>, Refusal> {
        if self.rules.is_divided {
            let escaping = begun.iter().filter(|(_, is_standard)| !is_standard);
            self.escaping.extend(escaping.map(|(start, _)| *start));
        }
        let mut settled = Vec::new();
        for (at, &(start, is_standard)) in begun.iter().enumerate() {
            // Its first word was passed on already, so nothing can be put in front of it.
            let Some(first) = start
                .checked_sub(from)
                .and_then(|at| usize::try_from(at).ok())
            else {
                return Err(too_late(start));
            };
            let due = self
                .rules
                .insertions
                .iter()
                .take_while(|(offset, _)| *offset <= start)
                .count();
            settled.extend(
                self.rules
                    .insertions
                    .drain(..due)
                    .map(|(_, sql)| (start, sql)),
            );
            let next = begun.get(at + 1).map(|(next, _)| (next - from) as usize);
            let is_whole = next.is_some() || !self.scanner.is_in_statement();
            let seen = &text[first.min(text.len())..next.unwrap_or(text.len()).min(text.len())];
            if is_whole && memmem::find(seen, br"\'").is_none() {
                continue;
            }
            settled.push((
                start,
                if is_standard {
                    "SET standard_conforming_strings = on;\n"
                } else {
                    "SET standard_conforming_strings = off;\n"
                },
            ));
        }
        Ok(settled)
    }

    /// Ends the dump. What is still held is a backslash command without a line end, or a statement that is cut: the
    /// first is judged, the second is told by the scan.
    pub fn finish(self) -> Result<Scan, Refusal> {
        if let Some(command) = self.held.strip_prefix(b"\\") {
            let judged = Judged {
                start: self.scanner.position() - self.held.len() as u64,
                end: self.scanner.position(),
                kind: JudgedKind::Meta(String::from_utf8_lossy(command).trim_end().to_owned()),
                about: None,
                carrier: Carrier::Restorer,
            };
            self.rules.leave_out(&judged)?;
        }
        Ok(self.scanner.finish())
    }

    /// Hands over where COPY blocks began and ended since the last call, in order.
    pub fn take_cuts(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.cuts)
    }

    /// Returns what was held back.
    pub fn held_back(&self) -> &HeldBack {
        &self.held_back
    }

    /// Tells whether a statement is held back. One whose name is no text in any encoding is carried out where it
    /// stands.
    fn hold_back<'t>(&mut self, kind: &JudgedKind, sql: impl Fn() -> &'t [u8]) -> bool {
        // A plain role leaves to a superuser what hides rows or fires, as late.
        let is_ours = !self.rules.is_divided;
        if !self.rules.holds_back {
            return false;
        }
        let held = match kind {
            JudgedKind::Refresh => &mut self.held_back.filling,
            JudgedKind::ForceRowSecurity | JudgedKind::EventTrigger { .. } if is_ours => {
                &mut self.held_back.behind
            }
            _ => return false,
        };
        let (sql, encoding) = (sql(), self.scanner.encoding());
        let is_text = encoding != TextEncoding::Utf8 || std::str::from_utf8(sql).is_ok();
        if is_text {
            held.push(encoding.decode(sql).into_owned());
        }
        is_text
    }

    /// Returns the schemas that the dump makes, where the rules are a platform's.
    pub fn schemas(&self) -> &[String] {
        &self.schemas
    }

    /// Returns what a platform's rules left out and the target does not have.
    pub fn lost(&self) -> &[String] {
        &self.lost
    }

    fn note_lost(&mut self, about: Option<&About>) {
        let platform = self.rules.platform.as_ref();
        let lost = platform
            .zip(about)
            .and_then(|(rules, about)| rules.lost_with(about));
        if let Some(object) = lost.filter(|object| !self.lost.contains(object)) {
            self.lost.push(object);
        }
    }

    /// Tells whether a statement is about what was left out.
    fn is_gone(&self, text: &[u8]) -> bool {
        let mut gone = self.gone.iter();
        gone.any(|name| memmem::find(text, name).is_some())
    }

    /// Names what is left out, each thing once.
    fn lose(&mut self, what: &str) {
        if !self.lost.iter().any(|lost| lost == what) {
            self.lost.push(what.to_owned());
        }
    }

    fn is_restorers(&self, carrier: &Carrier, text: &[u8]) -> bool {
        match carrier {
            Carrier::Mapping => !says(text, b"password_required"),
            Carrier::Restorer | Carrier::Server { .. } => true,
            Carrier::OfServer(server) => !self.file_servers.contains(server),
            _ => false,
        }
    }

    /// Sets a statement aside that the restoring role does not carry out; tells whether a superuser does it at this
    /// place.
    fn divide(&mut self, judged: &Judged, text: &[u8]) -> Result<bool, Refusal> {
        let behind = |start: &u64| *start > judged.start;
        let is_escaping = self.escaping.contains(&judged.start);
        self.escaping.retain(behind);
        let is_superusers = matches!(
            judged.carrier,
            Carrier::Between | Carrier::Superuser(_) | Carrier::OfServer(_)
        );
        if is_superusers && is_escaping && text.contains(&b'\\') {
            return Err(escapes(judged.start));
        }
        let encoding = self.scanner.encoding();
        if is_superusers && encoding == TextEncoding::Utf8 && std::str::from_utf8(text).is_err() {
            return Err(no_text(judged.start));
        }
        // The restoring role must not own a table that reads the server's files: it could read any.
        let is_between = judged.carrier == Carrier::Between
            || matches!(&judged.carrier, Carrier::OfServer(server) if self.file_servers.contains(server));
        let is_of_files = matches!(judged.carrier, Carrier::OfServer(_));
        if is_between && is_of_files && is_more_than_a_file(text) {
            let what = "foreign table of a program, or beside other tables";
            return Err(beyond(judged.start, what));
        }
        if is_between {
            // Tables that were made in a transaction which ends here cannot be written as frozen.
            if self.scanner.has_tables() {
                self.rules.freeze = Freeze::Never;
            }
            return Ok(true);
        }
        match &judged.carrier {
            Carrier::Server { name, wrapper } if wrapper == "file_fdw" => {
                self.file_servers.push(name.clone());
            }
            Carrier::Restorer
            | Carrier::Between
            | Carrier::Server { .. }
            | Carrier::OfServer(_) => {}
            Carrier::Superuser(_) if self.is_gone(text) => {}
            Carrier::Superuser(_) if is_running(text) => self.lose("a subscription that would run"),
            Carrier::Superuser(late) => self.late.push(LateStatement {
                late: *late,
                sql: encoding.decode(text).into_owned(),
            }),
            Carrier::Withheld(what) => self.lose(what),
            Carrier::Mapping if says(text, b"password_required") => {
                self.lose("a user mapping without a password");
            }
            Carrier::Mapping => {}
            Carrier::Early { .. } => {}
            Carrier::Nobody(Some(what)) if !self.rules.leaves_beyond => {
                return Err(beyond(judged.start, what));
            }
            Carrier::Nobody(what) => {
                self.gone.extend(named(text));
                if let Some(what) = what {
                    self.lose(what);
                }
            }
        }
        Ok(false)
    }

    /// Hands over what was set aside for a superuser, in the order of the dump.
    pub fn take_late(&mut self) -> Vec<LateStatement> {
        std::mem::take(&mut self.late)
    }

    /// Returns the extensions that the dump makes, in its order, where the rules ask for them or divide it.
    pub fn extensions(&self) -> &[Extension] {
        &self.extensions
    }

    fn note_schema(&mut self, about: Option<&About>) {
        if let Some(What::Schema {
            name,
            is_made: true,
        }) = about.map(|about| &about.what)
        {
            self.schemas.push(name.clone());
        }
    }

    /// Returns the scanner, for anyone who shows how far it is.
    pub fn scanner(&self) -> &Scanner {
        &self.scanner
    }

    /// The mark is only the first bytes of the file; a piece that holds less than all of it is no dump.
    fn skip_mark(&self, from: u64, text: &[u8]) -> usize {
        if from == 0 && text.starts_with(BYTE_ORDER_MARK) {
            BYTE_ORDER_MARK.len()
        } else {
            0
        }
    }
}

impl Rules {
    /// Tells whether a schema is there already, because an extension needed it.
    fn is_made(&self, judged: &Judged) -> bool {
        match judged.about.as_ref().map(|about| &about.what) {
            Some(What::Schema {
                name,
                is_made: true,
            }) => self.made_schemas.contains(name),
            _ => false,
        }
    }

    /// Says what a platform's rules make of a statement.
    fn place(&self, judged: &Judged) -> Place {
        match (&self.platform, &judged.about) {
            (Some(platform), Some(about)) => platform.place(about),
            _ => Place::Kept,
        }
    }

    /// Tells whether a statement is about what is not there because its extension is left out.
    fn is_without(&self, judged: &Judged) -> bool {
        if let JudgedKind::Rows(table, _) = &judged.kind {
            return self.without.tables.contains(table);
        }
        let is_gone = |schema: &String| self.without.schemas.contains(schema);
        match judged.about.as_ref().map(|about| &about.what) {
            Some(
                What::Object { schema }
                | What::Right { schema }
                | What::SequenceValue { schema }
                | What::DefaultPrivileges { schema, .. }
                | What::Trigger { schema, .. },
            ) => is_gone(schema),
            Some(What::Schema { name, .. }) => is_gone(name),
            Some(What::ForeignKey { schema, to, .. }) => is_gone(schema) || is_gone(to),
            _ => false,
        }
    }

    /// Returns what stands in front of a COPY that writes frozen rows.
    fn frozen(&self, judged: &Judged) -> Option<String> {
        let JudgedKind::Rows(table, kind) = &judged.kind else {
            return None;
        };
        match &self.freeze {
            Freeze::Made if kind.is_some_and(holds_rows) => Some(String::new()),
            Freeze::Emptied(tables) if tables.contains(table) => {
                Some(format!("TRUNCATE ONLY {};\n", table.quoted()))
            }
            _ => None,
        }
    }

    /// Decides: `true` leaves it out, `false` passes it on.
    fn leave_out(&self, judged: &Judged) -> Result<bool, Refusal> {
        let refuse = |id, why: String, hint| Err(Refusal { id, why, hint });
        let at = judged.start;
        match &judged.kind {
            JudgedKind::Meta(line) if is_restrict(line) => Ok(true),
            JudgedKind::Meta(line) if is_connect(line) => refuse(
                "cluster_dump_refused",
                format!(
                    "it connects to another database at byte {at}, as the dump of a whole cluster does"
                ),
                Some(
                    "restore the dump of one database; `pgkeep inspect` shows what the file holds",
                ),
            ),
            JudgedKind::Meta(line) => refuse(
                "meta_command_refused",
                format!(
                    "at byte {at} it holds the command `\\{}`, which `psql` would carry out",
                    shown(line)
                ),
                Some("pg_dump writes no such command: look at the file before you trust it"),
            ),
            JudgedKind::Noise => refuse(
                "no_sql",
                format!("the line at byte {at} is not SQL"),
                Some(
                    "a program's output may be mixed into the file: `pgkeep inspect` lists such lines",
                ),
            ),
            JudgedKind::Cluster => refuse(
                "cluster_statement_refused",
                format!(
                    "the statement at byte {at} is about a database, a role, a tablespace or the server itself, which \
                     the dump of one database never is"
                ),
                Some(
                    "look at the file before you trust it; `psql` carries it out, if that is what you want",
                ),
            ),
            JudgedKind::Program => refuse(
                "copy_program_refused",
                format!("the COPY at byte {at} lets the server run a program"),
                Some("pg_dump writes no such statement: look at the file before you trust it"),
            ),
            JudgedKind::BehindCopy | JudgedKind::CopyWithOptions => refuse(
                "copy_refused",
                format!(
                    "pg_dump does not write a COPY like the one at byte {at}, so its rows may end where commands begin"
                ),
                None,
            ),
            JudgedKind::Code => refuse(
                "code_refused",
                format!(
                    "the statement at byte {at} is a DO or a CALL, and what it does is only known while it runs"
                ),
                Some("pg_dump writes no such statement: look at the file before you trust it"),
            ),
            JudgedKind::OpenRoutine => refuse(
                "routine_refused",
                format!(
                    "`psql` does not find the end of the routine at byte {at}, because it says `begin`"
                ),
                None,
            ),
            JudgedKind::Transaction if self.one_transaction => refuse(
                "transaction_command_refused",
                format!("at byte {at} it ends or splits the transaction that the restore runs in"),
                Some("restore it into a database that does not exist yet"),
            ),
            JudgedKind::Transaction => Ok(false),
            JudgedKind::Rows(..)
            | JudgedKind::Other
            | JudgedKind::Refresh
            | JudgedKind::ForceRowSecurity => Ok(false),
            JudgedKind::Tablespace(_) => Ok(self.no_tablespaces),
            JudgedKind::Begin | JudgedKind::Commit => Ok(self.one_transaction),
            JudgedKind::Extension(name) => Ok(self.skip_extensions.contains(name)),
            JudgedKind::SchemaPublic => Ok(self.has_public),
            JudgedKind::Owner => Ok(self.no_owner),
            JudgedKind::EventTrigger { is_owner_change } => Ok(*is_owner_change && self.no_owner),
            JudgedKind::Privileges => Ok(self.no_privileges),
            JudgedKind::Limit => Ok(self.keeps_limits),
            JudgedKind::ClientEncoding(_) => Ok(false),
            JudgedKind::TransactionTimeout => Ok(self.server_major < KNOWS_TRANSACTION_TIMEOUT),
        }
    }
}

/// Tells whether it is the encoding of bytes that nobody knows. PostgreSQL compares such names without case and
/// punctuation.
pub fn is_sql_ascii(name: &str) -> bool {
    let plain = name.chars().filter(char::is_ascii_alphanumeric);
    plain.map(|c| c.to_ascii_lowercase()).eq("sqlascii".chars())
}

/// Tells whether rows lie in the table itself, where the server can write them as frozen.
pub fn holds_rows(kind: TableKind) -> bool {
    match kind {
        TableKind::Table | TableKind::Unlogged | TableKind::Partition => true,
        TableKind::Partitioned | TableKind::Foreign => false,
    }
}

/// `\restrict KEY` and `\unrestrict KEY`, and nothing else behind them.
fn is_restrict(line: &str) -> bool {
    let mut words = line.split_ascii_whitespace();
    let is_command = matches!(words.next(), Some("restrict" | "unrestrict"));
    let key = words.next().unwrap_or_default();
    let is_key = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric());
    is_command && is_key && words.next().is_none()
}

fn is_connect(line: &str) -> bool {
    matches!(line.split_ascii_whitespace().next(), Some("connect" | "c"))
}

/// A command may be long and anybody's text.
fn shown(line: &str) -> String {
    printable(&line.chars().take(60).collect::<String>())
}

fn nul(offset: u64) -> Refusal {
    Refusal {
        id: "dump_damaged",
        why: format!("there is a NUL byte at byte {offset}, which no plain dump holds"),
        hint: None,
    }
}

fn too_late(offset: u64) -> Refusal {
    Refusal {
        id: "no_sql",
        why: format!("the text at byte {offset} is not a statement that pg_dump writes"),
        hint: None,
    }
}

/// Tells whether a word stands in a statement, in lower or upper case.
fn says(text: &[u8], word: &[u8]) -> bool {
    memmem::find(&text.to_ascii_lowercase(), word).is_some()
}

/// As pg_dump makes a subscription, it does nothing before somebody enables it.
fn is_running(text: &[u8]) -> bool {
    let is_made = text
        .to_ascii_lowercase()
        .starts_with(b"create subscription");
    let is_asleep =
        says(text, b"connect = false") && !says(text, b"enabled") && !says(text, b"run_as_owner");
    is_made && !is_asleep
}

/// A table of the server's files is made only where it reads one file, by itself.
fn is_more_than_a_file(text: &[u8]) -> bool {
    let words = [&b"program"[..], b"partition", b"inherits"];
    words.iter().any(|word| says(text, word))
}

fn no_text(offset: u64) -> Refusal {
    Refusal {
        id: "no_sql",
        why: format!(
            "the statement at byte {offset} is not text in the encoding that the dump names"
        ),
        hint: None,
    }
}

/// Returns how later statements name what this one would make: its kind, and its name up to its parameters.
fn named(text: &[u8]) -> Option<Vec<u8>> {
    [&b"FUNCTION "[..], b"PROCEDURE "]
        .into_iter()
        .find_map(|kind| {
            let at = memmem::find(text, kind)?;
            let end = memchr::memchr(b'(', &text[at..])?;
            Some(text[at..=at + end].to_vec())
        })
}

fn beyond(offset: u64, what: &str) -> Refusal {
    Refusal {
        id: "superuser_refused",
        why: format!(
            "at byte {offset} it makes the {what}, which reaches outside the database with the powers of the server"
        ),
        hint: Some(
            "if you trust the dump as you trust the server, `--allow-superuser` restores it",
        ),
    }
}

fn escapes(offset: u64) -> Refusal {
    Refusal {
        id: "literal_refused",
        why: format!(
            "the statement at byte {offset} escapes with a backslash as servers before 9.1 did"
        ),
        hint: None,
    }
}

fn too_long(offset: u64) -> Refusal {
    Refusal {
        id: "statement_too_long",
        why: format!("the statement at byte {offset} is too long to be judged"),
        hint: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules() -> Rules {
        Rules {
            server_major: 15,
            ..Rules::default()
        }
    }

    fn passed(sql: &[u8], rules: Rules, step: usize) -> Result<String, Refusal> {
        let mut filter = Filter::new(rules);
        let mut out = Vec::new();
        for piece in sql.chunks(step.max(1)) {
            filter.push(piece, &mut |bytes| out.extend_from_slice(bytes))?;
        }
        filter.finish()?;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    /// What is passed on of the dump's own, cut anywhere.
    fn own(sql: &[u8], rules: Rules, step: usize) -> Result<String, Refusal> {
        let passed = passed(sql, rules, step)?;
        Ok(passed.replace("SET standard_conforming_strings = on;\n", ""))
    }

    const DUMP: &str = "\\restrict aB3\nCREATE EXTENSION \"x y\" WITH SCHEMA s;\nSET transaction_timeout = 0;\nSET lock_timeout = 0;\n\
        CREATE SCHEMA public;\nCREATE TABLE t (a text);\nALTER TABLE t OWNER TO app;\n\
        COPY t (a) FROM stdin;\nGRANT x\n\\\\restrict x\n\\.\n\n\
        BEGIN;\nSELECT lo_open(1, 131072);\nCOMMIT;\n\
        GRANT ALL ON t TO app;\nALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO app;\n\\unrestrict aB3\n";

    #[test]
    fn leaves_out_what_the_rules_say_and_nothing_else() {
        let all = Rules {
            no_owner: true,
            no_privileges: true,
            one_transaction: true,
            keeps_limits: true,
            skip_extensions: vec!["x y".to_owned()],
            server_major: 15,
            freeze: Freeze::Never,
            has_public: true,
            ..Rules::default()
        };
        let least = Rules {
            server_major: 17,
            ..Rules::default()
        };
        for step in [1, 7, 4096] {
            assert_eq!(
                own(DUMP.as_bytes(), all.clone(), step).unwrap(),
                "\n\n\n\n\nCREATE TABLE t (a text);\n\nCOPY t (a) FROM stdin;\nGRANT x\n\
                 \\\\restrict x\n\\.\n\n\nSELECT lo_open(1, 131072);\n\n\n\n\n"
            );
            let rest = DUMP
                .replace("\\restrict aB3", "")
                .replace("\\unrestrict aB3", "");
            assert_eq!(own(DUMP.as_bytes(), least.clone(), step).unwrap(), rest);
        }
    }

    /// Under that name COPY takes any byte into a database of any encoding.
    #[test]
    fn bytes_of_no_known_encoding_are_declared_as_the_databases() {
        let dump = "SET client_encoding = 'SQL_ASCII';\nSET client_encoding = 'LATIN1';\nSET NAMES sql_ascii;\n";
        let expected = format!(
            "{ENCODING_OF_DATABASE}\nSET client_encoding = 'LATIN1';\n{ENCODING_OF_DATABASE}\n"
        );
        for step in [1, 7, 4096] {
            assert_eq!(own(dump.as_bytes(), rules(), step).unwrap(), expected);
        }
    }

    #[test]
    fn what_an_extension_would_have_goes_with_it() {
        let dump = "CREATE EXTENSION pg_cron WITH SCHEMA pg_catalog;\nCOPY cron.job (a) FROM stdin;\n1\n2\n\\.\n\n\
            COPY public.t (a) FROM stdin;\n3\n\\.\n\nSELECT pg_catalog.setval('cron.jobid_seq', 2, true);\n\
            SELECT pg_catalog.setval('public.s', 2, true);\nGRANT USAGE ON SCHEMA cron TO app;\nSELECT 1;\n";
        let rules = Rules {
            skip_extensions: vec!["pg_cron".to_owned()],
            without: Without {
                schemas: vec!["cron".to_owned()],
                tables: vec![TableName::new("cron", "job")],
            },
            ..rules()
        };
        for step in 1..dump.len() {
            assert_eq!(
                own(dump.as_bytes(), rules.clone(), step).unwrap(),
                "\n\nCOPY public.t (a) FROM stdin;\n3\n\\.\n\n\nSELECT pg_catalog.setval('public.s', 2, true);\n\nSELECT 1;\n",
                "{step}"
            );
        }
        assert_eq!(own(dump.as_bytes(), self::rules(), 4096).unwrap(), dump);
    }

    #[test]
    fn what_waits_for_all_rows_is_held_back() {
        let dump = "SET default_tablespace = fast;\nREFRESH MATERIALIZED VIEW public.v;\nSET default_tablespace = '';\n\
            ALTER TABLE ONLY public.t FORCE ROW LEVEL SECURITY;\nREFRESH MATERIALIZED VIEW \"Ä\".w;\n\
            CREATE EVENT TRIGGER e ON login EXECUTE FUNCTION public.f();\nALTER EVENT TRIGGER e OWNER TO app;\nSELECT 1;\n";
        for step in [1, 7, 4096] {
            let mut filter = Filter::new(Rules {
                no_tablespaces: true,
                holds_back: true,
                ..rules()
            });
            let mut passed = Vec::new();
            for piece in dump.as_bytes().chunks(step) {
                let out = &mut |bytes: &[u8]| passed.extend_from_slice(bytes);
                filter.push(piece, out).unwrap();
            }
            let own = String::from_utf8(passed)
                .unwrap()
                .replace("SET standard_conforming_strings = on;\n", "");
            assert_eq!(own, "\n\nSET default_tablespace = '';\n\n\n\n\nSELECT 1;\n");
            let held_back = filter.held_back();
            let filling = [
                "REFRESH MATERIALIZED VIEW public.v;",
                "REFRESH MATERIALIZED VIEW \"Ä\".w;",
            ];
            assert_eq!(held_back.filling, filling);
            let behind = [
                "ALTER TABLE ONLY public.t FORCE ROW LEVEL SECURITY;",
                "CREATE EVENT TRIGGER e ON login EXECUTE FUNCTION public.f();",
                "ALTER EVENT TRIGGER e OWNER TO app;",
            ];
            assert_eq!(held_back.behind, behind);
            assert_eq!(filter.finish().unwrap().tablespaces, ["fast"]);
        }
        assert_eq!(own(dump.as_bytes(), rules(), 4096).unwrap(), dump);
    }

    #[test]
    fn rows_are_frozen_only_where_the_rules_say() {
        let dump = "CREATE TABLE t (a text);\nCREATE TABLE p (a text) PARTITION BY LIST (a);\n\
            COPY public.\"x;y\" (a) FROM stdin;\nCOPY t FROM stdin;\n\\.\n\nCOPY public.t (a) FROM stdin;\n1\n\\.\n\
            COPY p (a) FROM stdin;\n2\n\\.\n";
        let emptied = Arc::new(HashSet::from([TableName::new("public", "x;y")]));
        for step in [1, 5, 4096] {
            let passed = |freeze| {
                let rules = Rules { freeze, ..rules() };
                own(dump.as_bytes(), rules, step).unwrap()
            };
            assert_eq!(passed(Freeze::Never), dump);
            let made = dump.replace(
                "public.t (a) FROM stdin",
                "public.t (a) FROM stdin WITH (FREEZE)",
            );
            assert_eq!(passed(Freeze::Made), made);
            let with_truncate = dump.replace(
                "COPY public.\"x;y\" (a) FROM stdin;",
                "TRUNCATE ONLY \"public\".\"x;y\";\nCOPY public.\"x;y\" (a) FROM stdin WITH (FREEZE);",
            );
            assert_eq!(passed(Freeze::Emptied(Arc::clone(&emptied))), with_truncate);
        }
    }

    #[test]
    fn refuses_what_psql_would_carry_out() {
        for (sql, id) in [
            ("\\! touch /tmp/x\n", "meta_command_refused"),
            ("SELECT 1 \\g |sh\n", "meta_command_refused"),
            ("SELECT 1 \\gexec\n", "meta_command_refused"),
            ("\\unrestrict `ls`\n", "meta_command_refused"),
            ("\\unrestrict `ls`", "meta_command_refused"),
            ("\\restrict\n", "meta_command_refused"),
            ("\\copy t from program 'ls'\n", "meta_command_refused"),
            ("SELECT 1\\; SELECT 2;\n", "meta_command_refused"),
            ("\\connect other\n", "cluster_dump_refused"),
            ("COPY t FROM stdin; \\! ls\n\\.\n", "copy_refused"),
            (
                "COPY t FROM stdin WITH (FORMAT csv);\n\\.\n",
                "copy_refused",
            ),
            ("pg_dump: warning: x \\! ls\n", "no_sql"),
            (
                "CREATE FUNCTION begin() RETURNS int AS 'x';\n",
                "routine_refused",
            ),
            ("SELECT 1;\0\n", "dump_damaged"),
            ("DROP DATABASE prod;\n", "cluster_statement_refused"),
            ("ALTER SYSTEM SET x = 1;\n", "cluster_statement_refused"),
            ("COPY t FROM PROGRAM 'ls';\n", "copy_program_refused"),
            ("DO $$ begin execute 'x'; end $$;\n", "code_refused"),
            ("CALL p();\n", "code_refused"),
            (
                "GRANT pg_write_server_files TO me;\n",
                "cluster_statement_refused",
            ),
        ] {
            let refused = |result: Result<String, Refusal>| result.unwrap_err().id;
            assert_eq!(refused(passed(sql.as_bytes(), rules(), 1)), id, "{sql}");
            assert_eq!(refused(passed(sql.as_bytes(), rules(), 4096)), id, "{sql}");
        }
    }

    /// Whatever a dump calls may change how `psql` reads literals, so each one that could be read otherwise is preceded
    /// by the setting that it is read by here.
    #[test]
    fn literals_are_read_as_they_were_scanned() {
        let on = "SET standard_conforming_strings = on;\n";
        let trick = "SELECT set_config('standard_conforming_strings', 'off', false);\nSELECT 'x\\'y';\n--';\n";
        let told = format!(
            "SELECT set_config('standard_conforming_strings', 'off', false);\n{on}SELECT 'x\\'y';\n--';\n"
        );
        assert_eq!(passed(trick.as_bytes(), rules(), 4096).unwrap(), told);
        for step in 1..40 {
            let piecemeal = passed(trick.as_bytes(), rules(), step).unwrap();
            assert!(
                piecemeal.contains(&format!("{on}SELECT 'x")),
                "{step}: {piecemeal}"
            );
            assert_eq!(piecemeal.replace(on, ""), trick, "{step}");
        }
        let off = "SET standard_conforming_strings = off;\nSELECT 'x\\'y';\n";
        let told = "SET standard_conforming_strings = off;\nSET standard_conforming_strings = off;\nSELECT 'x\\'y';\n";
        assert_eq!(passed(off.as_bytes(), rules(), 4096).unwrap(), told);
        let plain = "SELECT 'x';\nCREATE TABLE t (a text DEFAULT E'\\\\x');\n";
        assert_eq!(passed(plain.as_bytes(), rules(), 4096).unwrap(), plain);
    }

    #[test]
    fn what_is_ours_stands_in_front_of_what_begins_there() {
        let text = "CREATE TABLE t (a text);\n-- rows\nCOPY t FROM stdin;\n1\n\\.\nSELECT 1;\nCREATE INDEX ON t (a);\n";
        let at = |part: &str| text.find(part).unwrap() as u64;
        let rules = Rules {
            insertions: vec![
                (at("-- rows"), "SET a;\n"),
                (at("CREATE INDEX"), "SET b;\n"),
                (1 << 20, "SET c;\n"),
            ],
            ..rules()
        };
        let told = text
            .replace("COPY", "SET a;\nCOPY")
            .replace("CREATE INDEX", "SET b;\nCREATE INDEX");
        for step in 1..text.len() {
            let passed = own(text.as_bytes(), rules.clone(), step);
            assert_eq!(passed.unwrap(), told, "{step}");
        }
    }

    #[test]
    fn a_foreign_transaction_command_is_refused_where_it_would_end_ours() {
        let one = Rules {
            one_transaction: true,
            ..rules()
        };
        assert_eq!(
            passed(b"ROLLBACK;\n", one.clone(), 3).unwrap_err().id,
            "transaction_command_refused"
        );
        assert_eq!(passed(b"ROLLBACK;\n", rules(), 3).unwrap(), "ROLLBACK;\n");
    }

    #[test]
    fn a_statement_that_is_never_judged_is_not_held() {
        let mut filter = Filter::new(rules());
        let mut out = 0;
        let mut push = |text: &[u8]| filter.push(text, &mut |bytes| out += bytes.len());
        push(b"INSERT INTO t VALUES ('").unwrap();
        push(&vec![b'x'; MAX_HELD + 1]).unwrap();
        let mut filter = Filter::new(rules());
        let mut push = |text: &[u8]| filter.push(text, &mut |_| {});
        push(b"ALTER TABLE t ALTER c SET DEFAULT '").unwrap();
        assert_eq!(
            push(&vec![b'x'; MAX_HELD + 1]).unwrap_err().id,
            "statement_too_long"
        );
        assert!(out > MAX_HELD);
    }

    #[test]
    fn what_is_left_out_and_lacking_is_listed_once() {
        let platform = Platform {
            speaks_for: Some(vec!["me".to_owned()]),
            ..Platform::default()
        };
        let mut filter = Filter::new(Rules {
            platform: Some(platform),
            ..rules()
        });
        let sql = "ALTER DEFAULT PRIVILEGES FOR ROLE you GRANT SELECT ON TABLES TO a;\n";
        for _ in 0..2 {
            filter.push(sql.as_bytes(), &mut |_| {}).unwrap();
        }
        assert_eq!(filter.lost(), ["default privileges of role `you`"]);
    }

    /// What each session carries out, and what waits.
    struct Divided {
        text: String,
        between: Vec<String>,
        late: Vec<(Late, String)>,
        lost: Vec<String>,
    }

    fn divided(sql: &str, step: usize) -> Divided {
        let mut filter = Filter::new(Rules {
            is_divided: true,
            leaves_beyond: true,
            made_schemas: vec!["ext".to_owned()],
            ..rules()
        });
        let (mut text, mut between) = (Vec::new(), Vec::new());
        for piece in sql.as_bytes().chunks(step) {
            let pushed = filter.push_divided(piece, &mut |passed| match passed {
                Passed::Text(piece) => text.extend_from_slice(piece),
                Passed::Between(statement) => {
                    between.push(statement.to_owned());
                }
            });
            pushed.unwrap();
        }
        let set_aside = filter.take_late().into_iter();
        let late = set_aside.map(|one| (one.late, one.sql));
        let lost = filter.lost().to_vec();
        let passed = String::from_utf8(text).unwrap();
        let own = passed.replace("SET standard_conforming_strings = on;\n", "");
        Divided {
            text: own,
            between,
            late: late.collect(),
            lost,
        }
    }

    #[test]
    fn a_plain_role_is_handed_only_what_it_may_do() {
        let sql = "CREATE SCHEMA ext;\nCREATE SCHEMA app;\nALTER SCHEMA app OWNER TO a;\n\
            CREATE EXTENSION IF NOT EXISTS hstore WITH SCHEMA ext;\nCOMMENT ON EXTENSION hstore IS 'x';\n\
            CREATE FUNCTION app.p() RETURNS int LANGUAGE plpython3u AS $$;$$;\n\
            CREATE OPERATOR CLASS app.c FOR TYPE int USING btree AS OPERATOR 1 <;\n\
            CREATE TABLE app.t (a int);\nCOPY app.t (a) FROM stdin;\n1\n\\.\n\nGRANT ALL ON TABLE app.t TO b;\n";
        for step in [1, 7, 4096] {
            let Divided {
                text,
                between,
                late,
                lost,
            } = divided(sql, step);
            assert_eq!(
                text,
                "\nCREATE SCHEMA app;\n\n\n\n\n\nCREATE TABLE app.t (a int);\nCOPY app.t (a) FROM stdin;\n1\n\\.\n\n\n"
            );
            assert_eq!(
                between,
                ["CREATE OPERATOR CLASS app.c FOR TYPE int USING btree AS OPERATOR 1 <;"]
            );
            let told = [
                (Late::Owner, "ALTER SCHEMA app OWNER TO a;"),
                (Late::Rights, "COMMENT ON EXTENSION hstore IS 'x';"),
                (Late::Rights, "GRANT ALL ON TABLE app.t TO b;"),
            ];
            assert_eq!(late, told.map(|(late, sql)| (late, sql.to_owned())));
            assert_eq!(lost, ["function app.p"]);
        }
    }

    /// A superuser's session reads literals by the standard, and must not take for SQL what the filter took for a
    /// literal.
    #[test]
    fn a_superuser_is_handed_no_literal_that_could_end_elsewhere() {
        let sql = "SET standard_conforming_strings = off;\nCOMMENT ON EXTENSION e IS 'x\\'; DROP DATABASE d; --';\n";
        for step in [1, 4096] {
            let mut filter = Filter::new(Rules {
                is_divided: true,
                ..rules()
            });
            let mut pieces = sql.as_bytes().chunks(step);
            let refused = pieces.find_map(|piece| filter.push(piece, &mut |_| {}).err());
            assert_eq!(refused.unwrap().id, "literal_refused");
        }
    }

    #[test]
    fn a_byte_order_mark_does_not_reach_psql() {
        assert_eq!(
            passed(b"\xef\xbb\xbfSELECT 1;\n", rules(), 4096).unwrap(),
            "SELECT 1;\n"
        );
    }

    proptest! {
        #[test]
        fn cuts_of_the_stream_do_not_matter(
            parts in prop::collection::vec(prop::sample::select(vec![
                "BEGIN;", "COMMIT;\n", "GRANT a ON b TO c;", "-- GRANT\n", "/* x */", "ALTER TABLE t OWNER TO a;\n",
                "COPY t FROM stdin;\n1\n\\.\n", "'a;\\b'", "SELECT 'GRANT'", ";", "$$ COMMIT; $$", "\n", "set ",
            ]), 0..30),
            step in 1usize..40,
        ) {
            let rules = Rules { no_owner: true, no_privileges: true, one_transaction: true, server_major: 16, ..Rules::default() };
            let text = parts.concat();
            prop_assert_eq!(own(text.as_bytes(), rules.clone(), step), own(text.as_bytes(), rules, usize::MAX));
        }
    }
}
