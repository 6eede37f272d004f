//! `/backups/{id}`: the proof of one backup, table by table.

use std::collections::HashMap;

use maud::{Markup, html};

use super::chrome::Chrome;
use super::database::marks;
use super::layout::{Live, page};
use super::parts::{command, light, post};
use super::view::{Backup, Light};
use super::words::{ago, encoded, when};
use pgkeep_model::manifest::{Manifest, TableRecord};
use pgkeep_model::scan::TableKind;
use pgkeep_model::words::{bytes, count, number, took};

/// Most tables that one page shows.
const SHOWN: usize = 500;

/// Renders the page.
pub fn render(chrome: &Chrome, view: &Backup) -> Markup {
    let manifest = view.manifest.as_ref();
    let id = manifest.id.to_string();
    let database = manifest.database.to_string();
    let body = html! {
        div.headline {
            h1 { (light(overall(view))) " Backup of " a href=(chrome.database(&database)) { (database) } }
            p { span.id { (id) } " " (marks(&view.marks)) }
        }
        (held(chrome, view, &id))
        (facts(chrome, view, manifest))
        (actions(chrome, view, &id))
        h2 { "Copies" }
        (copies(view))
        h2 #tables { "Tables" }
        (tables(chrome, view, &id))
        (warnings(manifest))
        h2 { "Without pgkeep" }
        (command("without", &manifest.restore))
    };
    let trail = [
        (database.as_str(), chrome.database(&database)),
        ("Backup", chrome.backup(&id)),
    ];
    page(chrome, &id, &trail, &Live::No, &body)
}

fn overall(view: &Backup) -> Light {
    let good = view.copies.iter().filter(|copy| copy.is_good).count();
    match good {
        0 => Light::Bad,
        _ if view.is_held => Light::Bad,
        good if good < view.copies.len() => Light::Warn,
        _ => Light::Good,
    }
}

fn held(chrome: &Chrome, view: &Backup, id: &str) -> Markup {
    let Some(anomaly) = &view.manifest.anomaly else {
        return html! {};
    };
    html! {
        @if view.is_held {
            section.note.bad {
                p { strong { "This backup is held." } " It lost what the ones before it had, and counts for nothing until somebody accepts it." }
                ul { @for seen in &anomaly.seen {
                    li {
                        (seen.in_words())
                        @if let (Some(median), Some(found)) = (seen.median, seen.found) { span.quiet { " (usual " (number(median)) ", found " (number(found)) @if let Some(bar) = &seen.bar { "; bar: " (bar) } ")" } }
                    }
                } }
                @if anomaly.more > 0 { p { "and " (anomaly.more) " more" } }
                @if chrome.may_accept() {
                    form.row method="post" action=(format!("{}/accept", chrome.backup(id))) {
                        label for="accept-reason" { "Why this is right" }
                        input #accept-reason name="reason" required maxlength="500" autocomplete="off";
                        button.main type="submit" { "Accept as the new normal" }
                    }
                }
            }
        } @else if !anomaly.seen.is_empty() {
            details #seen { summary { "What the anomaly gate saw" } ul { @for seen in &anomaly.seen { li { (seen.in_words()) } } } }
        }
        @if let Some(accepted) = &view.accepted {
            p.note { "Accepted by " (accepted.accepted_by) " " (ago(accepted.accepted_at, chrome.now)) ": " (accepted.reason) }
        }
    }
}

fn facts(chrome: &Chrome, view: &Backup, manifest: &Manifest) -> Markup {
    let ms = manifest
        .finished_at
        .duration_since(manifest.started_at)
        .as_millis();
    html! {
        dl.facts {
            div { dt { "Made" } dd { (when(manifest.started_at, chrome.now)) ", took " (took(u64::try_from(ms).unwrap_or(0))) ", " (manifest.trigger.as_str()) } }
            div { dt { "Size" } dd { (bytes(manifest.object.size_bytes)) " stored, " (bytes(manifest.dump.bytes)) " of SQL, " (bytes(manifest.server.size_bytes)) " on the server" } }
            div { dt { "Holds" } dd { (count(manifest.tables.len() as u64, "table")) ", " (count(manifest.dump.rows, "row")) @if manifest.large_objects > 0 { ", " (count(manifest.large_objects, "large object")) } } }
            @if let Some(selection) = &manifest.selection { div { dt { "Not whole" } dd.alarm { (selection.in_words()) } } }
            @for limit in &manifest.limits { div { dt { "Limited" } dd { (limit.in_words()) } } }
            div { dt { "Server" } dd { "PostgreSQL " (manifest.server.version) ", pg_dump " (manifest.tools.pg_dump) ", pgkeep " (manifest.tools.pgkeep) } }
            div { dt { "Stored as" } dd { (manifest.compression.method) @if manifest.encryption.is_some() { ", encrypted" } ", SHA-256 " span.id { (manifest.object.sha256) } } }
            div { dt { "Drill" } dd {
                @match view.drilled {
                    Some((at, ms)) => { "passed " (ago(at, chrome.now)) ", restored in " (took(ms)) },
                    None => span.quiet { "not on this one" },
                }
            } }
            @if let Some(fate) = &view.fate {
                div { dt { "Kept for" } dd { (fate.reasons.join("; ")) } }
                div { dt { "Goes" } dd { (goes(fate.goes_now, fate.goes)) " " a href=(format!("{}/calendar", chrome.database(manifest.database.as_str()))) { "calendar" } } }
            }
            @if let Some(why) = &view.pinned { div { dt { "Pinned" } dd { @if why.is_empty() { "yes, for a reason that was not read" } @else { (why) } } } }
        }
    }
}

