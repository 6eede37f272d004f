//! `/databases/{db}/calendar`: why each backup is kept, and when it goes.

use maud::{Markup, html};

use super::backup::goes;
use super::chrome::Chrome;
use super::database::marks;
use super::layout::{Live, page};
use super::view::{Calendar, CalendarRow};
use super::words::when;
use pgkeep_model::words::{bytes, count};

/// Renders the page.
pub fn render(chrome: &Chrome, view: &Calendar) -> Markup {
    let (removed, freed) = view.next_prune;
    let body = html! {
        h1 { "Retention calendar of " a href=(chrome.database(&view.name)) { (view.name) } }
        dl.facts {
            div { dt { "Policy" } dd { @match &view.policy { Some(policy) => { (policy) ", counted on the clock of " (view.zone) }, None => "none, so every backup is kept" } } }
            div { dt { "Looked ahead with" } dd {
                @match &view.schedule {
                    Some((schedule, zone)) => { "the schedule " code { (schedule) } " " (zone) @if let Some(until) = view.until { ", until " (until) } },
                    None => "no schedule: nothing new is made, so nothing grows older than the newest",
                }
            } }
            div { dt { "A prune now" } dd {
                @if removed == 0 { "removes nothing" }
                @else { strong { "removes " (count(removed as u64, "backup")) } " and frees " (bytes(freed)) " in each storage that has them" }
                @if view.is_too_much { p.alarm { "It would refuse: that is more than half of them. " code { "pgkeep prune --dry-run" } " shows the plan." } }
            } }
        }
        p.quiet { "If the schedule holds, all of its backups are good, and neither a pin nor a mark comes or goes." }
        div.scroll { table.cards {
            thead { tr { th { "Backup" } th { "Made" } th.num { "Size" } th { "Kept for" } th { "Goes" } } }
            tbody {
                @for row in &view.rows { (one(chrome, row)) }
                @if view.rows.is_empty() { tr { td.quiet colspan="5" { "None is stored." } } }
            }
        } }
    };
    let trail = [
        (view.name.as_str(), chrome.database(&view.name)),
        (
            "Calendar",
            format!("{}/calendar", chrome.database(&view.name)),
        ),
    ];
    page(
        chrome,
        &format!("Retention calendar of {}", view.name),
        &trail,
        &Live::No,
        &body,
    )
}

fn one(chrome: &Chrome, row: &CalendarRow) -> Markup {
    html! {
        tr .leaving[row.goes_now] {
            td data-label="Backup" { a.id href=(chrome.backup(&row.id)) { (row.id) } " " (marks(&row.marks)) }
            td data-label="Made" { (when(row.at, chrome.now)) }
            td.num data-label="Size" { (bytes(row.size_bytes)) }
            td.wide data-label="Kept for" {
                @for tier in &row.tiers { span.pill.tier { (tier) } " " }
                span.quiet { (row.reasons.join("; ")) }
            }
            td data-label="Goes" { (goes(row.goes_now, row.goes)) }
        }
    }
}
