//! Says who carries a statement out where a plain role restores: that role, or a superuser beside it.
//!
//! A statement is a superuser's only where it runs nothing that the dump brings: it names things, and makes none of its
//! functions run.

use super::grammar::{Action, Alter, Made, Rights, Said, Target, Thing};
use super::tokens::{Cursor, Kind, Tokens};
use crate::scan::judged::{Carrier, Late};

/// Languages in which anybody may write functions, because they reach nothing outside the database.
const TRUSTED_LANGUAGES: &[&[u8]] = &[
    b"plcoffee",
    b"plls",
    b"pllua",
    b"plperl",
    b"plpgsql",
    b"plrust",
    b"pltcl",
    b"plv8",
    b"sql",
];

/// Most tokens outside parentheses of a statement that a superuser carries out: pg_dump's have a dozen.
const MAX_TOKENS: usize = 60;

/// Says it of a whole statement.
pub(super) fn carrier(said: &Said<'_>, tokens: &Tokens) -> Carrier {
    match said {
        // Several clauses in one statement may do anything, and pg_dump writes none.
        Said::Alter(_) if !is_single(tokens) => Carrier::Restorer,
        // Of several things only the first would be looked at, and pg_dump names one.
        Said::Rights(_) if tokens.are_rights_on_several() => {
            Carrier::Withheld("rights on several things at once".to_owned())
        }
        Said::Rights(rights) if is_of_server(rights, tokens) => {
            Carrier::Withheld("rights on what is the server's own".to_owned())
        }
        Said::Alter(alter) => altered(alter, tokens),
        Said::DefaultPrivileges(_) | Said::Rights(_) | Said::Label(_) => {
            Carrier::Superuser(Late::Rights)
        }
        // pg_dump says so who gave a right.
        Said::Authorization { .. } => Carrier::Superuser(Late::Rights),
        Said::CreateEventTrigger { .. } => Carrier::Superuser(Late::EventTrigger),
        Said::CreatePublication(_) => Carrier::Superuser(Late::Rights),
        Said::CreateExtension(name) => {
            let mut cursor = Cursor::new(tokens);
            let schema = cursor.seek(&["schema"]).then(|| cursor.identifier());
            Carrier::Early {
                name: text(name),
                schema: schema.flatten().map(text),
            }
        }
        Said::CreateTable(made) if made.made == Made::Foreign => {
            let mut cursor = Cursor::new(tokens);
            let server = cursor.seek(&["server"]).then(|| cursor.identifier());
            let named = server.flatten().map(text);
            named.map_or(Carrier::Restorer, Carrier::OfServer)
        }
        Said::Comment(target) => described(target, tokens),
        _ => by_words(tokens),
    }
}

/// Tells whether a statement has one clause.
fn is_single(tokens: &Tokens) -> bool {
    tokens.len() <= MAX_TOKENS && !tokens.has_outside(Kind::Punct(b','))
}

/// Tells whether rights are given on the server's own things: functions that read its files, its catalog.
fn is_of_server(rights: &Rights<'_>, tokens: &Tokens) -> bool {
    let is_own = |name: &[u8]| matches!(name, b"pg_catalog" | b"information_schema");
    match &rights.on {
        Some(Target::Schema(name)) => is_own(name),
        Some(Target::Thing(_, path) | Target::Column(path)) => path.schema().is_none_or(is_own),
        Some(_) => false,
        // `ON ALL FUNCTIONS IN SCHEMA`; servers, languages and large objects have no schema.
        None => Cursor::new(tokens).has(&["in", "schema"]),
    }
}