/// When a backup goes, in words.
pub(super) fn goes(now: bool, day: Option<jiff::civil::Date>) -> Markup {
    html! {
        @match (now, day) {
            (true, _) => strong.alarm { "with the next prune" },
            (false, Some(day)) => (day.to_string()),
            (false, None) => span.quiet title="as far as was looked ahead" { "stays" },
        }
    }
}

fn actions(chrome: &Chrome, view: &Backup, id: &str) -> Markup {
    let link = chrome.backup(id);
    html! {
        div.actions {
            @if chrome.may_download() {
                a.button href=(format!("{link}/download")) { @if view.can_open { "Download" } @else { "Download, as it is encrypted" } }
            }
            @if chrome.may_pin() {
                @if view.pinned.is_some() { (post(&format!("{link}/unpin"), "Take the pin away", "")) }
                @else {
                    form.row method="post" action=(format!("{link}/pin")) {
                        label for="pin-reason" { "Keep it, because" }
                        input #pin-reason name="reason" maxlength="500" autocomplete="off";
                        button type="submit" { "Pin" }
                    }
                }
            }
            @if !view.others.is_empty() {
                form.row method="get" action=(chrome.link("/diff")) {
                    input type="hidden" name="b" value=(id);
                    label for="diff-a" { "Compare with" }
                    select #diff-a name="a" { @for other in &view.others { option value=(other) { (other) } } }
                    button type="submit" { "Show what differs" }
                }
            }
        }
    }
}

fn copies(view: &Backup) -> Markup {
    html! {
        div.scroll { table {
            thead { tr { th { "Storage" } th { "State" } th.num { "Size" } th { "Place" } } }
            tbody { @for copy in &view.copies {
                tr {
                    td { (copy.name) }
                    td { (light(if copy.is_good { Light::Good } else { Light::Bad })) " " (copy.words) }
                    td.num { @if let Some(size) = copy.size_bytes { (bytes(size)) } }
                    td.quiet { (copy.url) }
                }
            } }
        } }
    }
}

fn tables(chrome: &Chrome, view: &Backup, id: &str) -> Markup {
    let manifest = view.manifest.as_ref();
    let before: Option<HashMap<(&str, &str), &TableRecord>> =
        view.previous.as_ref().map(|previous| {
            let tables = previous.tables.iter();
            tables
                .map(|table| ((table.schema.as_str(), table.name.as_str()), table))
                .collect()
        });
    let wanted = view.filter.as_deref().map(str::to_lowercase);
    let fits = |table: &&TableRecord| {
        let name = table.full_name().to_string().to_lowercase();
        wanted
            .as_ref()
            .is_none_or(|wanted| name.contains(wanted.as_str()))
    };
    let required: HashMap<&str, &pgkeep_model::manifest::RequiredRecord> = manifest
        .required_tables
        .iter()
        .map(|one| (one.table.as_str(), one))
        .collect();
    let mut shown: Vec<&TableRecord> = manifest.tables.iter().filter(fits).collect();
    let all = shown.len();
    shown.sort_by_key(|table| {
        let is_required = required.contains_key(table.full_name().to_string().as_str());
        (!is_required, std::cmp::Reverse(table.bytes))
    });
    shown.truncate(SHOWN);
    let gone: Vec<String> =
        view.previous
            .iter()
            .flat_map(|previous| {
                let now: std::collections::HashSet<(&str, &str)> = manifest
                    .tables
                    .iter()
                    .map(|table| (table.schema.as_str(), table.name.as_str()))
                    .collect();
                let gone = previous.tables.iter().filter(move |table| {
                    !now.contains(&(table.schema.as_str(), table.name.as_str()))
                });
                gone.map(|table| table.full_name().to_string())
                    .collect::<Vec<_>>()
            })
            .collect();
    html! {
        @match &view.previous {
            Some(previous) => p.quiet { "Changes are against " a.id href=(chrome.backup(&previous.id.to_string())) { (previous.id) } "." },
            None => p.quiet { "There is no backup before it to compare with." },
        }
        @for one in manifest.required_tables.iter().filter(|one| !one.found) { p.alarm { "Required, and not there: " (one.table) } }
        @if !gone.is_empty() { p.alarm { "Gone since: " (gone.iter().take(20).cloned().collect::<Vec<_>>().join(", ")) @if gone.len() > 20 { " and " (gone.len() - 20) " more" } } }
        @if manifest.tables.len() > 20 || wanted.is_some() {
            form.row method="get" action=(format!("{}#tables", chrome.backup(id))) {
                label for="table-name" { "Tables whose name has" }
                input #table-name name="q" value=[view.filter.as_deref()] autocomplete="off";
                button type="submit" { "Show" }
            }
        }
        div.scroll { table.cards {
            thead { tr { th { "Table" } th { "Kind" } th.num { "Rows" } th.num { "Change" } th.num { "Bytes" } th { "Digest" } th { "Take out" } } }
            tbody {
                @for table in shown { (row(chrome, view, id, table, before.as_ref(), &required)) }
                @if all == 0 { tr { td.quiet colspan="7" { "No table." } } }
            }
        } }
        @if all > SHOWN { p.quiet { "The first " (SHOWN) " of " (number(all as u64)) "; " code { "pgkeep show " (id) " --json" } " has all." } }
    }
}

