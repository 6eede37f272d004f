//! Text made to fit and made harmless: lengths, control characters, the marks of chats and of HTML.
//!
//! Lengths are counted in UTF-16 units, the most that any of the services counts a character as.

use crate::name::printable;

/// What stands where text was cut.
const GAP: &str = "…";

/// Puts text on one line: what would end a mail's header or move a cursor is escaped.
pub(super) fn one_line(text: &str) -> String {
    printable(&text.split(['\r', '\n']).collect::<Vec<_>>().join(" "))
}

/// Keeps the beginning.
pub(super) fn head(text: &str, max: usize) -> String {
    if length(text) <= max {
        return text.to_owned();
    }
    let mut kept = fit(text.chars(), max.saturating_sub(1));
    kept.push_str(GAP);
    kept
}

/// Keeps the end: the last words of a program say why it ended.
pub(super) fn tail(text: &str, max: usize) -> String {
    if length(text) <= max {
        return text.to_owned();
    }
    let reversed = fit(text.chars().rev(), max.saturating_sub(1));
    GAP.chars().chain(reversed.chars().rev()).collect()
}

/// Keeps the beginning of text that grows when it is escaped, without cutting an escape in two.
pub(super) fn escaped_head(text: &str, max: usize, escape: impl Fn(char) -> String) -> String {
    let whole: String = text.chars().map(&escape).collect();
    if length(&whole) <= max {
        return whole;
    }
    let mut kept = String::new();
    let mut used = 0;
    for piece in text.chars().map(escape) {
        used += length(&piece);
        if used + 1 > max {
            break;
        }
        kept.push_str(&piece);
    }
    kept + GAP
}

/// Counts UTF-16 units.
pub(super) fn length(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

fn fit(chars: impl Iterator<Item = char>, max: usize) -> String {
    let mut used = 0;
    let fits = |c: &char| {
        used += c.len_utf16();
        used <= max
    };
    chars.take_while(fits).collect()
}

/// Escapes text for HTML, attributes too.
pub(super) fn html(text: &str) -> String {
    let escape = |c| match c {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '"' => "&quot;".to_owned(),
        '\'' => "&#39;".to_owned(),
        c => String::from(c),
    };
    text.chars().map(escape).collect()
}

/// Escapes a character for Slack, where `<` begins a mention. <https://docs.slack.dev/messaging/formatting-message-text>
pub(super) fn slack(c: char) -> String {
    match c {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        c => String::from(c),
    }
}

/// Escapes a character for Discord, where a backslash takes the meaning from any mark.
pub(super) fn discord(c: char) -> String {
    match c {
        '\\' | '`' | '*' | '_' | '~' | '|' | '<' | '>' | '@' | '#' | '[' | ']' | '(' | ')'
        | ':' => format!("\\{c}"),
        c => String::from(c),
    }
}

/// Makes text fit to stand between rows of three backticks, which it could end.
pub(super) fn in_code(text: &str) -> String {
    text.replace("``", "`\u{200b}`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cuts_keep_the_end_that_matters() {
        assert_eq!(head("abcdef", 6), "abcdef");
        assert_eq!(head("abcdef", 4), "abc…");
        assert_eq!(tail("abcdef", 4), "…def");
        assert_eq!(head("😀😀😀", 4), "😀…", "a surrogate pair counts as two");
        assert_eq!(escaped_head("a_b_c", 5, discord), "a\\_b…");
        assert_eq!(escaped_head("<<<", 8, slack), "&lt;…");
    }

    #[test]
    fn a_line_stays_one() {
        assert_eq!(
            one_line("a\r\nBcc: x\u{1b}[2J\u{85}"),
            "a  Bcc: x\\u{1b}[2J\\u{85}"
        );
    }

    proptest! {
        #[test]
        fn nothing_grows_beyond_its_limit(text in ".{0,60}", max in 1usize..80) {
            prop_assert!(length(&head(&text, max)) <= max);
            prop_assert!(length(&tail(&text, max)) <= max);
            for escape in [slack, discord] {
                let cut = escaped_head(&text, max, escape);
                prop_assert!(length(&cut) <= max, "{}", cut);
            }
        }

        #[test]
        fn code_never_ends_early(text in "[`a\n]{0,40}") {
            prop_assert!(!in_code(&text).contains("```"));
        }
    }
}
