//! Pages of real values for tests: backups in storages in memory, read and judged as they are in operation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use maud::Markup;
use pgkeep_core::op::status::{self, Watched};
use pgkeep_core::op::stored::{Listing, NamedStorage};
use pgkeep_model::anomaly::{ANOMALY, Acceptance};
use pgkeep_model::config::{Config, NoEnv, parse};
use pgkeep_model::encryption::Fingerprint;
use pgkeep_model::failure::{Failure, Kind};
use pgkeep_model::id::{BackupId, DatabaseName};
use pgkeep_model::keys::{Part, Place, key_proof_key, run_key};
use pgkeep_model::manifest::Manifest;
use pgkeep_model::runs::RunRecord;
use pgkeep_storage::Memory;
use serde_json::json;

use crate::auth::Role;
use crate::page::chrome::Chrome;
use crate::page::drill::Drill;
use crate::page::error::Problem;
use crate::page::table::Preview;
use crate::page::view::{self, Filter};
use crate::page::{
    backup, badge, calendar, database, diff, drill, error, history, login, overview, restore, run,
    table, wall,
};
use crate::runs::{Line, RunView, State};
use crate::snapshot::{Drilled, Held, Missed, Planned, Program, Snapshot, Verb};

/// Names that somebody might give a table, a reason or an error to do harm.
pub const HOSTILE: &str = "<script>alert(\"x\")</script>' onload='alert(1)";

