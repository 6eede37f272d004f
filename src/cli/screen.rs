//! What the reader of the output can show: how many columns there are, and whether it knows more than ASCII.
//!
//! Only a terminal has a width. What goes into a pipe or a file keeps its lines whole, for `grep` and `cut`.

use textwrap::core::Word;
use textwrap::{Options, WordSeparator, WordSplitter, WrapAlgorithm};

/// Narrower than this no table can be read, so narrower claims are not believed.
const LEAST_WIDTH: usize = 40;

/// What the reader can show.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Screen {
    /// Columns of the terminal; none where the reader is no terminal.
    pub width: Option<usize>,
    /// Whether it shows what is not ASCII.
    pub is_utf8: bool,
    /// Whether it cannot move its cursor, so that no bar moves on it.
    pub is_dumb: bool,
}

impl Screen {
    /// Judges by the size that the terminal reports and by the environment, where `COLUMNS` goes first.
    pub(super) fn new(size: Option<usize>, variable: impl Fn(&str) -> Option<String>) -> Self {
        let columns = || variable("COLUMNS")?.parse().ok();
        let width = size.map(|size| columns().unwrap_or(size));
        // The first that is set decides, as for every program: setlocale(3).
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .iter()
            .find_map(|name| variable(name).filter(|value| !value.is_empty()))
            .unwrap_or_default()
            .to_ascii_lowercase();
        Self {
            width: width
                .filter(|width| *width > 0)
                .map(|width| width.max(LEAST_WIDTH)),
            is_utf8: locale.contains("utf-8") || locale.contains("utf8"),
            is_dumb: variable("TERM").is_none_or(|term| term == "dumb"),
        }
    }

    /// The same, less an indentation.
    pub(super) fn within(self, indent: usize) -> Self {
        Self {
            width: self.width.map(|width| width.saturating_sub(indent)),
            ..self
        }
    }

    /// Breaks lines that are too long between words; what follows is indented a little more than the line itself.
    pub(super) fn fitted(self, text: &str) -> String {
        let text = if self.is_utf8 {
            text.to_owned()
        } else {
            in_ascii(text)
        };
        let Some(width) = self.width else {
            return text;
        };
        let lines = text.split_inclusive('\n').map(|line| {
            let end = if line.ends_with('\n') { "\n" } else { "" };
            wrap(line.trim_end_matches('\n'), width) + end
        });
        lines.collect()
    }

    /// Writes a line of the shell below an indentation. Where it is too long, it goes on behind a backslash, so that it
    /// still is one command when it is pasted.
    pub(super) fn command(self, command: &str, indent: usize) -> String {
        let indent = " ".repeat(indent);
        let fits = |width| indent.len() + command.chars().count() <= width;
        let Some(width) = self.width.filter(|width| !fits(*width)) else {
            return format!("{indent}{command}\n");
        };
        let more = format!("{indent}  ");
        let options = options(width.saturating_sub(2))
            .initial_indent(&indent)
            .subsequent_indent(&more)
            .word_separator(WordSeparator::Custom(outside_quotes));
        textwrap::wrap(command, options).join(" \\\n") + "\n"
    }
}

/// Writes our own signs in ASCII. Names of tables and the like stay as they are: written otherwise they name nothing.
pub(super) fn in_ascii(text: &str) -> String {
    text.replace('…', "...")
        .replace('·', ".")
        .replace('→', "->")
}

/// Breaks one line.
pub(super) fn wrap(line: &str, width: usize) -> String {
    let indent = line.len() - line.trim_start_matches(' ').len();
    let more = " ".repeat(indent + 2);
    let options = options(width)
        .initial_indent(&more[..indent])
        .subsequent_indent(&more)
        .word_separator(WordSeparator::Custom(outside_backticks));
    textwrap::wrap(&line[indent..], options).join("\n")
}

/// Whole words, whatever is in them: half an id or half a path cannot be copied.
fn options<'a>(width: usize) -> Options<'a> {
    Options::new(width)
        .break_words(false)
        .word_splitter(WordSplitter::NoHyphenation)
        .wrap_algorithm(WrapAlgorithm::FirstFit)
}

/// Longest text between backticks that is kept on one line, if the words around it are to have room.
const LONGEST_KEPT: usize = 60;

