//! `pgkeep` on Google Cloud Storage and Azure as people run it: logins from every place, leases that live, what `check` tells.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::backup::{Shop, facts};
use crate::support::CANARY;
use crate::support::azurite::{ACCOUNT, Azurite, Container, account_key, azurite, token};
use crate::support::receiver::{Receiver, Reply};
use crate::support::sandbox::{Outcome, Run};
use crate::support::scripted_s3::{Fault, Rule, ScriptedGcs, ScriptedProxy};

/// A shop with one storage in a configuration.
fn shop(storage: &Value) -> Shop {
    let mut shop = Shop::new();
    shop.answer(&facts());
    configure(&shop, storage);
    shop
}

fn configure(shop: &Shop, storage: &Value) {
    let config = json!({
        "databases": {"shop": {"url": "${DATABASE_URL}"}},
        "storages": {"cloud": storage},
        "postgres": {"bin_dir": shop.fake.bin()},
    });
    let path = shop.sandbox.write("pgkeep.yaml", config.to_string());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    shop.sandbox.may_hold_secret(&path);
}

fn in_gcs(server: &ScriptedGcs, login: &Value) -> Value {
    let mut storage =
        json!({"url": format!("gs://{}/pg", server.bucket), "endpoint": server.endpoint});
    storage
        .as_object_mut()
        .unwrap()
        .extend(login.as_object().unwrap().clone());
    storage
}

fn in_azure(endpoint: &str, container: &Container, login: &Value) -> Value {
    let mut storage = json!({
        "url": format!("az://{}/pg", container.name), "endpoint": endpoint, "account": ACCOUNT,
    });
    storage
        .as_object_mut()
        .unwrap()
        .extend(login.as_object().unwrap().clone());
    storage
}

fn backup(shop: &Shop) -> Run<'_> {
    // Renewed every second or so.
    let run = shop.sandbox.pgkeep(["--json", "backup", "--attempts", "1"]);
    run.env("PGKEEP_TEST_LEASE_TTL_MS", "3000")
}

fn warnings(outcome: &Outcome) -> Value {
    outcome.summary()["backups"][0]["warnings"].clone()
}

/// A run keeps its lease by writes that nobody else may have come between, and another host finds it.
#[track_caller]
fn assert_lease_lives(storage: &Value, renewals: impl Fn() -> usize) {
    let (mut first, second) = (shop(storage), shop(storage));
    let mark = first.sandbox.path("reached");
    let stop = json!({ "bytes": 700, "marks": mark, "sleeps_ms": 5_000, "resumes": true });
    first.dumps(json!({ "stops_after": stop }));
    let running = backup(&first).start();
    running.wait_for_file(&mark);
    let before = renewals();
    let busy = backup(&second).run().expect(11);
    assert_eq!(busy.exit_error()["id"], "busy");
    let outcome = running.wait().expect(0);
    assert!(renewals() >= before + 2, "{} {before}", renewals());
    assert_eq!(warnings(&outcome), json!([]), "{outcome}");
    for command in [&["verify"][..], &["list"], &["prune", "--keep-last", "1"]] {
        let all = [&["--json"], command].concat();
        first.sandbox.pgkeep(all).run().expect(0);
    }
    // Given back, so nobody waits.
    backup(&second).run().expect(0);
    let listed = second.sandbox.pgkeep(["--json", "list"]).run().expect(0);
    assert_eq!(listed.json()["backups"].as_array().unwrap().len(), 2);
}

#[test]
fn a_lease_lives_on_gcs() {
    let server = ScriptedGcs::start();
    server.gcs.take_only("t0ken-of-a-test");
    let storage = in_gcs(&server, &json!({"access_token": "t0ken-of-a-test"}));
    assert_lease_lives(&storage, || {
        let log = server.log();
        let puts = log.iter().filter(|seen| seen.method == "PUT");
        puts.filter(|seen| seen.path.ends_with("/lease.json"))
            .count()
    });
    assert!(!server.keys().iter().any(|key| key.ends_with("lease.json")));
}

#[test]
fn a_lease_lives_on_azure() {
    let Some(server) = azurite() else { return };
    let proxy = ScriptedProxy::start(server.address);
    let container = Container::make(server);
    let endpoint = format!("http://{}/{ACCOUNT}", proxy.address);
    let login = json!({"account_key": account_key()});
    assert_lease_lives(&in_azure(&endpoint, &container, &login), || {
        let log = proxy.log();
        let puts = log.iter().filter(|seen| seen.method == "PUT");
        puts.filter(|seen| seen.path.ends_with("/lease.json"))
            .count()
    });
}

