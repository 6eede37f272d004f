//! Values of overrides as people write them: lengths of time, names of tables.

use std::ops::RangeInclusive;
use std::time::Duration;

use pgkeep_model::config::{parse_duration, parse_duration_or_off};
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::required::RequiredTable;

/// A flag is given for one run, so no length is a slip of the pen.
const ANY_LENGTH: RangeInclusive<Duration> = Duration::ZERO..=Duration::MAX;

/// Reads a length of time as the configuration takes it; `0` is none at all.
pub(super) fn duration(flag: &str, text: Option<&str>) -> Result<Option<Duration>> {
    let read = |text| match text {
        "0" => Ok(Duration::ZERO),
        _ => parse_duration(text, &ANY_LENGTH),
    };
    text.map(|text| read(text).map_err(|_| bad_duration(flag, text)))
        .transpose()
}

/// The same, where `off` means none at all too.
pub(super) fn duration_or_off(flag: &str, text: Option<&str>) -> Result<Option<Duration>> {
    let read = |text| parse_duration_or_off(text, &ANY_LENGTH).map(Option::unwrap_or_default);
    text.map(|text| read(text).map_err(|_| bad_duration(flag, text)))
        .transpose()
}

fn bad_duration(flag: &str, text: &str) -> Failure {
    let message = format!(
        "cannot read `{flag} {text}`: it is not a length of time such as `90s`, `10m` or `1h 30m`"
    );
    Failure::new(Kind::Usage, "bad_duration", message)
}

/// Reads `--require` values: a name, with `=N` behind it for a least number of rows.
pub fn required_tables(texts: &[String]) -> Result<Vec<RequiredTable>> {
    let mut all = Vec::new();
    for text in texts {
        RequiredTable::add(&mut all, [required_table(text)?]);
    }
    Ok(all)
}

fn required_table(text: &str) -> Result<RequiredTable> {
    let (name, min_rows) = match text.rsplit_once('=') {
        Some((name, rows)) if !name.is_empty() && rows.parse::<u64>().is_ok() => {
            (name, rows.parse().ok())
        }
        _ => (text, None),
    };
    let table = name.parse().map_err(|error| {
        Failure::new(
            Kind::Usage,
            "bad_table_name",
            format!("cannot read `--require {text}`: {error}"),
        )
    })?;
    Ok(RequiredTable { table, min_rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations() {
        let read = |text| duration("--x", Some(text)).ok().flatten();
        assert_eq!(read("90s"), Some(Duration::from_secs(90)));
        assert_eq!(read("1h 30m"), Some(Duration::from_secs(5400)));
        // Days too, as in the configuration.
        assert_eq!(read("2d"), Some(Duration::from_secs(2 * 86_400)));
        assert_eq!(read("off"), None);
        assert_eq!(read("0"), Some(Duration::ZERO));
        assert_eq!(read("-5s"), None);
        assert_eq!(read("soon"), None);
        let or_off = |text| duration_or_off("--x", Some(text)).ok().flatten();
        for off in ["off", "0"] {
            assert_eq!(or_off(off), Some(Duration::ZERO));
        }
        assert_eq!(or_off("1d"), Some(Duration::from_secs(86_400)));
        assert_eq!(or_off("soon"), None);
    }
}
