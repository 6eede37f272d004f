//! The grammar of a dump's statements: reads one from its tokens, once, into a value that all others ask.
//!
//! It is that of what pg_dump writes. What it does not know is [`Said::Other`].

use super::tokens::{Cursor, Kind, Path, Tokens};

/// Words between `CREATE`, `ALTER` or `COMMENT ON` and the kind.
const MODIFIERS: &[&str] = &[
    "constraint",
    "foreign",
    "materialized",
    "recursive",
    "unique",
    "unlogged",
];

/// How a CREATE TABLE makes its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scan) enum Made {
    Ordinary,
    Unlogged,
    Foreign,
    Partitioned,
    Partition,
}

/// What a statement says.
#[derive(Debug)]
pub(crate) enum Said<'a> {
    CreateSchema {
        name: &'a [u8],
        /// Nothing else is said.
        is_bare: bool,
    },
    CreateTable(CreateTable<'a>),
    CreateIndex {
        name: Option<&'a [u8]>,
        table: Path<'a>,
        is_only: bool,
        is_concurrent: bool,
    },
    CreateTrigger {
        name: &'a [u8],
        table: Path<'a>,
        calls: Option<Path<'a>>,
    },
    CreateRule {
        name: &'a [u8],
        table: Path<'a>,
        is_on_select: bool,
    },
    CreatePolicy {
        name: &'a [u8],
        table: Path<'a>,
        roles: Option<Vec<&'a [u8]>>,
    },
    CreateEventTrigger {
        name: &'a [u8],
        calls: Option<Path<'a>>,
    },
    CreateStatistics {
        name: Path<'a>,
        table: Option<Path<'a>>,
    },
    CreateExtension(&'a [u8]),
    CreatePublication(&'a [u8]),
    /// Makes anything else that has a schema.
    Create(Thing, Path<'a>),
    /// Makes what pg_dump writes behind the data, and no more is known of it.
    PostData,
    /// Fills a materialized view.
    Refresh(Path<'a>),
    Alter(Alter<'a>),
    DefaultPrivileges(DefaultPrivileges<'a>),
    /// Makes or drops what belongs to the whole cluster.
    Cluster,
    DropTables(Vec<Path<'a>>),
    Comment(Target<'a>),
    Label(Target<'a>),
    Rights(Rights<'a>),
    /// `SET SESSION AUTHORIZATION`, or its RESET.
    Authorization {
        is_reset: bool,
    },
    Set(Setting<'a>),
    Reset(&'a [u8]),
    Select {
        /// What it calls, without a schema.
        function: &'a [u8],
        arguments: Vec<(Kind, &'a [u8])>,
        /// Nothing follows the call.
        is_call_alone: bool,
    },
    Copy(Copy<'a>),
    Insert(Path<'a>),
    /// `DO` or `CALL`.
    Code,
    Begin,
    Commit,
    /// Any other command about transactions.
    Transaction,
    Other,
}

#[derive(Debug)]
pub(crate) struct CreateTable<'a> {
    pub name: Path<'a>,
    pub(in crate::scan) made: Made,
    /// What it is a partition of.
    pub parent: Option<Path<'a>>,
    pub inherits: Vec<Path<'a>>,
}

/// A kind of what has a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thing {
    Table,
    View,
    Sequence,
    Index,
    /// A type or a domain.
    Type,
    /// A function or a procedure.
    Function,
    Aggregate,
    Statistics,
    /// A class or a family of operators.
    Operators,
    /// A collation, a conversion, a part of text search.
    Other,
}

/// What a statement changes or speaks about.
#[derive(Debug)]
pub(crate) enum Target<'a> {
    Schema(&'a [u8]),
    Thing(Thing, Path<'a>),
    Column(Path<'a>),
    /// A constraint, a trigger, a rule or a policy of a table.
    Part {
        kind: &'static str,
        name: &'a [u8],
        table: Path<'a>,
        is_of_domain: bool,
    },
    Extension(&'a [u8]),
    EventTrigger(&'a [u8]),
    Publication(&'a [u8]),
}

#[derive(Debug)]
pub(crate) struct Alter<'a> {
    /// It is about a database, a role, the server.
    pub is_of_cluster: bool,
    pub on: Option<Target<'a>>,
    pub is_only: bool,
    pub action: Action<'a>,
    /// What stands behind `OWNER TO`.
    pub owner: Option<&'a [u8]>,
    pub has_owner: bool,
    pub owners: Vec<&'a [u8]>,
    /// It changes the owner, and nothing else.
    pub is_owner_change: bool,
}

#[derive(Debug)]
pub(crate) enum Action<'a> {
    AttachPartition(Path<'a>),
    AddConstraint {
        name: &'a [u8],
        constraint: Constraint<'a>,
        /// No other clause adds something.
        is_alone: bool,
    },
    /// Makes a column an identity, with this sequence.
    Identity(Path<'a>),
    RowSecurity {
        /// It is made to hold for the table's owner, too.
        is_forced: bool,
    },
    /// Switches a trigger or a rule.
    Switch(&'static str, &'a [u8]),
    /// Gives a sequence to a column.
    OwnedBy(Path<'a>),
    /// Adds to a publication; a table, where one is named.
    Add(Option<Path<'a>>),
    Other,
}

#[derive(Debug)]
pub(crate) enum Constraint<'a> {
    ForeignKey(Path<'a>),
    /// A primary key, a unique constraint, an exclusion.
    Indexed,
    Other,
}

#[derive(Debug)]
pub(crate) struct DefaultPrivileges<'a> {
    pub role: Option<&'a [u8]>,
    pub schema: Option<&'a [u8]>,
    pub roles: Vec<&'a [u8]>,
}

#[derive(Debug)]
pub(crate) struct Rights<'a> {
    /// Membership in a role, or rights on what is the whole cluster's.
    pub is_of_cluster: bool,
    pub on: Option<Target<'a>>,
    /// The first word behind `TO`.
    pub to: Option<&'a [u8]>,
    pub roles: Option<Vec<&'a [u8]>>,
}

#[derive(Debug)]
pub(crate) struct Setting<'a> {
    pub name: &'a [u8],
    /// It ends with its transaction.
    pub is_local: bool,
    pub is_assigned: bool,
    /// What stands behind `=`, `TO` or `NAMES`.
    pub values: Vec<(Kind, &'a [u8])>,
}

#[derive(Debug)]
pub(crate) struct Copy<'a> {
    pub table: Option<Path<'a>>,
    pub columns: Vec<&'a [u8]>,
    /// Whether every name of the table and its columns is quoted, needed or not.
    pub is_all_quoted: bool,
    pub is_from_stdin: bool,
    /// Something stands behind `stdin`.
    pub has_options: bool,
    pub runs_program: bool,
}

/// Reads a whole statement.
pub(crate) fn read(tokens: &Tokens) -> Said<'_> {
    let mut cursor = Cursor::new(tokens);
    let said = match cursor.next_word() {
        Some(b"create") => create(&mut cursor),
        Some(b"alter") => Some(alter(cursor)),
        Some(b"drop") => drop(&mut cursor),
        Some(b"comment") => comment(&mut cursor),
        Some(b"security") => label(&mut cursor),
        Some(b"grant") => Some(rights(cursor, true)),
        Some(b"revoke") => Some(rights(cursor, false)),
        Some(b"set") => set(&mut cursor),
        Some(b"reset") => reset(&mut cursor),
        Some(b"select") => select(&mut cursor),
        Some(b"copy") => Some(Said::Copy(copy(cursor))),
        Some(b"insert") => insert(&mut cursor),
        Some(b"refresh") => refresh(&mut cursor),
        Some(b"do" | b"call") => Some(Said::Code),
        Some(b"begin") => Some(Said::Begin),
        Some(b"start") => cursor.word("transaction").then_some(Said::Begin),
        Some(b"commit" | b"end") if !cursor.word("prepared") => Some(Said::Commit),
        Some(b"commit" | b"abort" | b"rollback" | b"savepoint" | b"release") => {
            Some(Said::Transaction)
        }
        Some(b"prepare") => cursor.word("transaction").then_some(Said::Transaction),
        _ => None,
    };
    said.unwrap_or(Said::Other)
}

/// Tells whether a statement that came so far is `CREATE [OR REPLACE] FUNCTION | PROCEDURE`.
pub(super) fn begins_routine(tokens: &Tokens) -> bool {
    let mut cursor = Cursor::new(tokens);
    if !cursor.word("create") {
        return false;
    }
    cursor.words(&["or", "replace"]);
    cursor.any(&["function", "procedure"])
}

fn insert<'a>(cursor: &mut Cursor<'a>) -> Option<Said<'a>> {
    cursor.word("into").then_some(())?;
    cursor.path().map(Said::Insert)
}

/// pg_dump writes none of these into the dump of one database. A user mapping is the database's own.
fn is_of_cluster(cursor: &Cursor<'_>) -> bool {
    let mut cursor = cursor.clone();
    match cursor.next_word() {
        Some(b"database" | b"role" | b"group" | b"tablespace" | b"system") => true,
        Some(b"user") => !cursor.word("mapping"),
        _ => false,
    }
}

fn create<'a>(cursor: &mut Cursor<'a>) -> Option<Said<'a>> {
    if is_of_cluster(cursor) {
        return Some(Said::Cluster);
    }
    cursor.words(&["or", "replace"]);
    let start = cursor.clone();
    let mut made = Made::Ordinary;
    loop {
        if cursor.word("unlogged") {
            made = Made::Unlogged;
        } else if cursor.word("foreign") {
            made = Made::Foreign;
        } else if !cursor.any(MODIFIERS) {
            break;
        }
    }
    match cursor.next_word()? {
        b"schema" => {
            let is_conditional = cursor.words(&["if", "not", "exists"]);
            let name = cursor.identifier()?;
            let is_bare = !is_conditional && cursor.is_at_end();
            Some(Said::CreateSchema { name, is_bare })
        }
        b"table" => create_table(cursor, made),
        b"extension" => {
            cursor.words(&["if", "not", "exists"]);
            cursor.identifier().map(Said::CreateExtension)
        }
        b"statistics" => {
            cursor.words(&["if", "not", "exists"]);
            let name = cursor.path()?;
            let table = cursor.seek(&["from"]).then(|| cursor.path()).flatten();
            Some(Said::CreateStatistics { name, table })
        }
        b"index" => create_index(cursor).or(Some(Said::PostData)),
        b"trigger" => create_trigger(cursor).or(Some(Said::PostData)),
        b"rule" => create_rule(cursor).or(Some(Said::PostData)),
        b"policy" => create_policy(cursor).or(Some(Said::PostData)),
        b"event" => create_event_trigger(cursor).or(Some(Said::PostData)),
        b"publication" => {
            let name = cursor.identifier();
            Some(name.map_or(Said::PostData, Said::CreatePublication))
        }
        b"subscription" => Some(Said::PostData),
        _ => {
            *cursor = start;
            match target(cursor)? {
                Target::Thing(thing, name) => Some(Said::Create(thing, name)),
                _ => None,
            }
        }
    }
}

/// `CREATE [UNLOGGED | FOREIGN] TABLE [IF NOT EXISTS] name … [PARTITION OF … | PARTITION BY …]`; a temporary one is no
/// table of the dump.
fn create_table<'a>(cursor: &mut Cursor<'a>, mut made: Made) -> Option<Said<'a>> {
    cursor.words(&["if", "not", "exists"]);
    let name = cursor.path()?;
    let parent = if cursor.words(&["partition", "of"]) {
        Some(cursor.path()?)
    } else {
        None
    };
    let mut heirs = cursor.clone();
    let inherits = if heirs.seek(&["inherits"]) && heirs.punct(b'(') {
        heirs.paths().unwrap_or_default()
    } else {
        Vec::new()
    };
    if cursor.seek(&["partition", "by"]) {
        made = Made::Partitioned;
    } else if made == Made::Ordinary && parent.is_some() {
        made = Made::Partition;
    }
    Some(Said::CreateTable(CreateTable {
        name,
        made,
        parent,
        inherits,
    }))
}

/// `CREATE [UNIQUE] INDEX [CONCURRENTLY] [[IF NOT EXISTS] name] ON [ONLY] table …`.
fn create_index<'a>(cursor: &mut Cursor<'a>) -> Option<Said<'a>> {
    let is_concurrent = cursor.word("concurrently");
    cursor.words(&["if", "not", "exists"]);
    let mut name = None;
    if !cursor.word("on") {
        name = cursor.identifier();
        cursor.word("on").then_some(())?;
    }
    let is_only = cursor.word("only");
    let table = cursor.path()?;
    Some(Said::CreateIndex {
        name,
        table,
        is_only,
        is_concurrent,
    })
}

fn create_trigger<'a>(cursor: &mut Cursor<'a>) -> Option<Said<'a>> {
    let name = cursor.identifier()?;
    cursor.seek(&["on"]).then_some(())?;
    let table = cursor.path()?;
    let calls = called(cursor);
    Some(Said::CreateTrigger { name, table, calls })
}

/// `CREATE RULE name AS ON event TO table …`.
fn create_rule<'a>(cursor: &mut Cursor<'a>) -> Option<Said<'a>> {
    let name = cursor.identifier()?;
    cursor.seek(&["on"]).then_some(())?;
    let is_on_select = cursor.next_word()? == b"select";
    cursor.word("to").then_some(())?;
    let table = cursor.path()?;
    Some(Said::CreateRule {
        name,
        table,
        is_on_select,
    })
}

fn create_policy<'a>(cursor: &mut Cursor<'a>) -> Option<Said<'a>> {
    let name = cursor.identifier()?;
    cursor.word("on").then_some(())?;
    let table = cursor.path()?;
    let roles = cursor.seek(&["to"]).then(|| role_list(cursor));
    Some(Said::CreatePolicy { name, table, roles })
}

fn create_event_trigger<'a>(cursor: &mut Cursor<'a>) -> Option<Said<'a>> {
    cursor.word("trigger").then_some(())?;
    let name = cursor.identifier()?;
    let calls = called(cursor);
    Some(Said::CreateEventTrigger { name, calls })
}

