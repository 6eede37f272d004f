//! Draws what is kept as a calendar: a row for each month with a mark for each day, or a row for each day with a mark
//! for each hour where a few days are all there is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use jiff::Zoned;
use jiff::civil::Date;

use crate::cli::output::number;
use pgkeep_model::retention::Tier;

/// Longest time, in days, that is drawn by the hour.
const MAX_DAYS_BY_HOUR: i32 = 10;

/// This many rows in a row with nothing kept are folded into one.
const FOLDED_ROWS: usize = 3;

/// What a cell shows, in the order of preference: of several backups in a day the one that stays longest.
const MARKS: [(Mark, char, &str); 10] = [
    (Mark::Tier(Tier::Yearly), 'Y', "yearly"),
    (Mark::Tier(Tier::Monthly), 'M', "monthly"),
    (Mark::Tier(Tier::Weekly), 'W', "weekly"),
    (Mark::Tier(Tier::Daily), 'D', "daily"),
    (Mark::Tier(Tier::Hourly), 'H', "hourly"),
    (Mark::Tier(Tier::Within), 'i', "within"),
    (Mark::Tier(Tier::Last), 'L', "last"),
    (Mark::Tier(Tier::PreDeploy), 'P', "pre-deploy"),
    (Mark::Other, '*', "kept for another reason"),
    (Mark::Removed, '·', "removed"),
];

#[derive(Clone, Copy, PartialEq)]
enum Mark {
    Tier(Tier),
    Other,
    Removed,
}

/// A backup to draw.
pub(super) struct Entry {
    /// Its start, on the clock of the calendar.
    pub start: Zoned,
    /// Whether it is kept.
    pub is_kept: bool,
    /// What it counts as.
    pub tiers: Vec<Tier>,
}

impl Entry {
    /// Returns the best of its marks, as a place in [`MARKS`].
    fn mark(&self) -> usize {
        let fits = |mark| match mark {
            Mark::Tier(tier) => self.tiers.contains(&tier),
            Mark::Other => self.is_kept,
            Mark::Removed => true,
        };
        let found = MARKS.iter().position(|(mark, ..)| fits(*mark));
        found.expect("the last mark fits all")
    }
}

/// A row of the calendar: its cells by their columns, each a place in [`MARKS`].
#[derive(Default)]
struct Row {
    cells: BTreeMap<usize, usize>,
    backups: u64,
    is_any_kept: bool,
}

/// How the calendar is cut into rows and columns.
struct Grid {
    columns: usize,
    /// The columns that the head names, from 0, and what the first is called.
    named: &'static [usize],
    first: usize,
    row: fn(Date) -> Date,
    column: fn(&Zoned) -> usize,
    label: fn(Date) -> String,
    next: fn(Date) -> Option<Date>,
}

const BY_DAY: Grid = Grid {
    columns: 31,
    named: &[0, 4, 9, 14, 19, 24, 29],
    first: 1,
    row: |date| date.first_of_month(),
    column: |start| usize::try_from(start.day() - 1).unwrap_or(0),
    label: |row| row.strftime("%Y-%m").to_string(),
    next: |row| row.last_of_month().tomorrow().ok(),
};

const BY_HOUR: Grid = Grid {
    columns: 24,
    named: &[0, 3, 6, 9, 12, 15, 18, 21],
    first: 0,
    row: |date| date,
    column: |start| usize::try_from(start.hour()).unwrap_or(0),
    label: |row| row.strftime("%a %Y-%m-%d").to_string(),
    next: |row| row.tomorrow().ok(),
};

/// Draws the calendar, oldest row first, with a legend of the marks that occur. Nothing for no entries.
pub(super) fn draw(entries: Vec<Entry>) -> String {
    let dates = || entries.iter().map(|entry| entry.start.date());
    let (Some(first), Some(last)) = (dates().min(), dates().max()) else {
        return String::new();
    };
    let days = (last - first).get_days();
    let grid = if days < MAX_DAYS_BY_HOUR {
        BY_HOUR
    } else {
        BY_DAY
    };
    let mut rows: BTreeMap<Date, Row> = BTreeMap::new();
    for entry in &entries {
        let row = rows.entry((grid.row)(entry.start.date())).or_default();
        let mark = entry.mark();
        let cell = row.cells.entry((grid.column)(&entry.start)).or_insert(mark);
        *cell = mark.min(*cell);
        row.backups += 1;
        row.is_any_kept |= entry.is_kept;
    }
    let label_width = (grid.label)(first).chars().count();
    let mut out = head(&grid, label_width);
    write_rows(&mut out, &grid, &rows);
    out + "\n" + &legend(&rows)
}

fn head(grid: &Grid, label_width: usize) -> String {
    let mut line = " ".repeat(label_width);
    for &column in grid.named {
        let name = (column + grid.first).to_string();
        // A name ends above its column.
        let end = label_width + 2 + 2 * column + 1;
        line = format!("{line:<width$}{name}", width = end - name.len());
    }
    line + "\n"
}

fn write_rows(out: &mut String, grid: &Grid, rows: &BTreeMap<Date, Row>) {
    let mut bare: Vec<(Date, u64)> = Vec::new();
    let empty = Row::default();
    let mut next = rows.keys().next().copied();
    let last = rows.keys().next_back().copied();
    while let Some(date) = next {
        let row = rows.get(&date).unwrap_or(&empty);
        if row.is_any_kept {
            fold(out, grid, rows, &bare);
            bare.clear();
            *out += &line(grid, date, row);
        } else {
            bare.push((date, row.backups));
        }
        next = (grid.next)(date).filter(|next| Some(*next) <= last);
    }
    fold(out, grid, rows, &bare);
}

/// Writes rows without anything kept: many as one line.
fn fold(out: &mut String, grid: &Grid, rows: &BTreeMap<Date, Row>, bare: &[(Date, u64)]) {
    let empty = Row::default();
    if bare.len() < FOLDED_ROWS {
        for (date, _) in bare {
            *out += &line(grid, *date, rows.get(date).unwrap_or(&empty));
        }
        return;
    }
    let (Some((first, _)), Some((last, _))) = (bare.first(), bare.last()) else {
        return;
    };
    let backups: u64 = bare.iter().map(|(_, backups)| backups).sum();
    let what = match backups {
        0 => "no backups".to_owned(),
        1 => "1 backup, removed".to_owned(),
        many => format!("{} backups, all removed", number(many)),
    };
    let (first, last) = ((grid.label)(*first), (grid.label)(*last));
    writeln!(out, "{first} to {last}: {what}").expect("a string takes all text");
}

fn line(grid: &Grid, date: Date, row: &Row) -> String {
    let cell = |column| row.cells.get(&column).map_or(' ', |mark| MARKS[*mark].1);
    let cells: String = (0..grid.columns)
        .flat_map(|column| [' ', cell(column)])
        .collect();
    let line = format!("{} {cells}", (grid.label)(date));
    line.trim_end().to_owned() + "\n"
}

fn legend(rows: &BTreeMap<Date, Row>) -> String {
    let used: BTreeSet<usize> = rows
        .values()
        .flat_map(|row| row.cells.values().copied())
        .collect();
    let names: Vec<String> = used
        .into_iter()
        .map(|mark| format!("{} {}", MARKS[mark].1, MARKS[mark].2))
        .collect();
    names.join("   ") + "\n"
}
