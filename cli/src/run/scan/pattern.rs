//! Patterns for names: what matches one on the disk, looked up part by part, and bounded.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    rc::Rc,
};

use globset::{GlobBuilder, GlobMatcher};

use super::{
    skipped::is_skipped,
    value::{Base, Part, Value},
};

/// The most entries that are looked at, and the most names that one pattern is compared with.
const MOST: usize = 100_000;
/// How deeply `**` looks.
const DEPTH: usize = 16;

/// A value as a pattern, if it is one: what is not known matches anything, and so do fields of a template (`{}`, `%s`).
pub(crate) fn of(value: &Value) -> Option<String> {
    let mut pattern = String::new();
    let mut known = String::new();
    let mut is_pattern = false;
    for (at, part) in value.parts.iter().enumerate() {
        match part {
            Part::Any => {
                // An unknown directory at the beginning is wherever the program looks.
                let leads = at == 0 && matches!(value.parts.get(1), Some(Part::Text(text)) if text.starts_with('/'));
                if !leads {
                    // What is not known may lead deeper, below a directory that is.
                    let is_below = pattern.ends_with('/') && pattern.len() > 1 && pattern != "./";
                    pattern.push_str(if is_below { "**/*" } else { "*" });
                    is_pattern = true;
                }
            }
            Part::Text(text) => {
                // Behind a directory that is known, or one that is not.
                let is_below = pattern.is_empty() && (at == 1 || value.base != Base::Free);
                let text = if is_below { text.trim_start_matches('/') } else { text };
                let (softened, has_fields) = soften(text);
                is_pattern |= has_fields || text.contains(['*', '?', '[']);
                known.push_str(&text.replace(['*', '?', '{', '}', '%', '[', ']'], ""));
                pattern.push_str(&softened);
            }
        }
    }
    let pattern = collapse(&pattern);
    (is_pattern && says_enough(&pattern, &known)).then_some(pattern)
}

/// A template's fields become gaps: `{}`, `{name}`, `{:02d}`, `%s`, `%02d`, `%(name)s`. `{a,b}` is a choice of names.
fn soften(text: &str) -> (String, bool) {
    let chars: Vec<char> = text.chars().collect();
    let (mut made, mut has_fields) = (String::new(), false);
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        let field = match rest[0] {
            '{' => rest.iter().position(|c| *c == '}').filter(|end| !rest[..*end].contains(&',')),
            '%' => percent_field(rest),
            // Python's `string.Template`.
            '$' => {
                let length = rest[1..].iter().take_while(|c| **c == '_' || c.is_alphanumeric()).count();
                (length > 0).then_some(length)
            }
            _ => None,
        };
        match field {
            Some(end) => {
                made.push('*');
                has_fields = true;
                at += end + 1;
            }
            None => {
                has_fields |= rest[0] == '{';
                made.push(rest[0]);
                at += 1;
            }
        }
    }
    (made, has_fields)
}

/// The last character of a field such as `%02d` or `%(name)s`.
fn percent_field(rest: &[char]) -> Option<usize> {
    let mut at = 1;
    if rest.get(at) == Some(&'(') {
        at += rest.iter().skip(at).position(|c| *c == ')')? + 1;
    }
    while rest.get(at).is_some_and(|c| c.is_ascii_digit() || matches!(c, '-' | '.' | '+')) {
        at += 1;
    }
    matches!(rest.get(at)?, 's' | 'd' | 'i' | 'f' | 'g' | 'x' | 'r' | 'Y' | 'm' | 'j' | 'H' | 'M').then_some(at)
}

fn collapse(pattern: &str) -> String {
    let mut made = pattern.to_owned();
    while made.contains("***") {
        made = made.replace("***", "**");
    }
    // `*` twice within a name is one; `**` alone is any depth.
    let parts = made
        .split('/')
        .map(|part| if part == "**" { part.to_owned() } else { part.replace("**", "*") });
    parts.collect::<Vec<_>>().join("/")
}

/// Whether a pattern names a directory or an extension; `*`, `*_*` and the like would name everything.
fn says_enough(pattern: &str, known: &str) -> bool {
    let last = pattern.rsplit('/').next().unwrap_or_default();
    let has_directory = pattern
        .split_once('/')
        .is_some_and(|(first, _)| !first.is_empty() && !matches!(first, "*" | "**" | "." | ".."));
    let extension = last.rsplit_once('.').map(|(_, extension)| extension);
    let has_extension =
        extension.is_some_and(|extension| !extension.is_empty() && extension.len() <= 10 && extension.chars().any(char::is_alphanumeric));
    let letters = known.chars().filter(|c| c.is_alphanumeric()).count();
    !pattern.contains(char::is_control) && letters > 0 && (has_directory || has_extension || letters >= 3 && !pattern.contains(' '))
}

/// What stands in directories that were looked at, and how much that was: one bound serves all patterns of a scan.
#[derive(Debug, Default)]
pub(crate) struct Listings {
    entries: HashMap<PathBuf, Rc<Vec<PathBuf>>>,
    looked: usize,
}