fn altered(alter: &Alter<'_>, tokens: &Tokens) -> Carrier {
    let mut words = Cursor::new(tokens);
    match (&alter.on, &alter.action) {
        (Some(Target::EventTrigger(_)), _) => Carrier::Superuser(Late::EventTrigger),
        // They are made as late.
        (Some(Target::Publication(_)), _) => Carrier::Superuser(Late::Rights),
        _ if words.words(&["alter", "subscription"]) => {
            if alter.is_owner_change {
                Carrier::Superuser(Late::Rights)
            } else {
                // Anything else about one makes it run.
                Carrier::Withheld("settings of a subscription".to_owned())
            }
        }
        _ if alter.is_owner_change && is_given_to_server(tokens) => {
            Carrier::Withheld("things that belong to a role of the server's own".to_owned())
        }
        _ if alter.is_owner_change => Carrier::Superuser(Late::Owner),
        (Some(Target::Extension(_)), _) => Carrier::Nobody(None),
        (_, Action::RowSecurity { .. }) => Carrier::Superuser(Late::Rights),
        (Some(Target::Thing(Thing::Operators, _)), _) => Carrier::Between,
        _ => by_words(tokens),
    }
}

/// Tells whether the new owner is a predefined role: what it owns runs with its rights, such as to run programs. The owner
/// of a database is one, too, and has no others.
fn is_given_to_server(tokens: &Tokens) -> bool {
    let mut cursor = Cursor::new(tokens);
    let owner = cursor.seek(&["owner", "to"]).then(|| cursor.identifier());
    let is_own = |owner: &[u8]| owner.starts_with(b"pg_") && owner != b"pg_database_owner";
    owner.flatten().is_some_and(is_own)
}

fn described(target: &Target<'_>, tokens: &Tokens) -> Carrier {
    match target {
        Target::EventTrigger(_) => Carrier::Superuser(Late::EventTrigger),
        Target::Extension(_) | Target::Publication(_) | Target::Thing(Thing::Operators, _) => {
            Carrier::Superuser(Late::Rights)
        }
        Target::Schema(b"public") => Carrier::Superuser(Late::Rights),
        Target::Thing(Thing::Table, _) if Cursor::new(tokens).has(&["foreign", "table"]) => {
            Carrier::Superuser(Late::Rights)
        }
        _ => Carrier::Restorer,
    }
}

/// What the grammar has no word for.
fn by_words(tokens: &Tokens) -> Carrier {
    let mut cursor = Cursor::new(tokens);
    match cursor.next_word() {
        Some(b"create") => created(&mut cursor),
        Some(b"comment") => {
            cursor.word("on");
            commented(&mut cursor)
        }
        _ => Carrier::Restorer,
    }
}

fn created(cursor: &mut Cursor<'_>) -> Carrier {
    cursor.words(&["or", "replace"]);
    cursor.word("trusted");
    cursor.word("procedural");
    match cursor.next_word() {
        Some(b"subscription") => Carrier::Superuser(Late::Rights),
        Some(b"server") => server(cursor),
        Some(b"user") => Carrier::Mapping,
        Some(b"function" | b"procedure") => routine(cursor),
        Some(b"language") => beyond(cursor, "language"),
        Some(b"operator") if cursor.any(&["class", "family"]) => between(cursor, "operator class"),
        Some(b"foreign") if cursor.words(&["data", "wrapper"]) => {
            beyond(cursor, "foreign-data wrapper")
        }
        Some(b"access") if cursor.word("method") => beyond(cursor, "access method"),
        Some(b"text") if cursor.words(&["search", "parser"]) => {
            beyond(cursor, "text search parser")
        }
        Some(b"text") if cursor.words(&["search", "template"]) => {
            beyond(cursor, "text search template")
        }
        // The server would take the bytes of one type for another's.
        Some(b"cast") if cursor.has(&["without", "function"]) => beyond(cursor, "cast"),
        Some(b"type") => made_type(cursor),
        _ => Carrier::Restorer,
    }
}

fn commented(cursor: &mut Cursor<'_>) -> Carrier {
    cursor.word("trusted");
    cursor.word("procedural");
    let is_late = match cursor.next_word() {
        Some(b"subscription" | b"language" | b"cast") => true,
        Some(b"foreign") => cursor.words(&["data", "wrapper"]),
        Some(b"access") => cursor.word("method"),
        _ => false,
    };
    if is_late {
        Carrier::Superuser(Late::Rights)
    } else {
        Carrier::Restorer
    }
}

