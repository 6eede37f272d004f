//! `/wall?key=`: a view to hang up, without links and buttons.

use maud::{Markup, html};

use super::chrome::Chrome;
use super::layout::{Live, bare};
use super::overview::totals;
use super::parts::{ago_or, light};
use super::view::{Light, Overview};
use super::words::{ago, moment};
use pgkeep_model::words::bytes;

/// Renders the view. Who has its key sees names and times, and can do nothing.
pub fn render(chrome: &Chrome, view: &Overview) -> Markup {
    let [_, _, warn, bad] = view.totals.lights;
    let (worst, words) = match (bad, warn) {
        (0, 0) => (Light::Good, "All well".to_owned()),
        (0, warn) => (Light::Warn, format!("{warn} to look at")),
        (bad, _) => (Light::Bad, format!("{bad} bad")),
    };
    let body = html! {
        h1 { (light(worst)) " " (words) " " small.quiet { "at " (moment(chrome.now)) } }
        @if let Some(doubt) = &view.doubt { p.note.bad { "This may be old: " (doubt) } }
        (totals(&view.totals))
        div.tiles { @for row in &view.rows {
            section class=(tile(row.light)) {
                h2 { (light(row.light)) " " (row.name) }
                p.big { @match &row.newest { Some(newest) => { (ago(newest.at, chrome.now)) span.quiet { " " (bytes(newest.size_bytes)) } }, None => strong.alarm { "no backup" } } }
                p { "drill " (ago_or(row.drill.passed_at, chrome.now, "never")) @if let Some((good, all)) = row.copies { ", copies " (good) "/" (all) } }
                @if row.light > Light::Good { p.reason { (row.reason) } }
                @for one in &row.running { @if !one.is_dead { p.quiet { (one.verb) " is running" } } }
            }
        } }
    };
    bare(chrome, "Wall", "wall", &Live::Refresh, &body)
}

fn tile(light: Light) -> &'static str {
    match light {
        Light::Good => "tile good",
        Light::Unknown => "tile unknown",
        Light::Warn => "tile warn",
        Light::Bad => "tile bad",
    }
}