/// The routine that a trigger calls.
fn called<'a>(cursor: &mut Cursor<'a>) -> Option<Path<'a>> {
    cursor.seek(&["execute"]).then_some(())?;
    cursor.any(&["function", "procedure"]).then_some(())?;
    cursor.path()
}

/// Takes what stands behind `ALTER`, `COMMENT ON` or `GRANT … ON`: a kind and a name.
fn target<'a>(cursor: &mut Cursor<'a>) -> Option<Target<'a>> {
    // `COMMENT ON CONSTRAINT` has a kind that is a modifier elsewhere.
    if cursor.word("constraint") {
        return part(cursor, "constraint");
    }
    while cursor.any(MODIFIERS) {}
    let thing = match cursor.next_word()? {
        b"schema" => return cursor.identifier().map(Target::Schema),
        b"column" => return cursor.path().map(Target::Column),
        b"trigger" => return part(cursor, "trigger"),
        b"rule" => return part(cursor, "rule"),
        b"policy" => return part(cursor, "policy"),
        b"extension" => {
            cursor.words(&["if", "not", "exists"]);
            return cursor.identifier().map(Target::Extension);
        }
        b"publication" => return cursor.identifier().map(Target::Publication),
        b"event" => {
            cursor.word("trigger").then_some(())?;
            return cursor.identifier().map(Target::EventTrigger);
        }
        b"table" => Thing::Table,
        b"view" => Thing::View,
        b"sequence" => Thing::Sequence,
        b"index" => Thing::Index,
        b"type" | b"domain" => Thing::Type,
        b"function" | b"procedure" => Thing::Function,
        b"aggregate" | b"routine" => Thing::Aggregate,
        b"statistics" => Thing::Statistics,
        b"collation" | b"conversion" => Thing::Other,
        b"operator" => {
            cursor.any(&["class", "family"]).then_some(())?;
            Thing::Operators
        }
        b"text" => {
            cursor.word("search").then_some(())?;
            cursor.next_word()?;
            Thing::Other
        }
        _ => return None,
    };
    let _ = cursor.words(&["if", "not", "exists"]) || cursor.words(&["if", "exists"]);
    let path = cursor.path()?;
    Some(Target::Thing(thing, path))
}