/// A lease that another host took over is found out before the manifest, whatever the store compares.
#[test]
fn a_lease_that_changed_hands_lets_nothing_be_stored() {
    let server = ScriptedGcs::start();
    let storage = in_gcs(&server, &json!({"anonymous": true}));
    let mut shop = shop(&storage);
    let mark = shop.sandbox.path("reached");
    let stop = json!({ "bytes": 700, "marks": mark, "sleeps_ms": 3_000, "resumes": true });
    shop.dumps(json!({ "stops_after": stop }));
    let running = shop
        .sandbox
        .pgkeep(["--json", "backup", "--attempts", "1"])
        .start();
    running.wait_for_file(&mark);
    let key = server
        .keys()
        .into_iter()
        .find(|key| key.ends_with("lease.json"))
        .unwrap();
    let file = server.bucket_dir().join(&key);
    let text = fs::read_to_string(&file).unwrap();
    let mut theirs: Value = serde_json::from_str(&text).unwrap();
    theirs["holder"] = json!("somebody else");
    theirs["host_name"] = json!("db9");
    // By a write that has a generation of its own.
    let put = format!(
        "PUT /{}/{key} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{theirs}",
        server.bucket,
        theirs.to_string().len()
    );
    let answer = exchange(server.endpoint.trim_start_matches("http://"), &put);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let outcome = running.wait().expect(11);
    assert_eq!(outcome.exit_error()["id"], "lock_lost");
    assert!(
        !server
            .keys()
            .iter()
            .any(|key| key.ends_with("manifest.json"))
    );
}

