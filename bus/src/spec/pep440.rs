//! Version specifiers of Python packages (PEP 440), such as `>=3.11,<4`.

use std::{fmt, str::FromStr};

/// A set of allowed versions: a version must satisfy all clauses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Specifiers {
    text: String,
    clauses: Vec<Clause>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Clause {
    operator: Operator,
    parts: Vec<u64>,
    /// Whether the version ends with `.*`.
    is_prefix: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Compatible,
    Equal,
    NotEqual,
    AtMost,
    AtLeast,
    Below,
    Above,
}

/// How operators are written, longer ones first.
const OPERATORS: [(&str, Operator); 8] = [
    ("===", Operator::Equal),
    ("~=", Operator::Compatible),
    ("==", Operator::Equal),
    ("!=", Operator::NotEqual),
    ("<=", Operator::AtMost),
    (">=", Operator::AtLeast),
    ("<", Operator::Below),
    (">", Operator::Above),
];

impl Specifiers {
    /// Whether a version (`3.11.7`) is allowed. A suffix after the numbers is ignored.
    #[must_use]
    pub fn is_met_by(&self, version: &str) -> bool {
        let own: Vec<u64> = version.split('.').map_while(|part| part.parse().ok()).collect();
        self.clauses.iter().all(|clause| clause.is_met_by(&own))
    }
}

impl Clause {
    fn is_met_by(&self, own: &[u64]) -> bool {
        let length = own.len().max(self.parts.len());
        let padded = |parts: &[u64]| {
            let mut parts = parts.to_vec();
            parts.resize(length, 0);
            parts
        };
        let (own, wanted) = (padded(own), padded(&self.parts));
        let begins = |count: usize| own[..count] == wanted[..count];
        let same = if self.is_prefix { begins(self.parts.len()) } else { own == wanted };
        match self.operator {
            Operator::Equal => same,
            Operator::NotEqual => !same,
            Operator::Compatible => own >= wanted && begins(self.parts.len().saturating_sub(1)),
            Operator::AtMost => own <= wanted,
            Operator::AtLeast => own >= wanted,
            Operator::Below => own < wanted,
            Operator::Above => own > wanted,
        }
    }
}

impl fmt::Display for Specifiers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Specifiers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let clauses = text.split(',').map(str::trim).filter(|clause| !clause.is_empty());
        Ok(Self {
            text: text.to_owned(),
            clauses: clauses.map(clause).collect::<Result<_, _>>()?,
        })
    }
}

fn clause(text: &str) -> Result<Clause, String> {
    let wrong = || format!("cannot read `{text}`; write it like `>=3.11,<4`");
    let found = OPERATORS
        .iter()
        .find_map(|(sign, operator)| Some((*operator, text.strip_prefix(sign)?)));
    let (operator, version) = found.ok_or_else(wrong)?;
    let version = version.trim().trim_start_matches('v');
    let (version, is_prefix) = version.strip_suffix(".*").map_or((version, false), |version| (version, true));
    let end = version.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(version.len());
    let (numbers, rest) = version.split_at(end);
    // A pre-release suffix is ignored: `>=3.13.0rc1` is read as `>=3.13.0`. That is only correct for `>=` and `<`.
    let is_pre_release = ["a", "b", "rc", ".dev", "dev"].iter().any(|sign| {
        rest.strip_prefix(sign)
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    });
    let allows_pre_release = matches!(operator, Operator::AtLeast | Operator::Below);
    if !rest.is_empty() && (!is_pre_release || !allows_pre_release) {
        return Err(wrong());
    }
    let parts = numbers.trim_end_matches('.').split('.').map(str::parse);
    let parts = parts.collect::<Result<Vec<u64>, _>>().map_err(|_| wrong())?;
    Ok(Clause {
        operator,
        parts,
        is_prefix,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_according_to_pep_440() {
        for (specifiers, version, expected) in [
            (">=3.11", "3.11.7", true),
            (">=3.12", "3.11.7", false),
            (">=3.8,<4", "3.11.7", true),
            ("~=3.8", "3.11.7", true),
            ("~=3.8.1", "3.11.7", false),
            ("==3.11.*", "3.11.7", true),
            ("==3.11", "3.11.7", false),
            ("!=3.11.*", "3.11.7", false),
            ("!=3.11.6", "3.11.7", true),
            ("<3.11", "3.11.7", false),
            (">3.11", "3.11.7", true),
            ("<= 3.11.7 , > 2", "3.11.7", true),
            ("<3.14", "3.9.2", true),
            (">=3.13.0rc1", "3.13.0", true),
            ("", "3.11.7", true),
        ] {
            let read: Specifiers = specifiers.parse().expect(specifiers);
            assert_eq!(read.is_met_by(version), expected, "{specifiers} {version}");
        }
        for wrong in ["3.11", "three", ">=", ">=3.x", "^3.8", ">=3 || <2", ">3.13rc1"] {
            assert!(wrong.parse::<Specifiers>().is_err(), "{wrong}");
        }
    }
}
