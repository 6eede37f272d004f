//! Says of one statement what it makes and what it belongs to, from its tokens: the grammar of pg_dump's statements.
//!
//! It never looks at comments. What it does not know belongs to nothing, and is left alone.

use crate::name::TableName;
use crate::scan::{Lexeme, LexemeKind, Spoken};

/// A thing of the database that statements make and speak about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Object {
    /// A schema.
    Schema(String),
    /// A table, a sequence, an index, a view: they share their names.
    Relation(TableName),
    /// A type or a domain.
    Type(TableName),
    /// A function, a procedure or an aggregate; all of one name.
    Routine(TableName),
    /// A collation, a text search configuration, an operator class and the like.
    Other(TableName),
    /// A statistics object.
    Statistics(TableName),
}

impl Object {
    /// Returns its name; a schema has none of this kind.
    pub fn name(&self) -> Option<&TableName> {
        match self {
            Self::Schema(_) => None,
            Self::Relation(name)
            | Self::Type(name)
            | Self::Routine(name)
            | Self::Other(name)
            | Self::Statistics(name) => Some(name),
        }
    }
}

/// What of a table a statement is about, where it can be left out together with others about the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    /// `constraint`, `trigger`, `rule` or `policy`.
    pub kind: &'static str,
    /// Its table.
    pub table: TableName,
    /// Its name.
    pub name: String,
}

/// What a statement does, where it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Makes or changes what `makes` and `on` tell, and nothing else.
    Plain,
    /// Changes this setting of the session.
    Setting(String),
    /// Makes a table.
    Table {
        /// Tables that it inherits from.
        inherits: Vec<TableName>,
        /// The table that it is made as a partition of.
        partition_of: Option<TableName>,
    },
    /// Makes a sequence.
    Sequence,
    /// Makes a view.
    View,
    /// Gives a sequence to a column.
    OwnedBy(TableName),
    /// Makes a column an identity, with this sequence.
    Identity(TableName),
    /// Makes a table a partition.
    Attach {
        /// The partitioned table.
        parent: TableName,
        /// The partition.
        child: TableName,
    },
    /// Adds a foreign key to this table.
    ForeignKey(TableName),
    /// Makes a trigger, a rule or a policy.
    Guarded,
    /// Adds the table to a publication.
    Publication(String),
    /// Switches row security.
    RowSecurity,
    /// Sets a sequence.
    SetValue(TableName),
    /// Content of large objects.
    LargeObject,
    /// Rows of a table.
    Copy(TableName),
}

/// What is known of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// What it does.
    pub deed: Deed,
    /// What it makes.
    pub makes: Option<Object>,
    /// What it belongs to: all of it must be there.
    pub on: Vec<Object>,
    /// What of a table it is about.
    pub part: Option<Part>,
}

impl Subject {
    fn nothing() -> Self {
        Self {
            deed: Deed::Plain,
            makes: None,
            on: Vec::new(),
            part: None,
        }
    }

    fn makes(object: Object) -> Self {
        Self {
            makes: Some(object),
            ..Self::nothing()
        }
    }

    fn on(objects: impl IntoIterator<Item = Object>) -> Self {
        Self {
            on: objects.into_iter().collect(),
            ..Self::nothing()
        }
    }

    fn does(self, deed: Deed) -> Self {
        Self { deed, ..self }
    }

    fn about(self, kind: &'static str, table: &TableName, name: String) -> Self {
        let table = table.clone();
        Self {
            part: Some(Part { kind, table, name }),
            ..self
        }
    }
}

