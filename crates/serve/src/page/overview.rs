//! `/`: all databases, worst first.

use maud::{Markup, html};

use super::chrome::Chrome;
use super::layout::{Live, page};
use super::parts::{ago_or, light, post, state};
use super::view::{DatabaseRow, Light, Overview, Running, StorageLine, Totals};
use super::words::{ago, clock, relative, took_at_most};
use pgkeep_model::words::{bytes, count, number, took};

/// Renders the page.
pub fn render(chrome: &Chrome, view: &Overview) -> Markup {
    let body = html! {
        (headline(chrome, view))
        (totals(&view.totals))
        @if view.rows.is_empty() {
            p.note { "No database is configured, and none is stored. " code { "pgkeep config init" } " begins a configuration." }
        } @else {
            h2 #databases { "Databases" }
            (table(chrome, &view.rows))
        }
        h2 { "Storages" }
        (storages(&view.storages))
    };
    page(chrome, "All databases", &[], &Live::Refresh, &body)
}

fn headline(chrome: &Chrome, view: &Overview) -> Markup {
    let [good, unknown, warn, bad] = view.totals.lights;
    let all = good + unknown + warn + bad;
    let worst = match (bad, warn, unknown) {
        (1.., ..) => Light::Bad,
        (0, 1.., _) => Light::Warn,
        (0, 0, 1..) => Light::Unknown,
        _ => Light::Good,
    };
    let words = match (bad, warn) {
        _ if view.at.is_none() => "It is not known how the databases stand".to_owned(),
        (0, 0) if all == 0 => "Nothing to look after yet".to_owned(),
        (0, 0) if all == 1 => "The database has a fresh, good backup".to_owned(),
        (0, 0) if unknown == 0 => format!("All {all} databases have a fresh, good backup"),
        (0, 0) => format!("{all} databases, {unknown} of them not judged"),
        (0, 1) => format!("1 of {all} databases needs attention"),
        (0, warn) => format!("{warn} of {all} databases need attention"),
        (1, _) => format!("1 of {all} databases has no good, fresh backup"),
        (bad, _) => format!("{bad} of {all} databases have no good, fresh backup"),
    };
    html! {
        div.headline {
            h1 { (light(worst)) " " (words) }
            @if let Some(at) = view.at { p.quiet { "As the storages said " (ago(at, chrome.now)) "." } }
        }
    }
}

pub(super) fn totals(totals: &Totals) -> Markup {
    let [good, unknown, warn, bad] = totals.lights;
    let rate = (totals.success.0 * 100).checked_div(totals.success.1);
    html! {
        dl.totals {
            div { dt { "Good" } dd { (good) } }
            div { dt { "Attention" } dd { (warn) } }
            div { dt { "Bad" } dd .alarm[bad > 0] { (bad) } }
            @if unknown > 0 { div { dt { "Not judged" } dd { (unknown) } } }
            div { dt { "Running" } dd { (totals.running) } }
            div { dt { "Backups" } dd { (number(totals.backups)) } }
            div { dt { "Good runs, 30 d" } dd {
                @match rate { Some(rate) => { (rate) " %" span.quiet { " of " (number(totals.success.1)) } }, None => "–" }
            } }
            div { dt { "Failed, 7 d" } dd .alarm[totals.failed_lately > 0] { (totals.failed_lately) } }
            div { dt { "Missed, 7 d" } dd .alarm[totals.missed_lately > 0] { (totals.missed_lately) } }
        }
    }
}

fn table(chrome: &Chrome, rows: &[DatabaseRow]) -> Markup {
    html! {
        div.scroll {
            table.cards.databases {
                thead { tr {
                    th { "Database" } th { "Newest good" } th { "Last drill" } th { "Copies" } th { "Next run" } th { "Last backup" }
                } }
                tbody { @for row in rows { (database(chrome, row)) } }
            }
        }
    }
}