fn row(
    chrome: &Chrome,
    view: &Backup,
    id: &str,
    table: &TableRecord,
    before: Option<&HashMap<(&str, &str), &TableRecord>>,
    required: &HashMap<&str, &pgkeep_model::manifest::RequiredRecord>,
) -> Markup {
    let name = table.full_name().to_string();
    let link = format!("{}/tables/{}", chrome.backup(id), encoded(&name));
    let digest = table.digest.map(|digest| digest.to_string());
    html! {
        tr {
            td.wide data-label="Table" {
                (name)
                @if let Some(one) = required.get(name.as_str()) {
                    " " span.pill.good { "required ✓" @if let Some(least) = one.min_rows { ", at least " (count(least, "row")) } }
                }
            }
            td data-label="Kind" { (kind(table.kind)) }
            td.num data-label="Rows" { @match table.rows { Some(rows) => (number(rows)), None => span.quiet { "no data" } } }
            td.num data-label="Change" { (change(table, before)) }
            td.num data-label="Bytes" { (bytes(table.bytes)) }
            td data-label="Digest" { @if let Some(digest) = &digest { span.id title=(digest) { (digest.chars().take(10).collect::<String>()) "…" } } }
            td data-label="Take out" {
                @if chrome.may_download() && view.can_open && table.rows.is_some() {
                    a href=(format!("{link}?format=csv")) { "CSV" } " "
                    a href=(format!("{link}?format=jsonl")) { "JSONL" } " "
                    a href=(format!("{link}?format=sql")) { "SQL" }
                    @if chrome.may_restore() {
                        details id=(format!("restore-{}", encoded(&name))) {
                            summary { "Put back" }
                            form method="post" action=(format!("{link}/restore")) {
                                label { input type="radio" name="mode" value="upsert" checked; " Add and update rows" }
                                label { input type="radio" name="mode" value="append"; " Fill a table that is empty" }
                                button type="submit" { "Try it first" }
                            }
                        }
                    }
                } @else { span.quiet { "–" } }
            }
        }
    }
}

fn change(table: &TableRecord, before: Option<&HashMap<(&str, &str), &TableRecord>>) -> Markup {
    let Some(before) = before else {
        return html! { span.quiet { "–" } };
    };
    let old = before.get(&(table.schema.as_str(), table.name.as_str()));
    html! {
        @match old {
            None => span.pill.run { "new" },
            Some(old) => @match (old.rows, table.rows) {
                (Some(was), Some(is)) if is > was => { "+" (number(is - was)) },
                (Some(was), Some(is)) if is < was => span.alarm { "−" (number(was - is)) },
                (Some(_), Some(_)) if old.digest == table.digest => span.quiet { "same rows" },
                (Some(_), Some(_)) => "other rows",
                (was, is) => { @if was.is_some() != is.is_some() { "data " @if is.is_some() { "now there" } @else { "left out" } } @else { span.quiet { "–" } } },
            },
        }
    }
}

fn kind(kind: Option<TableKind>) -> &'static str {
    match kind {
        Some(TableKind::Table) => "table",
        Some(TableKind::Partitioned) => "partitioned",
        Some(TableKind::Partition) => "partition",
        Some(TableKind::Foreign) => "foreign",
        Some(TableKind::Unlogged) => "unlogged",
        None => "rows only",
    }
}

fn warnings(manifest: &Manifest) -> Markup {
    html! {
        @if !manifest.warnings.is_empty() {
            h2 { "What was odd" }
            ul { @for finding in &manifest.warnings { li { (finding.message) } } }
        }
    }
}