/// Reads a statement.
pub fn subject(lexemes: &[Lexeme], spoken: &Spoken) -> Subject {
    let mut cursor = Cursor::new(lexemes, spoken);
    let found = match cursor.next_word() {
        Some(b"create") => create(&mut cursor),
        Some(b"alter") => alter(&mut cursor),
        Some(b"comment") => cursor.word("on").then(|| described(&mut cursor)).flatten(),
        Some(b"security") => security_label(&mut cursor),
        Some(b"grant" | b"revoke") => rights(&mut cursor),
        Some(b"set") => setting(&mut cursor),
        Some(b"reset") => setting(&mut cursor),
        Some(b"select") => select(&mut cursor),
        Some(b"copy") => cursor
            .name()
            .map(|name| Subject::nothing().does(Deed::Copy(name))),
        _ => None,
    };
    found.unwrap_or_else(Subject::nothing)
}

/// Walks over tokens. Names are completed by the schema that the session has in force.
struct Cursor<'a> {
    lexemes: &'a [Lexeme],
    spoken: &'a Spoken,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn new(lexemes: &'a [Lexeme], spoken: &'a Spoken) -> Self {
        Self {
            lexemes,
            spoken,
            at: 0,
        }
    }

    fn peek(&self) -> Option<&'a Lexeme> {
        self.lexemes.get(self.at)
    }

    fn next_word(&mut self) -> Option<&'a [u8]> {
        let lexeme = self
            .peek()
            .filter(|lexeme| lexeme.kind == LexemeKind::Word)?;
        self.at += 1;
        Some(&lexeme.text)
    }

    fn word(&mut self, word: &str) -> bool {
        let is_next = self.peek().is_some_and(|lexeme| {
            lexeme.kind == LexemeKind::Word && lexeme.text == word.as_bytes()
        });
        self.at += usize::from(is_next);
        is_next
    }

    fn words(&mut self, words: &[&str]) -> bool {
        let start = self.at;
        let all = words.iter().all(|word| self.word(word));
        if !all {
            self.at = start;
        }
        all
    }

    /// Takes any of these words.
    fn any(&mut self, words: &[&str]) -> bool {
        words.iter().any(|word| self.word(word))
    }

    fn punct(&mut self, byte: u8) -> bool {
        let is_next = self
            .peek()
            .is_some_and(|lexeme| lexeme.kind == LexemeKind::Punct(byte));
        self.at += usize::from(is_next);
        is_next
    }

    fn text(&self, lexeme: &Lexeme) -> String {
        self.spoken.encoding.decode(&lexeme.text).into_owned()
    }

    fn identifier(&mut self) -> Option<String> {
        let lexeme = self
            .peek()
            .filter(|lexeme| matches!(lexeme.kind, LexemeKind::Word | LexemeKind::Quoted))?;
        self.at += 1;
        Some(self.text(lexeme))
    }

    /// Takes `a.b.c`, one part or more.
    fn path(&mut self) -> Option<Vec<String>> {
        let mut parts = vec![self.identifier()?];
        while self.punct(b'.') {
            parts.push(self.identifier()?);
        }
        Some(parts)
    }

    fn complete(&self, mut parts: Vec<String>) -> Option<TableName> {
        let name = parts.pop()?;
        let schema = parts.pop().unwrap_or_else(|| self.spoken.schema.clone());
        Some(TableName::new(schema, name))
    }

    fn name(&mut self) -> Option<TableName> {
        let parts = self.path()?;
        self.complete(parts)
    }

    /// Takes a column's name with its table's, and returns the table's.
    fn table_of_column(&mut self) -> Option<TableName> {
        let mut parts = self.path()?;
        parts.pop()?;
        self.complete(parts)
    }

    /// Moves behind the next run of `words` outside parentheses.
    fn seek(&mut self, words: &[&str]) -> bool {
        let mut depth = 0_u32;
        while let Some(lexeme) = self.peek() {
            if depth == 0 && self.words(words) {
                return true;
            }
            match lexeme.kind {
                LexemeKind::Punct(b'(') => depth += 1,
                LexemeKind::Punct(b')') => depth = depth.saturating_sub(1),
                _ => {}
            }
            self.at += 1;
        }
        false
    }
}

