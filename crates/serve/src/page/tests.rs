//! What holds for every page.

pub(crate) mod fixture;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

use super::chrome::Chrome;
use super::view::{self, Filter, Light};
use super::{backup, database, history, overview};
use crate::auth::Role;
use fixture::{Fixture, HOSTILE, chrome, id, manifest, now, pages, record};
use pgkeep_model::failure::{Failure, Kind};
use pgkeep_model::id::DatabaseName;

/// Where to leave the pages, for those who want to look at them.
const FOLDER: &str = "PGKEEP_TEST_PAGES";

/// Splits HTML into its tags.
fn tags(html: &str) -> impl Iterator<Item = &str> {
    html.split('<')
        .skip(1)
        .filter_map(|rest| rest.split('>').next())
}

#[test]
fn every_page_is_plain_html_whatever_names_there_are() {
    let fixture = Fixture::new();
    for role in [Role::Read, Role::Operate, Role::Restore] {
        for (name, html) in pages(&fixture, role) {
            let html = html.into_string();
            if let Some(folder) = std::env::var_os(FOLDER).filter(|_| role == Role::Restore) {
                let extension = if name.starts_with("badge") {
                    "svg"
                } else {
                    "html"
                };
                std::fs::write(
                    std::path::Path::new(&folder).join(format!("{name}.{extension}")),
                    &html,
                )
                .unwrap();
            }
            assert!(!html.contains("<script>alert"), "{name}");
            for tag in tags(&html) {
                let is_own_script = tag.starts_with("script src=\"/backups/assets/script.");
                assert!(!tag.starts_with("script") || is_own_script, "{name}: {tag}");
                assert!(!tag.starts_with("style"), "{name}: {tag}");
                // Values are quoted, so what stands between them are names of attributes.
                let outside: String = tag.split('"').step_by(2).collect();
                for attribute in outside.split([' ', '=']) {
                    let is_handler = attribute.starts_with("on") && attribute.len() > 3;
                    assert!(attribute != "style" && !is_handler, "{name}: {tag}");
                }
                assert!(!tag.contains("javascript:"), "{name}: {tag}");
            }
            let mut ids = HashSet::new();
            for tag in tags(&html) {
                let Some(id) = tag
                    .split(" id=\"")
                    .nth(1)
                    .and_then(|rest| rest.split('"').next())
                else {
                    continue;
                };
                assert!(ids.insert(id), "{name}: {id} twice");
            }
        }
    }
}

#[test]
fn every_link_is_below_the_base_path_and_encoded() {
    let fixture = Fixture::new();
    for (name, html) in pages(&fixture, Role::Restore) {
        let html = html.into_string();
        for tag in tags(&html) {
            for key in [" href=\"", " action=\"", " src=\""] {
                let Some(link) = tag
                    .split(key)
                    .nth(1)
                    .and_then(|rest| rest.split('"').next())
                else {
                    continue;
                };
                assert!(
                    link.starts_with("/backups/") || link == "#main",
                    "{name}: {link}"
                );
                assert!(
                    !link.contains([' ', '\'', '<'])
                        && !link.contains("&lt;")
                        && !link.contains("&quot;"),
                    "{name}: {link}"
                );
            }
        }
    }
}

#[test]
fn buttons_stand_only_where_the_role_allows() {
    let fixture = Fixture::new();
    let posts = |role, page: &str| {
        let all = pages(&fixture, role);
        let html = all
            .iter()
            .find(|(name, _)| name == page)
            .unwrap()
            .1
            .0
            .clone();
        let links: Vec<String> = tags(&html)
            .filter(|tag| tag.starts_with("form") && tag.contains("method=\"post\""))
            .filter_map(|tag| {
                tag.split("action=\"")
                    .nth(1)?
                    .split('"')
                    .next()
                    .map(str::to_owned)
            })
            .filter(|link| !link.ends_with("/logout"))
            .collect();
        links
    };
    for page in ["database-shop", "backup", "backup-held", "table", "run-crm"] {
        assert_eq!(posts(Role::Read, page), Vec::<String>::new(), "{page}");
    }
    assert_eq!(
        posts(Role::Operate, "database-shop"),
        ["backup", "drill", "verify"].map(|verb| format!("/backups/databases/shop/{verb}"))
    );
    let backup = format!(
        "/backups/backups/{}",
        id("shop", SignedDuration::from_hours(6))
    );
    assert_eq!(posts(Role::Operate, "backup"), [format!("{backup}/pin")]);
    assert_eq!(posts(Role::Operate, "table"), Vec::<String>::new());
    let restore = posts(Role::Restore, "backup");
    assert!(
        restore.contains(&format!(
            "{backup}/tables/public.%22Invoice%20Lines%22/restore"
        )),
        "{restore:?}"
    );
    let held = posts(Role::Restore, "backup-held");
    assert!(
        held.iter().any(|link| link.ends_with("/accept")),
        "{held:?}"
    );
}