fn server(cursor: &mut Cursor<'_>) -> Carrier {
    let name = cursor.identifier();
    let is_named = cursor.seek(&["foreign", "data", "wrapper"]);
    let wrapper = is_named.then(|| cursor.identifier()).flatten();
    match (name, wrapper) {
        (Some(name), Some(wrapper)) => Carrier::Server {
            name: text(name),
            wrapper: text(wrapper),
        },
        _ => Carrier::Restorer,
    }
}

/// A routine in a language that reaches outside the database is never made: whoever calls it has the server's account.
fn routine(cursor: &mut Cursor<'_>) -> Carrier {
    let name = cursor.clone();
    let mut behind = cursor.clone();
    let mut language = None;
    while behind.seek(&["language"]) {
        let at = behind.position();
        // A type may be called so.
        if at < 2 || behind.kind_at(at - 2) != Some(Kind::Punct(b'.')) {
            language = behind.clone().next();
        }
    }
    if let Some((_, language)) = language
        && !TRUSTED_LANGUAGES.contains(&language.to_ascii_lowercase().as_slice())
    {
        return beyond(&mut name.clone(), "function");
    }
    if cursor.has(&["support"]) {
        // It is handed memory of the planner's.
        beyond(&mut name.clone(), "function")
    } else if cursor.has(&["leakproof"]) && !cursor.has(&["not", "leakproof"]) {
        between(cursor, "function")
    } else {
        Carrier::Restorer
    }
}

/// `CREATE TYPE t (INPUT = …)`; a type of columns, of words or of a range says `AS` first.
fn made_type(cursor: &mut Cursor<'_>) -> Carrier {
    let mut behind = cursor.clone();
    let _ = behind.path();
    if behind.peek() == Some((Kind::Punct(b'('), b"".as_slice())) {
        beyond(cursor, "type")
    } else {
        Carrier::Restorer
    }
}

