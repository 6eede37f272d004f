//! Numbers, sizes, digests and lengths of time as people read them, alike on the terminal and in notices.

/// Renders bytes in binary units.
pub fn bytes(count: u64) -> String {
    bytesize::ByteSize(count).display().iec().to_string()
}

/// Renders a number with its thousands apart.
pub fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Renders a number with its noun, which takes an `s` where it is not one: `1 table`, `2 tables`.
pub fn count(amount: u64, noun: &str) -> String {
    let end = if amount == 1 { "" } else { "s" };
    format!("{} {noun}{end}", number(amount))
}

/// Renders a length of time in whole seconds: from two minutes on in two units, and without the second where it is zero.
pub fn span(seconds: u64) -> String {
    let two = |first: u64, one: &str, second: u64, other: &str| match second {
        0 => format!("{first} {one}"),
        _ => format!("{first} {one} {second} {other}"),
    };
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => two(seconds / 60, "min", seconds % 60, "s"),
        7_200..172_800 => two(seconds / 3_600, "h", seconds / 60 % 60, "min"),
        _ => two(seconds / 86_400, "days", seconds / 3_600 % 24, "h"),
    }
}

/// Renders how long something took: tenths of a second up to a minute, then two units.
pub fn took(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..60 => format!("{:.1} s", ms as f64 / 1000.0),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// Renders bytes as hex digits, as digests are written.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_thousands_apart() {
        for (count, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(number(count), text);
        }
    }

    #[test]
    fn a_number_agrees_with_its_noun() {
        for (amount, text) in [(0, "0 tables"), (1, "1 table"), (2_000, "2,000 tables")] {
            assert_eq!(count(amount, "table"), text);
        }
    }

    #[test]
    fn spans_are_said_in_the_units_of_people() {
        for (seconds, text) in [
            (90, "90 s"),
            (600, "10 min"),
            (3_723, "62 min 3 s"),
            (93_600, "26 h"),
            (176_400, "2 days 1 h"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn lengths_of_time_have_two_units_at_most() {
        for (ms, text) in [
            (0, "0.0 s"),
            (4_250, "4.2 s"),
            (60_000, "1 min 0 s"),
            (3_725_000, "1 h 2 min"),
            (90_000_000, "25 h 0 min"),
        ] {
            assert_eq!(took(ms), text);
        }
    }
}
