//! No code that a dump or a target brings runs as a superuser.

use serde_json::json;

use super::*;

/// It fails wherever a superuser runs it in another database than its own.
const WATCH: &str = "
CREATE FUNCTION watch(anyelement) RETURNS anyelement IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
  IF current_database() <> 'SOURCE' AND
     (current_setting('is_superuser') = 'on' OR (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = session_user)) THEN
    RAISE EXCEPTION 'a superuser ran it: %', session_user;
  END IF;
  RETURN $1;
END $$;";

/// What a dump can have its functions run by, and what only a superuser may make.
const THINGS: &str = "
CREATE SCHEMA ext; CREATE EXTENSION hstore WITH SCHEMA ext; COMMENT ON EXTENSION hstore IS 'ours';
CREATE TABLE t (a int PRIMARY KEY, b text DEFAULT public.watch('x'::text), c int GENERATED ALWAYS AS (public.watch(1)) STORED,
  h ext.hstore, CHECK (public.watch(a) > 0));
INSERT INTO t (a, h) SELECT g, 'k=>1' FROM generate_series(1, 20) g;
CREATE INDEX ON t (public.watch(a));
CREATE MATERIALIZED VIEW m AS SELECT public.watch(a) AS a FROM t;
ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t FORCE ROW LEVEL SECURITY;
CREATE POLICY p ON t USING (public.watch(a) > 5);
CREATE FUNCTION on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM public.watch(1); END';
CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION on_ddl();
GRANT SELECT ON t TO PUBLIC;";

/// What only a superuser may make, and other things need at once.
const BETWEEN: &str = "
CREATE FUNCTION sealed(int) RETURNS boolean LANGUAGE plpgsql LEAKPROOF IMMUTABLE SECURITY DEFINER AS
  'BEGIN PERFORM public.watch($1); RETURN true; END';
CREATE INDEX ON t (sealed(a));
CREATE FUNCTION backwards(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT btint4cmp($2, $1)';
CREATE OPERATOR CLASS backwards FOR TYPE int USING btree AS OPERATOR 1 >, OPERATOR 2 >=, OPERATOR 3 =, OPERATOR 4 <=,
  OPERATOR 5 <, FUNCTION 1 backwards(int, int);
CREATE INDEX ON t (a backwards);";

fn watched(server: &'static Server) -> TestDatabase<'static> {
    let database = server.database();
    database.sql(&WATCH.replace("SOURCE", database.name()));
    database.sql(THINGS);
    database
}

#[test]
fn a_superuser_restores_by_a_role_without_powers() {
    let Some(server) = postgres() else { return };
    let database = watched(server);
    let shelf = Shelf::new();
    shelf.backup(&database);
    let facts = "SELECT concat_ws(' ', (SELECT relrowsecurity AND relforcerowsecurity FROM pg_class WHERE relname = 't'),
        (SELECT count(*) FROM pg_event_trigger), (SELECT count(*) FROM m), has_table_privilege('public', 't', 'SELECT'),
        (SELECT string_agg(DISTINCT tableowner, ',') = current_user FROM pg_tables WHERE schemaname = 'public'))";
    // One that is there and stays takes all but what other things need at once.
    let empty = server.database();
    shelf.restore("latest", &empty.url(), &[]).expect(0);
    assert_eq!(empty.sql(facts), "t 1 20 t t");
    database.sql(BETWEEN);
    shelf.backup(&database);
    let other = server.database();
    let outcome = shelf.restore("latest", &other.url(), &[]).expect(25);
    assert_eq!(outcome.exit_error()["id"], "superuser_needed", "{outcome}");
    assert_eq!(
        other.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"),
        "0"
    );
    assert_eq!(
        other.sql("SELECT count(*) FROM pg_extension WHERE extname = 'hstore'"),
        "0"
    );
    let target = Target::beside(&database, server);
    for flags in [&["--jobs", "1"][..], &["--jobs", "2", "--replace"][..]] {
        let report = shelf.restore("latest", &target.url(), flags).expect(0);
        assert_eq!(report.summary()["left_out"], json!([]));
    }
    assert_eq!(target.sql(facts), "t 1 20 t t");
    let made = "SELECT concat_ws(' ', (SELECT proleakproof FROM pg_proc WHERE proname = 'sealed'),
        (SELECT count(*) FROM pg_opclass WHERE opcname = 'backwards'))";
    assert_eq!(target.sql(made), "t 1");
}