/// Nothing that a superuser makes may stand among what questions of ours call.
fn between(cursor: &mut Cursor<'_>, kind: &str) -> Carrier {
    let path = cursor.clone().path();
    match path.and_then(|path| path.schema()) {
        Some(b"pg_catalog" | b"information_schema") | None => beyond(cursor, kind),
        Some(_) => Carrier::Between,
    }
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

fn beyond(cursor: &mut Cursor<'_>, kind: &str) -> Carrier {
    let path = cursor.path();
    let parts = path.as_ref().map_or(&[][..], |path| path.parts());
    let name: Vec<_> = parts
        .iter()
        .map(|part| String::from_utf8_lossy(part))
        .collect();
    Carrier::Nobody(Some(format!("{kind} {}", name.join("."))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::{Notes, Scanner};

    fn carriers(sql: &str) -> Vec<Carrier> {
        let mut scanner = Scanner::noting(Notes::Judged { with_about: true });
        scanner.push(sql.as_bytes());
        let all = scanner.take_found().judged.into_iter();
        all.map(|judged| judged.carrier).collect()
    }

    #[test]
    fn what_runs_nothing_of_the_dump_is_a_superusers() {
        use Late::{EventTrigger, Owner, Rights};
        for (sql, late) in [
            ("ALTER TABLE public.t OWNER TO app;", Owner),
            ("ALTER FUNCTION public.f(a text) OWNER TO app;", Owner),
            ("ALTER LARGE OBJECT 7 OWNER TO app;", Owner),
            (
                "ALTER OPERATOR CLASS public.c USING btree OWNER TO app;",
                Owner,
            ),
            ("ALTER EVENT TRIGGER e OWNER TO app;", EventTrigger),
            ("ALTER EVENT TRIGGER e DISABLE;", EventTrigger),
            (
                "CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION public.f();",
                EventTrigger,
            ),
            ("COMMENT ON EVENT TRIGGER e IS 'x';", EventTrigger),
            ("GRANT SELECT ON TABLE public.t TO app;", Rights),
            (
                "ALTER DEFAULT PRIVILEGES FOR ROLE a GRANT SELECT ON TABLES TO b;",
                Rights,
            ),
            ("ALTER TABLE public.t ENABLE ROW LEVEL SECURITY;", Rights),
            (
                "ALTER TABLE ONLY public.t FORCE ROW LEVEL SECURITY;",
                Rights,
            ),
            ("COMMENT ON EXTENSION hstore IS 'x';", Rights),
            ("COMMENT ON SCHEMA public IS 'x';", Rights),
            ("CREATE PUBLICATION p FOR ALL TABLES;", Rights),
            (
                "CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p WITH (connect = false);",
                Rights,
            ),
            ("ALTER PUBLICATION p OWNER TO app;", Rights),
            ("ALTER SUBSCRIPTION s OWNER TO app;", Rights),
            ("SET SESSION AUTHORIZATION 'app';", Rights),
            ("SECURITY LABEL FOR x ON TABLE public.t IS 'y';", Rights),
        ] {
            assert_eq!(carriers(sql), [Carrier::Superuser(late)], "{sql}");
        }
    }

    #[test]
    fn rights_on_several_things_and_owners_of_the_servers_own_are_withheld() {
        for sql in [
            "GRANT SELECT ON TABLE public.t, pg_catalog.pg_authid TO app;",
            "GRANT ALL ON FUNCTION public.f(), pg_catalog.pg_read_file(text) TO app;",
            "REVOKE SELECT ON TABLE public.t, public.secret FROM app;",
            "ALTER TABLE public.t OWNER TO pg_execute_server_program;",
            "ALTER TABLE public.t OWNER TO \"pg_write_server_files\";",
        ] {
            let carriers = carriers(sql);
            assert!(matches!(carriers[..], [Carrier::Withheld(_)]), "{sql}");
        }
        for (sql, late) in [
            (
                "GRANT SELECT(a,b),UPDATE(b) ON TABLE public.t TO app;",
                Late::Rights,
            ),
            (
                "GRANT ALL ON FUNCTION public.f(integer, text) TO app;",
                Late::Rights,
            ),
            ("GRANT SELECT ON TABLE public.t TO app, blog;", Late::Rights),
            (
                "ALTER SCHEMA public OWNER TO pg_database_owner;",
                Late::Owner,
            ),
        ] {
            assert_eq!(carriers(sql), [Carrier::Superuser(late)], "{sql}");
        }
    }

    #[test]
    fn what_reaches_outside_the_database_is_nobodys() {
        for (sql, what) in [
            (
                "CREATE FUNCTION public.f() RETURNS int LANGUAGE plpython3u AS 'x';",
                "function public.f",
            ),
            (
                "CREATE FUNCTION public.f() RETURNS int LANGUAGE c AS '/tmp/x', 'y';",
                "function public.f",
            ),
            (
                "CREATE FUNCTION public.f(cstring) RETURNS int AS 'int4in' LANGUAGE internal;",
                "function public.f",
            ),
            (
                "CREATE TYPE public.t (INPUT = a, OUTPUT = b);",
                "type public.t",
            ),
            ("CREATE FOREIGN DATA WRAPPER w;", "foreign-data wrapper w"),
            (
                "CREATE OR REPLACE TRUSTED PROCEDURAL LANGUAGE l HANDLER h;",
                "language l",
            ),
        ] {
            let told = Carrier::Nobody(Some(what.to_owned()));
            assert_eq!(carriers(sql), [told], "{sql}");
        }
    }

    #[test]
    fn what_only_a_superuser_may_make_is_made_in_between() {
        for sql in [
            "CREATE OPERATOR CLASS public.c FOR TYPE int USING btree AS OPERATOR 1 <;",
            "CREATE OPERATOR FAMILY public.f USING btree;",
            "ALTER OPERATOR FAMILY public.f USING btree ADD OPERATOR 1 <(int, int);",
            "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql LEAKPROOF AS 'select 1';",
        ] {
            assert_eq!(carriers(sql), [Carrier::Between], "{sql}");
        }
    }

    #[test]
    fn what_is_the_servers_own_is_not_given_away() {
        for sql in [
            "GRANT EXECUTE ON FUNCTION pg_catalog.lo_export(oid, text) TO PUBLIC;",
            "GRANT ALL ON ALL FUNCTIONS IN SCHEMA pg_catalog TO app;",
            "GRANT SELECT ON TABLE pg_catalog.pg_authid TO app;",
            "GRANT CREATE ON SCHEMA pg_catalog TO app;",
            "ALTER SUBSCRIPTION s ENABLE;",
        ] {
            let all = carriers(sql);
            assert!(matches!(all[..], [Carrier::Withheld(_)]), "{sql}: {all:?}");
        }
        for sql in [
            "CREATE FUNCTION pg_catalog.format(text) RETURNS text LANGUAGE sql LEAKPROOF AS 'x';",
            "CREATE CAST (text AS jsonb) WITHOUT FUNCTION;",
        ] {
            let all = carriers(sql);
            assert!(
                matches!(all[..], [Carrier::Nobody(Some(_))]),
                "{sql}: {all:?}"
            );
        }
    }

    #[test]
    fn extensions_come_first() {
        let early = |schema: Option<&str>| Carrier::Early {
            name: "uuid-ossp".to_owned(),
            schema: schema.map(str::to_owned),
        };
        for (sql, schema) in [
            ("CREATE EXTENSION \"uuid-ossp\";", None),
            (
                "CREATE EXTENSION IF NOT EXISTS \"uuid-ossp\" WITH SCHEMA \"My s\";",
                Some("My s"),
            ),
        ] {
            assert_eq!(carriers(sql), [early(schema)], "{sql}");
        }
    }

    #[test]
    fn servers_are_told_with_their_wrappers() {
        let server = |name: &str, wrapper: &str| Carrier::Server {
            name: name.to_owned(),
            wrapper: wrapper.to_owned(),
        };
        for (sql, carrier) in [
            (
                "CREATE SERVER \"My s\" FOREIGN DATA WRAPPER file_fdw;",
                server("My s", "file_fdw"),
            ),
            (
                "CREATE SERVER s TYPE 'x' FOREIGN DATA WRAPPER w OPTIONS (a 'b');",
                server("s", "w"),
            ),
            (
                "CREATE FOREIGN TABLE public.t (a int) SERVER \"My s\" OPTIONS (b 'c');",
                Carrier::OfServer("My s".to_owned()),
            ),
        ] {
            assert_eq!(carriers(sql), [carrier], "{sql}");
        }
    }

    #[test]
    fn all_else_is_the_restoring_roles() {
        for sql in [
            "CREATE TYPE public.t AS ENUM ('a');",
            "CREATE TYPE public.t AS (a int);",
            "CREATE TYPE public.t;",
            "CREATE FUNCTION public.f() RETURNS int LANGUAGE plpgsql AS 'x';",
            "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql NOT LEAKPROOF RETURN 1;",
            "CREATE TABLE public.owner (a int);",
            "CREATE FUNCTION public.f() RETURNS public.language LANGUAGE sql RETURN 1;",
            "ALTER TABLE public.t ADD COLUMN z int DEFAULT public.evil(), OWNER TO app;",
            "ALTER TABLE public.t ENABLE ROW LEVEL SECURITY, ADD CHECK (public.evil(a));",
            "ALTER TABLE public.t ALTER a TYPE text USING public.evil(a), OWNER TO app;",
            "CREATE SCHEMA app;",
            "COMMENT ON TABLE public.t IS 'x';",
        ] {
            let all = carriers(sql);
            assert!(
                all.iter().all(|one| *one == Carrier::Restorer),
                "{sql}: {all:?}"
            );
        }
    }
}
