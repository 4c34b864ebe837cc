//! `1-1000:5`: numbers from one to another.

use std::str::FromStr;

/// Numbers from one to another, with a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Steps {
    from: u64,
    to: u64,
    step: u64,
}

impl Steps {
    /// The numbers, both ends among them.
    pub(crate) fn numbers(self) -> impl Iterator<Item = u64> {
        std::iter::successors(Some(self.from), move |number| number.checked_add(self.step)).take_while(move |number| *number <= self.to)
    }
}

impl FromStr for Steps {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not of the form FROM-TO or FROM-TO:STEP, for instance 1-1000 or 0-90:10");
        let (range, step) = text.split_once(':').unwrap_or((text, "1"));
        let (from, to) = range.split_once('-').ok_or_else(wrong)?;
        let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
        let steps = Self {
            from: number(from)?,
            to: number(to)?,
            step: number(step)?,
        };
        if steps.step == 0 || steps.from > steps.to {
            return Err(format!(
                "`{text}` contains no number: FROM must not be above TO, and STEP must not be 0"
            ));
        }
        Ok(steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_in_and_nonsense_is_refused() {
        let numbers = |text: &str| text.parse::<Steps>().map(|steps| steps.numbers().collect::<Vec<_>>());
        assert_eq!(numbers("1-3"), Ok(vec![1, 2, 3]));
        assert_eq!(numbers("0-10:5"), Ok(vec![0, 5, 10]));
        for text in ["3", "3-1", "1-2:0", "a-b", "1-", "-1-2"] {
            assert!(numbers(text).is_err(), "{text}");
        }
    }
}
