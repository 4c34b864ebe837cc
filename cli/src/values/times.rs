//! Times and spans of time, as they are written on the command line.

use std::{str::FromStr, time::Duration};

use chrono::{DateTime, Days, Local, NaiveDateTime, NaiveTime, TimeZone, Utc};

use super::Unfit;

/// A span of time, longer than nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span(pub(crate) Duration);

/// A span of time, perhaps none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Patience(pub(crate) Duration);

/// A time that is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(pub(crate) DateTime<Utc>);

/// A job to follow, as a user names it: `JOB`, `JOB:succeeded` or `JOB:ended`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct After {
    pub(crate) job: String,
    /// However it ends, and not only where it succeeds.
    pub(crate) however: bool,
}

impl FromStr for Span {
    type Err = Unfit;

    /// `90s`, `10m`, `1h30m`, `250ms`; a number alone is seconds, as for `timeout`.
    fn from_str(text: &str) -> Result<Self, Unfit> {
        let Patience(span) = text.parse()?;
        if span < Duration::from_millis(1) {
            return Err(Unfit("it must be longer than zero, such as 10m".to_owned()));
        }
        Ok(Self(span))
    }
}

impl Span {
    /// Whole milliseconds.
    pub(crate) fn millis(self) -> u64 {
        Patience(self.0).millis()
    }
}

impl Patience {
    /// Whole milliseconds.
    pub(crate) fn millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl FromStr for Patience {
    type Err = Unfit;

    fn from_str(text: &str) -> Result<Self, Unfit> {
        let unfit = || Unfit("write a time such as 90s, 10m or 1h30m; a number alone is seconds".to_owned());
        let plain = text.parse::<f64>().ok().map(Duration::try_from_secs_f64);
        match plain {
            Some(seconds) => seconds.map(Self).map_err(|_| unfit()),
            None => humantime::parse_duration(text).map(Self).map_err(|_| unfit()),
        }
    }
}

impl FromStr for Moment {
    type Err = Unfit;

    fn from_str(text: &str) -> Result<Self, Unfit> {
        moment(text, &Local::now()).map(Self)
    }
}

/// A time after `now`: with its zone (RFC 3339), by the clock of `now` with a date, or the next time that the clock shows it, as `at`
/// takes it.
fn moment<Z: TimeZone>(text: &str, now: &DateTime<Z>) -> Result<DateTime<Utc>, Unfit>
where
    Z::Offset: std::fmt::Display,
{
    let unfit = || {
        Unfit("write a time such as 22:00 (the next one), 2026-11-23 08:00, or 2026-11-23T08:00:00Z; for a duration use --after".to_owned())
    };
    let of_day = ["%H:%M", "%H:%M:%S"]
        .iter()
        .find_map(|form| NaiveTime::parse_from_str(text, form).ok());
    let time = match DateTime::parse_from_rfc3339(text) {
        Ok(time) => time.to_utc(),
        Err(_) => {
            let forms = ["%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"];
            let dated = forms.iter().find_map(|form| NaiveDateTime::parse_from_str(text, form).ok());
            let next = of_day.map(|time| {
                let past = u64::from(time <= now.time());
                (now.date_naive() + Days::new(past)).and_time(time)
            });
            let local = next.or(dated).ok_or_else(unfit)?;
            // An hour that a change of the clocks brings twice is meant the first time.
            let here = now.timezone().from_local_datetime(&local).earliest();
            here.ok_or_else(|| {
                Unfit(format!(
                    "the local time {local} does not exist: the clocks change then; write another time"
                ))
            })?
            .to_utc()
        }
    };
    if time > now.to_utc() {
        return Ok(time);
    }
    let clock = now.format("%Y-%m-%d %H:%M:%S");
    Err(Unfit(format!(
        "this time is in the past: it is {clock} now; write a future time, or leave the option out to start immediately"
    )))
}

impl FromStr for After {
    type Err = Unfit;

    fn from_str(text: &str) -> Result<Self, Unfit> {
        let (job, how) = text.split_once(':').unwrap_or((text, "succeeded"));
        let however = match how {
            "succeeded" => false,
            "ended" => true,
            _ => return Err(Unfit("write JOB, JOB:succeeded or JOB:ended".to_owned())),
        };
        if job.is_empty() {
            return Err(Unfit("name a job before the `:`, by its id or as `last`".to_owned()));
        }
        Ok(Self {
            job: job.to_owned(),
            however,
        })
    }
}

#[cfg(test)]
mod tests {
    use chrono::FixedOffset;

    use super::*;

    #[test]
    fn times_are_read_with_and_without_units() {
        assert_eq!("10m".parse(), Ok(Span(Duration::from_secs(600))));
        assert_eq!("1h30m".parse(), Ok(Span(Duration::from_secs(5400))));
        assert_eq!("2.5".parse(), Ok(Span(Duration::from_millis(2500))));
        for text in ["0", "-1", "soon", "", "10 parsecs", "inf"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_moment_is_the_next_of_its_hour_or_of_a_day_or_of_a_zone_and_still_to_come() {
        let zone = FixedOffset::east_opt(3600).expect("a zone");
        let now = zone.with_ymd_and_hms(2026, 11, 22, 21, 5, 0).single().expect("a time");
        let cases = [
            ("22:00", "2026-11-22T21:00:00Z"),
            ("21:05:01", "2026-11-22T20:05:01Z"),
            ("21:05", "2026-11-23T20:05:00Z"),
            ("00:00", "2026-11-22T23:00:00Z"),
            ("2026-11-23 08:00", "2026-11-23T07:00:00Z"),
            ("2026-11-23T08:00:30", "2026-11-23T07:00:30Z"),
            ("2026-11-23T08:00:00Z", "2026-11-23T08:00:00Z"),
            ("2026-11-22T15:30:00-06:00", "2026-11-22T21:30:00Z"),
        ];
        for (text, time) in cases {
            assert_eq!(moment(text, &now), Ok(time.parse().expect("a time")), "{text}");
        }
        for (text, words) in [
            ("2026-11-22 21:05", "in the past: it is 2026-11-22 21:05:00 now"),
            ("2026-11-22 08:00", "leave the option out to start immediately"),
            ("2026-11-22T20:04:59Z", "in the past"),
            ("tomorrow", "22:00"),
            ("25:00", "22:00"),
            ("10m", "--after"),
            ("", "22:00"),
        ] {
            let Err(Unfit(error)) = moment(text, &now) else { panic!("{text}") };
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn a_job_to_follow_succeeds_unless_any_end_will_do() {
        let after = |job: &str, however| {
            Ok(After {
                job: job.to_owned(),
                however,
            })
        };
        assert_eq!("last".parse(), after("last", false));
        assert_eq!("0190f3:succeeded".parse(), after("0190f3", false));
        assert_eq!("last:ended".parse(), after("last", true));
        for text in ["last:failed", ":ended", "last:", ""] {
            assert!(text.parse::<After>().is_err(), "{text}");
        }
    }
}
