//! The verdict on one backup: a pure function of the backup and of what is normal.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::baseline::{Baseline, Past, median};
use super::record::{AnomalyRecord, MAX_SIGNS, Seen, Severity, Sign, Verdict};
use super::rules::{Bars, bars};
use super::sample::{Amounts, Sample, is_large_objects};
use crate::name::TableName;
use crate::percent::Percent;
use crate::scan::RowDigest;
use crate::words::count;

/// So many times the median is much longer, or much larger.
const MUCH_MORE: u64 = 3;

/// A run that took less than this longer is no news: caches and neighbours make seconds of difference.
const MUCH_LONGER_MS: u64 = 60_000;

/// Small databases triple in a day.
const MUCH_LARGER_BYTES: u64 = 64 << 20;

/// Raw bytes that rows must have lost to be a warning: less is a column of a small table.
const LOST_BYTES: u64 = 1 << 20;

/// A table has grown where it has so many times its rows.
const GROWN: u64 = 2;

/// Most notes that are kept: they decide nothing.
const MAX_NOTES: usize = 20;

/// Judges a backup. The order in which tables stand in it means nothing.
pub fn judge(sample: &Sample, baseline: &Baseline<'_>) -> AnomalyRecord {
    let baseline_ids = baseline.ids.clone();
    if baseline.is_learning() {
        return AnomalyRecord {
            baseline: baseline_ids,
            ..AnomalyRecord::new(Verdict::Learning)
        };
    }
    let mut seen = lost(sample, baseline);
    seen.extend(all_rows(sample, baseline));
    seen.extend(run(sample, baseline));
    seen.extend(notes(sample, baseline));
    let verdict = if seen.iter().any(|one| one.severity == Severity::Fail) {
        Verdict::Held
    } else {
        Verdict::Passed
    };
    let (seen, more) = cut(seen);
    AnomalyRecord {
        baseline: baseline_ids,
        seen,
        more,
        ..AnomalyRecord::new(verdict)
    }
}

/// Keeps the worst; what is left out is counted, notes aside.
fn cut(mut seen: Vec<Seen>) -> (Vec<Seen>, u64) {
    let lost = |one: &Seen| {
        one.median
            .unwrap_or(0)
            .saturating_sub(one.found.unwrap_or(0))
    };
    // A table alone says more than all together.
    seen.sort_by(|one, other| {
        let rank = |one: &Seen| (one.severity, one.table.is_none(), Reverse(lost(one)));
        (rank(one), &one.table, one.sign as u8).cmp(&(rank(other), &other.table, other.sign as u8))
    });
    let notes = seen.iter().position(|one| one.severity == Severity::Note);
    let told = notes.unwrap_or(seen.len());
    seen.truncate(told + MAX_NOTES);
    let more = told.saturating_sub(MAX_SIGNS);
    if more > 0 {
        seen.truncate(MAX_SIGNS);
    }
    (seen, more as u64)
}

/// What the tables lost that were there before.
fn lost(sample: &Sample, baseline: &Baseline<'_>) -> Vec<Seen> {
    let moved = moved(sample, baseline);
    let known = baseline.tables.iter();
    let judged = known.filter(|(table, past)| baseline.knows(table, past));
    judged
        .filter_map(|(table, past)| {
            let bars = bars(baseline.rules, table)?;
            let now = sample.tables.get(table);
            lost_by(table, past, now, &bars, &moved)
        })
        .collect()
}

fn lost_by(
    table: &TableName,
    past: &Past,
    now: Option<&Amounts>,
    bars: &Bars,
    moved: &HashMap<RowDigest, &TableName>,
) -> Option<Seen> {
    let rows = median(past.points.iter().map(|(rows, _)| *rows))?;
    let about = |sign, severity, median, found: u64, bar: String| Seen {
        table: Some(table.to_string()),
        bar: Some(bar),
        ..seen(sign, severity, median, found)
    };
    let Some(now) = now else {
        // A table that the newest backup lacks, too, went before, and that was no anomaly.
        let counts = past.is_in_newest && rows >= bars.gone_min_rows;
        let bar = count(bars.gone_min_rows, "row");
        let instead = past.digest.and_then(|digest| moved.get(&digest));
        return counts.then(|| Seen {
            instead: instead.map(ToString::to_string),
            ..about(Sign::TableGone, Severity::Fail, rows, 0, bar)
        });
    };
    let lost = rows.saturating_sub(now.rows);
    if now.rows == 0 && rows > 0 && rows >= bars.empty_min_rows {
        let bar = count(bars.empty_min_rows, "row");
        return Some(about(Sign::TableEmpty, Severity::Fail, rows, 0, bar));
    }
    let is_much = lost > 0 && lost >= bars.min_lost_rows;
    for (share, severity) in [
        (bars.max_loss, Severity::Fail),
        (bars.warn_loss, Severity::Warn),
    ] {
        if is_much && share.is_reached(lost, rows) {
            let bar = both(share, bars.min_lost_rows);
            return Some(about(Sign::RowsLost, severity, rows, now.rows, bar));
        }
    }
    // As many rows with much less in them: a column that was emptied.
    let bytes = median(past.points.iter().map(|(_, bytes)| *bytes))?;
    let lost = bytes.saturating_sub(now.bytes);
    let counts = lost >= LOST_BYTES && bars.max_loss.is_reached(lost, bytes);
    let bar = format!("{} and 1 MiB", bars.max_loss);
    counts.then(|| about(Sign::BytesLost, Severity::Warn, bytes, now.bytes, bar))
}

