//! Words for a shell: what is printed to be pasted means what it says, whatever characters it holds.

/// Returns a text as one word of a POSIX shell, quoted where it has to be.
pub fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+,".contains(c);
    // A word that begins with a dash would be a flag, quoted or not; one with `~` in front is quoted by its tilde.
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_words_stay_as_they_are() {
        for text in ["shop", "/srv/backups", "s3://acme/pg", "a@b:5432/c"] {
            assert_eq!(word(text), text);
        }
        for (text, quoted) in [
            ("", "''"),
            ("a b", "'a b'"),
            ("it's", "'it'\\''s'"),
            ("$(x)", "'$(x)'"),
            ("~/x", "'~/x'"),
            ("a=b", "'a=b'"),
        ] {
            assert_eq!(word(text), quoted);
        }
    }

    /// Reads a word as a shell does: quotes are literal but for themselves, a backslash outside of them takes the next.
    fn unquote(word: &str) -> Option<String> {
        let (mut out, mut is_quoted) = (String::new(), false);
        let mut chars = word.chars();
        while let Some(c) = chars.next() {
            match (c, is_quoted) {
                ('\'', _) => is_quoted = !is_quoted,
                (_, true) => out.push(c),
                ('\\', false) => out.push(chars.next()?),
                (c, false) if c.is_ascii_alphanumeric() || "_-./:@%+,".contains(c) => out.push(c),
                _ => return None,
            }
        }
        (!is_quoted).then_some(out)
    }

    proptest! {
        #[test]
        fn reads_back_as_one_word(text in ".*") {
            prop_assert_eq!(unquote(&word(&text)), Some(text));
        }
    }
}
