//! As whom a dump is restored: a superuser only where it was said, and any other role that owns what it fills.

use super::*;

/// Nothing is touched before it was asked for, and a role of its own needs no superuser's powers.
#[test]
fn powers_are_used_only_when_it_is_said() {
    let Some(server) = postgres() else { return };
    let database = loaded(server, &data::dump("public/neon-chinook.sql"));
    let target = Target::beside(&database, server);
    let role = format!("{}_restorer", target.name);
    let boss = format!("{}_boss", target.name);
    server.sql(
        "template1",
        &format!("CREATE ROLE {role} LOGIN CREATEDB PASSWORD '{CANARY}'; CREATE ROLE {boss} LOGIN CREATEDB NOINHERIT PASSWORD '{CANARY}' IN ROLE {USER}"),
    );
    let shelf = Shelf::new();
    shelf.backup(&database);
    let file = shelf
        .sandbox
        .write("a.sql", dump(SMALL))
        .display()
        .to_string();
    let password = shelf
        .sandbox
        .write_secret("password", CANARY)
        .display()
        .to_string();
    let run = |what: &str, user: &str, name: &str, more: &[&str]| {
        let into = server.url_as(user, "", name).replacen(":@", "@", 1);
        let command = [
            "--json",
            "restore",
            what,
            "--into",
            &into,
            "--storage",
            "backups",
        ];
        let secret = ["--password-file", &password];
        let command = command.iter().chain(&secret);
        shelf.sandbox.pgkeep(command.chain(more)).run()
    };
    for what in ["latest", &file] {
        let outcome = run(what, &boss, &target.name, &[]).expect(25);
        let error = outcome.exit_error();
        assert_eq!(error["id"], "superuser_refused", "{outcome}");
        let hints = error["hints"].to_string();
        assert!(
            hints.contains("--allow-superuser") && hints.contains("CREATE ROLE"),
            "{outcome}"
        );
    }
    assert_eq!(target.databases(), [""; 0]);
    // For a superuser itself a role without powers does it, and is gone again.
    for what in ["latest", &file] {
        let empty = server.database();
        for name in [target.name.as_str(), empty.name()] {
            run(what, USER, name, &[]).expect(0);
        }
        let drop = format!("DROP DATABASE {}", target.name);
        server.sql("template1", &drop);
    }
    // Who owns what comes back, too, where the role is a member of the owners, and is left out where it is not.
    let app = format!("{}_app", target.name);
    database.sql(&format!(
        "CREATE ROLE {app} IN ROLE pg_monitor; ALTER DATABASE {} OWNER TO {app}; ALTER TABLE \"Album\" OWNER TO {app};
         CREATE SCHEMA s AUTHORIZATION {app}; CREATE TABLE s.t (); ALTER TABLE s.t OWNER TO {app}; GRANT {app} TO {role}",
        database.name()
    ));
    database.sql(&format!(
        "DO $$ DECLARE r record; BEGIN FOR r IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
         EXECUTE format('ALTER TABLE %I OWNER TO {app}', r.tablename); END LOOP; END $$"
    ));
    shelf.backup(&database);
    let report = run("latest", &role, &target.name, &[]).expect(0).summary();
    assert_eq!(report["warnings"], Value::Array(Vec::new()), "{report}");
    let owners = "SELECT string_agg(DISTINCT tableowner, ',') || (SELECT pg_get_userbyid(datdba) FROM pg_database \
                  WHERE datname = current_database()) FROM pg_tables WHERE schemaname IN ('public', 's')";
    assert_eq!(target.sql(owners), format!("{app}{app}"));
    server.sql("template1", &format!("DROP DATABASE {}", target.name));
    for what in ["latest", &file] {
        run(
            what,
            &role,
            &target.name,
            &["--no-owner", "--no-database-settings"],
        )
        .expect(0);
        server.sql("template1", &format!("DROP DATABASE {}", target.name));
    }
    run("latest", USER, &target.name, &["--allow-superuser"]).expect(0);
    drop(target);
    database.sql(&format!("REASSIGN OWNED BY {app} TO {USER}"));
    let roles = format!("DROP ROLE {role}; DROP ROLE {boss}; DROP ROLE {app}");
    server.sql("template1", &roles);
}

/// What the role may not do in the target is told as that, and not as what a backup lacks.
#[test]
fn a_right_that_a_single_table_lacks_is_told() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.sql("CREATE SCHEMA s; CREATE TABLE s.a (id int); INSERT INTO s.a VALUES (1)");
    let shelf = Shelf::new();
    shelf.backup(&database);
    let target = server.database();
    let role = format!("{}_poor", target.name());
    target.sql(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD '{CANARY}'; CREATE SCHEMA s"
    ));
    let password = shelf
        .sandbox
        .write_secret("password", CANARY)
        .display()
        .to_string();
    let into = server
        .url_as(&role, "", target.name())
        .replacen(":@", "@", 1);
    let command = [
        "--json",
        "restore",
        "latest",
        "--into",
        &into,
        "--storage",
        "backups",
        "--table",
        "s.a",
        "--no-owner",
        "--password-file",
        &password,
    ];
    let error = shelf.sandbox.pgkeep(command).run().expect(20).exit_error();
    assert_eq!(error["id"], "restore_hindered", "{error}");
    let hints = error["hints"].to_string();
    assert!(
        hints.contains("--no-privileges") && !hints.contains("pg_read_all_data"),
        "{hints}"
    );
    target.sql(&format!("DROP ROLE {role}"));
}

/// A member without its role's rights could not rename the database that it gave away.
#[test]
fn a_database_is_given_to_a_role_whose_rights_are_not_inherited() {
    let Some(server) = postgres() else { return };
    let database = loaded(server, &dump(SMALL).into_bytes());
    let target = Target::beside(&database, server);
    let (owner, role) = (
        format!("{}_own", target.name),
        format!("{}_in", target.name),
    );
    server.sql(
        "template1",
        &format!(
            "CREATE ROLE {owner}; CREATE ROLE {role} LOGIN CREATEDB NOINHERIT PASSWORD '{CANARY}' IN ROLE {owner};
             ALTER DATABASE {} OWNER TO {owner}",
            database.name()
        ),
    );
    // Whoever does not inherit may not create in `public`, even of a database of its own.
    database.sql(&format!(
        "CREATE SCHEMA app AUTHORIZATION {role}; ALTER TABLE t SET SCHEMA app; ALTER TABLE app.t OWNER TO {role}"
    ));
    let shelf = Shelf::new();
    shelf.backup(&database);
    let into = server.url_as(&role, CANARY, &target.name);
    shelf.restore("latest", &into, &[]).expect(0);
    let owns = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()";
    assert_eq!(target.sql(owns), owner);
}
