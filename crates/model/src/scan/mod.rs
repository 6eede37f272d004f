//! The dump scanner: reads a plain dump once, in pieces of any size, and says what is in it and whether it is whole.
//!
//! It is exact where a search for text is not: a `CREATE TABLE` or an end marker inside a row, a string, a comment
//! or a function body is none. Its memory depends neither on the size of the dump nor on the length of a row.

mod digest;
mod encoding;
mod form;
mod judged;
mod lexeme;
mod lexer;
mod listed;
mod marks;
mod notes;
mod places;
mod report;
mod rows;
mod session;
mod statement;
mod tables;
mod text;
mod watch;

use std::collections::{BTreeSet, HashMap};

use memchr::memchr;

pub use digest::RowDigest;
pub use encoding::NameEncoding as TextEncoding;
pub use judged::{About, Carrier, Judged, JudgedKind, Late, What};
pub use lexeme::{Lexeme, LexemeKind, lexemes};
pub use listed::{Listed, Spoken, Work};
pub use notes::{Found, Notes};
pub use report::{
    Block, Columns, Finding, NOT_UTF8, Parent, Scan, Section, SectionName, SequenceValue, Table,
    TableKind,
};
pub use watch::{ColumnKind, Watch};

use crate::name::TableName;
use encoding::NameEncoding;
use form::FormFacts;
use lexer::{Lexer, Token};
use marks::{Marks, MetaEffect};
use places::Places;
use report::note;
use rows::Rows;
use session::Session;
pub(crate) use statement::{
    Action, Alter, Constraint, Kind, Path, Said, Target, Thing, Tokens, read,
};
use statement::{Made, Meaning, RawName, Statement, Step};
use tables::{CopyBlock, Met, Tables};
use text::TextFacts;

/// Scans one dump.
pub struct Scanner {
    mode: Mode,
    lexer: Lexer,
    statement: Statement,
    marks: Marks,
    tables: Tables,
    session: Session,
    places: Places,
    statements: u64,
    large_objects: u64,
    sequences: HashMap<TableName, (i64, bool)>,
    extensions: Vec<String>,
    roles: BTreeSet<String>,
    tablespaces: BTreeSet<String>,
    text: TextFacts,
    noise: Vec<Finding>,
    /// What tells the text form of its values, where somebody asked for it.
    form: Option<FormFacts>,
    notes: Notes,
    found: Found,
}

enum Mode {
    /// Statements, comments, backslash commands.
    Sql,
    /// Behind the semicolon of a COPY, up to the end of its line.
    CopyHead(CopyBlock),
    /// Rows.
    Copy(CopyBlock),
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

impl Scanner {
    /// Starts a scan that notes nothing besides.
    pub fn new() -> Self {
        Self::noting(Notes::Nothing)
    }

    /// Starts a scan that also notes what `notes` asks for.
    pub fn noting(notes: Notes) -> Self {
        Self {
            mode: Mode::Sql,
            lexer: Lexer::new(),
            statement: Statement::new(),
            marks: Marks::default(),
            tables: Tables::default(),
            session: Session::default(),
            places: Places::default(),
            statements: 0,
            large_objects: 0,
            sequences: HashMap::new(),
            extensions: Vec::new(),
            roles: BTreeSet::new(),
            tablespaces: BTreeSet::new(),
            text: TextFacts::default(),
            noise: Vec::new(),
            form: None,
            notes,
            found: Found::default(),
        }
    }

    /// Makes the scan tell the text form of the dump's values, which takes a closer look at each row.
    pub fn note_form(&mut self) {
        self.form.get_or_insert_default();
    }

    /// Hands over what was found since the last call.
    pub fn take_found(&mut self) -> Found {
        std::mem::take(&mut self.found)
    }

    /// Returns what is known of the watched table.
    pub fn watch(&self) -> Option<&Watch> {
        match &self.notes {
            Notes::Rows(watch) => Some(watch),
            _ => None,
        }
    }

    /// Returns the watched table as far as its rows were read.
    pub fn watched_table(&self) -> Option<&Table> {
        let at = self.watch()?.table()?;
        Some(&self.tables.list[at].table)
    }