fn database(chrome: &Chrome, row: &DatabaseRow) -> Markup {
    html! {
        tr {
            td.name data-label="Database" {
                (light(row.light)) " " a.strong href=(chrome.database(&row.name)) { (row.name) }
                p.reason { (row.reason) }
                @for one in &row.running { (running(chrome, one)) }
            }
            td data-label="Newest good" {
                @match &row.newest {
                    Some(newest) => {
                        a href=(chrome.backup(&newest.id)) { (ago(newest.at, chrome.now)) }
                        div.quiet { (bytes(newest.size_bytes)) @if let Some(rows) = row.rows { ", " (count(rows, "row")) } }
                    },
                    None => strong.alarm { "none" },
                }
            }
            td data-label="Last drill" { (drill(chrome, row)) }
            td data-label="Copies" {
                @if let Some((good, all)) = row.copies { span .alarm[good < all] { (good) "/" (all) } } @else { span.quiet { "–" } }
            }
            td data-label="Next run" {
                @match &row.next {
                    Some((verb, at, zone)) => {
                        (verb.as_str()) " " (relative(*at, chrome.now))
                        div.quiet { (clock(*at, zone)) }
                    },
                    None => span.quiet { "no schedule" },
                }
            }
            td data-label="Last backup" {
                @match &row.last {
                    Some(last) => {
                        (state(last.state)) " " (ago(last.at, chrome.now))
                        @if let Some(ms) = last.took_ms { div.quiet { "took " (took(ms)) } }
                    },
                    None => span.quiet { "none on record" },
                }
            }
        }
    }
}

fn drill(chrome: &Chrome, row: &DatabaseRow) -> Markup {
    let drill = &row.drill;
    let is_slow = drill
        .recovery_ms
        .zip(drill.target_ms)
        .is_some_and(|(ms, target)| ms > target);
    html! {
        @if let Some((at, why)) = &drill.failed {
            span.alarm title=(why) { "failed " (ago(*at, chrome.now)) } " " br;
        }
        span .alarm[drill.is_stale] { (ago_or(drill.passed_at, chrome.now, "never")) }
        @if let Some(ms) = drill.recovery_ms {
            div.quiet { span .alarm[is_slow] { (took(ms)) } @if let Some(target) = drill.target_ms { " of " (took_at_most(target)) } }
        }
    }
}

pub(super) fn running(chrome: &Chrome, one: &Running) -> Markup {
    html! {
        p.running {
            @if one.is_dead {
                span.pill.bad { "interrupted" } " " (one.verb) " began " (ago(one.since, chrome.now)) "; no sign of life "
                @if let Some(last) = one.last_sign { "since " (ago(last, chrome.now)) }
                "; nothing was stored"
            } @else {
                span.pill.run { @if one.is_queued { "queued" } @else { "running" } } " "
                @match &one.id { Some(id) => a href=(chrome.run(id)) { (one.verb) }, None => (one.verb) }
                " since " (ago(one.since, chrome.now))
                @if !one.phase.is_empty() { ", " (one.phase) }
                @if let Some(percent) = one.percent { " " progress max="100" value=(percent) { (percent) " %" } }
            }
            @if let Some(place) = &one.place { span.quiet { " on " (place) } }
            @if let Some(by) = &one.by { span.quiet { " by " (by) } }
        }
    }
}

fn storages(lines: &[StorageLine]) -> Markup {
    html! {
        div.scroll { table {
            thead { tr { th { "Storage" } th { "State" } th.num { "Backups" } th.num { "Size" } th.num { "Copies lacking" } } }
            tbody { @for line in lines {
                tr {
                    td { (line.name) }
                    td { @match &line.error {
                        Some(error) => { (light(Light::Bad)) " " span.alarm { (error) } },
                        None => { (light(Light::Good)) " answers" },
                    } }
                    td.num { (number(line.backups)) }
                    td.num { (bytes(line.size_bytes)) }
                    td.num { span .alarm[line.missing > 0] { (line.missing) } }
                }
            } }
        } }
    }
}

/// The button that starts something, where the session may.
pub(super) fn start(chrome: &Chrome, name: &str, verb: &str, label: &str, class: &str) -> Markup {
    post(&format!("{}/{verb}", chrome.database(name)), label, class)
}