#[test]
fn a_drill_runs_nothing_as_a_superuser() {
    let Some(server) = postgres() else { return };
    let database = watched(server);
    database.sql(BETWEEN);
    let shelf = Shelf::new();
    shelf.backup(&database);
    let drill = ["--json", "drill", "--storage", "backups", "-d", "shop"];
    let report = shelf.sandbox.pgkeep(drill).run().expect(0).summary();
    assert_eq!(report["passed"], true);
}

#[test]
fn what_reaches_outside_the_database_is_refused() {
    let Some(server) = postgres() else { return };
    let shelf = Shelf::new();
    let database = server.database();
    database.sql(
        "CREATE FUNCTION c() RETURNS int LANGUAGE internal AS 'int4in'; CREATE TABLE t (a int)",
    );
    shelf.backup(&database);
    let target = Target::beside(&database, server);
    let outcome = shelf.restore("latest", &target.url(), &[]).expect(25);
    assert_eq!(outcome.exit_error()["id"], "superuser_refused", "{outcome}");
    assert_eq!(target.databases(), [""; 0]);
    let drill = ["--json", "drill", "--storage", "backups", "-d", "shop"];
    let report = shelf.sandbox.pgkeep(drill).run().expect(0).summary();
    let left_out = &report["restore"]["left_out"];
    assert_eq!(*left_out, json!(["function public.c"]));
    shelf
        .restore("latest", &target.url(), &["--allow-superuser"])
        .expect(0);
}

#[test]
fn rows_of_a_plain_owner_are_merged_with_its_rights() {
    let Some(server) = &Server::private() else {
        return;
    };
    let database = server.database();
    let owner = format!("{}_owner", database.name());
    database.sql(&format!(
        "CREATE ROLE {owner}; GRANT CREATE ON SCHEMA public TO {owner}; SET ROLE {owner};
         CREATE FUNCTION public.watch(a int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
           IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = session_user) AND current_setting('application_name') LIKE 'pgkeep-restore%'
           THEN RAISE EXCEPTION 'a superuser ran it'; END IF; RETURN a; END $$;
         CREATE TABLE public.t (a int PRIMARY KEY, b text); CREATE INDEX ON public.t (public.watch(a));
         INSERT INTO public.t VALUES (1, 'x'), (2, 'y'); RESET ROLE"
    ));
    let shelf = Shelf::new();
    shelf.backup(&database);
    database.sql("DELETE FROM t WHERE a = 2");
    let target = server.url_as(USER, CANARY, database.name());
    let merge = || {
        let flags = ["--upsert", "--table", "t", "--plain-role"];
        shelf.restore("latest", &target, &flags)
    };
    merge().expect(0);
    assert_eq!(database.sql("SELECT count(*) FROM t"), "2");
    // To a superuser's own table rights are enough, and what its index calls has no more.
    database.sql(
        "ALTER TABLE t OWNER TO CURRENT_USER; CREATE SCHEMA seq; CREATE SEQUENCE seq.s;
         ALTER TABLE t ALTER a SET DEFAULT nextval('seq.s'); DELETE FROM t WHERE a = 2",
    );
    merge().expect(0);
    assert_eq!(database.sql("SELECT count(*) FROM t"), "2");
    assert_eq!(database.sql("SELECT nextval('seq.s')"), "3");
    assert_eq!(
        database.sql("SELECT count(*) FROM pg_class WHERE relacl::text LIKE '%pgkeep%'"),
        "0"
    );
    // Triggers are an owner's to switch off.
    database.sql(
        "CREATE FUNCTION fired() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER f BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION fired()",
    );
    let outcome = merge().expect(25);
    let error = outcome.exit_error();
    assert_eq!(error["id"], "superuser_refused", "{outcome}");
    assert!(
        error["details"].to_string().contains("trigger `f`"),
        "{error}"
    );
    let left = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'pgkeep%'";
    assert_eq!(server.sql("template1", left), "0");
}

