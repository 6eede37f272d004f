//! `/drills/{run id}`: what a drill restored, compared and asked.

use maud::{Markup, html};
use serde_json::Value;

use super::chrome::Chrome;
use super::layout::{Live, page};
use super::parts::state;
use super::view::RunRow;
use super::words::{ago, exit_words, moment, took_at_most};
use pgkeep_model::words::{count, number, took};

/// A drill, as far as it is known: the run, and either the whole report or the note that stands beside the backup.
#[derive(Clone, Debug)]
pub struct Drill {
    /// The run.
    pub run: RunRow,
    /// The report, as `pgkeep drill --json` prints it, where the drill ran in this process.
    pub report: Option<Value>,
    /// The note beside the backup, where it passed.
    pub note: Option<Value>,
    /// What the recovery time should be at most, in milliseconds.
    pub target_ms: Option<u64>,
}

/// Renders the page.
pub fn render(chrome: &Chrome, view: &Drill) -> Markup {
    let run = &view.run;
    let id = run.id.as_deref().unwrap_or("");
    let report = view.report.as_ref();
    let restore = report
        .and_then(|report| report.get("restore"))
        .filter(|restore| !restore.is_null());
    let recovery = restore
        .and_then(|restore| restore.get("restore_ms"))
        .or_else(|| view.note.as_ref()?.get("recovery_ms"))
        .and_then(Value::as_u64);
    let text = |key: &str| {
        let found = report.and_then(|report| report.get(key));
        found
            .or_else(|| view.note.as_ref()?.get(key))
            .and_then(Value::as_str)
    };
    let amount = |key: &str| {
        let found = restore.and_then(|restore| restore.get(key));
        found
            .or_else(|| view.note.as_ref()?.get(key))
            .and_then(Value::as_u64)
            .or(run.rows.filter(|_| key == "rows"))
    };
    let body = html! {
        div.headline {
            h1 { "Drill of " a href=(chrome.database(&run.database)) { (run.database) } " " (state(run.state)) }
            p { span.id { (id) } }
        }
        @if let Some(failure) = &run.failure { p.note .bad[run.exit_code != Some(0)] { (failure) } }
        dl.facts {
            @if let Some(backup) = &run.backup_id { div { dt { "Backup" } dd { a.id href=(chrome.backup(backup)) { (backup) } } } }
            div { dt { "Began" } dd { (moment(run.at)) ", " (ago(run.at, chrome.now)) @if let Some(ms) = run.took_ms { ", took " (took(ms)) } } }
            @if let Some(code) = run.exit_code { div { dt { "Ended" } dd { (code) ": " (exit_words(code)) } } }
            div { dt { "Recovery time" } dd {
                @match recovery {
                    Some(ms) => { strong .alarm[view.target_ms.is_some_and(|target| ms > target)] { (took(ms)) } @if let Some(target) = view.target_ms { ", target " (took_at_most(target)) } },
                    None => span.quiet { "not known" },
                }
            } }
            @if let Some(server) = text("server") { div { dt { "Restored into" } dd { (server) @if let Some(version) = text("server_version") { ", PostgreSQL " (version) } } } }
            @if let Some(rows) = amount("rows") { div { dt { "Rows" } dd { (count(rows, "row")) } } }
        }
        (list("What was odd", strings(report.or(view.note.as_ref()), "warnings")))
        (list("Extensions left out", strings(report.or(view.note.as_ref()), "skipped_extensions")))
        (assertions(report))
        (tables(restore))
        @if report.is_none() {
            p.quiet { "The comparison of each table is shown as long as the process that ran the drill lives; what is on record stands above." }
        }
        p.links { a href=(chrome.run(id)) { "The run" } a href=(chrome.database(&run.database)) { (run.database) } }
    };
    let trail = [
        (run.database.as_str(), chrome.database(&run.database)),
        ("Drill", chrome.link(&format!("/drills/{id}"))),
    ];
    page(
        chrome,
        &format!("Drill of {}", run.database),
        &trail,
        &Live::No,
        &body,
    )
}

fn strings<'v>(value: Option<&'v Value>, key: &str) -> Vec<&'v str> {
    let found = value
        .and_then(|value| value.get(key))
        .and_then(Value::as_array);
    found
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

fn list(title: &str, lines: Vec<&str>) -> Markup {
    html! { @if !lines.is_empty() { h2 { (title) } ul { @for line in lines { li { (line) } } } } }
}

fn entries<'v>(value: Option<&'v Value>, key: &str) -> &'v [Value] {
    let found = value
        .and_then(|value| value.get(key))
        .and_then(Value::as_array);
    found.map(Vec::as_slice).unwrap_or_default()
}

fn field<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or("")
}

fn assertions(report: Option<&Value>) -> Markup {
    let all = entries(report, "assertions");
    html! {
        @if !all.is_empty() {
            h2 { "What must hold" }
            div.scroll { table {
                thead { tr { th { "Assertion" } th { "Holds" } th { "Expected" } th { "Found" } } }
                tbody { @for one in all {
                    @let passed = one.get("passed").and_then(Value::as_bool) == Some(true);
                    tr { td { (field(one, "name")) } td { (holds(passed)) } td { (field(one, "expected")) } td { (field(one, "found")) } }
                } }
            } }
        }
    }
}

fn holds(passed: bool) -> Markup {
    html! { @if passed { span.pill.good { "yes" } } @else { span.pill.bad { "no" } } }
}

fn tables(restore: Option<&Value>) -> Markup {
    let all = entries(restore, "tables");
    let rows = |one: &Value, key: &str| {
        one.get(key)
            .and_then(Value::as_u64)
            .map_or_else(|| "–".to_owned(), number)
    };
    // What differs is what is looked for.
    let mut sorted: Vec<&Value> = all.iter().collect();
    sorted.sort_by_key(|one| field(one, "problem").is_empty());
    sorted.truncate(1000);
    html! {
        @if !all.is_empty() {
            h2 { "Tables" }
            div.scroll { table {
                thead { tr { th { "Table" } th { "Equal" } th.num { "Rows dumped" } th.num { "Rows restored" } th { "Remark" } } }
                tbody { @for one in sorted {
                    @let problem = field(one, "problem");
                    tr {
                        td.wide { (field(one, "table")) }
                        td { (holds(problem.is_empty())) }
                        td.num { (rows(one, "rows")) }
                        td.num { (rows(one, "found_rows")) }
                        td.wide { @if problem.is_empty() { (field(one, "note")) } @else { span.alarm { (problem) } } }
                    }
                } }
            } }
            @if all.len() > 1000 { p.quiet { "The first 1,000 of " (number(all.len() as u64)) "." } }
        }
    }
}
