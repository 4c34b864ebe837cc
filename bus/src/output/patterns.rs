//! Which of the files that a job leaves are its outputs: patterns, from its work directory.

use std::path::Path;

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

/// Why a pattern can never name an output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It says nothing.
    #[error("an output pattern is empty; write it as in 'out/*.csv', or leave it out to get every file back")]
    Empty,
    /// It is an absolute path.
    #[error(
        "the output pattern `{0}` is an absolute path, and outputs are named from the job's own directory; write a relative one, as in 'out/*.csv'"
    )]
    Absolute(String),
    /// It climbs out of the job's directory.
    #[error(
        "the output pattern `{0}` climbs with `..`, and only files below the job's own directory are outputs; write it without, as in 'out/*.csv'"
    )]
    Climbs(String),
    /// It begins with `!`.
    #[error(
        "the output pattern `{0}` begins with `!`, and a pattern excludes nothing; name what is to come back (a name that begins with `!` is written as '\\!name')"
    )]
    Negated(String),
    /// It is not a glob.
    #[error("the output pattern `{pattern}` is not a glob: {why}; write it as in 'out/*.csv'")]
    NotAGlob {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
}

/// The globs of one pattern. A pattern that names a directory means all that is in it, but for a last part `*`: `out/*` names the files
/// of `out`, and `out/*/` those of its directories. A pattern without a `/` inside names files and directories anywhere, as in .gitignore.
///
/// # Errors
/// If it can never name an output.
pub fn globs(pattern: &str) -> Result<Vec<Glob>, Error> {
    let shown = || pattern.escape_debug().to_string();
    if pattern.is_empty() {
        return Err(Error::Empty);
    }
    if pattern.starts_with('/') {
        return Err(Error::Absolute(shown()));
    }
    if pattern.starts_with('!') {
        return Err(Error::Negated(shown()));
    }
    let parts: Vec<&str> = pattern.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return Err(Error::Climbs(shown()));
    }
    let build = |text: &str| {
        let built = GlobBuilder::new(text).literal_separator(true).build();
        built.map_err(|error| Error::NotAGlob {
            pattern: shown(),
            why: error.kind().to_string(),
        })
    };
    if pattern.contains('\0') {
        return Err(Error::NotAGlob {
            pattern: shown(),
            why: "it holds a NUL character".to_owned(),
        });
    }
    let path = match parts.as_slice() {
        // The directory itself: everything.
        [] => return Ok(vec![build("**")?]),
        [name] => format!("**/{name}"),
        several => several.join("/"),
    };
    let one_level = parts.last().is_some_and(|last| matches!(*last, "*" | "**")) && !pattern.ends_with('/');
    if one_level {
        return Ok(vec![build(&path)?]);
    }
    Ok(vec![build(&path)?, build(&format!("{path}/**"))?])
}

/// The patterns of a job, to be matched against the paths of what it left.
#[derive(Debug)]
pub struct Patterns<'a> {
    patterns: &'a [String],
    set: GlobSet,
    /// The pattern that each glob of the set belongs to.
    of: Vec<usize>,
    matched: Vec<bool>,
}

impl<'a> Patterns<'a> {
    /// Reads the patterns of a job. One that can never name an output, which an earlier version accepted, names none.
    #[must_use]
    pub fn new(patterns: &'a [String]) -> Self {
        let (mut set, mut of) = (GlobSetBuilder::new(), Vec::new());
        for (number, pattern) in patterns.iter().enumerate() {
            for glob in globs(pattern).unwrap_or_default() {
                set.add(glob);
                of.push(number);
            }
        }
        // Each glob was built by itself: together, they can only be too large.
        let set = set.build().unwrap_or_default();
        Self {
            patterns,
            set,
            of,
            matched: vec![false; patterns.len()],
        }
    }

    /// Whether there are none: nothing is an output.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether one of them names this path.
    #[must_use]
    pub fn name(&self, path: &Path) -> bool {
        self.set.is_match(path)
    }

    /// Whether one of them names this path, where a file is or was; remembers which did.
    pub fn note(&mut self, path: &Path) -> bool {
        let matches = self.set.matches(path);
        for glob in &matches {
            if let Some(matched) = self.of.get(*glob).and_then(|number| self.matched.get_mut(*number)) {
                *matched = true;
            }
        }
        !matches.is_empty()
    }

    /// The patterns that named nothing so far.
    #[must_use]
    pub fn unmatched(&self) -> Vec<String> {
        let unmatched = self.patterns.iter().zip(&self.matched).filter(|(_, matched)| !**matched);
        unmatched.map(|(pattern, _)| pattern.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_names_files_and_the_contents_of_directories() {
        let cases: [(&str, &[&str], &[&str]); 14] = [
            ("out", &["out", "out/a", "out/b/c", "deep/out/a"], &["outer", "outer/a"]),
            ("out/", &["out/a", "out/b/c"], &["outer/a"]),
            ("./out", &["out/a"], &["a"]),
            ("out/b", &["out/b", "out/b/c"], &["out/a", "x/out/b"]),
            ("out/**", &["out/a", "out/b/c"], &["a"]),
            ("*.csv", &["a.csv", "b/a.csv", "d.csv/in"], &["a.txt"]),
            ("out/*", &["out/a"], &["out/b/c"]),
            ("out/*/", &["out/b/c"], &["a"]),
            ("run_*", &["run_1/a", "x/run_2"], &["run"]),
            ("out/*.csv", &["out/a.csv"], &["out/b/a.csv", "a.csv"]),
            ("out//x/./y", &["out/x/y", "out/x/y/z"], &["out/x"]),
            (".", &["a", "b/c"], &[]),
            ("./", &["a", "b/c"], &[]),
            ("\\!x", &["!x"], &["x"]),
        ];
        for (pattern, named, others) in cases {
            let pattern = [pattern.to_owned()];
            let patterns = Patterns::new(&pattern);
            for path in named {
                assert!(patterns.name(Path::new(path)), "{pattern:?} names {path}");
            }
            for path in others {
                assert!(!patterns.name(Path::new(path)), "{pattern:?} does not name {path}");
            }
        }
    }

    #[test]
    fn what_can_never_name_an_output_is_refused() {
        let error = |pattern: &str| globs(pattern).expect_err(pattern);
        assert_eq!(error(""), Error::Empty);
        for pattern in ["/out/*.csv", "/", "//out"] {
            assert_eq!(error(pattern), Error::Absolute(pattern.to_owned()));
        }
        for pattern in ["../x", "..", "out/../../x", "a/..", "./../x"] {
            assert_eq!(error(pattern), Error::Climbs(pattern.to_owned()));
        }
        assert_eq!(error("!*.csv"), Error::Negated("!*.csv".to_owned()));
        for pattern in ["out/[", "a\0"] {
            assert!(matches!(error(pattern), Error::NotAGlob { .. }), "{pattern:?}");
        }
        assert!(globs("..a/b..").is_ok());
    }

    #[test]
    fn a_pattern_that_named_nothing_is_known() {
        let given = ["*.csv", "out", "../old", "none"].map(str::to_owned);
        let mut patterns = Patterns::new(&given);
        assert!(patterns.note(Path::new("a.csv")) && patterns.note(Path::new("out/x")) && !patterns.note(Path::new("y")));
        assert_eq!(patterns.unmatched(), ["../old", "none"]);
        assert!(Patterns::new(&[]).is_empty());
    }
}