fn create(cursor: &mut Cursor<'_>) -> Option<Subject> {
    cursor.words(&["or", "replace"]);
    while cursor.any(&[
        "unlogged",
        "foreign",
        "unique",
        "constraint",
        "materialized",
        "recursive",
    ]) {}
    let word = cursor.next_word()?;
    if !matches!(word, b"rule" | b"policy" | b"trigger") {
        cursor.words(&["if", "not", "exists"]);
    }
    match word {
        b"schema" => Some(Subject::makes(Object::Schema(cursor.identifier()?))),
        b"table" => create_table(cursor),
        b"sequence" => Some(Subject::makes(Object::Relation(cursor.name()?)).does(Deed::Sequence)),
        b"view" => Some(Subject::makes(Object::Relation(cursor.name()?)).does(Deed::View)),
        b"index" => create_index(cursor),
        b"statistics" => {
            let name = cursor.name()?;
            cursor.seek(&["from"]).then_some(())?;
            let on = Subject::on([Object::Relation(cursor.name()?)]);
            let makes = Some(Object::Statistics(name));
            Some(Subject { makes, ..on })
        }
        b"trigger" => guarded(cursor, "trigger", &["on"]),
        b"policy" => guarded(cursor, "policy", &["on"]),
        b"rule" => guarded(cursor, "rule", &["to"]),
        b"type" | b"domain" => Some(Subject::makes(Object::Type(cursor.name()?))),
        b"function" | b"procedure" | b"aggregate" => {
            Some(Subject::makes(Object::Routine(cursor.name()?)))
        }
        word => Some(Subject::makes(Object::Other(other(cursor, word)?))),
    }
}

/// What is behind `CREATE`, `ALTER` or `COMMENT ON`, of the kinds that are all alike here.
fn other(cursor: &mut Cursor<'_>, word: &[u8]) -> Option<TableName> {
    match word {
        b"collation" | b"conversion" => {}
        b"operator" => cursor.any(&["class", "family"]).then_some(())?,
        b"text" => {
            let kinds = ["configuration", "dictionary", "parser", "template"];
            (cursor.word("search") && cursor.any(&kinds)).then_some(())?;
        }
        _ => return None,
    }
    cursor.name()
}

fn create_table(cursor: &mut Cursor<'_>) -> Option<Subject> {
    let name = cursor.name()?;
    let partition_of = if cursor.words(&["partition", "of"]) {
        Some(cursor.name()?)
    } else {
        None
    };
    let mut inherits = Vec::new();
    if cursor.seek(&["inherits"]) && cursor.punct(b'(') {
        inherits.push(cursor.name()?);
        while cursor.punct(b',') {
            inherits.push(cursor.name()?);
        }
    }
    Some(Subject::makes(Object::Relation(name)).does(Deed::Table {
        inherits,
        partition_of,
    }))
}

/// An index lies in its table's schema, whatever stands in front of its name.
fn create_index(cursor: &mut Cursor<'_>) -> Option<Subject> {
    cursor.word("concurrently");
    let index = cursor.identifier()?;
    cursor.word("on").then_some(())?;
    cursor.word("only");
    let table = cursor.name()?;
    let index = TableName::new(table.schema_or_public(), index);
    Some(Subject {
        makes: Some(Object::Relation(index)),
        ..Subject::on([Object::Relation(table)])
    })
}

/// `CREATE TRIGGER x … ON t`, `CREATE POLICY x ON t`, `CREATE RULE x AS ON INSERT TO t`.
fn guarded(cursor: &mut Cursor<'_>, kind: &'static str, before: &[&str]) -> Option<Subject> {
    let name = cursor.identifier()?;
    cursor.seek(before).then_some(())?;
    let table = cursor.name()?;
    let deed = match (kind, name.as_str()) {
        // It makes a view out of what was made as a table, in dumps of 9.6 and before.
        ("rule", "_RETURN") => Deed::Plain,
        _ => Deed::Guarded,
    };
    let on = Subject::on([Object::Relation(table.clone())]);
    Some(on.does(deed).about(kind, &table, name))
}

