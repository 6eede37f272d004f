//! Tables that fit the terminal.
//!
//! A table that is too wide drops what another column says as well, then breaks texts between words, and at last puts each
//! row on several lines. Ids, names and numbers are never broken. The last column is never padded.

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table as Grid, Width};
use textwrap::core::display_width;

use super::screen::{Screen, wrap};

/// Between two columns.
const GAP: usize = 2;

/// How far the second line of a row is indented.
const INDENT: usize = 2;

/// A text is not squeezed into less, if it has more.
const LEAST_TEXT: usize = 24;

/// A table.
pub(super) struct Table {
    headers: Vec<String>,
    rows: Vec<Vec<String>>,
    /// Columns of numbers.
    right: &'static [usize],
    /// Columns of text, which may be broken between words.
    texts: &'static [usize],
    /// Columns that are left out first.
    spare: &'static [usize],
    /// How many columns stay on the first line of a row that takes several.
    lead: usize,
    has_header: bool,
}

impl Table {
    pub(super) fn new(headers: &[&str]) -> Self {
        Self {
            headers: headers.iter().map(|&header| header.to_owned()).collect(),
            rows: Vec::new(),
            right: &[],
            texts: &[],
            spare: &[],
            lead: 1,
            has_header: true,
        }
    }

    pub(super) fn right(self, right: &'static [usize]) -> Self {
        Self { right, ..self }
    }

    pub(super) fn texts(self, texts: &'static [usize]) -> Self {
        Self { texts, ..self }
    }

    pub(super) fn spare(self, spare: &'static [usize]) -> Self {
        Self { spare, ..self }
    }

    pub(super) fn lead(self, lead: usize) -> Self {
        Self { lead, ..self }
    }

    /// Leaves the names of the columns out; what stands above the table says what it is.
    pub(super) fn without_header(mut self) -> Self {
        self.headers.iter_mut().for_each(String::clear);
        self.has_header = false;
        self
    }

    pub(super) fn add_row(&mut self, row: impl IntoIterator<Item = impl Into<String>>) {
        // A tab has a width that only the terminal knows.
        let cells = row
            .into_iter()
            .map(|cell| cell.into().replace('\t', "    "));
        self.rows.push(cells.collect());
    }

    /// Returns the table as lines, each with its line feed.
    pub(super) fn shown(&self, screen: Screen) -> String {
        let has_words = |at: &usize| self.rows.iter().any(|row| !row[*at].is_empty());
        let mut used: Vec<usize> = (0..self.headers.len()).filter(has_words).collect();
        let Some(width) = screen.width else {
            let natural: Vec<usize> = used.iter().map(|&at| self.natural(at)).collect();
            return self.drawn(&used, &natural, self.has_header, &self.rows);
        };
        let all = used.clone();
        for spare in [None].into_iter().chain(self.spare.iter().map(Some)) {
            used.retain(|at| Some(at) != spare);
            if let Some(widths) = self.widths(&used, width, LEAST_TEXT) {
                return self.drawn(&used, &widths, self.has_header, &self.rows);
            }
        }
        self.on_several_lines(&all, width)
    }

    /// Returns how wide each column may be, with no text squeezed into less than `text`; none where they do not fit.
    fn widths(&self, columns: &[usize], width: usize, text: usize) -> Option<Vec<usize>> {
        let natural: Vec<usize> = columns.iter().map(|&at| self.natural(at)).collect();
        let room = width.checked_sub(GAP * columns.len().saturating_sub(1))?;
        if natural.iter().sum::<usize>() <= room {
            return Some(natural);
        }
        let mut widths = self.least(columns, text);
        let mut left = room.checked_sub(widths.iter().sum())?;
        // The first texts are short; what they do not need is the last one's.
        let squeezed = widths.iter().zip(&natural);
        let mut shares = squeezed.filter(|(least, natural)| natural > least).count();
        for (width, natural) in widths.iter_mut().zip(natural) {
            if natural > *width {
                let more = (natural - *width).min(left / shares.max(1));
                *width += more;
                left -= more;
                shares -= 1;
            }
        }
        Some(widths)
    }

    /// Returns how narrow each column may become.
    fn least(&self, columns: &[usize], text: usize) -> Vec<usize> {
        let least = columns.iter().map(|&at| {
            let natural = self.natural(at);
            if self.texts.contains(&at) {
                self.longest_word(at).max(natural.min(text)).min(natural)
            } else {
                natural
            }
        });
        least.collect()
    }

    /// Returns widths where one word alone is too long: the last text gets what is left, and only that word stands out.
    fn overfull(&self, columns: &[usize], width: usize) -> Vec<usize> {
        let mut widths = self.least(columns, 0);
        if let (Some(last), Some((own, others))) = (columns.last(), widths.split_last_mut())
            && self.texts.contains(last)
        {
            let taken: usize = others.iter().map(|width| width + GAP).sum();
            *own = width.saturating_sub(taken).max(LEAST_TEXT);
        }
        widths
    }

    fn cells(&self, at: usize) -> impl Iterator<Item = &str> {
        let header = std::iter::once(self.headers[at].as_str());
        header.chain(self.rows.iter().map(move |row| row[at].as_str()))
    }