/// Its index calls a function that looks who runs it; owner, rights and row-level security come last.
#[test]
fn a_single_table_is_made_by_a_role_without_powers() {
    let Some(server) = &Server::private() else {
        return;
    };
    let database = server.database();
    let owner = format!("{}_owner", database.name());
    database.sql(&format!(
        "CREATE ROLE {owner}; GRANT CREATE ON SCHEMA public TO {owner}; CREATE TABLE public.parent (a int PRIMARY KEY);
         INSERT INTO public.parent VALUES (1), (2);
         CREATE FUNCTION public.watch(a int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
           IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = session_user) AND current_setting('application_name') LIKE 'pgkeep-restore%'
           THEN RAISE EXCEPTION 'a superuser ran it'; END IF; RETURN a; END $$;
         CREATE TABLE public.t (a int REFERENCES public.parent, b serial); CREATE INDEX ON public.t (public.watch(a));
         INSERT INTO public.t VALUES (1), (2); ALTER TABLE public.t OWNER TO {owner}; GRANT SELECT ON public.t TO PUBLIC;
         ALTER TABLE public.t ENABLE ROW LEVEL SECURITY; ALTER TABLE public.t FORCE ROW LEVEL SECURITY"
    ));
    let shelf = Shelf::new();
    shelf.backup(&database);
    let looks = "SELECT pg_get_userbyid(relowner), relacl::text, relforcerowsecurity FROM pg_class WHERE oid = 'public.t'::regclass";
    let before = database.sql(looks);
    database.sql("DROP TABLE t");
    shelf
        .restore("latest", &database.url(), &["--table", "t", "--plain-role"])
        .expect(0);
    assert_eq!(database.sql(looks), before);
    assert_eq!(database.sql("SELECT count(*) FROM t"), "2");
    // Into a database that is made for it, and on trial.
    let target = Target::beside(&database, server);
    shelf
        .restore(
            "latest",
            &target.url(),
            &["--table", "t", "--table", "parent", "--plain-role"],
        )
        .expect(0);
    assert_eq!(target.sql("SELECT count(*) FROM t"), "2");
    database.sql("DROP TABLE t");
    shelf
        .restore(
            "latest",
            &database.url(),
            &["--table", "t", "--dry-run", "--plain-role"],
        )
        .expect(0);
    assert_eq!(database.sql("SELECT to_regclass('public.t')"), "");
    let left = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'pgkeep%'";
    assert_eq!(server.sql("template1", left), "0");
    let granted = "SELECT count(*) FROM pg_class WHERE relacl::text LIKE '%pgkeep%'";
    assert_eq!(database.sql(granted), "0");
}

/// The manual's own example of a trigger on login writes a row for each session; it waits until the rows were compared.
#[test]
fn a_trigger_on_login_waits_for_the_comparison() {
    let Some(server) = postgres() else { return };
    let number = server.sql("template1", "SHOW server_version_num");
    // Before 17 no trigger fires on a login.
    if number.parse::<u32>().unwrap() < 170_000 {
        return;
    }
    let database = server.database();
    database.sql(
        "CREATE TABLE logins (at timestamptz DEFAULT now(), who text);
         CREATE FUNCTION on_login() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS
           $$ BEGIN INSERT INTO public.logins (who) VALUES (session_user); END $$;
         CREATE EVENT TRIGGER l ON login EXECUTE FUNCTION on_login(); ALTER EVENT TRIGGER l ENABLE ALWAYS",
    );
    let shelf = Shelf::new();
    shelf.backup(&database);
    let target = Target::beside(&database, server);
    for flags in [&["--replace"][..], &["--replace", "--allow-superuser"]] {
        server.sql("template1", &format!("CREATE DATABASE {}", target.name));
        shelf.restore("latest", &target.url(), flags).expect(0);
        let dropping = target.databases();
        for name in dropping {
            server.sql("template1", &format!("DROP DATABASE \"{name}\""));
        }
    }
}

/// Only what bears our name and our words, and only where nobody can be at work on it.
#[test]
fn what_killed_restores_left_is_swept() {
    let Some(server) = &Server::private() else {
        return;
    };
    let shelf = Shelf::new();
    let file = shelf
        .sandbox
        .write("a.sql", dump(SMALL))
        .display()
        .to_string();
    let tag = |when: &str| {
        format!(
            "pgkeep restores a backup into this database since {when} (process 7/8 on elsewhere)"
        )
    };
    let old = "2026-01-01T00:00:00Z";
    let now = jiff::Timestamp::now().to_string();
    let ours = |name: &str, when: &str| {
        format!(
            "CREATE DATABASE {name}; COMMENT ON DATABASE {name} IS '{}'",
            tag(when)
        )
    };
    let role = |name: &str, when: &str| {
        format!(
            "CREATE ROLE {name}; COMMENT ON ROLE {name} IS '{}'",
            tag(when)
        )
    };
    for sql in [
        ours("wanted_restoring_695856000123abcd", old),
        ours("wanted_restoring_fffffff00123abcd", &now),
        ours("wanted_restoring_mine", old),
        "CREATE DATABASE wanted_restoring_695856000123abce".to_owned(),
        role("pgkeep_restorer_0123456789abcdef", old),
        role("pgkeep_restorer_0123456789abcdee", &now),
    ] {
        for statement in sql.split("; ") {
            server.sql("template1", statement);
        }
    }
    let url = server.url_as(USER, CANARY, "wanted");
    let report = shelf.restore(&file, &url, &[]).expect(0).summary();
    let warnings = report["warnings"].to_string();
    assert!(
        warnings.contains("wanted_restoring_695856000123abcd"),
        "{warnings}"
    );
    let left = "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE datname LIKE 'wanted%'";
    assert_eq!(
        server.sql("template1", left),
        "wanted wanted_restoring_695856000123abce wanted_restoring_fffffff00123abcd wanted_restoring_mine"
    );
    let roles = "SELECT string_agg(rolname, ' ') FROM pg_roles WHERE rolname LIKE 'pgkeep%'";
    assert_eq!(
        server.sql("template1", roles),
        "pgkeep_restorer_0123456789abcdee"
    );
}