#[test]
fn the_overview_begins_with_the_worst_and_says_why() {
    let fixture = Fixture::new();
    let all = view::overview(&fixture.snapshot, &fixture.live, now());
    let lights: Vec<(&str, Light)> = all
        .rows
        .iter()
        .map(|row| (row.name.as_str(), row.light))
        .collect();
    assert!(
        lights.is_sorted_by(|one, other| one.1 >= other.1),
        "{lights:?}"
    );
    let row = |name: &str| all.rows.iter().find(|row| row.name == name).unwrap();
    assert_eq!(row("crm").light, Light::Bad);
    assert_eq!(
        row("crm").reason,
        "newest good backup is 3 d old; the limit is 26 h"
    );
    assert!(row("crm").running[0].is_dead);
    assert_eq!(row("ledger").light, Light::Bad);
    assert_eq!(row("new-one").reason, "no good backup; the limit is 26 h");
    assert_eq!(row("shop").light, Light::Good);
    assert_eq!(row("shop").running[0].percent, Some(42));
    assert_eq!(row("analytics").copies, Some((1, 2)));
    assert_eq!(all.totals.missed_lately, 2);
    let html = overview::render(&chrome(Role::Read), &all).into_string();
    assert!(html.contains("have no good, fresh backup"));
}

#[test]
fn a_history_in_pages_has_each_run_once() {
    let mut fixture = Fixture::new();
    let name: DatabaseName = "shop".parse().unwrap();
    let records = Arc::make_mut(&mut fixture.snapshot.records)
        .get_mut(&name)
        .unwrap();
    // Many of them at one moment, too.
    for number in 0..10_000_i64 {
        let mut one = record(
            &id("shop", SignedDuration::from_mins(50_000 + number / 3)),
            3,
        );
        one.id = format!("shop-20200101T000000Z-{number:04x}")
            .parse()
            .unwrap();
        records.push(Arc::new(one));
    }
    let all = records.len() + 1;
    let began = Instant::now();
    let mut filter = Filter::default();
    let first = view::history(
        &fixture.snapshot,
        &fixture.live,
        &name,
        filter.clone(),
        None,
    );
    let html = history::render(&chrome(Role::Read), &first).into_string();
    let took = began.elapsed();
    assert_eq!(first.rows.len(), 100);
    assert!(html.contains("Older"));
    // A debug build has ten times as long.
    assert!(
        took.as_millis() < if cfg!(debug_assertions) { 3000 } else { 300 },
        "{took:?}"
    );
    let mut seen = HashSet::new();
    loop {
        let page = view::history(
            &fixture.snapshot,
            &fixture.live,
            &name,
            filter.clone(),
            None,
        );
        assert_eq!(page.all, Some(all));
        for row in &page.rows {
            assert!(seen.insert((row.id.clone(), row.at)), "{:?} twice", row.id);
        }
        filter.before = page.before;
        if filter.before.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), all);
    let bad = Filter {
        result: Some("bad".to_owned()),
        ..Filter::default()
    };
    let crm = view::history(
        &fixture.snapshot,
        &fixture.live,
        &"crm".parse().unwrap(),
        bad,
        None,
    );
    let states: Vec<&str> = crm.rows.iter().map(|row| row.state.as_str()).collect();
    assert_eq!(
        states,
        ["failed", "interrupted", "missed", "missed", "failed"]
    );
}

#[test]
fn five_hundred_databases_are_shown_at_once() {
    let fixture = Fixture::new();
    let mut all = view::overview(&fixture.snapshot, &fixture.live, now());
    all.rows = all.rows.iter().cycle().take(500).cloned().collect();
    let began = Instant::now();
    let html = overview::render(&chrome(Role::Read), &all).into_string();
    let took = began.elapsed();
    assert_eq!(html.matches("data-label=\"Newest good\"").count(), 500);
    assert!(
        took.as_millis() < if cfg!(debug_assertions) { 1000 } else { 100 },
        "{took:?}"
    );
    println!("500 databases: {took:?}, {} KiB", html.len() / 1024);
}