/// Finds new tables by the digest of their rows, to tell where those of a table that is gone went.
fn moved<'s>(sample: &'s Sample, baseline: &Baseline<'_>) -> HashMap<RowDigest, &'s TableName> {
    let is_new = |table: &TableName| !baseline.tables.contains_key(table);
    let tables = sample.tables.iter();
    tables
        .filter(|(table, now)| now.rows > 0 && is_new(table))
        .filter_map(|(table, now)| Some((now.digest?, table)))
        .collect()
}

/// What all tables together lost.
fn all_rows(sample: &Sample, baseline: &Baseline<'_>) -> Option<Seen> {
    let before = median(baseline.rows.iter().copied())?;
    let rules = baseline.rules;
    let judged = sample
        .tables
        .iter()
        .filter(|(table, _)| !is_large_objects(table) && bars(rules, table).is_some());
    let now = judged.fold(0u64, |sum, (_, now)| sum.saturating_add(now.rows));
    let lost = before.saturating_sub(now);
    let counts = lost > 0
        && lost >= u64::from(rules.min_lost_rows)
        && rules.max_total_loss.is_reached(lost, before)
        && baseline.knows_all();
    let bar = both(rules.max_total_loss, u64::from(rules.min_lost_rows));
    counts.then(|| Seen {
        bar: Some(bar),
        ..seen(Sign::AllRowsLost, Severity::Fail, before, now)
    })
}

/// Whether the run took much longer, or its dump is much larger.
fn run(sample: &Sample, baseline: &Baseline<'_>) -> Vec<Seen> {
    let much = |sign, before: &[u64], now: u64, at_least: u64, unit: &str| {
        let before = median(before.iter().copied())?;
        let is_much = now >= before.saturating_mul(MUCH_MORE) && now - before >= at_least;
        is_much.then(|| Seen {
            bar: Some(format!("{MUCH_MORE} times the median and {unit}")),
            ..seen(sign, Severity::Warn, before, now)
        })
    };
    let slow = much(
        Sign::Slow,
        &baseline.took_ms,
        sample.took_ms,
        MUCH_LONGER_MS,
        "60 s",
    );
    let large = much(
        Sign::Large,
        &baseline.dump_bytes,
        sample.dump_bytes,
        MUCH_LARGER_BYTES,
        "64 MiB",
    );
    slow.into_iter().chain(large).collect()
}

/// What is worth knowing and never fails.
fn notes(sample: &Sample, baseline: &Baseline<'_>) -> Vec<Seen> {
    let mut notes = Vec::new();
    let mut others = 0;
    for (table, now) in &sample.tables {
        let Some(bars) = bars(baseline.rules, table) else {
            continue;
        };
        let note = |sign, median, found| Seen {
            table: Some(table.to_string()),
            ..seen(sign, Severity::Note, median, found)
        };
        let Some(past) = baseline.tables.get(table) else {
            notes.push(note(Sign::NewTable, 0, now.rows));
            continue;
        };
        let differ =
            |one: Option<u64>, other: Option<u64>| one.zip(other).is_some_and(|(a, b)| a != b);
        if differ(past.columns, now.columns) {
            notes.push(note(Sign::ColumnsChanged, 0, 0));
        }
        let newest = past.points.first().filter(|_| past.is_in_newest);
        let is_other = past.digest.zip(now.digest).is_some_and(|(a, b)| a != b);
        if is_other && newest.is_some_and(|(rows, _)| *rows == now.rows) {
            others += 1;
        }
        let rows = median(past.points.iter().map(|(rows, _)| *rows)).unwrap_or(0);
        let more = now.rows.saturating_sub(rows);
        if more > 0 && more >= bars.min_lost_rows && now.rows >= rows.saturating_mul(GROWN) {
            notes.push(note(Sign::Grown, rows, now.rows));
        }
    }
    if others > 0 {
        notes.push(seen(Sign::OtherRows, Severity::Note, 0, others));
    }
    notes
}

fn seen(sign: Sign, severity: Severity, median: u64, found: u64) -> Seen {
    Seen {
        sign,
        severity,
        table: None,
        median: Some(median),
        found: Some(found),
        bar: None,
        instead: None,
    }
}

fn both(share: Percent, rows: u64) -> String {
    format!("{share} and {}", count(rows, "row"))
}