/// Splits text into words. A command between backticks is one word, unless it is long.
fn outside_backticks(line: &str) -> Box<dyn Iterator<Item = Word<'_>> + '_> {
    let is_kept = |from: usize| {
        line[from + 1..]
            .find('`')
            .is_some_and(|length| length <= LONGEST_KEPT)
    };
    let mut is_inside = false;
    split(line, move |at, c| {
        if c == '`' {
            is_inside = !is_inside && is_kept(at);
        }
        !is_inside
    })
}

/// Splits a line of the shell into words. What is quoted, or follows a backslash, is not broken.
fn outside_quotes(line: &str) -> Box<dyn Iterator<Item = Word<'_>> + '_> {
    let (mut quote, mut is_escaped) = (None, false);
    split(line, move |_, c| {
        let was_escaped = std::mem::take(&mut is_escaped);
        match (quote, c) {
            _ if was_escaped => return false,
            (None | Some('"'), '\\') => is_escaped = true,
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), _) if open == c => quote = None,
            _ => {}
        }
        quote.is_none()
    })
}

/// Splits at spaces where `may_split` says so; it sees every character once.
fn split<'a>(
    line: &'a str,
    mut may_split: impl FnMut(usize, char) -> bool,
) -> Box<dyn Iterator<Item = Word<'a>> + 'a> {
    let mut words = Vec::new();
    let (mut start, mut is_gap) = (0, false);
    for (at, c) in line.char_indices() {
        let may = may_split(at, c);
        if is_gap && c != ' ' {
            words.push(Word::from(&line[start..at]));
            start = at;
        }
        is_gap = c == ' ' && may;
    }
    if start < line.len() {
        words.push(Word::from(&line[start..]));
    }
    Box::new(words.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(size: Option<usize>, variables: &[(&str, &str)]) -> Screen {
        Screen::new(size, |name| {
            let mut all = variables.iter();
            let found = all.find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn of_width(width: usize) -> Screen {
        screen(Some(width), &[])
    }

    #[test]
    fn width_is_that_of_the_terminal_or_of_columns() {
        for (size, columns, width) in [
            (None, "100", None),
            (Some(80), "", Some(80)),
            (Some(80), "many", Some(80)),
            (Some(80), "132", Some(132)),
            (Some(0), "", None),
            (Some(3), "", Some(LEAST_WIDTH)),
        ] {
            let found = screen(size, &[("COLUMNS", columns)]).width;
            assert_eq!(found, width, "{size:?} {columns}");
        }
    }

    #[test]
    fn the_first_locale_that_is_set_decides() {
        for (variables, is_utf8) in [
            (&[][..], false),
            (&[("LANG", "de_DE.UTF-8")], true),
            (&[("LANG", "de_DE.UTF-8"), ("LC_ALL", "C")], false),
            (&[("LANG", "de_DE.UTF-8"), ("LC_ALL", "")], true),
            (&[("LANG", "C"), ("LC_CTYPE", "C.utf8")], true),
        ] {
            assert_eq!(screen(None, variables).is_utf8, is_utf8, "{variables:?}");
        }
    }

    #[test]
    fn lines_break_between_words_and_commands_stay_whole() {
        let text =
            "  hint: install it with `apt-get install postgresql-client-17`, or not\nshort\n";
        assert_eq!(
            of_width(50).fitted(text),
            "  hint: install it with\n    `apt-get install postgresql-client-17`, or not\nshort\n"
        );
        assert_eq!(screen(None, &[]).fitted(text), text);
        // A sign of its own is no pair.
        assert_eq!(of_width(40).fitted(&"a` ".repeat(20)).lines().count(), 2);
    }

    #[test]
    fn a_command_that_is_broken_is_still_one() {
        let command =
            r#"gzip -dc a.sql.gz | psql -v 'A B=c d' -d "x y" --dbname a\ b --file - --quiet"#;
        assert_eq!(
            screen(None, &[]).command(command, 2),
            format!("  {command}\n")
        );
        let broken = of_width(40).command(command, 2);
        assert!(broken.lines().all(|line| line.len() <= 40), "{broken}");
        assert!(
            broken.contains("'A B=c d'") && broken.contains(r"a\ b"),
            "{broken}"
        );
        let pasted: Vec<&str> = broken.split("\\\n").map(str::trim).collect();
        assert_eq!(pasted.join(" "), command);
    }
}
