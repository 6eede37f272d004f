//! `/databases/{db}/restore`: could it be restored now, and how.

use maud::{Markup, html};

use super::chrome::Chrome;
use super::layout::{Live, page};
use super::parts::{command, light};
use super::view::{Answer, Restore};
use super::words::{ago, took_at_most, when};
use pgkeep_model::words::{bytes, took};

/// Renders the page.
pub fn render(chrome: &Chrome, view: &Restore) -> Markup {
    let body = html! {
        h1 { "Restore " (view.name) }
        (panel(&view.answer))
        h2 { "What to restore" }
        dl.facts {
            div { dt { "Newest good backup" } dd {
                @match &view.newest {
                    Some(newest) => { a href=(chrome.backup(&newest.id)) { (newest.id) } ", " (ago(newest.at, chrome.now)) ", " (bytes(newest.size_bytes)) },
                    None => strong.alarm { "none" },
                }
            } }
            div { dt { "Newest that passed a drill" } dd {
                @match &view.drilled {
                    Some(drilled) => { a href=(chrome.backup(&drilled.id)) { (drilled.id) } ", " (ago(drilled.at, chrome.now)) },
                    None => span.quiet { "none; " code { "pgkeep drill" } " tries one" },
                }
            } }
            div { dt { "Measured recovery time" } dd {
                @match view.drill.recovery_ms {
                    Some(ms) => { (took(ms)) @if let Some(target) = view.drill.target_ms { ", target " (took_at_most(target)) } @if let Some(at) = view.drill.passed_at { ", " (when(at, chrome.now)) } },
                    None => span.quiet { "no drill has measured it" },
                }
            } }
            div { dt { "Whole copies" } dd {
                @for (name, url) in &view.places { div { (name) " " span.quiet { (url) } } }
                @for (name, why) in &view.silent { div.alarm { (name) " did not answer: " (why) } }
                @if view.places.is_empty() && view.silent.is_empty() { span.quiet { "none" } }
            } }
        }
        @if !view.commands.is_empty() {
            h2 { "With pgkeep" }
            @for (at, (what, text)) in view.commands.iter().enumerate() {
                p.label { (what) }
                (command(&format!("command-{at}"), text))
            }
        }
        @if let Some(without) = &view.without {
            h2 { "Without pgkeep" }
            p { "The line that stands in the backup's own manifest. It needs the stored file, the usual tools and, for an encrypted one, the private key." }
            (command("without", without))
        }
    };
    let trail = [
        (view.name.as_str(), chrome.database(&view.name)),
        (
            "Restore",
            format!("{}/restore", chrome.database(&view.name)),
        ),
    ];
    page(
        chrome,
        &format!("Restore {}", view.name),
        &trail,
        &Live::No,
        &body,
    )
}

/// The answer and what it rests on.
pub(super) fn panel(answer: &Answer) -> Markup {
    html! {
        section.panel aria-labelledby="could-i" {
            h2 #could-i { (light(answer.light)) " Could I restore now? " span.answer { (answer.words) } }
            ul.checks {
                @for check in &answer.checks { li { (light(check.light)) " " strong { (check.what) } ": " (check.words) } }
            }
        }
    }
}
