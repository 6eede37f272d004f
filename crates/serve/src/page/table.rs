//! The page between a dry run and a restore of one table: what would be done, and the button that does it.

use maud::{Markup, html};

use super::chrome::Chrome;
use super::layout::{Live, page};
use super::words::encoded;
use pgkeep_model::words::number;

/// What a dry run of one table found.
#[derive(Clone, Debug)]
pub struct Preview {
    /// The backup.
    pub backup_id: String,
    /// The database.
    pub database: String,
    /// The table, as people write it.
    pub table: String,
    /// `upsert` or `append`.
    pub mode: String,
    /// Where the rows go, without secrets.
    pub target: String,
    /// What would be done: `rows to add`, and how many.
    pub counts: Vec<(String, u64)>,
    /// What was odd.
    pub warnings: Vec<String>,
    /// Why it cannot be done; then there is no button.
    pub failure: Option<(String, Vec<String>)>,
}

/// Renders the page. Its form posts to the same link with `confirm=yes`.
pub fn preview(chrome: &Chrome, view: &Preview) -> Markup {
    let backup = chrome.backup(&view.backup_id);
    let body = html! {
        h1 { "Put back " (view.table) }
        p { "From " a.id href=(backup) { (view.backup_id) } " into " strong { (view.target) } ", "
            @if view.mode == "append" { "into a table that is empty" } @else { "adding rows and changing those that differ" } ". "
            "This was tried and rolled back; nothing has been changed."
        }
        @if let Some((message, hints)) = &view.failure {
            section.note.bad { p { strong { (message) } } @for hint in hints { p.hint { (hint) } } }
        }
        @if !view.counts.is_empty() {
            dl.totals { @for (what, amount) in &view.counts { div { dt { (what) } dd { (number(*amount)) } } } }
        }
        @if !view.warnings.is_empty() { ul.notes { @for warning in &view.warnings { li { (warning) } } } }
        @if view.failure.is_none() && chrome.may_restore() {
            form.actions method="post" action=(format!("{backup}/tables/{}/restore", encoded(&view.table))) {
                input type="hidden" name="mode" value=(view.mode);
                input type="hidden" name="confirm" value="yes";
                button.danger type="submit" { "Put the rows into " (view.table) }
                a.button href=(backup) { "Leave it" }
            }
        } @else { p { a href=(backup) { "Back to the backup" } } }
    };
    let trail = [
        (view.database.as_str(), chrome.database(&view.database)),
        ("Backup", backup.clone()),
    ];
    page(
        chrome,
        &format!("Put back {}", view.table),
        &trail,
        &Live::No,
        &body,
    )
}