fn part<'a>(cursor: &mut Cursor<'a>, kind: &'static str) -> Option<Target<'a>> {
    let name = cursor.identifier()?;
    cursor.word("on").then_some(())?;
    let is_of_domain = cursor.word("domain");
    let table = cursor.path()?;
    Some(Target::Part {
        kind,
        name,
        table,
        is_of_domain,
    })
}

fn comment<'a>(cursor: &mut Cursor<'a>) -> Option<Said<'a>> {
    cursor.word("on").then_some(())?;
    target(cursor).map(Said::Comment)
}

fn label<'a>(cursor: &mut Cursor<'a>) -> Option<Said<'a>> {
    cursor.seek(&["on"]).then_some(())?;
    target(cursor).map(Said::Label)
}

fn alter(mut cursor: Cursor<'_>) -> Said<'_> {
    if cursor.words(&["default", "privileges"]) {
        return Said::DefaultPrivileges(default_privileges(cursor));
    }
    let mut owner = cursor.clone();
    let has_owner = owner.seek(&["owner", "to"]);
    let owners = if has_owner {
        role_list(&mut owner.clone())
    } else {
        Vec::new()
    };
    let role = has_owner.then(|| owner.identifier()).flatten();
    let is_owner_change = role.is_some() && owner.is_at_end() && !renames(&cursor);
    let is_of_cluster = is_of_cluster(&cursor);
    let (on, is_only) = altered(&mut cursor);
    let action = on.as_ref().and_then(|on| action(&mut cursor, on));
    Said::Alter(Alter {
        is_of_cluster,
        on,
        is_only,
        action: action.unwrap_or(Action::Other),
        owner: role,
        has_owner,
        owners,
        is_owner_change,
    })
}

/// Takes what an ALTER changes; `ONLY` stands in front of tables alone.
fn altered<'a>(cursor: &mut Cursor<'a>) -> (Option<Target<'a>>, bool) {
    let start = cursor.clone();
    while cursor.any(MODIFIERS) {}
    if !cursor.word("table") {
        *cursor = start;
        return (target(cursor), false);
    }
    cursor.words(&["if", "exists"]);
    let is_only = cursor.word("only");
    let table = cursor.path();
    (
        table.map(|table| Target::Thing(Thing::Table, table)),
        is_only,
    )
}