    /// Returns the name of the first client encoding that the dump set.
    pub fn client_encoding(&self) -> Option<&str> {
        self.session.encoding_name.as_deref()
    }

    /// Returns the encoding in force.
    pub fn encoding(&self) -> TextEncoding {
        self.session.encoding
    }

    /// Takes the next piece of the dump. Where it was cut makes no difference.
    pub fn push(&mut self, bytes: &[u8]) {
        self.text.look_at(bytes, self.position());
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = match &mut self.mode {
                Mode::Sql => self.sql(rest),
                Mode::CopyHead(_) => self.copy_head(rest),
                Mode::Copy(_) => self.copy_rows(rest),
            };
            rest = &rest[taken..];
        }
        self.text.last_byte = bytes.last().copied().or(self.text.last_byte);
    }

    /// Returns how many bytes were taken.
    pub fn position(&self) -> u64 {
        self.lexer.position()
    }

    /// Tells whether a statement is under way.
    pub fn is_in_statement(&self) -> bool {
        !self.statement.is_empty()
    }

    /// Returns the offset behind which something stands that may still turn out to be judged.
    pub fn judged_until(&self) -> u64 {
        let in_sql = matches!(self.mode, Mode::Sql);
        match (in_sql, self.statement.is_empty()) {
            (true, false) if self.statement.is_held(self.notes.has_about()) => {
                self.statement.start()
            }
            (true, is_empty) if self.lexer.may_be_judged(is_empty) => self.lexer.token_start(),
            _ => self.position(),
        }
    }

    /// Returns the offset of the first NUL byte, which no plain dump holds.
    pub fn first_nul(&self) -> Option<u64> {
        self.text.first_nul
    }

    /// Returns the offset from which on a cut may still be reported: the start of the statement under way.
    pub fn settled_until(&self) -> u64 {
        let in_sql = matches!(self.mode, Mode::Sql);
        match (in_sql, self.statement.is_empty()) {
            (true, false) => self.statement.start(),
            (true, true) if self.lexer.is_inside_token() => self.lexer.token_start(),
            _ => self.position(),
        }
    }

    /// Returns the table whose rows are being read.
    pub fn current_table(&self) -> Option<&Table> {
        match &self.mode {
            Mode::CopyHead(block) | Mode::Copy(block) => Some(&self.tables.list[block.table].table),
            Mode::Sql => None,
        }
    }

    /// Tells whether a table was met.
    pub fn has_tables(&self) -> bool {
        !self.tables.list.is_empty()
    }

    /// Returns where the first statement begins that is data or follows the data, once it has ended; of a COPY, its rows
    /// need not have come.
    pub fn definitions_end(&self) -> Option<u64> {
        let copy = match &self.mode {
            Mode::CopyHead(block) | Mode::Copy(block) => Some(block.start),
            Mode::Sql => None,
        };
        self.places.definitions_end().or(copy)
    }

    /// Tells whether a table was made, and not dropped again.
    pub fn has_made(&self, name: &TableName) -> bool {
        self.tables.has_made(name.schema_or_public(), &name.name)
    }

    /// Returns how many tables had rows so far.
    pub fn tables_with_rows(&self) -> usize {
        self.tables.with_rows
    }

    /// Ends the dump and says what was found.
    pub fn finish(mut self) -> Scan {
        let bytes = self.position();
        let was_inside_quote = self.lexer.is_inside_quote();
        if let (Mode::Sql, Some((start, token))) = (&self.mode, self.lexer.end()) {
            take_token(&mut self.statement, &mut self.marks, token, start);
        }
        let cut = self.cut_at_end(bytes, was_inside_quote);
        let (end_marker, cluster) = (self.marks.end_marker(), self.marks.is_cluster());
        let (server_version, pg_dump_version) = (
            self.marks.server_version.take(),
            self.marks.pg_dump_version.take(),
        );
        let (mut problems, mut warnings) = self.marks.finish();
        problems.extend(cut);
        problems.extend(self.text.nul_problem());
        warnings.extend(self.noise);
        warnings.extend(self.tables.not_utf8());
        warnings.extend(self.text.warnings());
        Scan {
            bytes,
            complete: problems.is_empty(),
            end_marker,
            cluster,
            pg_dump_version,
            server_version,
            client_encoding: self.session.encoding_name,
            text_form: self.form.as_ref().map(FormFacts::text_form),
            tables: self.tables.into_list(),
            sections: if cluster {
                Vec::new()
            } else {
                self.places.sections(bytes)
            },
            statements: self.statements,
            large_objects: self.large_objects,
            sequences: by_name(self.sequences),
            extensions: self.extensions,
            roles: self.roles.into_iter().collect(),
            tablespaces: self.tablespaces.into_iter().collect(),
            problems,
            warnings,
        }
    }

