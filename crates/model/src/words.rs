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
