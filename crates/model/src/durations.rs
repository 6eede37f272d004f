//! Lengths of time as people write them: `90s`, `10m`, `26h`, `30d`.

use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

/// Reads a length of time such as `90s`, `26h` or `2d` within limits; a day has 24 hours.
///
/// The error tells what is wrong, to stand behind a name for the text.
pub fn parse_duration(text: &str, limits: &RangeInclusive<Duration>) -> Result<Duration, String> {
    let wrong = || "must be a length of time such as `90s`, `10m`, `26h` or `30d`".to_owned();
    let span: Span = text.parse().map_err(|_| wrong())?;
    let signed = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| wrong())?;
    // A negative one is below any limit.
    let duration = Duration::try_from(signed).ok();
    duration
        .filter(|duration| limits.contains(duration))
        .ok_or_else(|| {
            format!(
                "must be between {} and {}",
                show_duration(*limits.start()),
                show_duration(*limits.end())
            )
        })
}

/// Writes a length of time as it is read.
pub fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds, duration.subsec_nanos()) {
        (1.., 0) if seconds.is_multiple_of(86_400) => format!("{}d", seconds / 86_400),
        (1.., 0) if seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        (1.., 0) if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        (_, 0) => format!("{seconds}s"),
        (_, nanos) => format!("{seconds}s {nanos}ns"),
    }
}