    fn cut_at_end(&mut self, bytes: u64, was_inside_quote: bool) -> Option<Finding> {
        match std::mem::replace(&mut self.mode, Mode::Sql) {
            Mode::CopyHead(block) | Mode::Copy(block) => {
                let inside_row = if block.rows.is_inside_line() {
                    "in the middle of a row"
                } else {
                    "between two rows"
                };
                let name = self.tables.list[block.table].table.full_name();
                self.tables.add_block(block, bytes);
                let message = format!("it is cut inside the rows of `{name}`, {inside_row}");
                Some(Finding::new("cut_in_rows", message, Some(bytes)))
            }
            Mode::Sql if was_inside_quote || !self.statement.is_empty() => {
                let message = format!(
                    "it is cut inside the statement that begins at byte {}",
                    self.statement.start()
                );
                Some(Finding::new("cut_in_statement", message, Some(bytes)))
            }
            Mode::Sql => None,
        }
    }

    fn sql(&mut self, bytes: &[u8]) -> usize {
        let mark = self.text.skip_mark(bytes[0], self.position());
        if mark > 0 {
            self.lexer.pass_over(mark);
            return mark;
        }
        self.lexer.keep_strings = self.statement.wants_literals();
        self.lexer.skips_numbers = self.statement.is_inside_inserted_row();
        self.lexer.at_statement_start = self.statement.is_empty();
        let (taken, token) = self.lexer.next(bytes);
        let Some((start, token)) = token else {
            return taken;
        };
        if let Notes::Rows(watch) = &mut self.notes {
            watch.token(token, self.session.encoding);
        }
        let command = match (&self.notes, token) {
            (Notes::Judged { .. }, Token::Meta(line)) => Some(JudgedKind::meta(line)),
            _ => None,
        };
        let was_empty = self.statement.is_empty();
        let effect = take_token(&mut self.statement, &mut self.marks, token, start);
        let is_begun = was_empty && (!self.statement.is_empty() || matches!(effect, Effect::Ended));
        if is_begun && self.notes.is_judged() {
            self.found.begun.push((start, self.lexer.standard_strings));
        }
        if let Some(kind) = command {
            self.judge(kind, None, Carrier::Restorer, start);
        }
        match effect {
            Effect::None => {}
            Effect::Noise => self.note_noise(start),
            Effect::Connected => self.forget_session(),
            Effect::Ended => self.end_statement(),
        }
        taken
    }

    fn judge(&mut self, kind: JudgedKind, about: Option<About>, carrier: Carrier, start: u64) {
        let end = self.lexer.position();
        if self.notes.is_judged() {
            self.found.judged.push(Judged {
                start,
                end,
                kind,
                about,
                carrier,
            });
        }
    }

    fn note_noise(&mut self, offset: u64) {
        self.lexer.skip_line();
        self.judge(JudgedKind::Noise, None, Carrier::Restorer, offset);
        let message = "a line that is not SQL, such as a program's warning; psql stops at it";
        note(
            &mut self.noise,
            Finding::new("no_sql", message, Some(offset)),
        );
    }

    fn forget_session(&mut self) {
        self.session.search_path = None;
        self.lexer.standard_strings = true;
        self.use_encoding(NameEncoding::Utf8);
        self.session.is_utf8 = false;
    }

    fn use_encoding(&mut self, encoding: NameEncoding) {
        self.session.encoding = encoding;
        self.lexer.wide_leads = encoding.wide_leads();
    }

