//! Rights come back as they were dumped, whatever the target gives to what is made in it.

use super::*;

/// All rights in a database, in an order of their own.
const RIGHTS: &str = "
SELECT name || ' ' || coalesce((SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(acl) a), '-') FROM (
  SELECT c.oid::regclass::text AS name, relacl AS acl FROM pg_class c WHERE relnamespace IN (SELECT oid FROM own)
    AND relkind IN ('r', 'v', 'S', 'p')
  UNION ALL SELECT p.oid::regprocedure::text, proacl FROM pg_proc p WHERE pronamespace IN (SELECT oid FROM own)
  UNION ALL SELECT t.oid::regtype::text || ' type', typacl FROM pg_type t
    WHERE typnamespace IN (SELECT oid FROM own) AND typtype IN ('e', 'd')
  UNION ALL SELECT n.nspname || ' schema', nspacl FROM pg_namespace n WHERE n.nspname = 'app') x ORDER BY 1";
const OWN: &str = "WITH own AS (SELECT oid FROM pg_namespace WHERE nspname IN ('public', 'app'))";

/// What the database gives to what will be made.
const DEFAULTS: &str = "
SELECT pg_get_userbyid(defaclrole), defaclnamespace::regnamespace, defaclobjtype,
  (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(defaclacl) a)
FROM pg_default_acl ORDER BY 1, 2, 3";

struct Reader<'a> {
    server: &'a Server,
    name: String,
}

impl<'a> Reader<'a> {
    fn new(server: &'a Server, database: &TestDatabase<'_>) -> Self {
        let name = format!("{}_reader", database.name());
        server.sql("template1", &format!("CREATE ROLE {name}"));
        Self { server, name }
    }

    fn source(&self, database: &TestDatabase<'_>) {
        let role = &self.name;
        database.sql(&format!(
            "CREATE TABLE secrets (id int); INSERT INTO secrets VALUES (7); CREATE SCHEMA app;
             CREATE TABLE open (id serial); GRANT SELECT ON open TO {role};
             CREATE VIEW app.seen AS SELECT * FROM open; CREATE TYPE app.mood AS ENUM ('sad');
             CREATE FUNCTION own() RETURNS int LANGUAGE sql AS 'SELECT 1';
             CREATE FUNCTION shut() RETURNS int LANGUAGE sql AS 'SELECT 1';
             REVOKE ALL ON FUNCTION shut() FROM PUBLIC;
             ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON SEQUENCES TO {role} WITH GRANT OPTION"
        ));
    }

    /// What a hosted database is like when it is new, and more.
    fn target(&self, database: &TestDatabase<'_>) {
        let role = &self.name;
        database.sql(&format!(
            "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO {role};
             ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON FUNCTIONS TO {role};
             ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON SEQUENCES TO {role};
             ALTER DEFAULT PRIVILEGES GRANT INSERT ON TABLES TO PUBLIC;
             ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
             ALTER DEFAULT PRIVILEGES REVOKE ALL ON TYPES FROM PUBLIC, {USER};
             ALTER DEFAULT PRIVILEGES GRANT USAGE ON SCHEMAS TO {role}"
        ));
    }

    fn may_read(&self, database: &TestDatabase<'_>) -> bool {
        let sql = format!("SET ROLE {}; SELECT * FROM public.secrets", self.name);
        self.server.try_sql(database.name(), sql).is_ok()
    }
}

#[test]
fn a_database_that_gives_rights_away_gets_those_of_the_dump() {
    let Some(server) = postgres() else { return };
    let (database, empty) = (server.database(), server.database());
    let reader = Reader::new(server, &database);
    reader.source(&database);
    reader.target(&empty);
    let before = empty.sql(DEFAULTS);
    let shelf = Shelf::new();
    shelf.backup(&database);
    shelf.restore("latest", &empty.url(), &[]).expect(0);
    let rights = format!("{OWN}{RIGHTS}");
    assert_eq!(empty.sql(&rights), database.sql(&rights));
    assert!(!reader.may_read(&empty));
    // It gives what it gave, but for what the dump says itself.
    let sequences = |text: &str| -> Vec<String> {
        let (own, others): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.contains("|S|"));
        let own = own.into_iter().map(str::to_owned);
        own.chain([others.join("\n")]).collect()
    };
    let (before, after) = (sequences(&before), sequences(&empty.sql(DEFAULTS)));
    assert_eq!(after[1], before[1]);
    assert_eq!(after[0], sequences(&database.sql(DEFAULTS))[0]);
    assert_ne!(after[0], before[0]);
    // Who leaves the dump's rights out gets the target's.
    let other = server.database();
    reader.target(&other);
    let none = ["--no-privileges"];
    shelf.restore("latest", &other.url(), &none).expect(0);
    assert!(reader.may_read(&other));
    drop((database, empty, other));
    server.sql("template1", &format!("DROP ROLE {}", reader.name));
}

#[test]
fn a_single_table_has_the_rights_of_the_dump() {
    let Some(server) = postgres() else { return };
    let (database, live) = (server.database(), server.database());
    let reader = Reader::new(server, &database);
    reader.source(&database);
    reader.target(&live);
    live.sql("CREATE TABLE there (id int)");
    let before = live.sql(DEFAULTS);
    let shelf = Shelf::new();
    shelf.backup(&database);
    let tables = ["--table", "secrets", "--table", "open"];
    for more in [&["--dry-run"][..], &[]] {
        let flags = [&tables[..], more].concat();
        shelf.restore("latest", &live.url(), &flags).expect(0);
        assert_eq!(live.sql(DEFAULTS), before);
    }
    let rights = "SELECT relname, relacl FROM pg_class WHERE relname IN ('secrets', 'open', 'open_id_seq') ORDER BY 1";
    assert_eq!(live.sql(rights), database.sql(rights));
    assert!(!reader.may_read(&live));
    // A failure puts nothing back and leaves nothing.
    let failed = shelf.restore("latest", &live.url(), &tables);
    assert_ne!(failed.code(), 0);
    assert_eq!(live.sql(DEFAULTS), before);
    drop((database, live));
    server.sql("template1", &format!("DROP ROLE {}", reader.name));
}