const CONFIG: &str = r#"
storages:
  local: {url: file:///backups}
  offsite: {url: s3://bucket/backups}
defaults:
  max_age: 26h
  retention: {keep_last: 3, keep_daily: 14, keep_weekly: 4, keep_monthly: 6, timezone: Europe/Berlin}
databases:
  shop: {url: postgres://app@db/shop, required_tables: [{name: customers, min_rows: 100}]}
  crm: {url: postgres://app@db/crm}
  ledger: {url: postgres://app@db/ledger}
  analytics: {url: postgres://app@db/analytics}
  blog: {url: postgres://app@db/blog}
  new-one: {url: postgres://app@db/new}
"#;

pub fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub fn now() -> Timestamp {
    at("2026-11-30T09:12:31Z")
}

fn config() -> Config {
    parse(CONFIG, &NoEnv).unwrap()
}

pub fn chrome(role: Role) -> Chrome {
    Chrome {
        base: "/backups".to_owned(),
        role,
        who: Some("eva".to_owned()),
        is_watch_only: false,
        doubt: None,
        now: now(),
        zone_note: "Times are UTC where no zone is named.".to_owned(),
    }
}

pub fn id(name: &str, ago: SignedDuration) -> BackupId {
    BackupId::new(name.parse().unwrap(), now() - ago, 7)
}

fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

/// Two public keys, so that nobody is warned of one that may be lost.
fn recipients() -> Vec<String> {
    ["age1eva", "age1safe"].map(str::to_owned).into()
}

/// What stands behind `.sql` in the key of a dump; the backups of two databases are encrypted.
fn extension(id: &BackupId) -> &'static str {
    match id.database().as_str() {
        "blog" | "analytics" => ".zst.age",
        _ => ".zst",
    }
}

/// A manifest of some tables; `number` makes each backup a little larger than the one before.
pub fn manifest(id: &BackupId, number: u64) -> Manifest {
    let size = 38_000_000 + number * 610_000 + number % 7 * 230_000;
    let mut tables = vec![];
    for (at, name) in [
        "customers",
        "orders",
        "order_items",
        "Invoice Lines",
        HOSTILE,
        "audit",
    ]
    .iter()
    .enumerate()
    {
        let rows = 4_000 * (at as u64 + 1) + number * 37 * at as u64;
        let digest = format!(
            "{:032x}",
            u128::from(rows) * 0x9e37_79b9_7f4a_7c15_f39c_0c5d
        );
        tables.push(json!({"schema": "public", "name": name, "kind": "table", "rows": rows, "bytes": rows * 83,
            "digest": digest, "blocks": []}));
    }
    tables.push(json!({"schema": "public", "name": "events", "kind": "partitioned", "rows": null, "bytes": 0}));
    if number.is_multiple_of(2) {
        tables.push(json!({"schema": "public", "name": "campaigns", "kind": "table", "rows": 12, "bytes": 700,
            "digest": "0".repeat(32)}));
    }
    let anomaly = (id.database().as_str() == "ledger").then(|| json!({"verdict": "held", "seen": [
        {"sign": "rows_lost", "severity": "fail", "table": format!("public.{HOSTILE}"), "median": 91_200, "found": 120, "bar": "50% and 100 rows"}]}));
    let value = json!({
        "format": 1, "id": id.to_string(), "database": id.database().as_str(), "trigger": "schedule",
        "started_at": id.started_at(), "finished_at": id.started_at() + SignedDuration::from_secs(47),
        "server": {"version": "17.4 (Debian 17.4-1)", "version_num": 170_004, "encoding": "UTF8", "database": "shop",
            "size_bytes": size * 4, "fixed_text_form": true},
        "tools": {"pgkeep": "0.1.0", "pg_dump": "17.4"},
        "compression": {"method": "zstd", "level": 3},
        "dump": {"bytes": size * 5, "rows": 96_000 + number * 310, "client_encoding": "UTF8", "pg_dump_version": null, "server_version": null},
        "object": {"key": Place { id: id.clone(), is_partial: false }.key(Part::Dump, extension(id)), "size_bytes": size, "sha256": "5f".repeat(32)},
        "sections": [], "tables": tables,
        "required_tables": [{"table": "public.customers", "min_rows": 100, "found": true, "rows": 4000}],
        "warnings": [{"id": "odd", "message": format!("odd: {HOSTILE}")}],
        "chunks": {"inline": {"header_bytes": 10, "raw": [1], "stored": [2], "around_rows": {"front": ["a".repeat(64)], "behind": []}}},
        "anomaly": anomaly,
        "encryption": extension(id).ends_with(".age").then(|| json!({"method": "age", "recipients": recipients(), "header_bytes": 200})),
        "restore": format!("zstd -dc {id}.sql.zst | psql -X -v ON_ERROR_STOP=1 -d shop_restored"),
    });
    Manifest::read(value.to_string().as_bytes(), id).unwrap()
}

/// Puts a backup into a storage; what a dump holds is read by nobody here.
fn put(storage: &Memory, id: &BackupId, number: u64, zeros: &Bytes) {
    let place = Place {
        id: id.clone(),
        is_partial: false,
    };
    let manifest = manifest(id, number);
    let size = usize::try_from(manifest.object.size_bytes).unwrap();
    storage.set(
        &place.key(Part::Dump, extension(id)),
        zeros.slice(..size),
        now(),
    );
    storage.set(&place.key(Part::Manifest, ""), manifest.to_json(), now());
}

fn mark(storage: &Memory, id: &BackupId, part: Part, value: &serde_json::Value) {
    let place = Place {
        id: id.clone(),
        is_partial: false,
    };
    storage.set(&place.key(part, ""), value.to_string(), now());
}

pub fn record(id: &BackupId, number: u64) -> RunRecord {
    let mut record = RunRecord::new(
        id.clone(),
        "backup",
        id.started_at(),
        41_000 + number * 530 + number % 5 * 2900,
    );
    record.trigger = Some("schedule".to_owned());
    let manifest = manifest(id, number);
    record.backup_id = Some(id.to_string());
    record.size_bytes = Some(manifest.object.size_bytes);
    record.rows = Some(manifest.dump.rows);
    record
}

/// Everything that the pages of the tests are made of.
pub struct Fixture {
    pub snapshot: Snapshot,
    pub live: Vec<RunView>,
}

impl Fixture {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(fixture())
    }
}

async fn fixture() -> Fixture {
    let (local, offsite) = (Arc::new(Memory::new()), Arc::new(Memory::new()));
    let zeros = Bytes::from(vec![0; 80_000_000]);
    let mut records: BTreeMap<DatabaseName, Vec<Arc<RunRecord>>> = BTreeMap::new();
    let mut drills: BTreeMap<DatabaseName, Vec<Drilled>> = BTreeMap::new();
    for (name, newest_hours) in [
        ("shop", 6),
        ("crm", 77),
        ("ledger", 5),
        ("analytics", 4),
        ("blog", 3),
    ] {
        let key: DatabaseName = name.parse().unwrap();
        for number in 0..40_u64 {
            let id = id(name, hours(newest_hours + 24 * (39 - number as i64)));
            let mut record = record(&id, number);
            if number == 31 {
                record = record.failed(
                    20,
                    "dump_failed",
                    &format!("cannot dump `{name}`: {HOSTILE}"),
                );
                (record.backup_id, record.size_bytes, record.rows) = (None, None, None);
            } else {
                put(&local, &id, number, &zeros);
                if name != "analytics" || number < 37 {
                    put(&offsite, &id, number, &zeros);
                }
            }
            local.set(&run_key(&id), record.to_json(), now());
            records
                .entry(key.clone())
                .or_default()
                .insert(0, Arc::new(record));
            if number % 8 == 4 && name != "crm" {
                let slow = if name == "analytics" { 32 } else { 12 };
                let drilled = Drilled {
                    backup: id.clone(),
                    passed_at: id.started_at() + hours(1),
                    recovery_ms: 1000 * slow * (30 + number),
                    server_version: Some("17.4".to_owned()),
                };
                let note = json!({"format": 1, "id": id.to_string(), "passed_at": drilled.passed_at, "started_at": drilled.passed_at, "recovery_ms": drilled.recovery_ms});
                mark(&local, &id, Part::Drill, &note);
                drills.entry(key.clone()).or_default().push(drilled);
            }
        }
    }
    let pinned = id("shop", hours(6 + 24 * 19));
    mark(
        &local,
        &pinned,
        Part::Pin,
        &json!({"format": 1, "id": pinned.to_string(), "pinned_at": now(), "reason": HOSTILE}),
    );
    let proof = key_proof_key(&Fingerprint::of(&recipients()), &id("blog", hours(50)));
    local.set(&proof, "{}", now());
    let held = id("ledger", hours(5));
    let anomaly = manifest(&held, 39).anomaly;
    mark(
        &local,
        &held,
        Part::Held,
        &json!({"format": 1, "id": held.to_string(), "held_at": now(), "anomaly": anomaly}),
    );
    let ledger = records
        .get_mut(&"ledger".parse::<DatabaseName>().unwrap())
        .unwrap();
    let newest = Arc::make_mut(&mut ledger[0]).clone().failed(
        21,
        ANOMALY,
        "the backup is held: rows were lost",
    );
    local.set(&run_key(&held), newest.to_json(), now());
    ledger[0] = Arc::new(newest);

    let named = |name: &str, storage: &Arc<Memory>| NamedStorage {
        name: name.to_owned(),
        storage: storage.clone(),
        identities: Arc::default(),
    };
    let storages = vec![named("local", &local), named("offsite", &offsite)];
    let config = config();
    let watched =
        |(name, database): &(DatabaseName, pgkeep_model::config::DatabaseConfig)| Watched {
            name: name.clone(),
            max_age: database.max_age,
            retention: database.retention.clone(),
            storages: database.storages.clone(),
            copies: database.copies,
            is_found: false,
            is_drill_expected: name.as_str() != "blog",
            drill_max_age: None,
        };
    let request = status::Request {
        storages: storages.clone(),
        databases: Some(config.databases.iter().map(watched).collect()),
        max_age: None,
        now: now(),
    };
    let plan = |name: &str, verb, schedule: &str, next: &[&str]| Planned {
        database: name.parse().unwrap(),
        verb,
        schedule: schedule.to_owned(),
        zone: "Europe/Berlin".to_owned(),
        offset: SignedDuration::from_secs(417),
        next: next.iter().map(|text| at(text)).collect(),
    };
    let nights = [
        "2026-12-01T02:21:57Z",
        "2026-12-02T02:21:57Z",
        "2026-12-03T02:21:57Z",
        "2026-12-04T02:21:57Z",
        "2026-12-05T02:21:57Z",
    ];
    let mut plans: Vec<Planned> = ["shop", "crm", "ledger", "analytics"]
        .map(|name| plan(name, Verb::Backup, "15 3 * * *", &nights))
        .into();
    plans.push(plan(
        "shop",
        Verb::Drill,
        "0 5 * * 0",
        &["2026-12-06T04:06:57Z", "2026-12-13T04:06:57Z"],
    ));
    let held_lease = |name: &str, verb: &str, ago: i64, is_dead| Held {
        database: name.parse().unwrap(),
        verb: verb.to_owned(),
        run: Some(id(name, SignedDuration::from_mins(ago))),
        host: format!("web-2{HOSTILE}"),
        pid: 4711,
        since: now() - SignedDuration::from_mins(ago),
        last_sign: now() - SignedDuration::from_secs(if is_dead { 400 } else { 12 }),
        slot: None,
        by: Some("ci".to_owned()),
        request_key: None,
        is_dead,
    };
    let missed = |name: &str, slot: &str| Missed {
        database: name.parse().unwrap(),
        verb: Verb::Backup,
        slot: at(slot),
    };
    let failure = Failure::new(
        Kind::Source,
        "dump_failed",
        format!("cannot dump `crm`: {HOSTILE}; what is stored is as it was"),
    )
    .with_details(["pg_dump: error: connection to server at \"db\" failed: timeout expired"])
    .hint("`pgkeep check -d crm` says what is out of reach");
    let names = config.databases.iter().map(|(name, _)| name.clone());
    let targets = names.map(|name| (name, Duration::from_secs(900))).collect();
    let here = ["psql", "pg_dump"].map(|name| Program {
        name: name.to_owned(),
        version: Some("17.4".to_owned()),
    });
    let programs = here.to_vec();
    let snapshot = Snapshot {
        at: now() - SignedDuration::from_secs(14),
        report: Arc::new(status::run(request).await.unwrap()),
        listing: Arc::new(Listing::read(storages, None, now()).await.unwrap()),
        records: Arc::new(records),
        held: vec![
            held_lease("blog", "backup", 3, false),
            held_lease("crm", "backup", 55, true),
        ],
        plans,
        missed: vec![
            missed("crm", "2026-11-30T02:15:00Z"),
            missed("crm", "2026-11-29T02:15:00Z"),
        ],
        failure: None,
        drills: Arc::new(drills),
        recovery_targets: Arc::new(targets),
        programs: Arc::new(programs),
        can_open: true,
        config: Arc::new(config),
    };
    let live = vec![
        live("shop", "backup", State::Running, 2, None),
        live("crm", "backup", State::Failed, 40, Some(failure)),
        live("analytics", "drill", State::Queued, 0, None),
    ];
    Fixture { snapshot, live }
}

fn live(name: &str, verb: &str, state: State, ago: i64, failure: Option<Failure>) -> RunView {
    let began = now() - SignedDuration::from_mins(ago);
    let line = |sequence: u64, text: &str| Line {
        sequence,
        at: began + SignedDuration::from_secs(sequence as i64 * 3),
        text: text.to_owned(),
    };
    RunView {
        id: BackupId::new(name.parse().unwrap(), began, 9),
        database: name.to_owned(),
        verb: verb.to_owned(),
        state,
        trigger: "manual".to_owned(),
        by: Some("eva".to_owned()),
        slot: None,
        queued_at: began - SignedDuration::from_secs(1),
        started_at: (state != State::Queued).then_some(began),
        ended_at: failure
            .as_ref()
            .map(|_| began + SignedDuration::from_secs(75)),
        phase: "dumping".to_owned(),
        done_bytes: 131_000_000,
        total_bytes: 310_000_000,
        bytes_per_second: 9_300_000,
        table: Some(format!("public.{HOSTILE}")),
        lines: vec![
            line(1, "connected to PostgreSQL 17.4"),
            line(2, HOSTILE),
            line(3, "dumping 7 tables"),
        ],
        exit_code: failure.as_ref().map(|failure| failure.kind.exit_code()),
        backup_id: None,
        message: failure.as_ref().map(|failure| failure.message.clone()),
        size_bytes: None,
        rows: None,
        failure,
        report: None,
    }
}

/// Renders every page there is, by a name for a file.
pub fn pages(fixture: &Fixture, role: Role) -> Vec<(String, Markup)> {
    let Fixture { snapshot, live } = fixture;
    let now = now();
    let chrome = &Chrome {
        doubt: snapshot.doubt(now),
        ..chrome(role)
    };
    let name = |text: &str| text.parse::<DatabaseName>().unwrap();
    let mut pages = Vec::new();
    let mut add = |page: &str, html: Markup| pages.push((page.to_owned(), html));
    let all = view::overview(snapshot, live, now);
    add("overview", overview::render(chrome, &all));
    add("wall", wall::render(chrome, &all));
    for one in ["shop", "crm", "ledger", "new-one"] {
        let of_one = name(one);
        add(
            &format!("database-{one}"),
            database::render(
                chrome,
                &view::database(snapshot, live, &of_one, now).unwrap(),
            ),
        );
        add(
            &format!("history-{one}"),
            history::render(
                chrome,
                &view::history(snapshot, live, &of_one, Filter::default(), None),
            ),
        );
        add(
            &format!("calendar-{one}"),
            calendar::render(chrome, &view::calendar(snapshot, &of_one, now).unwrap()),
        );
        let newest = view::status(snapshot, &of_one)
            .unwrap()
            .newest_good
            .as_ref();
        let manifest = newest.map(|newest| manifest(&newest.id.parse().unwrap(), 39));
        add(
            &format!("restore-{one}"),
            restore::render(
                chrome,
                &view::restore(snapshot, &of_one, manifest.as_ref(), now).unwrap(),
            ),
        );
        let (light, words) = view::badge(snapshot, &of_one, now).unwrap();
        add(&format!("badge-{one}"), badge::render(one, light, &words));
    }
    let filtered = Filter {
        verb: Some(HOSTILE.to_owned()),
        result: Some(HOSTILE.to_owned()),
        before: Some(HOSTILE.to_owned()),
    };
    add(
        "history-filtered",
        history::render(
            chrome,
            &view::history(snapshot, live, &name("shop"), filtered, None),
        ),
    );
    for (page, database, ago) in [
        ("backup", "shop", 6),
        ("backup-pinned", "shop", 6 + 24 * 19),
        ("backup-held", "ledger", 5),
    ] {
        let id = id(database, hours(ago));
        let number = 39 - (ago as u64 - 5) / 24;
        let before = Arc::new(manifest(
            &self::id(database, hours(ago + 24)),
            number.saturating_sub(1),
        ));
        let pin = (page == "backup-pinned").then(|| HOSTILE.to_owned());
        let acceptance = (page == "backup-pinned").then(|| Acceptance {
            format: 1,
            id: id.clone(),
            accepted_at: now,
            accepted_by: HOSTILE.to_owned(),
            tables: Vec::new(),
            reason: HOSTILE.to_owned(),
        });
        let mut view = view::backup(
            snapshot,
            &id,
            Arc::new(manifest(&id, number)),
            Some(before),
            pin,
            acceptance,
            now,
        )
        .unwrap();
        add(page, backup::render(chrome, &view));
        view.filter = Some(HOSTILE.to_owned());
        add(&format!("{page}-filtered"), backup::render(chrome, &view));
    }
    for run in live {
        add(&format!("run-{}", run.database), run::render(chrome, run));
    }
    let report = json!({"passed": false, "server": "a throw-away server", "server_version": "17.4", "warnings": [HOSTILE],
        "assertions": [{"name": HOSTILE, "passed": false, "expected": "at_least 5", "found": HOSTILE}],
        "restore": {"restore_ms": 421_000, "rows": 96_000, "tables": [{"table": HOSTILE, "rows": 5, "found_rows": 4, "problem": HOSTILE}, {"table": "public.orders", "rows": 7, "found_rows": 7}]}});
    let failed = RunRecord::new(id("shop", hours(2)), "drill", now - hours(2), 95_000)
        .failed(23, "differs", HOSTILE);
    let drill = Drill {
        run: view::of_record(&failed),
        report: Some(report),
        note: None,
        target_ms: Some(400_000),
    };
    add("drill", drill::render(chrome, &drill));
    add(
        "drill-recorded",
        drill::render(
            chrome,
            &Drill {
                report: None,
                note: Some(json!({"recovery_ms": 5, "rows": 9})),
                ..drill
            },
        ),
    );
    add("diff", diff::render(chrome, &difference()));
    let preview = Preview {
        backup_id: id("shop", hours(6)).to_string(),
        database: "shop".to_owned(),
        table: format!("public.\"{HOSTILE}\""),
        mode: "append".to_owned(),
        target: HOSTILE.to_owned(),
        counts: vec![
            ("Rows to add".to_owned(), 12),
            ("Rows to change".to_owned(), 1_203),
            ("Rows to remove".to_owned(), 4),
        ],
        warnings: vec![HOSTILE.to_owned()],
        failure: None,
    };
    add("table", table::preview(chrome, &preview));
    let refused = Preview {
        failure: Some((HOSTILE.to_owned(), vec![HOSTILE.to_owned()])),
        ..preview
    };
    add("table-refused", table::preview(chrome, &refused));
    add("login", login::render(chrome, Some(HOSTILE), Some(HOSTILE)));
    let problem = Problem {
        status: 404,
        title: HOSTILE.to_owned(),
        detail: HOSTILE.to_owned(),
        hints: vec![HOSTILE.to_owned()],
        id: Some("no_such_backup".to_owned()),
    };
    add("error", error::render(chrome, &problem));
    pages
}

fn difference() -> pgkeep_core::op::diff::Report {
    let older = manifest(&id("shop", hours(30)), 38);
    let newer = manifest(&id("shop", hours(6)), 39);
    let side = |manifest: &Manifest| pgkeep_core::op::diff::SideReport {
        backup_id: Some(manifest.id.to_string()),
        database: "shop".to_owned(),
        at: manifest.started_at,
        connection: None,
        server_version: manifest.server.version.clone(),
        stored_bytes: Some(manifest.object.size_bytes),
    };
    let difference = pgkeep_model::diff::compare(&(&older).into(), &(&newer).into());
    pgkeep_core::op::diff::Report {
        from: side(&older),
        to: side(&newer),
        difference,
        structure_compared: false,
        sql: Some(format!("-- {HOSTILE}")),
        read_bytes: 7,
        warnings: vec![HOSTILE.to_owned()],
        failure: None,
    }
}
