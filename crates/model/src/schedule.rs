//! A schedule: a cron expression of five fields, read on the clock of a time zone.
//!
//! Promises that a time of day comes once a day also when clocks change. Knows neither the present nor a zone by
//! itself.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use croner::Cron;
use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// When something runs.
#[derive(Clone, Debug)]
pub struct Schedule {
    // One takes kilobytes, and hundreds of databases share few.
    cron: Arc<Cron>,
    text: Arc<str>,
}

/// Reads `minute hour day month weekday`, or a nickname such as `@daily`.
///
/// The error tells what is wrong, to stand behind a name for the text.
impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fields = text.split_whitespace().count();
        if fields != 5 && !text.trim_start().starts_with('@') {
            return Err(format!(
                "it has {fields} of the five fields minute, hour, day, month and weekday, as in `0 3 * * *`"
            ));
        }
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build();
        let cron = parser.parse(text).map_err(|error| why(&error))?;
        Ok(Self {
            cron: Arc::new(cron),
            text: text.trim().into(),
        })
    }
}

/// Says what the parser says, without its classes of errors and its full stop.
fn why(error: &CronError) -> String {
    match error {
        CronError::InvalidPattern(_) => {
            "it is neither five fields as in `0 3 * * *` nor a nickname such as `@daily`".to_owned()
        }
        CronError::ComponentError(why) | CronError::IllegalCharacters(why) => {
            format!("it is not a cron expression: {}", why.trim_end_matches('.'))
        }
        other => format!("it is not a cron expression: {other}"),
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Schedule {
    /// Returns its times after `from` up to and including `until`, oldest first, each once.
    pub fn between(
        &self,
        from: Timestamp,
        until: Timestamp,
        zone: &TimeZone,
    ) -> impl Iterator<Item = Timestamp> {
        let first = self.after(&from.to_zoned(zone.clone()));
        let times = std::iter::successors(first, |time| self.after(time));
        times
            .map(|time| time.timestamp())
            .take_while(move |time| *time <= until)
    }

    fn after(&self, time: &Zoned) -> Option<Zoned> {
        self.cron.find_next_occurrence(time, false).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::tz::TimeZoneDatabase;

    fn times(cron: &str, zone: &str, from: &str, until: &str) -> Vec<String> {
        let zone = TimeZoneDatabase::bundled().get(zone).unwrap();
        let schedule: Schedule = cron.parse().unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let times = schedule.between(at(from), at(until), &zone);
        times
            .map(|time| {
                time.to_zoned(zone.clone())
                    .strftime("%FT%H:%M%z")
                    .to_string()
            })
            .collect()
    }

    #[test]
    fn runs_on_the_clock_of_the_zone_once_a_day() {
        // Each change of the clock: what 02:30 becomes where it is missing and where it comes twice.
        for (zone, from, until, expected) in [
            (
                "Europe/Berlin",
                "2026-03-28T00:00:00Z",
                "2026-03-31T00:00:00Z",
                [
                    "2026-03-28T02:30+0100",
                    "2026-03-29T03:00+0200",
                    "2026-03-30T02:30+0200",
                ],
            ),
            (
                "Europe/Berlin",
                "2026-10-24T00:00:00Z",
                "2026-10-27T00:00:00Z",
                [
                    "2026-10-24T02:30+0200",
                    "2026-10-25T02:30+0200",
                    "2026-10-26T02:30+0100",
                ],
            ),
            (
                "America/New_York",
                "2026-03-07T00:00:00Z",
                "2026-03-10T00:00:00Z",
                [
                    "2026-03-07T02:30-0500",
                    "2026-03-08T03:00-0400",
                    "2026-03-09T02:30-0400",
                ],
            ),
            (
                "Australia/Sydney",
                "2026-04-03T13:00:00Z",
                "2026-04-06T13:00:00Z",
                [
                    "2026-04-04T02:30+1100",
                    "2026-04-05T02:30+1100",
                    "2026-04-06T02:30+1000",
                ],
            ),
            (
                "UTC",
                "2026-03-28T02:30:00Z",
                "2026-03-31T02:30:00Z",
                [
                    "2026-03-29T02:30+0000",
                    "2026-03-30T02:30+0000",
                    "2026-03-31T02:30+0000",
                ],
            ),
        ] {
            assert_eq!(
                times("30 2 * * *", zone, from, until),
                expected,
                "{zone} {from}"
            );
        }
    }

    #[test]
    fn intervals_run_in_both_halves_of_a_repeated_hour() {
        let (from, until) = ("2026-10-24T23:30:00Z", "2026-10-25T02:00:00Z");
        let hours = times("0 * * * *", "Europe/Berlin", from, until);
        assert_eq!(
            hours,
            [
                "2026-10-25T02:00+0200",
                "2026-10-25T02:00+0100",
                "2026-10-25T03:00+0100"
            ]
        );
    }

    #[test]
    fn reads_what_cron_reads() {
        let (from, until) = ("2027-12-31T00:00:00Z", "2028-12-31T23:59:00Z");
        for (cron, count, first) in [
            ("0 3 29 2 *", 1, "2028-02-29T03:00+0000"),
            ("0 3 * * sun", 53, "2028-01-02T03:00+0000"),
            ("0 3 1 jan-mar *", 3, "2028-01-01T03:00+0000"),
            ("*/30 0 1 1,7 *", 4, "2028-01-01T00:00+0000"),
            ("0 3 L * *", 13, "2027-12-31T03:00+0000"),
            ("@monthly", 12, "2028-01-01T00:00+0000"),
            ("  0  3 * * 1#1 ", 12, "2028-01-03T03:00+0000"),
        ] {
            let times = times(cron, "UTC", from, until);
            assert_eq!((times.len(), times[0].as_str()), (count, first), "{cron}");
        }
        assert_eq!(times("0 3 30 2 *", "UTC", from, until), [""; 0], "never");
    }

    #[test]
    fn says_what_is_wrong() {
        for (cron, words) in [
            ("", "it has 0 of the five fields"),
            ("0 3 * *", "it has 4 of the five fields"),
            ("0 0 3 * * *", "it has 6 of the five fields"),
            ("@sometimes", "nor a nickname such as `@daily`"),
            (
                "0 25 * * *",
                "it is not a cron expression: Number out of bounds",
            ),
            ("0 3 * * maybe", "it is not a cron expression: "),
        ] {
            let error = cron.parse::<Schedule>().unwrap_err();
            assert!(error.contains(words) && !error.ends_with('.'), "{error}");
        }
        let schedule: Schedule = " 0 3 * * * ".parse().unwrap();
        assert_eq!(schedule.to_string(), "0 3 * * *");
    }
}