/// Tells `ALTER TABLE t RENAME owner TO x` from `ALTER TABLE public.rename OWNER TO x`.
fn renames(cursor: &Cursor<'_>) -> bool {
    for words in [
        &["rename", "owner", "to"][..],
        &["rename", "column", "owner", "to"],
    ] {
        let mut cursor = cursor.clone();
        if cursor.seek(words) {
            let at = cursor.position() - words.len();
            // Behind the kind or a dot it is the name of what changes its owner.
            let is_name = at < 3 || cursor.kind_at(at - 1) == Some(Kind::Punct(b'.'));
            return !is_name;
        }
    }
    false
}

fn action<'a>(cursor: &mut Cursor<'a>, on: &Target<'a>) -> Option<Action<'a>> {
    match on {
        Target::Thing(Thing::Table, _) => table_action(cursor),
        Target::Thing(Thing::Index, _) => attached(cursor),
        Target::Thing(Thing::Sequence, _) => {
            cursor.words(&["owned", "by"]).then_some(())?;
            cursor.path().map(Action::OwnedBy)
        }
        Target::Publication(_) => {
            cursor.word("add").then_some(())?;
            let is_table = cursor.word("table");
            cursor.word("only");
            let table = is_table.then(|| cursor.path()).flatten();
            Some(Action::Add(table))
        }
        _ => None,
    }
}

