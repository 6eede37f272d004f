//! `/databases/{db}`: one database.

use maud::{Markup, html};

use super::chart;
use super::chrome::Chrome;
use super::layout::{Live, page};
use super::overview::{running, start};
use super::parts::{light, runs};
use super::restore::panel;
use super::view::{Database, Next};
use super::words::{ago, when, zoned};
use pgkeep_model::words::{bytes, count, span};

/// Renders the page.
pub fn render(chrome: &Chrome, view: &Database) -> Markup {
    let link = chrome.database(&view.name);
    let body = html! {
        div.headline {
            h1 { (light(view.light)) " " (view.name) }
            p { (view.reason) }
        }
        (panel(&view.answer))
        p.links {
            a href=(format!("{link}/restore")) { "How to restore" }
            a href=(format!("{link}/history")) { "History" }
            a href=(format!("{link}/calendar")) { "Retention calendar" }
        }
        @for one in &view.running { (running(chrome, one)) }
        @if chrome.may_start() && view.is_configured {
            div.actions {
                (start(chrome, &view.name, "backup", "Back up now", "main"))
                (start(chrome, &view.name, "drill", "Drill now", ""))
                (start(chrome, &view.name, "verify", "Verify now", ""))
            }
        }
        (held(chrome, view))
        (notes(view))
        h2 { "Backups" }
        p.quiet {
            (count(view.backups, "backup")) ", " (bytes(view.size_bytes)) " in one storage each"
            @if view.pinned > 0 { ", " (view.pinned) " pinned" }
            @if view.damaged > 0 { ", " strong.alarm { (view.damaged) " damaged" } }
            "."
        }
        (stored(chrome, view))
        div.charts { @for one in &view.charts { (chart::render(one)) } }
        h2 { "Runs" }
        (runs(chrome, &view.runs, false))
        p { a href=(format!("{link}/history")) { "All runs" } }
        h2 { "Schedule" }
        (schedule(chrome, view))
    };
    page(
        chrome,
        &view.name,
        &[(&view.name, link.clone())],
        &Live::Refresh,
        &body,
    )
}

fn held(chrome: &Chrome, view: &Database) -> Markup {
    html! {
        @for (id, at, seen) in &view.held {
            div.note.bad {
                p { strong { "Held: " } a.id href=(chrome.backup(id)) { (id) } ", " (ago(*at, chrome.now)) ". It lost what the ones before it had, and counts for nothing until somebody accepts it." }
                @if !seen.is_empty() { ul { @for line in seen { li { (line) } } } }
            }
        }
    }
}

fn notes(view: &Database) -> Markup {
    html! {
        @if !view.alerts.is_empty() || !view.warnings.is_empty() {
            ul.notes {
                @for alert in &view.alerts { li.alarm { (alert) } }
                @for warning in &view.warnings { li { (warning) } }
            }
        }
    }
}

fn stored(chrome: &Chrome, view: &Database) -> Markup {
    html! {
        div.scroll { table.cards {
            thead { tr { th { "Backup" } th { "Made" } th.num { "Size" } th { "Copies" } th { "Marks" } } }
            tbody {
                @for row in &view.stored {
                    tr {
                        td data-label="Backup" { a.id href=(chrome.backup(&row.id)) { (row.id) } }
                        td data-label="Made" { (ago(row.at, chrome.now)) }
                        td.num data-label="Size" { (bytes(row.size_bytes)) }
                        td data-label="Copies" { span .alarm[row.copies.0 < row.copies.1] { (row.copies.0) "/" (row.copies.1) } }
                        td data-label="Marks" { (marks(&row.marks)) }
                    }
                }
                @if view.stored.is_empty() { tr { td.quiet colspan="5" { "None is stored." } } }
            }
        } }
    }
}

/// Marks of a backup as pills.
pub(super) fn marks(marks: &[&str]) -> Markup {
    html! {
        @for mark in marks {
            @let class = match *mark { "damaged" | "held" => "pill bad", "drilled" => "pill good", _ => "pill" };
            span class=(class) { (mark) } " "
        }
    }
}

fn schedule(chrome: &Chrome, view: &Database) -> Markup {
    html! {
        @if view.next.is_empty() { p.quiet { "Nothing is scheduled here; another clock may start runs." } }
        div.columns {
            @for next in &view.next { (plan(chrome, next)) }
            @if !view.missed.is_empty() {
                section {
                    h3 { "Missed slots" }
                    ul.plain { @for (verb, at) in &view.missed { li.alarm { (verb.as_str()) " " (when(*at, chrome.now)) ": expected, and nothing came" } } }
                }
            }
        }
    }
}

fn plan(chrome: &Chrome, next: &Next) -> Markup {
    html! {
        section {
            h3 { (next.verb.as_str()) " " code { (next.schedule) } " " (next.zone) }
            @if next.offset_seconds != 0 { p.quiet { "Each " (span(next.offset_seconds.unsigned_abs())) " later, so that databases do not start at once." } }
            ol.plain { @for at in &next.at { li { (zoned(*at, &next.zone, chrome.now)) } } }
        }
    }
}