#[test]
fn whether_it_could_be_restored_is_said_first() {
    let fixture = Fixture::new();
    let of = |name: &str| {
        view::database(
            &fixture.snapshot,
            &fixture.live,
            &name.parse().unwrap(),
            now(),
        )
        .unwrap()
        .answer
    };
    assert_eq!(
        (of("new-one").light, of("new-one").words.as_str()),
        (Light::Bad, "No.")
    );
    assert_eq!(of("shop").words, "Yes, as of 6 h ago.");
    let crm = of("crm");
    assert_eq!(crm.light, Light::Warn);
    assert!(
        crm.checks
            .iter()
            .any(|check| check.words == "no drill has passed yet")
    );
    let all = pages(&fixture, Role::Read);
    let shop = &all
        .iter()
        .find(|(name, _)| name == "database-shop")
        .unwrap()
        .1
        .0;
    assert!(shop.find("Could I restore now?").unwrap() < shop.find("<table").unwrap());
    assert!(!shop.contains(HOSTILE));
}

#[test]
fn a_key_is_proven_only_by_a_backup_of_its_own_database() {
    let fixture = Fixture::new();
    let key = |name: &str| {
        let of = view::database(
            &fixture.snapshot,
            &fixture.live,
            &name.parse().unwrap(),
            now(),
        );
        let checks = of.unwrap().answer.checks.into_iter();
        let check = checks
            .clone()
            .find(|check| check.what == "The key")
            .unwrap();
        (check.light, check.words)
    };
    assert_eq!(
        key("blog"),
        (
            Light::Good,
            "a private key was seen to open a backup 2 d ago".to_owned()
        )
    );
    assert_eq!(key("analytics").0, Light::Warn);
    assert_eq!(
        key("shop").1,
        "the backup is not encrypted, so none is needed"
    );
}

#[test]
fn no_rows_are_offered_where_nothing_opens_the_backup() {
    let mut fixture = Fixture::new();
    let id = id("blog", SignedDuration::from_hours(3));
    let mut page = |can_open, is_watch_only| {
        fixture.snapshot.can_open = can_open;
        let manifest = Arc::new(manifest(&id, 39));
        let view = view::backup(&fixture.snapshot, &id, manifest, None, None, None, now());
        let chrome = Chrome {
            is_watch_only,
            ..chrome(Role::Restore)
        };
        backup::render(&chrome, &view.unwrap()).into_string()
    };
    let closed = page(false, false);
    assert!(!closed.contains("format=csv") && closed.contains("Download, as it is encrypted"));
    assert!(page(true, false).contains("Put back"));
    let watched = page(true, true);
    assert!(watched.contains("format=csv") && !watched.contains("Put back"));
    let download = |html: &str| html.contains("/download\"");
    let pin = |html: &str| html.contains("/pin\"");
    let open = page(true, false);
    assert!(pin(&open) && download(&open));
    assert!(!pin(&watched) && download(&watched));
}

#[test]
fn nothing_is_changed_where_the_server_only_looks() {
    for role in [Role::Read, Role::Operate, Role::Restore] {
        let mut chrome = chrome(role);
        let may = |chrome: &Chrome| {
            [
                chrome.may_start(),
                chrome.may_pin(),
                chrome.may_accept(),
                chrome.may_restore(),
                chrome.may_download(),
            ]
        };
        let (operates, restores) = (role >= Role::Operate, role >= Role::Restore);
        let expected = [operates, operates, restores, restores, restores];
        assert_eq!(may(&chrome), expected, "{role:?}");
        chrome.is_watch_only = true;
        let expected = [false, false, false, false, restores];
        assert_eq!(may(&chrome), expected, "{role:?} only looks");
    }
}

#[test]
fn nothing_is_started_where_databases_are_only_watched() {
    let fixture = Fixture::new();
    let view = view::database(
        &fixture.snapshot,
        &fixture.live,
        &"shop".parse().unwrap(),
        now(),
    );
    let chrome = Chrome {
        is_watch_only: true,
        ..chrome(Role::Restore)
    };
    let html = database::render(&chrome, &view.unwrap()).into_string();
    assert!(!html.contains("Back up now") && html.contains("watch only"));
}