fn attached<'a>(cursor: &mut Cursor<'a>) -> Option<Action<'a>> {
    cursor.words(&["attach", "partition"]).then_some(())?;
    cursor.path().map(Action::AttachPartition)
}

fn table_action<'a>(cursor: &mut Cursor<'a>) -> Option<Action<'a>> {
    if let Some(attached) = attached(cursor) {
        return Some(attached);
    }
    let mut more = cursor.clone();
    if cursor.words(&["add", "constraint"]) {
        let name = cursor.identifier()?;
        // A second clause in the same statement may do anything.
        let is_alone = !(more.seek(&["add"]) && more.seek(&["add"]));
        return Some(Action::AddConstraint {
            name,
            constraint: constraint(cursor),
            is_alone,
        });
    }
    if cursor.words(&["alter", "column"]) {
        cursor.identifier()?;
        let is_identity = cursor.words(&["add", "generated"]) && cursor.seek(&["as", "identity"]);
        let is_named = is_identity && cursor.punct(b'(') && cursor.words(&["sequence", "name"]);
        return is_named
            .then(|| cursor.path())
            .flatten()
            .map(Action::Identity);
    }
    let is_forced = cursor.clone().word("force");
    cursor.word("no");
    cursor.any(&["enable", "disable", "force"]).then_some(())?;
    // Another clause behind a comma may do anything.
    if cursor.words(&["row", "level", "security"]) && cursor.is_at_end() {
        let is_forced = is_forced && cursor.is_at_end();
        return Some(Action::RowSecurity { is_forced });
    }
    cursor.any(&["always", "replica"]);
    let kind = ["trigger", "rule"]
        .into_iter()
        .find(|kind| cursor.word(kind))?;
    cursor.identifier().map(|name| Action::Switch(kind, name))
}

