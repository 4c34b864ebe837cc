//! Text from the command line becomes typed values here, or a sentence that says what to write instead.

mod steps;
mod times;

use std::{fmt, str::FromStr};

pub(crate) use self::{
    steps::Steps,
    times::{After, Moment, Patience, Span},
};

/// An amount of memory or storage, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ByteSize(pub(crate) u64);

/// CPUs, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cpus(pub(crate) u32);

/// `KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) key: String,
    pub(crate) value: String,
}

/// Text that is not a value of its kind: what it should look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unfit(String);

impl Unfit {
    /// Says what it should look like.
    pub(crate) fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unfit {}

impl FromStr for ByteSize {
    type Err = Unfit;

    /// As Docker and the SI write it: `k m g t` and `KiB MiB GiB TiB` are powers of 1024, `KB MB GB TB` powers of 1000.
    fn from_str(text: &str) -> Result<Self, Unfit> {
        let unfit = || Unfit("write a number and a unit, such as 512MB, 2GiB or 1.5g; a number alone is bytes".to_owned());
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" | "ki" => 1 << 10,
            "m" | "mib" | "mi" => 1 << 20,
            "g" | "gib" | "gi" => 1 << 30,
            "t" | "tib" | "ti" => 1 << 40,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return Err(unfit()),
        };
        if let Ok(whole) = number.parse::<u64>() {
            return whole
                .checked_mul(factor)
                .map(Self)
                .ok_or_else(|| Unfit("that is more than there is".to_owned()));
        }
        let fraction: f64 = number.parse().map_err(|_| unfit())?;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a size, rounded down to bytes"
        )]
        let bytes = (fraction * factor as f64) as u64;
        if bytes == u64::MAX {
            Err(Unfit("that is more than there is".to_owned()))
        } else {
            Ok(Self(bytes))
        }
    }
}

/// Reads `--memory`: a size that a program can start in.
pub(crate) fn memory(text: &str) -> Result<ByteSize, Unfit> {
    let size: ByteSize = text.parse()?;
    if size.0 < bus::spec::submission::MIN_MEMORY_BYTES {
        return Err(Unfit(
            "this is too little memory to start a program; give at least 4MiB, such as 512MB".to_owned(),
        ));
    }
    Ok(size)
}

impl FromStr for Cpus {
    type Err = Unfit;

    fn from_str(text: &str) -> Result<Self, Unfit> {
        let cpus: f64 = text
            .parse()
            .map_err(|_| Unfit("write a number of CPUs, such as 2 or 0.5".to_owned()))?;
        if !(0.001..=1_000_000.0).contains(&cpus) {
            return Err(Unfit("the minimum is 0.001 CPUs; write a number such as 2 or 0.5".to_owned()));
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked")]
        let milli = (cpus * 1000.0).round() as u32;
        Ok(Self(milli))
    }
}

impl FromStr for Pair {
    type Err = Unfit;

    fn from_str(text: &str) -> Result<Self, Unfit> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self {
                key: key.to_owned(),
                value: value.to_owned(),
            }),
            _ => Err(Unfit("write KEY=VALUE".to_owned())),
        }
    }
}

/// Reads `--env`: `KEY=VALUE`, or `KEY` alone for the value that it has here.
pub(crate) fn environment(text: &str) -> Result<Pair, Unfit> {
    if text.contains('=') {
        return text
            .parse()
            .map_err(|_| Unfit("write KEY=VALUE, or KEY alone to use its value in this shell".to_owned()));
    }
    match std::env::var(text) {
        Ok(value) if !text.is_empty() => Ok(Pair {
            key: text.to_owned(),
            value,
        }),
        _ => Err(Unfit(format!("`{text}` is not set here (or is not text); write {text}=VALUE"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_docker_and_the_si_write_them() {
        let cases = [
            ("0", 0),
            ("1024", 1024),
            ("512MB", 512_000_000),
            ("2GiB", 2 << 30),
            ("1.5g", 3 << 29),
            ("64m", 64 << 20),
            ("7 kb", 7_000),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "-1", "12XB", "MB", "1..5g", "nan", "99999999999999999999", "99999999TB", "1e3"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
        assert!(memory("1k").is_err());
    }

    #[test]
    fn cpus_are_thousandths_and_more_than_none() {
        assert_eq!("2".parse(), Ok(Cpus(2000)));
        assert_eq!("0.5".parse(), Ok(Cpus(500)));
        for text in ["0", "-1", "nan", "inf", "two", ""] {
            assert!(text.parse::<Cpus>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_pair_has_a_key_and_may_have_an_empty_value() {
        let pair = |key: &str, value: &str| {
            Ok(Pair {
                key: key.to_owned(),
                value: value.to_owned(),
            })
        };
        assert_eq!("a=b=c".parse(), pair("a", "b=c"));
        assert_eq!("a=".parse(), pair("a", ""));
        assert!("=b".parse::<Pair>().is_err());
        assert!("b".parse::<Pair>().is_err());
        assert!(environment("RGRID_SURELY_NOT_SET").is_err());
    }
}
