//! Output patterns: which of the files that a job leaves in its work directory are its outputs.

use std::path::Path;

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

/// Why a pattern can never match an output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The pattern is empty.
    #[error("an output pattern is empty; write a pattern like 'out/*.csv', or leave it out to keep every file")]
    Empty,
    /// The pattern is an absolute path.
    #[error(
        "the output pattern `{0}` is an absolute path, but outputs are relative to the job's directory; write a relative pattern like 'out/*.csv'"
    )]
    Absolute(String),
    /// The pattern contains `..`.
    #[error("the output pattern `{0}` contains `..`, but outputs are below the job's directory; write a pattern like 'out/*.csv'")]
    Climbs(String),
    /// The pattern begins with `!`.
    #[error(
        "the output pattern `{0}` begins with `!`, but a pattern cannot exclude files; name the files to keep (for a name that begins with `!`, write '\\!name')"
    )]
    Negated(String),
    /// The pattern is not a valid glob.
    #[error("the output pattern `{pattern}` is not a valid glob: {why}; write a pattern like 'out/*.csv'")]
    NotAGlob {
        /// The pattern.
        pattern: String,
        /// The error in the pattern.
        why: String,
    },
}

/// The globs of one pattern. A pattern that matches a directory includes everything in it, except if the last part is `*`: `out/*`
/// matches the files in `out`, and `out/*/` the files in its subdirectories. A pattern without a `/` in the middle matches names at any
/// depth, as in `.gitignore`.
///
/// # Errors
/// If the pattern can never match an output.
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
            why: "it contains a NUL character".to_owned(),
        });
    }
    let path = match parts.as_slice() {
        // The work directory itself: everything in it.
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

/// The output patterns of a job.
#[derive(Debug)]
pub struct Patterns<'a> {
    patterns: &'a [String],
    set: GlobSet,
    /// The index of the pattern that each glob of the set belongs to.
    of: Vec<usize>,
    matched: Vec<bool>,
}

impl<'a> Patterns<'a> {
    /// Compiles the patterns of a job. A pattern that can never match an output matches nothing; an earlier version accepted such
    /// patterns.
    #[must_use]
    pub fn new(patterns: &'a [String]) -> Self {
        let (mut set, mut of) = (GlobSetBuilder::new(), Vec::new());
        for (number, pattern) in patterns.iter().enumerate() {
            for glob in globs(pattern).unwrap_or_default() {
                set.add(glob);
                of.push(number);
            }
        }
        // Each glob was built alone, so the set can only fail because it is too large.
        let set = set.build().unwrap_or_default();
        Self {
            patterns,
            set,
            of,
            matched: vec![false; patterns.len()],
        }
    }

    /// Whether there are no patterns, so that nothing is an output.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether a pattern matches this path.
    #[must_use]
    pub fn name(&self, path: &Path) -> bool {
        self.set.is_match(path)
    }

    /// Whether a pattern matches this path, at which there is or was a file. Remembers which patterns matched.
    pub fn note(&mut self, path: &Path) -> bool {
        let matches = self.set.matches(path);
        for glob in &matches {
            if let Some(matched) = self.of.get(*glob).and_then(|number| self.matched.get_mut(*number)) {
                *matched = true;
            }
        }
        !matches.is_empty()
    }

    /// The patterns that have matched nothing so far.
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
    fn a_pattern_matches_files_and_the_contents_of_directories() {
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
    fn a_pattern_that_can_never_match_is_refused() {
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
    fn a_pattern_that_matched_nothing_is_reported() {
        let given = ["*.csv", "out", "../old", "none"].map(str::to_owned);
        let mut patterns = Patterns::new(&given);
        assert!(patterns.note(Path::new("a.csv")) && patterns.note(Path::new("out/x")) && !patterns.note(Path::new("y")));
        assert_eq!(patterns.unmatched(), ["../old", "none"]);
        assert!(Patterns::new(&[]).is_empty());
    }
}