    fn natural(&self, at: usize) -> usize {
        let lines = self.cells(at).flat_map(str::lines);
        lines.map(display_width).max().unwrap_or(0)
    }

    fn longest_word(&self, at: usize) -> usize {
        let words = self.cells(at).flat_map(str::split_whitespace);
        // A line that goes on is indented.
        words.map(display_width).max().unwrap_or(0) + INDENT
    }

    /// Draws rows in columns.
    fn drawn(
        &self,
        columns: &[usize],
        widths: &[usize],
        has_header: bool,
        rows: &[Vec<String>],
    ) -> String {
        let mut grid = Grid::new();
        grid.load_style(comfy_table::presets::NOTHING);
        grid.set_content_arrangement(ContentArrangement::Dynamic);
        grid.set_width(u16::MAX);
        if has_header {
            grid.set_header(columns.iter().map(|&at| &self.headers[at]));
        }
        for row in rows {
            let cells = columns.iter().zip(widths).map(|(&at, &width)| {
                let lines = row[at].lines().map(|line| wrap(line, width));
                lines.collect::<Vec<_>>().join("\n")
            });
            grid.add_row(cells.collect::<Vec<_>>());
        }
        for (place, (at, &width)) in columns.iter().zip(widths).enumerate() {
            let gap = if place + 1 == columns.len() { 0 } else { GAP };
            if let Some(column) = grid.column_mut(place) {
                let gap = u16::try_from(gap).unwrap_or(0);
                column.set_padding((0, gap));
                // A word that is longer than its column is not broken.
                let longest = rows.iter().flat_map(|row| row[*at].split_whitespace());
                let widest = longest.map(display_width).fold(width.max(1), usize::max);
                let content = u16::try_from(widest).unwrap_or(u16::MAX);
                let width = Width::Fixed(content.saturating_add(gap));
                column.set_constraint(ColumnConstraint::Absolute(width));
                if self.right.contains(at) {
                    column.set_cell_alignment(CellAlignment::Right);
                }
            }
        }
        grid.trim_fmt() + "\n"
    }

    /// Draws the first columns of each row on a line of their own, and the others below.
    fn on_several_lines(&self, columns: &[usize], width: usize) -> String {
        let (lead, rest) = columns.split_at(self.lead.min(columns.len()));
        let lead_widths: Vec<usize> = lead.iter().map(|&at| self.natural(at)).collect();
        let width = width.saturating_sub(INDENT);
        let is_spare = |at: &usize| self.spare.contains(at);
        let mut rest = rest.to_vec();
        let rest_widths = self.widths(&rest, width, LEAST_TEXT).unwrap_or_else(|| {
            rest.retain(|at| !is_spare(at));
            self.widths(&rest, width, LEAST_TEXT)
                .or_else(|| self.widths(&rest, width, 0))
                .unwrap_or_else(|| self.overfull(&rest, width))
        });
        let indented = |text: String| -> String {
            let lines = text.lines();
            lines
                .map(|line| format!("{:INDENT$}{line}\n", ""))
                .collect()
        };
        let mut out = String::new();
        if self.has_header {
            out += &self.drawn(lead, &lead_widths, true, &[]);
            out += &indented(self.drawn(&rest, &rest_widths, true, &[]));
        }
        for row in &self.rows {
            let row = std::slice::from_ref(row);
            out += &self.drawn(lead, &lead_widths, false, row);
            let is_empty = rest.iter().all(|&at| row[0][at].is_empty());
            if !is_empty {
                out += &indented(self.drawn(&rest, &rest_widths, false, row));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(id: &str) -> Table {
        let mut table = Table::new(&["id", "started", "size", "because", "notes"])
            .right(&[2])
            .texts(&[3])
            .spare(&[1]);
        table.add_row([
            id,
            "2026-01-02 03:04:05",
            "1.5 KiB",
            "7 daily, 4 weekly",
            "",
        ]);
        table.add_row(["b", "2026-01-01 03:04:05", "10 B", "last", ""]);
        table
    }

    fn shown(table: &Table, width: Option<usize>) -> String {
        table.shown(Screen {
            width,
            ..Screen::default()
        })
    }

    #[test]
    fn a_table_is_as_wide_as_it_must_be() {
        let expected = "\
id      started                 size  because
shop-1  2026-01-02 03:04:05  1.5 KiB  7 daily, 4 weekly
b       2026-01-01 03:04:05     10 B  last
";
        assert_eq!(shown(&table("shop-1"), None), expected);
        assert_eq!(shown(&table("shop-1"), Some(80)), expected);
    }

    #[test]
    fn what_is_said_twice_goes_first() {
        let expected = "\
id                   size  because
shop-20260102-ab  1.5 KiB  7 daily, 4 weekly
b                    10 B  last
";
        assert_eq!(shown(&table("shop-20260102-ab"), Some(50)), expected);
    }

    #[test]
    fn a_row_with_a_long_id_takes_two_lines() {
        let expected = "\
id
     size  because
shop-shop-shop-shop-shop-shop-shop-1
  1.5 KiB  7 daily, 4 weekly
b
     10 B  last
";
        let table = table("shop-shop-shop-shop-shop-shop-shop-1");
        assert_eq!(shown(&table, Some(44)), expected);
    }
}
