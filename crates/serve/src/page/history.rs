//! `/databases/{db}/history`: all runs of a database, in pages.

use maud::{Markup, html};

use super::chrome::Chrome;
use super::layout::{Live, page};
use super::parts::runs;
use super::view::{Filter, History};
use super::words::encoded;
use pgkeep_model::words::number;

const VERBS: &[&str] = &[
    "backup", "drill", "verify", "restore", "prune", "sync", "pin", "unpin", "accept", "guard",
];

const RESULTS: &[(&str, &str)] = &[
    ("bad", "anything bad"),
    ("good", "good"),
    ("warned", "with warnings"),
    ("failed", "failed"),
    ("interrupted", "interrupted"),
    ("missed", "missed"),
    ("running", "running"),
];

/// Renders the page.
pub fn render(chrome: &Chrome, view: &History) -> Markup {
    let link = format!("{}/history", chrome.database(&view.name));
    let body = html! {
        h1 { "History of " a href=(chrome.database(&view.name)) { (view.name) } }
        form.row method="get" action=(link) {
            label for="verb" { "What" }
            select #verb name="verb" {
                option value="" { "everything" }
                @for verb in VERBS { option value=(verb) selected[view.filter.verb.as_deref() == Some(verb)] { (verb) } }
            }
            label for="result" { "Result" }
            select #result name="result" {
                option value="" { "any" }
                @for (value, word) in RESULTS { option value=(value) selected[view.filter.result.as_deref() == Some(value)] { (word) } }
            }
            button type="submit" { "Show" }
            @if let Some(all) = view.all { span.quiet { (number(all as u64)) " in all" } }
        }
        (runs(chrome, &view.rows, false))
        p.links {
            @if view.filter.before.is_some() { a href=(with(&link, &view.filter, None)) { "Newest" } }
            @if let Some(before) = &view.before { a rel="next" href=(with(&link, &view.filter, Some(before))) { "Older" } }
        }
    };
    let trail = [
        (view.name.as_str(), chrome.database(&view.name)),
        ("History", link.clone()),
    ];
    page(
        chrome,
        &format!("History of {}", view.name),
        &trail,
        &Live::No,
        &body,
    )
}

fn with(link: &str, filter: &Filter, before: Option<&str>) -> String {
    let parts = [
        ("verb", filter.verb.as_deref()),
        ("result", filter.result.as_deref()),
        ("before", before),
    ];
    let query: Vec<String> = parts
        .into_iter()
        .filter_map(|(key, value)| Some(format!("{key}={}", encoded(value?))))
        .collect();
    if query.is_empty() {
        return link.to_owned();
    }
    format!("{link}?{}", query.join("&"))
}