fn alter(cursor: &mut Cursor<'_>) -> Option<Subject> {
    cursor.any(&["foreign", "materialized"]);
    match cursor.next_word()? {
        b"table" => alter_table(cursor),
        b"sequence" => {
            let sequence = Object::Relation(cursor.name()?);
            if !cursor.words(&["owned", "by"]) {
                return Some(Subject::on([sequence]));
            }
            let table = cursor.table_of_column()?;
            let on = Subject::on([sequence, Object::Relation(table.clone())]);
            Some(on.does(Deed::OwnedBy(table)))
        }
        b"index" => {
            let index = Object::Relation(cursor.name()?);
            if !cursor.words(&["attach", "partition"]) {
                return Some(Subject::on([index]));
            }
            let child = Object::Relation(cursor.name()?);
            Some(Subject::on([index, child]))
        }
        b"view" => Some(Subject::on([Object::Relation(cursor.name()?)])),
        b"publication" => {
            let name = cursor.identifier()?;
            cursor.words(&["add", "table"]).then_some(())?;
            cursor.word("only");
            let on = Subject::on([Object::Relation(cursor.name()?)]);
            Some(on.does(Deed::Publication(name)))
        }
        word => owned(cursor, word),
    }
}

/// What has an owner, rights and a comment, and is neither a relation nor a part of one.
fn owned(cursor: &mut Cursor<'_>, word: &[u8]) -> Option<Subject> {
    let object = match word {
        b"schema" => Object::Schema(cursor.identifier()?),
        b"type" | b"domain" => Object::Type(cursor.name()?),
        b"function" | b"procedure" | b"aggregate" | b"routine" => Object::Routine(cursor.name()?),
        b"statistics" => Object::Statistics(cursor.name()?),
        word => Object::Other(other(cursor, word)?),
    };
    Some(Subject::on([object]))
}

fn alter_table(cursor: &mut Cursor<'_>) -> Option<Subject> {
    cursor.words(&["if", "exists"]);
    cursor.word("only");
    let table = cursor.name()?;
    let on = Subject::on([Object::Relation(table.clone())]);
    if cursor.words(&["attach", "partition"]) {
        let child = cursor.name()?;
        let parent = table;
        return Some(Subject::nothing().does(Deed::Attach { parent, child }));
    }
    if cursor.words(&["add", "constraint"]) {
        return constraint(cursor, &table, on);
    }
    if cursor.words(&["alter", "column"]) {
        cursor.identifier()?;
        let is_identity = cursor.words(&["add", "generated"]) && cursor.seek(&["as", "identity"]);
        if !is_identity {
            return Some(on);
        }
        cursor.punct(b'(');
        let sequence = if cursor.words(&["sequence", "name"]) {
            cursor.name()?
        } else {
            return Some(on);
        };
        return Some(on.does(Deed::Identity(sequence)));
    }
    let mut ahead = Cursor {
        at: cursor.at,
        ..Cursor::new(cursor.lexemes, cursor.spoken)
    };
    ahead.word("no");
    if ahead.any(&["enable", "disable", "force"]) {
        if ahead.words(&["row", "level", "security"]) {
            return Some(on.does(Deed::RowSecurity));
        }
        ahead.any(&["always", "replica"]);
        for kind in ["trigger", "rule"] {
            if ahead.word(kind) {
                return Some(on.about(kind, &table, ahead.identifier()?));
            }
        }
    }
    Some(on)
}

fn constraint(cursor: &mut Cursor<'_>, table: &TableName, on: Subject) -> Option<Subject> {
    let name = cursor.identifier()?;
    let on = on.about("constraint", table, name.clone());
    if cursor.words(&["foreign", "key"]) {
        cursor.seek(&["references"]).then_some(())?;
        return Some(on.does(Deed::ForeignKey(cursor.name()?)));
    }
    let has_index = cursor.words(&["primary", "key"]) || cursor.any(&["unique", "exclude"]);
    let index = TableName::new(table.schema_or_public(), name);
    Some(Subject {
        makes: has_index.then_some(Object::Relation(index)),
        ..on
    })
}