    fn end_statement(&mut self) {
        let (start, end) = (self.statement.start(), self.position());
        self.statements += 1;
        let mut statement = std::mem::replace(&mut self.statement, Statement::new());
        let ended = statement.read();
        if self.notes.is_judged()
            && let Some((kind, about, carrier)) = ended.judged(self.notes.has_about())
        {
            self.judge(kind, about, carrier, start);
        }
        if matches!(self.notes, Notes::Statements) {
            self.found.statements.push(Listed {
                start,
                end,
                work: ended.work(&|name| self.session.table_name(&name)),
                spoken: self.session.spoken(self.lexer.standard_strings),
            });
        }
        self.take_meaning(ended.meaning(), start, end);
        statement.clear();
        self.statement = statement;
    }

    fn take_meaning(&mut self, meaning: Meaning<'_>, start: u64, end: u64) {
        if matches!(self.notes, Notes::Rows(_)) {
            self.tell_watch(&meaning);
        }
        match meaning {
            Meaning::CreateTable { name, made, parent } => self.create_table(&name, made, parent),
            Meaning::DropTables(names) => names.iter().for_each(|name| self.drop_table(name)),
            Meaning::BecomesView(name) => self.drop_table(&name),
            Meaning::AttachPartition { name, parent } => self.attach(&name, &parent),
            Meaning::CopyFromStdin {
                name,
                columns,
                is_all_quoted,
            } => {
                if let Some(form) = &mut self.form {
                    form.note_head(is_all_quoted);
                }
                self.start_copy(&name, columns, start);
            }
            Meaning::Insert(name, rows) => {
                self.places.note_data(start, end);
                let length = end - start;
                let at = self.table_index(&name);
                self.tables.add_inserted(at, rows, length);
            }
            Meaning::OtherData { large_object } => {
                self.large_objects += u64::from(large_object);
                self.places.note_data(start, end);
            }
            Meaning::SequenceValue {
                name,
                value,
                is_called,
            } => {
                self.places.note_data(start, end);
                if let Some(name) = self.session.sequence(name) {
                    self.sequences.insert(name, (value, is_called));
                }
            }
            Meaning::SearchPath(path) => self.session.search_path = Some(path),
            Meaning::StandardStrings(on) => self.lexer.standard_strings = on,
            Meaning::ClientEncoding(name) => {
                let name = String::from_utf8_lossy(name).into_owned();
                self.use_encoding(NameEncoding::named(&name));
                self.session.is_utf8 = NameEncoding::is_utf8(&name);
                self.session.encoding_name.get_or_insert(name);
            }
            Meaning::Extension(name) => self
                .extensions
                .push(self.session.encoding.decode(name).into_owned()),
            Meaning::Tablespace(name) => {
                let name = self.session.encoding.decode(name).into_owned();
                self.tablespaces.insert(name);
            }
            Meaning::Roles(roles) => {
                let encoding = self.session.encoding;
                self.roles
                    .extend(roles.iter().map(|role| encoding.decode(role).into_owned()));
            }
            Meaning::PostData => {
                self.places.post_data_start.get_or_insert(start);
            }
            Meaning::Other => {}
        }
    }

    fn tell_watch(&mut self, meaning: &Meaning<'_>) {
        let made = match meaning {
            Meaning::CreateTable { name, .. } => {
                let at = self.table_index(name);
                let table = &self.tables.list[at].table;
                Some((table.schema.as_str(), table.name.as_str()))
            }
            _ => None,
        };
        if let Notes::Rows(watch) = &mut self.notes {
            watch.statement_ends(made);
        }
    }

    fn create_table(&mut self, name: &RawName<'_>, made: Made, parent: Option<RawName<'_>>) {
        let parent = parent.map(|parent| self.session.parent(&parent));
        self.table(name).create(made, parent);
    }

    fn attach(&mut self, name: &RawName<'_>, parent: &RawName<'_>) {
        let parent = self.session.parent(parent);
        self.table(name).attach(parent);
    }

    fn drop_table(&mut self, name: &RawName<'_>) {
        self.table(name).is_dropped = true;
    }