/// A restore that was killed behind its COMMIT leaves tables that somebody may use by now.
#[test]
fn what_a_killed_restore_committed_stays() {
    let Some(server) = &Server::private() else {
        return;
    };
    let database = loaded(server, dump(SMALL).as_bytes());
    let shelf = Shelf::new();
    shelf.backup(&database);
    let tag = "pgkeep restores a backup into this database since 2026-01-01T00:00:00Z (process 7/8 on elsewhere)";
    database.sql(&format!(
        "CREATE ROLE pgkeep_restorer_0123456789abcdef LOGIN; COMMENT ON ROLE pgkeep_restorer_0123456789abcdef IS '{tag}';
         CREATE TABLE kept (a int); INSERT INTO kept VALUES (1); ALTER TABLE kept OWNER TO pgkeep_restorer_0123456789abcdef"
    ));
    let aside = ["-t", "t", "--schema-map", "public=z", "--plain-role"];
    let dry = [&aside[..], &["--dry-run"]].concat();
    shelf.restore("latest", &database.url(), &dry).expect(0);
    assert_eq!(database.sql("SELECT count(*) FROM kept"), "1");
    let report = shelf
        .restore("latest", &database.url(), &aside)
        .expect(0)
        .summary();
    assert_eq!(database.sql("SELECT count(*) FROM kept"), "1");
    let warnings = report["warnings"].to_string();
    assert!(
        warnings.contains("REASSIGN OWNED BY") && warnings.contains(database.name()),
        "{warnings}"
    );
    let logs_in = "SELECT rolcanlogin FROM pg_roles WHERE rolname LIKE 'pgkeep%'";
    assert_eq!(server.sql("template1", logs_in), "f");
}

/// A foreign key is checked as the owner of the table that it refers to, and calls the cast of a type of the dump's.
#[test]
fn a_key_into_a_superusers_table_is_left_out() {
    let Some(server) = &Server::private() else {
        return;
    };
    let database = server.database();
    let mallory = format!("{}_mallory", database.name());
    database.sql(&format!(
        "CREATE ROLE {mallory}; GRANT CREATE ON SCHEMA public TO {mallory};
         CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders VALUES (1);
         GRANT REFERENCES ON orders TO {mallory}; SET ROLE {mallory};
         CREATE TYPE evil AS (v int);
         CREATE FUNCTION c(e evil) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
           IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)
             AND current_setting('application_name') LIKE 'pgkeep-restore%' THEN RAISE EXCEPTION 'a superuser ran it'; END IF;
           RETURN (e).v; END $$;
         CREATE CAST (evil AS int) WITH FUNCTION c(evil) AS IMPLICIT;
         CREATE TABLE t (a evil REFERENCES orders (id)); INSERT INTO t VALUES (row(1)::evil); RESET ROLE"
    ));
    let shelf = Shelf::new();
    shelf.backup(&database);
    database.sql("DROP TABLE t");
    let flags = ["-t", "t", "--plain-role"];
    let report = shelf
        .restore("latest", &database.url(), &flags)
        .expect(0)
        .summary();
    assert_eq!(database.sql("SELECT count(*) FROM t"), "1");
    let why = report["left_out"][0]["why"].as_str().unwrap();
    assert!(why.contains("--allow-superuser"), "{report}");
    // Roles that are missing are made for the trial, and are gone behind it.
    database.sql(&format!(
        "DROP TABLE t; DROP OWNED BY {mallory} CASCADE; DROP ROLE {mallory}"
    ));
    let flags = [
        "-t",
        "t",
        "--dry-run",
        "--create-missing-roles",
        "--plain-role",
    ];
    shelf.restore("latest", &database.url(), &flags).expect(0);
    let there = format!("SELECT count(*) FROM pg_roles WHERE rolname = '{mallory}'");
    assert_eq!(server.sql("template1", &there), "0");
}