impl Listings {
    fn of(&mut self, dir: &Path) -> Rc<Vec<PathBuf>> {
        if let Some(known) = self.entries.get(dir) {
            return Rc::clone(known);
        }
        let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
        let found: Rc<Vec<PathBuf>> = Rc::new(entries.take(MOST.saturating_sub(self.looked)).collect());
        self.looked += found.len() + 1;
        self.entries.insert(dir.to_owned(), Rc::clone(&found));
        found
    }
}

/// The files that match a pattern from a directory, by path; and the directories. Nothing above `top` is looked at.
pub(crate) fn matches(listings: &mut Listings, base: &Path, pattern: &str, top: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let mut walk = Walk {
        listings,
        top,
        files: Vec::new(),
        dirs: Vec::new(),
        steps: 0,
    };
    let parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    walk.below(base, &parts, 0);
    walk.files.sort();
    walk.files.dedup();
    walk.dirs.sort();
    walk.dirs.dedup();
    (walk.files, walk.dirs)
}

struct Walk<'a> {
    listings: &'a mut Listings,
    top: &'a Path,
    files: Vec<PathBuf>,
    dirs: Vec<PathBuf>,
    /// How many names were compared.
    steps: usize,
}

impl Walk<'_> {
    fn below(&mut self, dir: &Path, parts: &[&str], depth: usize) {
        let Some((part, rest)) = parts.split_first() else { return };
        if depth > DEPTH || self.steps > MOST {
            return;
        }
        if *part == ".." {
            if let Some(parent) = dir.parent().filter(|parent| parent.starts_with(self.top)) {
                self.below(parent, rest, depth + 1);
            }
            return;
        }
        if *part == "**" {
            self.below(dir, if rest.is_empty() { &["*"] } else { rest }, depth);
            for path in self.listings.of(dir).iter() {
                if !path.is_symlink() && path.is_dir() && !is_skipped(path, true) {
                    self.below(path, parts, depth + 1);
                }
            }
            return;
        }
        if !part.contains(['*', '?', '[', '{']) {
            return self.take(&dir.join(part), rest, depth);
        }
        let Some(matcher) = matcher(part) else { return };
        for path in self.listings.of(dir).iter() {
            self.steps += 1;
            let name = path.file_name().unwrap_or_default();
            let is_hidden = name.as_encoded_bytes().starts_with(b".") && !part.starts_with('.');
            if !is_hidden && matcher.is_match(name) && !is_skipped(path, path.is_dir()) {
                self.take(path, rest, depth);
            }
        }
    }

    fn take(&mut self, path: &Path, rest: &[&str], depth: usize) {
        if !rest.is_empty() {
            if path.is_dir() {
                self.below(path, rest, depth + 1);
            }
        } else if path.is_dir() {
            self.dirs.push(path.to_owned());
        } else if path.is_file() {
            self.files.push(path.to_owned());
        }
    }
}

fn matcher(part: &str) -> Option<GlobMatcher> {
    let glob = GlobBuilder::new(part).literal_separator(true).backslash_escape(true).build();
    glob.ok().map(|glob| glob.compile_matcher())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_matches_anything_if_the_rest_says_enough() {
        let value = |parts: &[&str]| {
            let parts = parts
                .iter()
                .map(|part| if *part == "*" { Part::Any } else { Part::Text((*part).to_owned()) });
            Value::of(Base::Free, parts.collect())
        };
        for (parts, expected) in [
            (&["data/", "*", ".csv"][..], Some("data/**/*.csv")),
            (&["*", "/x", "*", ".csv"], Some("x*.csv")),
            (&["data/{}.csv"], Some("data/*.csv")),
            (&["data/%02d-%s.csv"], Some("data/*-*.csv")),
            (&["in/{a,b}.txt"], Some("in/{a,b}.txt")),
            (&["**/*.py"], Some("**/*.py")),
            (&["*", "_", "*"], None),
            (&["{}: {}"], None),
            (&["100%"], None),
            (&["plain.txt"], None),
            (&["*", ".csv"], Some("*.csv")),
        ] {
            assert_eq!(of(&value(parts)).as_deref(), expected, "{parts:?}");
        }
    }

    #[test]
    fn patterns_match_as_a_shell_has_it() -> anyhow::Result<()> {
        let temp = tempfile::tempdir()?;
        for path in ["a/1.txt", "a/b/2.txt", "a/.hidden.txt", "a/x.md", ".git/3.txt"] {
            let path = temp.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent"))?;
            fs::write(path, "")?;
        }
        let names = |pattern: &str| -> Vec<String> {
            let (files, _) = matches(&mut Listings::default(), temp.path(), pattern, temp.path());
            files
                .iter()
                .filter_map(|path| Some(path.strip_prefix(temp.path()).ok()?.to_str()?.to_owned()))
                .collect()
        };
        assert_eq!(names("a/*.txt"), ["a/1.txt"]);
        assert_eq!(names("**/*.txt"), ["a/1.txt", "a/b/2.txt"]);
        assert_eq!(names("a/{1,x}.*"), ["a/1.txt", "a/x.md"]);
        assert_eq!(names("a/.h*"), ["a/.hidden.txt"]);
        Ok(())
    }
}
