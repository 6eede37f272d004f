//! The dump scanner: reads a plain dump once, in pieces of any size, and says what is in it and whether it is whole.
//!
//! It is exact where a search for text is not: a `CREATE TABLE` or an end marker inside a row, a string, a comment
//! or a function body is none. Its memory depends neither on the size of the dump nor on the length of a row.

mod digest;
mod encoding;
mod judged;
mod lexeme;
mod lexer;
mod listed;
mod marks;
mod report;
mod rows;
mod statement;
mod watch;

use std::collections::{BTreeSet, HashMap};

use memchr::memchr;

pub use digest::RowDigest;
pub use encoding::NameEncoding as TextEncoding;
pub use judged::{About, Judged, JudgedKind, What};
pub use lexeme::{Lexeme, LexemeKind, lexemes};
pub use listed::{Listed, Spoken, Work};
pub use report::{
    Block, Finding, Parent, Scan, Section, SectionName, SequenceValue, Table, TableKind,
};
pub use watch::{ColumnKind, Watch};

use crate::name::TableName;
use encoding::NameEncoding;
use lexer::{Lexer, Token};
use marks::{Marks, MetaEffect};
use report::note;
use rows::Rows;
pub(crate) use statement::{
    Action, Alter, Constraint, Kind, Path, Said, Target, Thing, Tokens, read,
};
use statement::{Made, Meaning, RawName, Statement, Step};

/// UTF-8 byte order mark; psql passes over it, and so does the scanner.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Scans one dump.
pub struct Scanner {
    mode: Mode,
    lexer: Lexer,
    statement: Statement,
    marks: Marks,
    tables: Tables,
    cuts: Vec<u64>,
    search_path: Option<Vec<Vec<u8>>>,
    encoding: NameEncoding,
    encoding_name: Option<String>,
    places: Places,
    statements: u64,
    large_objects: u64,
    sequences: HashMap<TableName, (i64, bool)>,
    extensions: Vec<String>,
    roles: BTreeSet<String>,
    text: TextFacts,
    noise: Vec<Finding>,
    watch: Option<Box<Watch>>,
    /// What a restore has to judge, where somebody asked for it.
    judged: Option<Vec<Judged>>,
    /// Whether it is also told what statements are about.
    judges_all: bool,
    /// Where statements began since somebody last asked, and whether plain literals know no backslash there.
    begun: Vec<(u64, bool)>,
    /// Every statement, where somebody asked for them.
    listed: Option<Vec<Listed>>,
}

enum Mode {
    /// Statements, comments, backslash commands.
    Sql,
    /// Behind the semicolon of a COPY, up to the end of its line.
    CopyHead(CopyBlock),
    /// Rows.
    Copy(CopyBlock),
}

struct CopyBlock {
    table: usize,
    start: u64,
    rows: Rows,
}

/// What is known of the text as such.
#[derive(Default)]
struct TextFacts {
    last_byte: Option<u8>,
    has_newline: bool,
    is_crlf: bool,
    mark_bytes: usize,
    first_nul: Option<u64>,
}

/// Where data begins and ends, and where what follows the data begins in a dump without any.
#[derive(Default)]
struct Places {
    data_start: Option<u64>,
    data_end: u64,
    post_data_start: Option<u64>,
}

/// All tables met so far, found by database, schema and name.
#[derive(Default)]
struct Tables {
    list: Vec<Met>,
    index: HashMap<(Option<String>, String, String), usize>,
    /// The one met last: the next INSERT is most likely of the same table, and needs no key made to look it up.
    last: usize,
    with_rows: usize,
}

struct Met {
    table: Table,
    /// Dropped, or turned into a view, and not made again.
    is_dropped: bool,
    /// Some rows came by INSERT, whose text has no digest.
    has_inserts: bool,
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

impl Scanner {
    /// Starts a scan.
    pub fn new() -> Self {
        Self {
            mode: Mode::Sql,
            lexer: Lexer::new(),
            statement: Statement::new(),
            marks: Marks::default(),
            tables: Tables::default(),
            cuts: Vec::new(),
            search_path: None,
            encoding: NameEncoding::Utf8,
            encoding_name: None,
            places: Places::default(),
            statements: 0,
            large_objects: 0,
            sequences: HashMap::new(),
            extensions: Vec::new(),
            roles: BTreeSet::new(),
            text: TextFacts::default(),
            noise: Vec::new(),
            watch: None,
            judged: None,
            judges_all: false,
            begun: Vec::new(),
            listed: None,
        }
    }