/// What stands behind `COMMENT ON` or `SECURITY LABEL … ON`.
fn described(cursor: &mut Cursor<'_>) -> Option<Subject> {
    cursor.any(&["foreign", "materialized"]);
    match cursor.next_word()? {
        b"table" | b"view" | b"sequence" | b"index" => {
            Some(Subject::on([Object::Relation(cursor.name()?)]))
        }
        // A composite type has columns, too; a relation and a type of one name are one thing.
        b"column" => Some(Subject::on([Object::Relation(cursor.table_of_column()?)])),
        b"constraint" => {
            let name = cursor.identifier()?;
            cursor.word("on").then_some(())?;
            if cursor.word("domain") {
                return Some(Subject::on([Object::Type(cursor.name()?)]));
            }
            part_of(cursor, "constraint", name)
        }
        b"trigger" => named_part(cursor, "trigger"),
        b"rule" => named_part(cursor, "rule"),
        b"policy" => named_part(cursor, "policy"),
        word => owned(cursor, word),
    }
}

fn named_part(cursor: &mut Cursor<'_>, kind: &'static str) -> Option<Subject> {
    let name = cursor.identifier()?;
    cursor.word("on").then_some(())?;
    part_of(cursor, kind, name)
}

fn part_of(cursor: &mut Cursor<'_>, kind: &'static str, name: String) -> Option<Subject> {
    let table = cursor.name()?;
    let on = Subject::on([Object::Relation(table.clone())]);
    Some(on.about(kind, &table, name))
}

fn security_label(cursor: &mut Cursor<'_>) -> Option<Subject> {
    cursor.seek(&["on"]).then(|| described(cursor)).flatten()
}

/// `GRANT SELECT(a) ON TABLE t TO x`, `REVOKE ALL ON FUNCTION f(text) FROM PUBLIC`; pg_dump names one thing each.
fn rights(cursor: &mut Cursor<'_>) -> Option<Subject> {
    cursor.seek(&["on"]).then_some(())?;
    if cursor.any(&["table", "sequence"]) {
        return Some(Subject::on([Object::Relation(cursor.name()?)]));
    }
    let word = cursor.next_word()?;
    owned(cursor, word)
}

fn setting(cursor: &mut Cursor<'_>) -> Option<Subject> {
    let set = |name: &str| Some(Subject::nothing().does(Deed::Setting(name.to_owned())));
    if cursor.words(&["session", "authorization"]) {
        return set("session authorization");
    }
    while cursor.word("session") {}
    let name = String::from_utf8_lossy(cursor.next_word()?).into_owned();
    match name.as_str() {
        "local" | "constraints" | "transaction" => None,
        _ => set(&name),
    }
}

fn select(cursor: &mut Cursor<'_>) -> Option<Subject> {
    let function = cursor.path()?.pop()?;
    let deed = match function.as_str() {
        "set_config" => Deed::Setting("search_path".to_owned()),
        "setval" => {
            cursor.punct(b'(').then_some(())?;
            let literal = cursor
                .peek()
                .filter(|next| next.kind == LexemeKind::Literal)?;
            Deed::SetValue(relation_literal(literal, cursor.spoken)?)
        }
        "lo_open" | "lowrite" | "loread" | "lo_close" => Deed::LargeObject,
        _ => return None,
    };
    Some(Subject::nothing().does(deed))
}

/// Reads a literal that names a relation: `'public."S q"'`.
pub fn relation_literal(literal: &Lexeme, spoken: &Spoken) -> Option<TableName> {
    let text = spoken.encoding.decode(&literal.text);
    let name: TableName = text.parse().ok()?;
    let schema = name.schema.unwrap_or_else(|| spoken.schema.clone());
    Some(TableName::new(schema, name.name))
}
