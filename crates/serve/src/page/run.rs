//! `/runs/{id}`: one run, live while it is under way.

use maud::{Markup, html};

use super::chrome::Chrome;
use super::layout::{Live, page};
use super::parts::state;
use super::view::{RunState, of_live};
use super::words::{ago, exit_words, moment, rate, when};
use crate::runs::{RunView, State};
use pgkeep_model::words::{bytes, count, took};

/// Renders the page. While the run is under way the script follows its events and fills what is marked with `data-live`;
/// without script the page loads itself again.
pub fn render(chrome: &Chrome, run: &RunView) -> Markup {
    let id = run.id.to_string();
    let is_open = matches!(run.state, State::Queued | State::Running);
    let live = if is_open {
        Live::Run(chrome.link(&format!(
            "/api/v1/runs/{}/events",
            super::words::encoded(&id)
        )))
    } else {
        Live::No
    };
    let row = of_live(run);
    let body = html! {
        div.headline {
            h1 { (title(&run.verb)) " of " a href=(chrome.database(&run.database)) { (run.database) } " " (state(row.state)) }
            p { span.id { (id) } }
        }
        @if is_open { (progress(run)) }
        (outcome(chrome, run, row.state))
        dl.facts {
            div { dt { "Why" } dd { (run.trigger) @if let Some(by) = &run.by { ", by " (by) } @if let Some(slot) = run.slot { ", for the slot of " (when(slot, chrome.now)) } } }
            div { dt { "Asked for" } dd { (moment(run.queued_at)) ", " (ago(run.queued_at, chrome.now)) } }
            @if let Some(at) = run.started_at { div { dt { "Began" } dd { (moment(at)) ", " (ago(at, chrome.now)) } } }
            @if let Some(at) = run.ended_at { div { dt { "Ended" } dd { (moment(at)) ", " (ago(at, chrome.now)) @if let Some(ms) = row.took_ms { ", took " (took(ms)) } } } }
            @if let Some(size) = run.size_bytes { div { dt { "Stored" } dd { (bytes(size)) @if let Some(rows) = run.rows { ", " (count(rows, "row")) } } } }
            @if let Some(backup) = &run.backup_id { div { dt { "Backup" } dd { a.id href=(chrome.backup(backup)) { (backup) } } } }
            @if run.verb == "drill" && !is_open { div { dt { "Report" } dd { a href=(chrome.link(&format!("/drills/{}", super::words::encoded(&id)))) { "What was restored and compared" } } } }
        }
        h2 { "What happened" }
        ol.log data-live="lines" data-last=(run.lines.last().map_or(0, |line| line.sequence)) {
            @for line in &run.lines { li { time datetime=(line.at.strftime("%Y-%m-%dT%H:%M:%SZ")) title=(moment(line.at)) { (line.at.strftime("%H:%M:%SZ").to_string()) } " " (line.text) } }
        }
        @if run.lines.is_empty() { p.quiet { "Nothing was noted." } }
    };
    let trail = [
        (run.database.as_str(), chrome.database(&run.database)),
        ("Run", chrome.run(&id)),
    ];
    page(
        chrome,
        &format!("{} of {}", title(&run.verb), run.database),
        &trail,
        &live,
        &body,
    )
}

fn progress(run: &RunView) -> Markup {
    let is_known = run.total_bytes > 0;
    html! {
        section.panel {
            p.phase role="status" { strong data-live="phase" { @if run.state == State::Queued { "waits for its turn" } @else { (run.phase) } } }
            @if is_known { progress data-live="progress" max=(run.total_bytes) value=(run.done_bytes.min(run.total_bytes)) aria-label="How far it is" {} }
            @else { progress data-live="progress" aria-label="How far it is is not known" {} }
            p {
                span data-live="done" { (bytes(run.done_bytes)) }
                @if is_known { " of about " (bytes(run.total_bytes)) }
                ", " span data-live="rate" { (rate(run.bytes_per_second)) }
            }
            p.quiet { "Table now: " span data-live="table" { (run.table.as_deref().unwrap_or("–")) } }
        }
    }
}

fn outcome(chrome: &Chrome, run: &RunView, state: RunState) -> Markup {
    html! {
        @match state {
            RunState::Good => p.note.good { "It went well." },
            RunState::Interrupted => p.note.bad { strong { "It was interrupted. " } "Nothing of it was stored." },
            _ => {},
        }
        @if let Some(failure) = &run.failure {
            section.note.bad {
                p { strong { (failure.message) } }
                @if !failure.details.is_empty() { ul { @for line in &failure.details { li { (line) } } } }
                @if !failure.causes.is_empty() { p.quiet { "Because: " (failure.causes.join(": ")) } }
                @for hint in &failure.hints { p.hint { (hint) } }
                @if let Some(code) = run.exit_code { p.quiet { "Exit code " (code) ": " (exit_words(code)) ". Id: " code { (failure.id) } } }
            }
        } @else if let Some(code) = run.exit_code.filter(|code| *code != 0) {
            section.note.bad {
                @if let Some(message) = &run.message { p { strong { (message) } } }
                @if let Some(hint) = super::words::exit_hint(code, &run.database) { p.hint { (hint) } }
                p.quiet { "Exit code " (code) ": " (exit_words(code)) "." }
            }
        } @else if let Some(message) = &run.message { p.note { (message) } }
        @if state == RunState::Failed && chrome.may_start() && matches!(run.verb.as_str(), "backup" | "drill" | "verify") {
            (super::overview::start(chrome, &run.database, &run.verb, "Try again", "main"))
        }
    }
}

pub(super) fn title(verb: &str) -> String {
    let mut chars = verb.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => "Run".to_owned(),
    }
}