    fn start_copy(&mut self, name: &RawName<'_>, columns: Vec<&[u8]>, start: u64) {
        let encoding = self.session.encoding;
        let at = self.table_index(name);
        let met = &mut self.tables.list[at];
        met.is_dropped = false;
        met.table.columns.get_or_insert_with(|| {
            columns
                .iter()
                .map(|column| encoding.decode(column).into_owned())
                .collect()
        });
        if self.notes.is_judged() {
            let rows = JudgedKind::Rows(met.table.full_name(), met.table.kind);
            self.judge(rows, None, Carrier::Restorer, start);
        }
        if let Notes::Rows(watch) = &mut self.notes {
            watch.copy_starts(at, &self.tables.list[at].table);
        }
        self.found.cuts.push(start);
        self.mode = Mode::CopyHead(CopyBlock {
            table: at,
            start,
            rows: Rows::new(self.session.is_utf8, self.form.is_some()),
        });
    }

    fn copy_head(&mut self, bytes: &[u8]) -> usize {
        let newline = memchr(b'\n', bytes);
        let taken = newline.map_or(bytes.len(), |at| at + 1);
        let start = self.position();
        self.lexer.pass_over(taken);
        if !bytes[..taken].iter().all(u8::is_ascii_whitespace) {
            self.judge(JudgedKind::BehindCopy, None, Carrier::Restorer, start);
        }
        if newline.is_some() {
            self.mode = match std::mem::replace(&mut self.mode, Mode::Sql) {
                Mode::CopyHead(block) => Mode::Copy(block),
                other => other,
            };
        }
        taken
    }

    fn copy_rows(&mut self, bytes: &[u8]) -> usize {
        let Mode::Copy(block) = &mut self.mode else {
            return 0;
        };
        let end = block.rows.push(bytes);
        let taken = end.unwrap_or(bytes.len());
        if let Notes::Rows(watch) = &self.notes
            && watch.is_inside()
        {
            let at = self.lexer.position();
            self.found.rows.push(at..at + taken as u64);
        }
        self.lexer.pass_over(taken);
        if end.is_some() {
            let end = self.position();
            if let Mode::Copy(block) = std::mem::replace(&mut self.mode, Mode::Sql) {
                self.places.note_data(block.start, end);
                if let Some(form) = &mut self.form {
                    form.note_rows(&block.rows);
                }
                self.tables.add_block(block, end);
            }
            self.found.cuts.push(end);
        }
        taken
    }

    fn table(&mut self, name: &RawName<'_>) -> &mut Met {
        let at = self.table_index(name);
        &mut self.tables.list[at]
    }

    fn table_index(&mut self, name: &RawName<'_>) -> usize {
        let schema = self.session.schema(name);
        let table = self.session.encoding.decode(name.name);
        self.tables
            .find_or_add(self.marks.database(), &schema, &table)
    }
}

fn by_name(sequences: HashMap<TableName, (i64, bool)>) -> Vec<SequenceValue> {
    let mut values: Vec<SequenceValue> = sequences
        .into_iter()
        .map(|(name, (value, is_called))| SequenceValue {
            name,
            value,
            is_called,
        })
        .collect();
    values.sort_by(|a, b| (&a.name.schema, &a.name.name).cmp(&(&b.name.schema, &b.name.name)));
    values
}

/// What a token did to the file as a whole.
enum Effect {
    None,
    Noise,
    Connected,
    Ended,
}

fn take_token(
    statement: &mut Statement,
    marks: &mut Marks,
    token: Token<'_>,
    start: u64,
) -> Effect {
    match token {
        Token::Comment(text) => {
            if statement.is_empty() {
                marks.comment(text);
            }
            Effect::None
        }
        Token::Meta(line) => match marks.meta(line, start) {
            MetaEffect::None => Effect::None,
            MetaEffect::Connected => Effect::Connected,
        },
        token => {
            let was_empty = statement.is_empty();
            let step = statement.take(token, start);
            if was_empty && !statement.is_empty() {
                marks.statement(start);
            }
            match step {
                Step::More => Effect::None,
                Step::Noise => Effect::Noise,
                Step::Ended => Effect::Ended,
            }
        }
    }
}

#[cfg(test)]
mod tests;