fn constraint<'a>(cursor: &mut Cursor<'a>) -> Constraint<'a> {
    if cursor.words(&["foreign", "key"]) {
        let other = cursor
            .seek(&["references"])
            .then(|| cursor.path())
            .flatten();
        return other.map_or(Constraint::Other, Constraint::ForeignKey);
    }
    if cursor.words(&["primary", "key"]) || cursor.any(&["unique", "exclude"]) {
        Constraint::Indexed
    } else {
        Constraint::Other
    }
}

fn default_privileges(mut cursor: Cursor<'_>) -> DefaultPrivileges<'_> {
    let mut roles = Vec::new();
    let mut role = None;
    if cursor.words(&["for", "role"]) {
        role = cursor.clone().identifier();
        roles = role_list(&mut cursor);
    }
    let schema = cursor.words(&["in", "schema"]).then(|| cursor.identifier());
    let to = if cursor.seek(&["grant"]) {
        "to"
    } else {
        "from"
    };
    if cursor.seek(&[to]) {
        roles.extend(role_list(&mut cursor));
    }
    DefaultPrivileges {
        role,
        schema: schema.flatten(),
        roles,
    }
}

/// `GRANT SELECT(a) ON TABLE t TO x`, `REVOKE ALL ON FUNCTION f(text) FROM PUBLIC`; pg_dump names one thing each.
fn rights(mut cursor: Cursor<'_>, is_grant: bool) -> Said<'_> {
    let mut behind = cursor.clone();
    let has_roles = behind.seek(&[if is_grant { "to" } else { "from" }]);
    let to = (has_roles && is_grant).then(|| behind.clone().identifier());
    let roles = has_roles.then(|| role_list(&mut behind));
    let has_target = cursor.seek(&["on"]);
    let is_of_cluster = !has_target
        || matches!(
            cursor.peek(),
            Some((Kind::Word, b"database" | b"tablespace" | b"parameter"))
        );
    let on = has_target.then(|| target(&mut cursor));
    Said::Rights(Rights {
        is_of_cluster,
        on: on.flatten(),
        to: to.flatten(),
        roles,
    })
}

/// Takes `a, "B", c`; `PUBLIC` and `CURRENT_USER` are no roles.
fn role_list<'a>(cursor: &mut Cursor<'a>) -> Vec<&'a [u8]> {
    let mut roles = Vec::new();
    loop {
        cursor.word("group");
        let is_word = matches!(cursor.peek(), Some((Kind::Word, _)));
        let Some(role) = cursor.identifier() else {
            return roles;
        };
        let is_pseudo = is_word
            && matches!(
                role,
                b"public" | b"current_user" | b"session_user" | b"current_role"
            );
        if !is_pseudo {
            roles.push(role);
        }
        if !cursor.punct(b',') {
            return roles;
        }
    }
}

