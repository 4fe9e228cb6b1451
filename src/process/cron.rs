//! Cron expressions: `minute hour day-of-month month day-of-week`, in UTC.
//!
//! Each field is `*`, a number, a range `a-b`, a list `a,b`, or any of them with a step `/n`. Sunday is
//! 0 and 7. As with cron, a day fits when either of the two day fields fits, if both are given. Pure.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// Days that are looked at for the next time: more than four years, for a 29th of February.
const DAYS_MAX: usize = 366 * 8 + 2;

/// When something happens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Schedule {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether the day of the month is given, and the day of the week.
    given: (bool, bool),
}

impl Schedule {
    /// Reads an expression.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err("a cron expression has five fields".into());
        };
        let mut weekdays = field(weekday, "day of week", 0, 7)?;
        if weekdays & 1 << 7 != 0 {
            weekdays |= 1;
        }
        Ok(Self {
            minutes: field(minute, "minute", 0, 59)?,
            hours: field(hour, "hour", 0, 23)?,
            days: field(day, "day of month", 1, 31)?,
            months: field(month, "month", 1, 12)?,
            weekdays,
            given: (!day.starts_with('*'), !weekday.starts_with('*')),
        })
    }

    fn fits_day(&self, at: DateTime) -> bool {
        let has = |set: u64, number: i8| set & 1 << number != 0;
        let day = has(self.days, at.day());
        let weekday = has(self.weekdays, at.weekday().to_sunday_zero_offset());
        let day = match self.given {
            (true, true) => day || weekday,
            _ => day && weekday,
        };
        day && has(self.months, at.month())
    }

    /// The first time after another; `None` where there is none for years.
    pub(super) fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let start = after.to_zoned(TimeZone::UTC).datetime();
        let has = |set: u64, number: i8| set & 1 << number != 0;
        let mut day = start.date();
        for _ in 0..DAYS_MAX {
            if self.fits_day(day.at(0, 0, 0, 0)) {
                for hour in (0..24).filter(|hour| has(self.hours, *hour)) {
                    for minute in (0..60).filter(|minute| has(self.minutes, *minute)) {
                        let at = day.at(hour, minute, 0, 0);
                        let at = at.to_zoned(TimeZone::UTC).ok()?.timestamp();
                        if at > after {
                            return Some(at);
                        }
                    }
                }
            }
            day = day.checked_add(1.day()).ok()?;
        }
        None
    }
}

/// The numbers of a field as bits.
fn field(text: &str, name: &str, min: u32, max: u32) -> Result<u64, String> {
    let wrong = || format!("{name} must be of {min} to {max}, not '{text}'");
    let number = |text: &str| {
        let number = text.parse::<u32>().ok().filter(|it| (min..=max).contains(it));
        number.ok_or_else(wrong)
    };
    let mut set = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, step.parse::<usize>().ok().filter(|it| *it > 0)),
            None => (part, Some(1)),
        };
        let (from, to) = match range.split_once('-') {
            Some((from, to)) => (number(from)?, number(to)?),
            None if range == "*" => (min, max),
            // As `a-max/n`.
            None if part.contains('/') => (number(range)?, max),
            None => (number(range)?, number(range)?),
        };
        if from > to {
            return Err(wrong());
        }
        (from..=to).step_by(step.ok_or_else(wrong)?).for_each(|it| set |= 1 << it);
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(expression: &str, after: &str) -> String {
        let schedule = Schedule::parse(expression).unwrap();
        schedule.next_after(after.parse().unwrap()).unwrap().to_string()
    }

    #[test]
    fn the_next_time_is_found() {
        for (expression, after, expected) in [
            ("* * * * *", "2026-01-01T00:00:30Z", "2026-01-01T00:01:00Z"),
            ("*/15 * * * *", "2026-01-01T00:15:00Z", "2026-01-01T00:30:00Z"),
            ("0 3 * * *", "2026-01-01T03:00:00Z", "2026-01-02T03:00:00Z"),
            ("30 8-10/2 * * 1-5", "2026-01-02T10:30:00Z", "2026-01-05T08:30:00Z"),
            ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 0 13 * 5", "2026-02-01T00:00:00Z", "2026-02-06T00:00:00Z"),
            ("0 0 * * 7", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
            ("59 23 31 12 *", "2026-12-31T23:59:00Z", "2027-12-31T23:59:00Z"),
        ] {
            assert_eq!(next(expression, after), expected, "{expression} after {after}");
        }
        let never = Schedule::parse("0 0 31 2 *").unwrap();
        assert_eq!(never.next_after("2026-01-01T00:00:00Z".parse().unwrap()), None);
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for text in [
            "",
            "* * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "a * * * *",
            "*/0 * * * *",
            "5-1 * * * *",
        ] {
            assert!(Schedule::parse(text).is_err(), "{text}");
        }
    }
}