fn exchange(address: &str, request: &str) -> String {
    use std::io::{Read, Write};
    let mut socket = std::net::TcpStream::connect(address).unwrap();
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

/// Checks the storages; returns what it says of the login, and all.
fn checked(shop: &Shop, flags: &[&str], code: i32) -> (String, Outcome) {
    let bin = shop.fake.bin().display().to_string();
    let fixed = ["--json", "check", "--bin-dir", &bin];
    let outcome = shop.sandbox.pgkeep([&fixed[..], flags].concat()).run();
    let lines = outcome.json()["checks"].as_array().unwrap().clone();
    let of = |check: &str| lines.iter().find(|line| line["check"] == check).cloned();
    let trip = of("round_trip").unwrap();
    let expected = if code == 0 { "ok" } else { "fail" };
    assert_eq!(trip["verdict"], expected, "{outcome}");
    if code == 0 {
        assert_eq!(
            of("conditional_writes").unwrap()["verdict"],
            "ok",
            "{outcome}"
        );
        assert_eq!(of("remove").unwrap()["verdict"], "ok", "{outcome}");
    } else {
        assert_eq!(trip["code"], code, "{outcome}");
    }
    let login = of("credentials").map(|line| line["message"].as_str().unwrap().to_owned());
    (login.unwrap_or_default(), outcome)
}

#[test]
fn check_tells_as_whom_gcs_is_used() {
    let server = ScriptedGcs::start();
    server.gcs.take_only("t0ken-of-a-test");
    let token = "t0ken-of-a-test";
    let mut shop = shop(&in_gcs(&server, &json!({"access_token": token})));
    assert_eq!(
        checked(&shop, &[], 0).0,
        "`access_token` of the configuration"
    );

    let file = shop.sandbox.write("token", token);
    configure(&shop, &in_gcs(&server, &json!({"access_token_file": file})));
    assert_eq!(
        checked(&shop, &[], 0).0,
        "`access_token` of the configuration"
    );

    let print = json!({"credential_command": ["printf", r#"{"access_token": "%s"}"#, token]});
    configure(&shop, &in_gcs(&server, &print));
    assert_eq!(checked(&shop, &[], 0).0, "what `credential_command` prints");

    configure(&shop, &in_gcs(&server, &json!({})));
    shop.sandbox.set("GOOGLE_BEARER_TOKEN", token);
    assert_eq!(
        checked(&shop, &[], 0).0,
        "the token in `GOOGLE_BEARER_TOKEN`"
    );

    shop.sandbox
        .set("GOOGLE_BEARER_TOKEN", "t0ken-of-somebody-else");
    let (_, outcome) = checked(&shop, &[], 12);
    assert!(outcome.stdout().contains("get a new token"), "{outcome}");
    assert!(
        !outcome.stdout().contains("t0ken-of-somebody-else"),
        "{outcome}"
    );
}

#[test]
fn check_says_what_a_thief_could_do_on_gcs() {
    let server = ScriptedGcs::start();
    let shop = shop(&in_gcs(&server, &json!({"anonymous": true})));
    let said = || {
        let outcome = shop.sandbox.pgkeep(["--json", "check"]).run();
        let lines = outcome.json()["checks"].as_array().unwrap().clone();
        let found = lines.into_iter().find(|line| line["check"] == "protection");
        let line = found.unwrap_or_else(|| panic!("no such line: {outcome}"));
        let text = |field: &str| line[field].as_str().unwrap().to_owned();
        (text("verdict"), text("message"))
    };
    let (verdict, message) = said();
    assert_eq!(verdict, "skipped", "{message}");
    assert!(message.contains("cannot be read: 403"), "{message}");

    server
        .gcs
        .is(r#"{"softDeletePolicy": {"retentionDurationSeconds": "604800"}}"#);
    let (verdict, message) = said();
    assert_eq!(verdict, "warn", "{message}");
    assert!(
        message.ends_with("can be brought back for 7 days, and is gone then"),
        "{message}"
    );
}

#[test]
fn the_metadata_server_of_google_is_asked() {
    let server = ScriptedGcs::start();
    server.gcs.take_only("t0ken-of-the-machine");
    let metadata = Receiver::start();
    let answer =
        r#"{"access_token": "t0ken-of-the-machine", "expires_in": 3600, "token_type": "Bearer"}"#;
    metadata.on("computeMetadata", 99, Reply::Status(200, answer));
    let mut shop = shop(&in_gcs(&server, &json!({})));
    let host = metadata.address.trim_start_matches("http://").to_owned();
    shop.sandbox.set("GCE_METADATA_HOST", host);
    let (login, _) = checked(&shop, &[], 0);
    assert_eq!(
        login,
        "the machine's service account, which its metadata server tells"
    );
    let asked = &metadata.of("computeMetadata")[0];
    assert_eq!(asked.headers["metadata-flavor"], "Google");

    // A machine without a service account is no missing object.
    let nobody = Receiver::start();
    nobody.on("computeMetadata", 99, Reply::Status(404, "no"));
    let host = nobody.address.trim_start_matches("http://").to_owned();
    shop.sandbox.set("GCE_METADATA_HOST", host.clone());
    shop.sandbox.set("GCE_METADATA_IP", host);
    let (_, outcome) = checked(&shop, &[], 12);
    assert!(
        outcome
            .stdout()
            .contains("metadata service answered with status 404"),
        "{outcome}"
    );
    assert!(
        outcome.stdout().contains("service_account_file"),
        "{outcome}"
    );
}

#[test]
fn gcs_is_named_on_the_command_line() {
    let server = ScriptedGcs::start();
    let json = json!({
        "gcs_base_url": server.endpoint, "disable_oauth": true, "client_email": "", "private_key": "", "private_key_id": "",
    });
    let mut shop = Shop::new();
    let file = shop.sandbox.write("key.json", json.to_string());
    let url = format!("gs://{}/pg", server.bucket);
    let flags = ["--storage", url.as_str()];
    shop.sandbox
        .set("GOOGLE_APPLICATION_CREDENTIALS", file.clone());
    let (login, _) = checked(&shop, &flags, 0);
    let place = file.display();
    assert_eq!(
        login,
        format!("the service account in `GOOGLE_APPLICATION_CREDENTIALS` (`{place}`)")
    );
    shop.run(&shop.oracle(), &flags).run().expect(0);
    assert!(
        server
            .keys()
            .iter()
            .any(|key| key.ends_with("manifest.json"))
    );

    // What google-github-actions/auth leaves cannot be used, and the way out is named.
    shop.sandbox.write(
        "key.json",
        r#"{"type": "external_account", "audience": "s3cret-audience"}"#,
    );
    let (_, outcome) = checked(&shop, &flags, 2);
    for words in ["`external_account`", "access_token", "GOOGLE_BEARER_TOKEN"] {
        assert!(outcome.stdout().contains(words), "{words}: {outcome}");
    }
    assert!(!outcome.stdout().contains("s3cret-audience"), "{outcome}");
}

#[test]
fn check_tells_as_whom_azure_is_used() {
    let Some(server) = azurite() else { return };
    let container = Container::make(server);
    let endpoint = server.endpoint();
    let place = |login: Value| in_azure(&endpoint, &container, &login);
    let mut shop = shop(&place(json!({"account_key": account_key()})));
    assert_eq!(
        checked(&shop, &[], 0).0,
        "`account_key` of the configuration"
    );
    let key = shop.sandbox.write_secret("key", account_key());
    configure(&shop, &place(json!({"account_key_file": key})));
    assert_eq!(
        checked(&shop, &[], 0).0,
        "`account_key` of the configuration"
    );
    let sas = container.sas("racwdl", "2100-01-01T00:00:00Z");
    configure(&shop, &place(json!({"sas_token": sas})));
    assert_eq!(checked(&shop, &[], 0).0, "`sas_token` of the configuration");

    configure(&shop, &place(json!({})));
    shop.sandbox.set("AZURE_STORAGE_SAS_TOKEN", &sas);
    let (login, _) = checked(&shop, &[], 0);
    assert_eq!(
        login,
        "the SAS token in the environment (`AZURE_STORAGE_SAS_TOKEN`)"
    );
    shop.sandbox.set("AZURE_STORAGE_ACCOUNT_KEY", account_key());
    let (login, _) = checked(&shop, &[], 0);
    assert_eq!(
        login,
        "the key in the environment (`AZURE_STORAGE_ACCOUNT_KEY`)"
    );

    // The emulator, on the command line.
    shop.sandbox.set("AZURE_STORAGE_USE_EMULATOR", "true");
    shop.sandbox.set(
        "AZURITE_BLOB_STORAGE_URL",
        format!("http://{}", server.address),
    );
    shop.sandbox.set("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT);
    let url = format!("az://{}/elsewhere", container.name);
    checked(&shop, &["--storage", &url], 0);
    shop.run(&shop.oracle(), &["--storage", &url])
        .run()
        .expect(0);
    shop.sandbox
        .pgkeep(["verify", "--storage", &url])
        .run()
        .expect(0);

    shop.sandbox
        .set("AZURE_STORAGE_ACCOUNT_KEY", "Y2FuYXJ5LXdyb25nLWtleQ==");
    let (_, outcome) = checked(&shop, &[], 12);
    assert!(outcome.stdout().contains("is of this account"), "{outcome}");
    assert!(!outcome.stdout().contains("Y2FuYXJ5LXdyb25n"), "{outcome}");
}

/// Every way to a bearer token, against a server that looks into it.
#[test]
fn azure_takes_tokens_of_every_place() {
    let Some(server) = Azurite::with_logins() else {
        crate::support::skip("Azurite is not installed (`scripts/test` installs it)");
        return;
    };
    let container = Container::make(&server);
    let endpoint = server.endpoint();
    let authority = server.authority.clone();
    let place = |login: Value| {
        let mut storage = in_azure(&endpoint, &container, &login);
        storage["ca_certificate"] = json!(authority);
        storage
    };
    let token = token();
    let mut shop = shop(&place(json!({"access_token": token})));
    assert_eq!(
        checked(&shop, &[], 0).0,
        "`access_token` of the configuration"
    );
    configure(&shop, &place(json!({})));
    shop.sandbox.set("AZURE_STORAGE_TOKEN", &token);
    assert_eq!(checked(&shop, &[], 0).0, "`AZURE_STORAGE_TOKEN`");
    shop.sandbox.set("AZURE_STORAGE_TOKEN", "");

    let az = shop.sandbox.bin().join("az");
    let script = format!(
        "#!/bin/sh\n[ \"$1 $2\" = 'account get-access-token' ] && echo '{{\"accessToken\": \"{token}\"}}'\n"
    );
    fs::write(&az, script).unwrap();
    fs::set_permissions(&az, fs::Permissions::from_mode(0o755)).unwrap();
    configure(&shop, &place(json!({"use_azure_cli": true})));
    let (login, _) = checked(&shop, &[], 0);
    assert_eq!(login, "whoever logged in by the Azure CLI (`az login`)");

    let logins = Receiver::start();
    let answer =
        format!(r#"{{"access_token": "{token}", "expires_in": 3600, "token_type": "Bearer"}}"#);
    let reply = || Reply::Status(200, Box::leak(answer.clone().into_boxed_str()));
    logins.on("/t1/oauth2/v2.0/token", 99, reply());
    let application = json!({
        "client_id": "app", "tenant_id": "t1", "client_secret": CANARY, "authority_host": logins.address,
    });
    configure(&shop, &place(application.clone()));
    assert_eq!(
        checked(&shop, &[], 0).0,
        "the application `app` in the configuration"
    );
    let asked = &logins.of("/t1/oauth2")[0];
    assert!(
        asked.text().contains("grant_type=client_credentials"),
        "{asked:?}"
    );

    let file = shop.sandbox.write("federated", "token-of-kubernetes");
    configure(&shop, &place(json!({})));
    shop.sandbox.set("AZURE_CLIENT_ID", "app");
    shop.sandbox.set("AZURE_TENANT_ID", "t1");
    // As AKS writes it.
    shop.sandbox
        .set("AZURE_AUTHORITY_HOST", format!("{}/", logins.address));
    shop.sandbox.set("AZURE_FEDERATED_TOKEN_FILE", &file);
    logins.forget();
    let (login, _) = checked(&shop, &[], 0);
    assert_eq!(
        login,
        format!(
            "the workload identity `app` with the token in `{}`",
            file.display()
        )
    );
    assert!(
        logins.of("/t1/oauth2")[0]
            .text()
            .contains("client_assertion=token-of-kubernetes")
    );

    // A managed identity, where App Service tells of it.
    let end = jiff::Timestamp::now().as_second() + 3600;
    let answer = format!(r#"{{"access_token": "{token}", "expires_on": "{end}"}}"#);
    logins.on(
        "/msi/token",
        99,
        Reply::Status(200, Box::leak(answer.into_boxed_str())),
    );
    shop.sandbox.set("AZURE_FEDERATED_TOKEN_FILE", "");
    shop.sandbox.set("AZURE_TENANT_ID", "");
    shop.sandbox
        .set("IDENTITY_ENDPOINT", format!("{}/msi/token", logins.address));
    let (login, _) = checked(&shop, &[], 0);
    assert_eq!(
        login,
        "the machine's managed identity, which its metadata service tells"
    );
    assert!(logins.of("/msi/token")[0].target.contains("client_id=app"));

    // A token for something else, and a login that is refused.
    configure(&shop, &place(json!({"access_token": "e30.e30.c2lnbmVk"})));
    checked(&shop, &[], 12);
}

/// Nothing of a login gets into an error or the log, not even into what is traced.
#[test]
fn no_login_is_ever_told() {
    let Some(server) = azurite() else { return };
    let proxy = ScriptedProxy::start(server.address);
    let container = Container::make(server);
    let sas = container.sas("racwdl", "2100-01-01T00:00:00Z");
    let (_, signature) = sas.split_once("sig=").unwrap();
    let endpoint = format!("http://{}/{ACCOUNT}", proxy.address);
    let shop = shop(&in_azure(&endpoint, &container, &json!({"sas_token": sas})));
    proxy.on(Rule::new("PUT", Fault::status(500, "InternalError")).times(1));
    proxy.on(Rule::new("GET", Fault::LoseAnswer).times(1));
    let flags = [
        "--log-format",
        "json",
        "--log-file",
        "trace.log",
        "backup",
        "--attempts",
        "1",
    ];
    let traced = |shop: &Shop| {
        let run = shop.sandbox.pgkeep(flags).env("PGKEEP_LOG", "trace");
        run.env("RUST_LOG", "trace").run()
    };
    let good = traced(&shop).expect(0);
    proxy.on(Rule::new("PUT", Fault::status(403, "AuthorizationFailure")));
    let bad = traced(&shop).expect(12);
    let log = fs::read_to_string(shop.sandbox.path("trace.log")).unwrap();
    assert!(log.contains("trying again"), "{log}");
    for text in [
        good.stdout(),
        good.stderr(),
        bad.stdout(),
        bad.stderr(),
        &log,
    ] {
        assert!(!text.contains(signature), "{text}");
        let decoded = signature
            .replace("%2F", "/")
            .replace("%2B", "+")
            .replace("%3D", "=");
        assert!(!text.contains(&decoded), "{text}");
    }
}

#[test]
fn a_run_that_is_ended_leaves_no_lease_on_azure() {
    let Some(server) = azurite() else { return };
    let container = Container::make(server);
    let storage = in_azure(
        &server.endpoint(),
        &container,
        &json!({"account_key": account_key()}),
    );
    let mut shop = shop(&storage);
    let mark = shop.sandbox.path("reached");
    let stop = json!({ "bytes": 700, "marks": mark, "sleeps_ms": 60_000, "resumes": true });
    shop.dumps(json!({ "stops_after": stop }));
    let running = backup(&shop).start();
    running.wait_for_file(&mark);
    running.signal(Signal::TERM);
    running.wait().expect(143);
    shop.dumps(json!({}));
    let outcome = backup(&shop).run().expect(0);
    assert_eq!(warnings(&outcome), json!([]));
}
