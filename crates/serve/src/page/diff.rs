//! `/diff?a=&b=`: what differs between two backups.

use maud::{Markup, html};

use super::chrome::Chrome;
use super::layout::{Live, page};
use super::words::when;
use pgkeep_core::op::diff::{Report, SideReport};
use pgkeep_model::diff::{Change, Pair, RowsAre, TableChange, ValueChange};
use pgkeep_model::words::{bytes, number};

/// Most rows that a list shows.
const SHOWN: usize = 500;

/// Renders the page.
pub fn render(chrome: &Chrome, report: &Report) -> Markup {
    let difference = &report.difference;
    let totals = &difference.totals;
    let body = html! {
        h1 { "What differs" }
        dl.facts { (side(chrome, "Older", &report.from)) (side(chrome, "Newer", &report.to)) }
        @if !difference.different { p.note.good { "Nothing differs." } }
        @if !report.structure_compared { p.note.warn { "The structures were not compared, only what the manifests tell." } }
        ul.notes { @for line in report.warnings.iter().chain(&difference.remarks) { li { (line) } } }
        div.scroll { table {
            thead { tr { th { "In all" } th.num { "Older" } th.num { "Newer" } th.num { "Change" } } }
            tbody {
                (total("Tables", totals.tables, number)) (total("Rows", totals.rows, number)) (total("Bytes of rows", totals.bytes, bytes))
                (total("Database on the server", totals.database_bytes, bytes)) (total("Large objects", totals.large_objects, number))
                (total("Objects of the structure", totals.objects, number))
            }
        } }
        @if !difference.tables.is_empty() { h2 { "Tables" } (tables(&difference.tables)) }
        @if !difference.objects.is_empty() {
            h2 { "Structure" }
            ul.plain { @for object in difference.objects.iter().take(SHOWN) {
                li { (change(object.change)) " " span.quiet { (object.kind) } " " @if let Some(schema) = &object.schema { (schema) "." } (object.name) }
            } }
            (more(difference.objects.len()))
        }
        @if !difference.sequences.is_empty() {
            h2 { "Sequences" }
            ul.plain { @for one in difference.sequences.iter().take(SHOWN) { li { (one.sequence) ": " (one.from.value) " → " (one.to.value) } } }
            (more(difference.sequences.len()))
        }
        (values("Extensions", &difference.extensions))
        (values("Settings of the database", &difference.settings))
        @if !difference.roles.is_empty() { h2 { "Roles" } ul.plain { @for role in &difference.roles { li { (change(role.change)) " " (role.name) } } } }
        @if !difference.not_compared.is_empty() { h2 { "Not compared" } ul.plain { @for one in difference.not_compared.iter().take(SHOWN) { li { (one.table) ": " (one.why) } } } }
        @if let Some(sql) = &report.sql { h2 { "As SQL" } pre.sql tabindex="0" { code { (sql) } } }
    };
    let trail = [(
        report.to.database.as_str(),
        chrome.database(&report.to.database),
    )];
    page(chrome, "What differs", &trail, &Live::No, &body)
}

fn side(chrome: &Chrome, word: &str, side: &SideReport) -> Markup {
    html! {
        div { dt { (word) } dd {
            @match &side.backup_id { Some(id) => a.id href=(chrome.backup(id)) { (id) }, None => "the database as it is now" }
            ", " (when(side.at, chrome.now)) ", PostgreSQL " (side.server_version)
            @if let Some(size) = side.stored_bytes { ", " (bytes(size)) " stored" }
        } }
    }
}

fn total(what: &str, pair: Pair, write: fn(u64) -> String) -> Markup {
    html! { tr { td { (what) } (pair_cells(pair, write)) } }
}

fn pair_cells(pair: Pair, write: fn(u64) -> String) -> Markup {
    let known = |value: Option<u64>| value.map_or_else(|| "–".to_owned(), write);
    html! {
        td.num { (known(pair.from)) } td.num { (known(pair.to)) }
        td.num { @match (pair.from, pair.to) {
            (Some(from), Some(to)) if to > from => { "+" (write(to - from)) },
            (Some(from), Some(to)) if to < from => span.alarm { "−" (write(from - to)) },
            (Some(_), Some(_)) => span.quiet { "=" },
            _ => {},
        } }
    }
}

fn change(change: Change) -> Markup {
    html! { @match change {
        Change::Added => span.pill.good { "added" },
        Change::Removed => span.pill.bad { "removed" },
        Change::Changed => span.pill.warn { "changed" },
    } }
}

fn tables(tables: &[TableChange]) -> Markup {
    html! {
        div.scroll { table {
            thead { tr { th { "Table" } th { "What" } th.num { "Rows before" } th.num { "Rows now" } th.num { "Change" } th { "More" } } }
            tbody { @for table in tables.iter().take(SHOWN) {
                tr {
                    td.wide { (table.table) }
                    td { (change(table.change)) }
                    (pair_cells(table.rows, number))
                    td.wide {
                        @match table.rows_are { RowsAre::Other => "other rows", RowsAre::Same | RowsAre::Unknown => {} }
                        @for column in &table.columns { div {
                            (change(column.change)) " column " strong { (column.column) }
                            @if let Some(from) = &column.from { " " span.quiet { (from) } }
                            @if let Some(to) = &column.to { " → " span.quiet { (to) } }
                        } }
                        @for note in &table.notes { div.quiet { (note) } }
                    }
                }
            } }
        } }
        (more(tables.len()))
    }
}

fn values(title: &str, all: &[ValueChange]) -> Markup {
    html! { @if !all.is_empty() {
        h2 { (title) }
        ul.plain { @for one in all.iter().take(SHOWN) { li { (one.name) ": " (one.from.as_deref().unwrap_or("–")) " → " (one.to.as_deref().unwrap_or("–")) } } }
    } }
}

fn more(all: usize) -> Markup {
    html! { @if all > SHOWN { p.quiet { "and " (number((all - SHOWN) as u64)) " more; " code { "pgkeep diff" } " tells all" } } }
}