    /// Starts a scan that also tells what whoever passes the dump on has to judge.
    pub fn judging() -> Self {
        Self {
            judged: Some(Vec::new()),
            ..Self::new()
        }
    }

    /// Starts a scan that also tells what statements are about.
    pub fn judging_all() -> Self {
        Self {
            judges_all: true,
            ..Self::judging()
        }
    }

    /// Starts a scan that also lists every statement and what it works on.
    pub fn listing() -> Self {
        Self {
            listed: Some(Vec::new()),
            ..Self::new()
        }
    }

    /// Hands over the statements that ended since the last call, in order.
    pub fn take_listed(&mut self) -> Vec<Listed> {
        self.listed.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Starts a scan that looks closely at one table. With `takes_any`, all rows are known to be its own, whatever
    /// name stands in front of them.
    pub fn watching(name: TableName, takes_any: bool) -> Self {
        Self {
            watch: Some(Box::new(Watch::new(name, takes_any))),
            ..Self::new()
        }
    }

    /// Returns what is known of the watched table.
    pub fn watch(&self) -> Option<&Watch> {
        self.watch.as_deref()
    }

    /// Returns the watched table as far as its rows were read.
    pub fn watched_table(&self) -> Option<&Table> {
        let at = self.watch.as_ref()?.table()?;
        Some(&self.tables.list[at].table)
    }

    /// Hands over where rows of the watched table lie, among the bytes taken since the last call; lines that close a
    /// block among them.
    pub fn take_rows(&mut self) -> Vec<std::ops::Range<u64>> {
        self.watch
            .as_mut()
            .map(|watch| watch.take_rows())
            .unwrap_or_default()
    }

    /// Returns the name of the first client encoding that the dump set.
    pub fn client_encoding(&self) -> Option<&str> {
        self.encoding_name.as_deref()
    }

    /// Returns the encoding in force.
    pub fn encoding(&self) -> TextEncoding {
        self.encoding
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

    /// Hands over the offsets found since the last call at which a table's COPY block begins or ends, in order.
    pub fn take_cuts(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.cuts)
    }

    /// Hands over what was found since the last call that a restore has to judge, in order.
    pub fn take_judged(&mut self) -> Vec<Judged> {
        self.judged.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Returns where statements began since the last call, and whether plain literals know no backslash there.
    pub fn take_begun(&mut self) -> Vec<(u64, bool)> {
        std::mem::take(&mut self.begun)
    }

    /// Tells whether a statement is under way.
    pub fn is_in_statement(&self) -> bool {
        !self.statement.is_empty()
    }

    /// Returns the offset behind which something stands that may still turn out to be judged.
    pub fn judged_until(&self) -> u64 {
        let in_sql = matches!(self.mode, Mode::Sql);
        match (in_sql, self.statement.is_empty()) {
            (true, false) if self.statement.is_held(self.judges_all) => self.statement.start(),
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
        warnings.extend(self.text.warnings());
        Scan {
            bytes,
            complete: problems.is_empty(),
            end_marker,
            cluster,
            pg_dump_version,
            server_version,
            client_encoding: self.encoding_name,
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
        if let Some(watch) = &mut self.watch {
            watch.token(token, self.encoding);
        }
        let command = match (&self.judged, token) {
            (Some(_), Token::Meta(line)) => Some(JudgedKind::meta(line)),
            _ => None,
        };
        let was_empty = self.statement.is_empty();
        let effect = take_token(&mut self.statement, &mut self.marks, token, start);
        let is_begun = was_empty && (!self.statement.is_empty() || matches!(effect, Effect::Ended));
        if self.judged.is_some() && is_begun {
            self.begun.push((start, self.lexer.standard_strings));
        }
        if let Some(kind) = command {
            self.judge(kind, None, start);
        }
        match effect {
            Effect::None => {}
            Effect::Noise => self.note_noise(start),
            Effect::Connected => self.forget_session(),
            Effect::Ended => self.end_statement(),
        }
        taken
    }

    fn judge(&mut self, kind: JudgedKind, about: Option<About>, start: u64) {
        let end = self.lexer.position();
        if let Some(judged) = &mut self.judged {
            judged.push(Judged {
                start,
                end,
                kind,
                about,
            });
        }
    }

    fn note_noise(&mut self, offset: u64) {
        self.lexer.skip_line();
        self.judge(JudgedKind::Noise, None, offset);
        let message = "a line that is no SQL, such as a program's warning that was mixed in; psql stops at it";
        note(
            &mut self.noise,
            Finding::new("no_sql", message, Some(offset)),
        );
    }

    fn forget_session(&mut self) {
        self.search_path = None;
        self.lexer.standard_strings = true;
        self.use_encoding(NameEncoding::Utf8);
    }

    fn use_encoding(&mut self, encoding: NameEncoding) {
        self.encoding = encoding;
        self.lexer.wide_leads = encoding.wide_leads();
    }

    fn end_statement(&mut self) {
        let (start, end) = (self.statement.start(), self.position());
        self.statements += 1;
        let mut statement = std::mem::replace(&mut self.statement, Statement::new());
        let ended = statement.read();
        if self.judged.is_some()
            && let Some((kind, about)) = ended.judged(self.judges_all)
        {
            self.judge(kind, about, start);
        }
        if let Some(listed) = &mut self.listed {
            let (path, encoding) = (self.search_path.as_deref(), self.encoding);
            let name = |name: RawName<'_>| {
                let schema = encoding.decode(schema_of(&name, path)).into_owned();
                TableName::new(schema, encoding.decode(name.name))
            };
            let work = ended.work(&name);
            let spoken = Spoken {
                standard_strings: self.lexer.standard_strings,
                encoding,
                has_search_path: path.is_none_or(|path| !path.is_empty()),
                schema: encoding.decode(default_schema(path)).into_owned(),
            };
            listed.push(Listed {
                start,
                end,
                work,
                spoken,
            });
        }
        self.take_meaning(ended.meaning(), start, end);
        statement.clear();
        self.statement = statement;
    }

    fn take_meaning(&mut self, meaning: Meaning<'_>, start: u64, end: u64) {
        if self.watch.is_some() {
            self.tell_watch(&meaning);
        }
        match meaning {
            Meaning::CreateTable { name, made, parent } => self.create_table(&name, made, parent),
            Meaning::DropTables(names) => names.iter().for_each(|name| self.drop_table(name)),
            Meaning::BecomesView(name) => self.drop_table(&name),
            Meaning::AttachPartition { name, parent } => self.attach(&name, &parent),
            Meaning::CopyFromStdin(name, columns) => self.start_copy(&name, columns, start),
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
                let name = self.encoding.decode(name).parse::<TableName>();
                // A name that cannot be read is none that pg_dump wrote; the server refuses it.
                if let Ok(mut name) = name {
                    let path = self.search_path.as_deref();
                    let here = || self.encoding.decode(default_schema(path)).into_owned();
                    name.schema.get_or_insert_with(here);
                    self.sequences.insert(name, (value, is_called));
                }
            }
            Meaning::SearchPath(path) => self.search_path = Some(path),
            Meaning::StandardStrings(on) => self.lexer.standard_strings = on,
            Meaning::ClientEncoding(name) => {
                let name = String::from_utf8_lossy(name).into_owned();
                self.use_encoding(NameEncoding::named(&name));
                self.encoding_name.get_or_insert(name);
            }
            Meaning::Extension(name) => self
                .extensions
                .push(self.encoding.decode(name).into_owned()),
            Meaning::Roles(roles) => {
                let encoding = self.encoding;
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
        if let Some(watch) = &mut self.watch {
            watch.statement_ends(made);
        }
    }

    fn create_table(&mut self, name: &RawName<'_>, made: Made, parent: Option<RawName<'_>>) {
        let parent = parent.map(|parent| self.parent(&parent));
        let met = self.table(name);
        if std::mem::take(&mut met.is_dropped) {
            let table = &met.table;
            *met = Met::new(
                table.database.clone(),
                table.schema.clone(),
                table.name.clone(),
            );
        }
        met.table.kind.get_or_insert(match made {
            Made::Ordinary => TableKind::Table,
            Made::Unlogged => TableKind::Unlogged,
            Made::Foreign => TableKind::Foreign,
            Made::Partitioned => TableKind::Partitioned,
            Made::Partition => TableKind::Partition,
        });
        met.table.parent = parent.or(met.table.parent.take());
    }

    fn attach(&mut self, name: &RawName<'_>, parent: &RawName<'_>) {
        let parent = self.parent(parent);
        let met = self.table(name);
        if met.table.kind == Some(TableKind::Table) {
            met.table.kind = Some(TableKind::Partition);
        }
        met.table.parent = Some(parent);
    }

    fn drop_table(&mut self, name: &RawName<'_>) {
        self.table(name).is_dropped = true;
    }

    fn start_copy(&mut self, name: &RawName<'_>, columns: Vec<&[u8]>, start: u64) {
        let encoding = self.encoding;
        let at = self.table_index(name);
        let met = &mut self.tables.list[at];
        met.is_dropped = false;
        met.table.columns.get_or_insert_with(|| {
            columns
                .iter()
                .map(|column| encoding.decode(column).into_owned())
                .collect()
        });
        let found = (met.table.full_name(), met.table.kind);
        if self.judged.is_some() {
            self.judge(JudgedKind::Rows(found.0, found.1), None, start);
        }
        let met = &self.tables.list[at];
        if let (Some(watch), table) = (&mut self.watch, &met.table) {
            let columns = table.columns.as_deref().unwrap_or_default();
            watch.copy_starts(at, &table.schema, &table.name, columns);
        }
        self.cuts.push(start);
        self.mode = Mode::CopyHead(CopyBlock {
            table: at,
            start,
            rows: Rows::new(),
        });
    }

    fn copy_head(&mut self, bytes: &[u8]) -> usize {
        let newline = memchr(b'\n', bytes);
        let taken = newline.map_or(bytes.len(), |at| at + 1);
        let start = self.position();
        self.lexer.pass_over(taken);
        if !bytes[..taken].iter().all(u8::is_ascii_whitespace) {
            self.judge(JudgedKind::BehindCopy, None, start);
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
        if let Some(watch) = &mut self.watch {
            let at = self.lexer.position();
            watch.note_rows(at..at + taken as u64);
        }
        self.lexer.pass_over(taken);
        if end.is_some() {
            let end = self.position();
            if let Mode::Copy(block) = std::mem::replace(&mut self.mode, Mode::Sql) {
                self.places.note_data(block.start, end);
                self.tables.add_block(block, end);
            }
            self.cuts.push(end);
        }
        taken
    }

    fn table(&mut self, name: &RawName<'_>) -> &mut Met {
        let at = self.table_index(name);
        &mut self.tables.list[at]
    }

    fn parent(&self, name: &RawName<'_>) -> Parent {
        let schema = schema_of(name, self.search_path.as_deref());
        Parent {
            schema: self.encoding.decode(schema).into_owned(),
            name: self.encoding.decode(name.name).into_owned(),
        }
    }

    fn table_index(&mut self, name: &RawName<'_>) -> usize {
        let schema = self
            .encoding
            .decode(schema_of(name, self.search_path.as_deref()));
        let name = self.encoding.decode(name.name);
        self.tables
            .find_or_add(self.marks.database(), &schema, &name)
    }
}

/// The schema that a name means.
fn schema_of<'a>(name: &RawName<'a>, path: Option<&'a [Vec<u8>]>) -> &'a [u8] {
    name.schema.unwrap_or_else(|| default_schema(path))
}

/// The first schema of the search path that a table can be made in; `public` where none is set.
fn default_schema(path: Option<&[Vec<u8>]>) -> &[u8] {
    let usable =
        |schema: &&Vec<u8>| !matches!(schema.as_slice(), b"$user" | b"pg_catalog" | b"pg_temp");
    path.unwrap_or_default()
        .iter()
        .find(usable)
        .map_or(b"public", |schema| schema.as_slice())
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

impl Tables {
    fn find_or_add(&mut self, database: Option<&str>, schema: &str, name: &str) -> usize {
        let is_it = |met: &Met| met.table.name == name && met.table.schema == schema;
        if let Some(last) = self.list.get(self.last)
            && is_it(last)
            && last.table.database.as_deref() == database
        {
            return self.last;
        }
        let key = (
            database.map(str::to_owned),
            schema.to_owned(),
            name.to_owned(),
        );
        self.last = *self.index.entry(key).or_insert_with_key(|key| {
            let (database, schema, name) = key.clone();
            self.list.push(Met::new(database, schema, name));
            self.list.len() - 1
        });
        self.last
    }

    fn add_block(&mut self, block: CopyBlock, end: u64) {
        let met = &mut self.list[block.table];
        self.with_rows += usize::from(met.table.rows.is_none());
        met.add_copied(&block, end);
    }

    fn add_inserted(&mut self, at: usize, rows: u64, bytes: u64) {
        let met = &mut self.list[at];
        self.with_rows += usize::from(met.table.rows.is_none());
        met.add_inserted(rows, bytes);
    }

    /// A table that was only dropped, or only named by a statement about it, is not in the dump.
    fn into_list(self) -> Vec<Table> {
        let is_there =
            |met: &Met| !met.is_dropped && (met.table.kind.is_some() || met.table.rows.is_some());
        self.list
            .into_iter()
            .filter(is_there)
            .map(|met| met.table)
            .collect()
    }
}

impl Met {
    fn new(database: Option<String>, schema: String, name: String) -> Self {
        Self {
            table: Table {
                database,
                ..Table::new(schema, name)
            },
            is_dropped: false,
            has_inserts: false,
        }
    }

    fn add_copied(&mut self, block: &CopyBlock, end: u64) {
        let table = &mut self.table;
        table.rows = Some(table.rows.unwrap_or(0) + block.rows.rows);
        table.bytes += block.rows.bytes;
        table.blocks.push(Block {
            offset: block.start,
            length: end - block.start,
        });
        if !self.has_inserts {
            table.digest.get_or_insert_default().add(block.rows.digest);
        }
    }

    fn add_inserted(&mut self, rows: u64, bytes: u64) {
        self.has_inserts = true;
        self.table.digest = None;
        self.table.rows = Some(self.table.rows.unwrap_or(0) + rows);
        self.table.bytes += bytes;
    }
}

impl Places {
    fn note_data(&mut self, start: u64, end: u64) {
        self.data_start.get_or_insert(start);
        self.data_end = end;
    }

    fn sections(&self, bytes: u64) -> Vec<Section> {
        let section = |name, start, end| Section {
            name,
            block: Block {
                offset: start,
                length: end - start,
            },
        };
        let sections = match (self.data_start, self.post_data_start) {
            (Some(start), _) => vec![
                section(SectionName::PreData, 0, start),
                section(SectionName::Data, start, self.data_end),
                section(SectionName::PostData, self.data_end, bytes),
            ],
            (None, Some(post)) => {
                vec![
                    section(SectionName::PreData, 0, post),
                    section(SectionName::PostData, post, bytes),
                ]
            }
            (None, None) => vec![section(SectionName::PreData, 0, bytes)],
        };
        sections
            .into_iter()
            .filter(|section| section.block.length > 0)
            .collect()
    }
}

impl TextFacts {
    fn look_at(&mut self, bytes: &[u8], position: u64) {
        if self.first_nul.is_none() {
            self.first_nul = memchr(0, bytes).map(|at| position + at as u64);
        }
        if self.has_newline {
            return;
        }
        if let Some(at) = memchr(b'\n', bytes) {
            self.has_newline = true;
            let before = if at > 0 {
                Some(bytes[at - 1])
            } else {
                self.last_byte
            };
            self.is_crlf = before == Some(b'\r');
        }
    }

    /// Returns 1 when `byte` continues a byte order mark at the start of the file.
    fn skip_mark(&mut self, byte: u8, position: u64) -> usize {
        let is_mark = position == self.mark_bytes as u64
            && BYTE_ORDER_MARK.get(self.mark_bytes) == Some(&byte);
        self.mark_bytes += usize::from(is_mark);
        usize::from(is_mark)
    }

    fn nul_problem(&self) -> Option<Finding> {
        let message = "a NUL byte, which no plain dump holds: the file was damaged";
        self.first_nul
            .map(|offset| Finding::new("nul_byte", message, Some(offset)))
    }

    fn warnings(&self) -> Vec<Finding> {
        let mut warnings = Vec::new();
        if self.mark_bytes == BYTE_ORDER_MARK.len() {
            let message = "it begins with a byte order mark that an editor or a shell put there";
            warnings.push(Finding::new("byte_order_mark", message, Some(0)));
        }
        if self.is_crlf {
            let message =
                "its lines end in CRLF: it passed through a terminal (`docker exec -t`) or Windows";
            warnings.push(Finding::new("crlf", message, None));
        }
        warnings
    }
}

#[cfg(test)]
mod tests;