#[test]
fn what_is_stale_or_without_copies_is_never_a_plain_yes() {
    let fixture = Fixture::new();
    for name in ["crm", "ledger", "analytics", "new-one"] {
        let view = view::database(
            &fixture.snapshot,
            &fixture.live,
            &name.parse().unwrap(),
            now(),
        );
        assert_ne!(view.unwrap().answer.light, Light::Good, "{name}");
    }
}

fn silence() -> Failure {
    Failure::new(Kind::Storage, "storage_unreachable", "no route to host")
}

#[test]
fn while_no_storage_answers_nothing_is_good_and_every_page_says_so() {
    let mut fixture = Fixture::new();
    let name: DatabaseName = "shop".parse().unwrap();
    let shop = |fixture: &Fixture, now| {
        view::database(&fixture.snapshot, &fixture.live, &name, now).unwrap()
    };
    let lights = |shop: &view::Database| (shop.light, shop.answer.light);
    let known = shop(&fixture, now());
    assert_eq!(lights(&known), (Light::Good, Light::Good));
    // A look that is a quarter of an hour old is doubted, whatever the reason.
    let old = shop(&fixture, now() + SignedDuration::from_mins(20));
    assert_eq!(lights(&old), (Light::Warn, Light::Warn));

    fixture.snapshot.failure = Some(silence());
    let silent = shop(&fixture, now());
    assert_eq!(lights(&silent), (Light::Warn, Light::Bad));
    assert_eq!(silent.answer.words, "Not now: no storage answers.");
    let copies = &silent.answer.checks[1];
    assert_eq!((copies.what, copies.light), ("Its copies", Light::Bad));
    let (light, words) = view::badge(&fixture.snapshot, &name, now()).unwrap();
    assert_eq!(
        (light, words.as_str()),
        (Light::Warn, "5 h old when last seen")
    );
    let all = view::overview(&fixture.snapshot, &fixture.live, now());
    assert_eq!(all.totals.lights[Light::Good as usize], 0);
    for (page, html) in pages(&fixture, Role::Read) {
        // Who has not signed in learns nothing, and a badge has no room.
        let is_told = page != "login" && !page.starts_with("badge");
        assert_eq!(html.0.contains("no route to host"), is_told, "{page}");
    }

    // The backup of six hours ago may be 26 hours old.
    let later = now() + SignedDuration::from_hours(21);
    fixture.snapshot.judge(later);
    let stale = shop(&fixture, later);
    assert_eq!(stale.light, Light::Bad);
    assert_eq!(
        stale.reason,
        "newest good backup is 27 h old; the limit is 26 h"
    );
    assert!(
        stale.alerts.iter().any(|alert| alert.contains("27 h old")),
        "{:?}",
        stale.alerts
    );
}

#[test]
fn before_the_first_look_nothing_is_said_of_any_database() {
    let mut fixture = Fixture::new();
    fixture.snapshot.at = Timestamp::UNIX_EPOCH;
    fixture.snapshot.failure = Some(silence());
    let all = view::overview(&fixture.snapshot, &fixture.live, now());
    assert!(all.rows.iter().all(|row| row.light == Light::Bad));
    let html = overview::render(&chrome(Role::Read), &all).into_string();
    assert!(html.contains("It is not known how the databases stand"));
    let name = "shop".parse().unwrap();
    let shop = view::database(&fixture.snapshot, &[], &name, now()).unwrap();
    assert_eq!(shop.answer.words, "It is not known.");
    let (_, words) = view::badge(&fixture.snapshot, &name, now()).unwrap();
    assert_eq!(words, "not known");
}

#[test]
fn the_calendar_says_what_goes_and_when() {
    let fixture = Fixture::new();
    let calendar = view::calendar(&fixture.snapshot, &"shop".parse().unwrap(), now()).unwrap();
    let removed = calendar.rows.iter().filter(|row| row.goes_now).count();
    assert_eq!(calendar.next_prune.0, removed);
    assert!(removed > 0 && removed < calendar.rows.len());
    let newest = &calendar.rows[0];
    assert!(newest.reasons.contains(&"newest good".to_owned()) && !newest.goes_now);
    assert!(
        calendar
            .rows
            .iter()
            .any(|row| row.goes.is_some() && !row.goes_now)
    );
    let pinned = calendar
        .rows
        .iter()
        .find(|row| row.marks.contains(&"pinned"))
        .unwrap();
    assert_eq!((pinned.goes_now, pinned.goes), (false, None));
}