fn drop<'a>(cursor: &mut Cursor<'a>) -> Option<Said<'a>> {
    if is_of_cluster(cursor) {
        return Some(Said::Cluster);
    }
    cursor.word("foreign");
    cursor.word("table").then_some(())?;
    cursor.words(&["if", "exists"]);
    cursor.paths().map(Said::DropTables)
}

fn set<'a>(cursor: &mut Cursor<'a>) -> Option<Said<'a>> {
    if cursor.words(&["session", "authorization"]) {
        return Some(Said::Authorization { is_reset: false });
    }
    let mut is_local = false;
    loop {
        if cursor.word("local") {
            is_local = true;
        } else if !cursor.word("session") {
            break;
        }
    }
    let name = cursor.next_word()?;
    let is_assigned = cursor.punct(b'=') || cursor.word("to") || name == b"names";
    let mut values = Vec::new();
    while let Some(value) = cursor.next().filter(|_| is_assigned) {
        values.push(value);
    }
    Some(Said::Set(Setting {
        name,
        is_local,
        is_assigned,
        values,
    }))
}

/// With anything behind the name it does not only fill.
fn refresh<'a>(cursor: &mut Cursor<'a>) -> Option<Said<'a>> {
    cursor.words(&["materialized", "view"]).then_some(())?;
    let view = cursor.path()?;
    cursor.is_at_end().then_some(Said::Refresh(view))
}

fn reset<'a>(cursor: &mut Cursor<'a>) -> Option<Said<'a>> {
    if cursor.words(&["session", "authorization"]) {
        return Some(Said::Authorization { is_reset: true });
    }
    cursor.next_word().map(Said::Reset)
}

fn select<'a>(cursor: &mut Cursor<'a>) -> Option<Said<'a>> {
    let function = cursor.path()?.name();
    let arguments = cursor.inside().collect();
    let is_call_alone = cursor.is_at_end();
    Some(Said::Select {
        function,
        arguments,
        is_call_alone,
    })
}

/// pg_dump writes nothing behind `stdin`; a format or a delimiter there changes where the rows end.
fn copy(mut cursor: Cursor<'_>) -> Copy<'_> {
    let runs_program = cursor.has(&["from", "program"]) || cursor.has(&["to", "program"]);
    let mut behind = cursor.clone();
    let is_from_stdin = behind.seek(&["from", "stdin"]);
    let start = cursor.position();
    let table = cursor.path();
    let mut names = start..cursor.position();
    let is_quoted = |at| cursor.kind_at(at) != Some(Kind::Word);
    let is_table_quoted = table.is_some() && names.all(is_quoted);
    let is_identifier = |kind: Kind| matches!(kind, Kind::Word | Kind::Quoted);
    let inside: Vec<(Kind, &[u8])> = cursor
        .inside()
        .filter(|(kind, _)| is_identifier(*kind))
        .collect();
    Copy {
        table,
        is_all_quoted: is_table_quoted && inside.iter().all(|(kind, _)| *kind == Kind::Quoted),
        columns: inside.into_iter().map(|(_, text)| text).collect(),
        is_from_stdin,
        has_options: is_from_stdin && !behind.is_at_end(),
        runs_program,
    }
}
