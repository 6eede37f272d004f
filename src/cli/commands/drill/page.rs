//! The report of a drill as one self-contained page: no script, no font, no picture from elsewhere.
//!
//! Names and answers are anybody's text; all of it is escaped.

use std::fmt::Write;

use crate::cli::output::{bytes, number};
use pgkeep_core::op::drill::Report;
use pgkeep_model::name::is_deceptive;

const STYLE: &str = "\
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.25rem .75rem;border-bottom:1px solid #ddd}
td.n{text-align:right;font-variant-numeric:tabular-nums}code{font-size:.85em;word-break:break-all}
.ok{color:#0a6b2d}.bad{color:#b00020;font-weight:600}.note{background:#fff4d6;padding:.5rem .75rem}
@media(prefers-color-scheme:dark){body{background:#141414;color:#e6e6e6}th,td{border-color:#333}.ok{color:#5fd38a}\
.bad{color:#ff7b8a}.note{background:#3a3115}}";

/// Renders the report.
pub(super) fn page(report: &Report) -> String {
    let id = escape(report.backup_id.as_deref().unwrap_or("no backup"));
    let (class, verdict) = if report.passed {
        ("ok", "passed")
    } else {
        ("bad", "failed")
    };
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>Drill of {id}: {verdict}</title><style>{STYLE}</style></head>\n<body>\n\
         <h1>Drill of {id}: <span class=\"{class}\">{verdict}</span></h1>\n"
    );
    if !report.skipped_extensions.is_empty() {
        let names = escape(&report.skipped_extensions.join(", "));
        out += &format!("<p class=\"note\">Without extensions: {names}</p>\n");
    }
    let stand_ins = report.restore.iter().flat_map(|restore| &restore.stand_ins);
    for stand_in in stand_ins {
        let text = escape(stand_in);
        out += &format!("<p class=\"note\">Stand-in for a part of the platform: {text}</p>\n");
    }
    for left_out in report.restore.iter().flat_map(|restore| &restore.left_out) {
        let text = escape(left_out);
        out += &format!("<p class=\"note\">Left out: {text}</p>\n");
    }
    if let Some(failure) = &report.failure {
        out += &format!("<p class=\"bad\">{}</p>\n", escape(&failure.message));
        out += &list(failure.details.iter().chain(&failure.hints));
    }
    out += &facts(report);
    out += &assertions(report);
    out += &tables(report);
    if !report.warnings.is_empty() {
        out += "<h2>Warnings</h2>\n";
        out += &list(report.warnings.iter());
    }
    out + "</body></html>\n"
}

fn facts(report: &Report) -> String {
    let seconds = |ms: u64| format!("{:.1} s", ms as f64 / 1000.0);
    let version = report.server_version.as_deref().unwrap_or("unknown");
    let mut rows = vec![
        ("started", report.started_at.to_string()),
        (
            "restored into",
            format!("{}, PostgreSQL {version}", report.server),
        ),
    ];
    if let Some(restore) = report.restore.as_ref().filter(|restore| restore.compared) {
        rows.push(("recovery time", seconds(report.recovery_ms())));
        rows.push(("rows", number(restore.rows)));
        rows.push(("SQL", bytes(restore.dump_bytes)));
    }
    rows.push(("in all", seconds(report.took_ms)));
    rows.iter()
        .fold("<table>\n".to_owned(), |mut out, (name, value)| {
            let _ = writeln!(out, "<tr><th>{name}</th><td>{}</td></tr>", escape(value)); // a String takes every text
            out
        })
        + "</table>\n"
}

fn assertions(report: &Report) -> String {
    if report.assertions.is_empty() {
        return String::new();
    }
    let mut out = "<h2>Assertions</h2>\n<table>\n<tr><th>assertion</th><th>expected</th><th>found</th></tr>\n".to_owned();
    for outcome in &report.assertions {
        let class = if outcome.passed { "ok" } else { "bad" };
        out += &format!(
            "<tr><td>{}</td><td>{}</td><td class=\"{class}\">{}</td></tr>\n",
            escape(&outcome.name),
            escape(&outcome.expected),
            escape(&outcome.found)
        );
    }
    out + "</table>\n"
}

fn tables(report: &Report) -> String {
    let Some(restore) = report
        .restore
        .as_ref()
        .filter(|restore| !restore.tables.is_empty())
    else {
        return String::new();
    };
    let mut out =
        "<h2>Tables</h2>\n<table>\n<tr><th>table</th><th>rows</th><th>digest</th><th></th></tr>\n"
            .to_owned();
    for table in &restore.tables {
        let (class, verdict) = match (&table.problem, &table.note) {
            (Some(problem), _) => ("bad", problem.as_str()),
            (None, Some(note)) => ("ok", note.as_str()),
            (None, None) => ("ok", "equal"),
        };
        out += &format!(
            "<tr><td>{}</td><td class=\"n\">{}</td><td><code>{}</code></td><td class=\"{class}\">{}</td></tr>\n",
            escape(&table.table),
            table.rows.map_or_else(|| "no data".to_owned(), number),
            table
                .digest
                .map_or_else(|| "-".to_owned(), |digest| digest.to_string()),
            escape(verdict)
        );
    }
    out + "</table>\n"
}

fn list<'a>(items: impl Iterator<Item = &'a String>) -> String {
    let items: String = items
        .map(|item| format!("<li>{}</li>\n", escape(item)))
        .collect();
    if items.is_empty() {
        items
    } else {
        format!("<ul>\n{items}</ul>\n")
    }
}

fn escape(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() && c != '\n' || is_deceptive(c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn nothing_becomes_markup() {
        assert_eq!(
            escape("<script>\"a\" & 'b'</script>\u{0}"),
            "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;&lt;/script&gt;\u{fffd}"
        );
    }
}
