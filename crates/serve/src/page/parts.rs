//! Pieces that several pages show alike.

use maud::{Markup, html};

use super::chrome::Chrome;
use super::view::{Light, RunRow, RunState};
use super::words::{ago, exit_words, when};
use pgkeep_model::words::{bytes, number, took};

/// A light with its word, for those who do not see the colour.
pub(super) fn light(light: Light) -> Markup {
    let (class, word) = match light {
        Light::Good => ("light good", "good"),
        Light::Unknown => ("light unknown", "not judged"),
        Light::Warn => ("light warn", "attention"),
        Light::Bad => ("light bad", "bad"),
    };
    html! { span class=(class) role="img" aria-label=(word) title=(word) {} }
}

/// How a run stands, in a word.
pub(super) fn state(state: RunState) -> Markup {
    let (class, word) = match state {
        RunState::Queued => ("pill run", "queued"),
        RunState::Running => ("pill run", "running"),
        RunState::Good => ("pill good", "good"),
        RunState::Warned => ("pill warn", "with warnings"),
        RunState::Failed => ("pill bad", "failed"),
        RunState::Interrupted => ("pill bad", "interrupted"),
        RunState::Missed => ("pill warn", "missed"),
    };
    html! { span class=(class) { (word) } }
}

/// A table of runs, with the name of the database where there are several.
pub(super) fn runs(chrome: &Chrome, rows: &[RunRow], with_database: bool) -> Markup {
    html! {
        div.scroll {
            table.cards {
                thead { tr {
                    th { "Result" }
                    @if with_database { th { "Database" } }
                    th { "What" } th { "Started" } th.num { "Took" } th.num { "Size" } th.num { "Rows" } th { "Why, and by whom" } th { "Details" }
                } }
                tbody {
                    @for row in rows { (run_row(chrome, row, with_database)) }
                    @if rows.is_empty() { tr { td.quiet colspan="9" { "Nothing here." } } }
                }
            }
        }
    }
}

fn run_row(chrome: &Chrome, row: &RunRow, with_database: bool) -> Markup {
    html! {
        tr {
            td data-label="Result" { (state(row.state)) }
            @if with_database { td data-label="Database" { a href=(chrome.database(&row.database)) { (row.database) } } }
            td data-label="What" {
                @match &row.id {
                    Some(id) => a href=(chrome.run(id)) title=(id) { (row.verb) },
                    None => (row.verb),
                }
            }
            td data-label="Started" { (when(row.at, chrome.now)) div.quiet { (super::words::relative(row.at, chrome.now)) } }
            td.num data-label="Took" { @if let Some(ms) = row.took_ms { (took(ms)) } }
            td.num data-label="Size" { @if let Some(size) = row.size_bytes { (bytes(size)) } }
            td.num data-label="Rows" { @if let Some(rows) = row.rows { (number(rows)) } }
            td data-label="Why" {
                (row.trigger.as_deref().unwrap_or("")) @if let Some(by) = &row.by { span.quiet { " by " (by) } }
            }
            td.wide data-label="Details" { (details(chrome, row)) }
        }
    }
}

fn details(chrome: &Chrome, row: &RunRow) -> Markup {
    html! {
        @if let Some(code) = row.exit_code {
            @if code != 0 { span.code title={ "exit code " (code) } { (code) ": " (exit_words(code)) } }
        }
        @if let Some(why) = &row.failure { p.why { (why) } }
        @if let Some(hint) = &row.hint { p.hint { (hint) } }
        @if let Some(backup) = &row.backup_id { @if row.state != RunState::Failed {
            a.id href=(chrome.backup(backup)) { (backup) }
        } }
    }
}

/// A button that posts to a link.
pub(super) fn post(link: &str, label: &str, class: &str) -> Markup {
    html! { form.inline method="post" action=(link) { button class=(class) type="submit" { (label) } } }
}

/// A command to be copied. The button appears with script only.
pub(super) fn command(id: &str, text: &str) -> Markup {
    html! {
        div.command {
            pre tabindex="0" { code id=(id) { (text) } }
            button.plain.copy type="button" hidden data-copy=(id) { "Copy" }
        }
    }
}

/// An age, or a word where there is none.
pub(super) fn ago_or(at: Option<jiff::Timestamp>, now: jiff::Timestamp, none: &str) -> Markup {
    match at {
        Some(at) => ago(at, now),
        None => html! { span.quiet { (none) } },
    }
}
