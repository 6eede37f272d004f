//! A crontab as bytes, and our block in it. Every other byte stays as it is.

/// First line of our block.
pub(super) const BEGIN: &str =
    "# BEGIN pgkeep: written by `pgkeep deploy install cron`, which replaces everything up to END";

/// What our first line begins with, in every version of pgkeep.
const BEGINS: &[u8] = b"# BEGIN pgkeep:";

/// Last line of our block.
pub(super) const END: &str = "# END pgkeep";

/// The marks of our block do not pair, so it is unknown which lines are ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unpaired;

/// Returns where our block lies, its last line break included.
fn place(text: &[u8]) -> Result<Option<std::ops::Range<usize>>, Unpaired> {
    let (mut begins, mut ends) = (Vec::new(), Vec::new());
    let mut at = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let bare = line.strip_suffix(b"\n").unwrap_or(line);
        if bare.starts_with(BEGINS) {
            begins.push(at);
        }
        at += line.len();
        if bare == END.as_bytes() {
            ends.push(at);
        }
    }
    match (&begins[..], &ends[..]) {
        ([], []) => Ok(None),
        ([begin], [end]) if begin < end => Ok(Some(*begin..*end)),
        _ => Err(Unpaired),
    }
}

/// Puts lines between our marks: in the place of the ones that are there, or at the end. No lines take the block out.
pub(super) fn with_block(text: &[u8], lines: Option<&str>) -> Result<Vec<u8>, Unpaired> {
    let block = lines.map_or_else(String::new, block);
    let whole = match place(text)? {
        Some(place) => [&text[..place.start], block.as_bytes(), &text[place.end..]].concat(),
        None if block.is_empty() => text.to_vec(),
        None => {
            // A last line without its end would become one with ours.
            let is_open = text.last().is_some_and(|byte| *byte != b'\n');
            let gap: &[u8] = if is_open { b"\n" } else { b"" };
            [text, gap, block.as_bytes()].concat()
        }
    };
    Ok(whole)
}

/// Returns the lines between our marks.
pub(super) fn block(lines: &str) -> String {
    format!("{BEGIN}\n{lines}{END}\n")
}

/// Writes one entry: cron reads `%` as the end of the command, and the shell reads the rest.
pub(super) fn entry(times: &str, variables: &[(&str, String)], program: &str) -> String {
    let variables = variables
        .iter()
        .map(|(name, value)| format!("{name}={} ", quoted(value)));
    let command: String = variables.chain([quoted(program)]).collect();
    format!("{times} {}\n", command.replace('%', "\\%"))
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Whether this is five fields that cron knows: minute, hour, day, month, weekday.
pub(super) fn is_times(text: &str) -> bool {
    let is_known = |c: char| c.is_ascii_alphanumeric() || "*,/- ".contains(c);
    text.chars().all(is_known) && text.split_whitespace().count() == 5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_comes_goes_and_is_replaced() {
        let before: &[u8] = b"# mine \xff\r\nMAILTO=\"\"\n\n 5 4 * * * /bin/x %y\\%z  ";
        let first = with_block(before, Some("1 1 * * * a\n")).unwrap();
        let all = [before, b"\n", block("1 1 * * * a\n").as_bytes()].concat();
        assert_eq!(first, all);
        assert_eq!(with_block(&first, Some("1 1 * * * a\n")).unwrap(), first);
        let more = [&first[..], b"\t\n@daily x"].concat();
        let second = with_block(&more, Some("2 2 * * * b\n")).unwrap();
        let text = String::from_utf8_lossy(&second);
        assert!(
            text.ends_with("2 2 * * * b\n# END pgkeep\n\t\n@daily x"),
            "{text}"
        );
        let without = [before, b"\n\t\n@daily x"].concat();
        assert_eq!(with_block(&second, None).unwrap(), without);
        assert_eq!(with_block(&without, None).unwrap(), without);
        assert_eq!(with_block(b"", None).unwrap(), b"");
    }

    #[test]
    fn marks_that_do_not_pair_are_refused() {
        let (begin, end) = (format!("{BEGIN}\n"), format!("{END}\n"));
        for text in [
            begin.clone(),
            end.clone(),
            format!("{end}{begin}"),
            format!("{begin}{begin}{end}"),
            format!("{begin}{end}{end}"),
        ] {
            assert_eq!(
                with_block(text.as_bytes(), Some("x\n")),
                Err(Unpaired),
                "{text}"
            );
            assert_eq!(with_block(text.as_bytes(), None), Err(Unpaired), "{text}");
        }
        // What only looks like one is a line like any other.
        let other = format!(" {BEGIN}\n# END pgkeep 2\n");
        assert_eq!(with_block(other.as_bytes(), None), Ok(other.into_bytes()));
    }

    #[test]
    fn what_cron_and_the_shell_read_is_quoted() {
        let variables = [("PGKEEP", "/a b/it's 100%".to_owned())];
        assert_eq!(
            entry("1 2 3 4 5", &variables, "/x.sh"),
            "1 2 3 4 5 PGKEEP='/a b/it'\\''s 100\\%' '/x.sh'\n"
        );
    }

    #[test]
    fn times_are_five_fields() {
        for good in ["* * * * *", "15 3 * * 1-5", "*/10 0,12 1 jan sun"] {
            assert!(is_times(good), "{good}");
        }
        for bad in [
            "",
            "daily",
            "@daily",
            "1 2 3 4",
            "1 2 3 4 5 6",
            "1 2 3 4 5;x",
            "1 2 3 4\n5",
        ] {
            assert!(!is_times(bad), "{bad}");
        }
    }
}
