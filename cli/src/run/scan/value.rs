//! What an expression may come to, as the name of a file: text with parts that are not known.

use std::path::{Path, PathBuf};

/// The most that one expression may come to.
pub(crate) const MOST: usize = 16;

/// No file's name is longer, in bytes, or made of more parts.
const LONGEST: usize = 4096;
const MOST_PARTS: usize = 64;

/// A name of files.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Value {
    /// What it is relative to.
    pub(crate) base: Base,
    pub(crate) parts: Vec<Part>,
}

/// What a name is relative to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Base {
    /// The current directory, or wherever the program looks.
    Free,
    /// The current directory: the code says so (`getcwd()`, `$PWD`).
    Current,
    /// This directory: the code says so (`__file__`, `__dirname`).
    At(PathBuf),
}

/// A part of a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    Text(String),
    /// Known only when it runs.
    Any,
}

impl Value {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::of(Base::Free, vec![Part::Text(text.into())])
    }

    pub(crate) fn any() -> Self {
        Self::of(Base::Free, vec![Part::Any])
    }

    /// The current directory.
    pub(crate) fn current() -> Self {
        Self::of(Base::Current, Vec::new())
    }

    /// A directory of here.
    pub(crate) fn at(dir: &Path) -> Self {
        Self::of(Base::At(dir.to_owned()), Vec::new())
    }

    pub(crate) fn of(base: Base, parts: Vec<Part>) -> Self {
        let mut merged: Vec<Part> = Vec::new();
        for part in parts {
            match (merged.last_mut(), part) {
                (_, Part::Text(text)) if text.is_empty() => {}
                (Some(Part::Text(before)), Part::Text(text)) => before.push_str(&text),
                (Some(Part::Any), Part::Any) => {}
                (_, part) => merged.push(part),
            }
        }
        let length: usize = merged
            .iter()
            .map(|part| if let Part::Text(text) = part { text.len() } else { 1 })
            .sum();
        if length > LONGEST || merged.len() > MOST_PARTS {
            merged = vec![Part::Any];
        }
        Self { base, parts: merged }
    }

    /// The text, where all of it is known.
    pub(crate) fn known(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Whether nothing of it is known.
    pub(crate) fn is_any(&self) -> bool {
        self.base == Base::Free && self.parts.iter().all(|part| *part == Part::Any)
    }

    fn is_absolute(&self) -> bool {
        self.base != Base::Free || matches!(self.parts.first(), Some(Part::Text(text)) if text.starts_with('/'))
    }

    /// This with another name behind it, as one text.
    pub(crate) fn concat(&self, other: &Self) -> Self {
        let parts = self.parts.iter().chain(&other.parts).cloned().collect();
        Self::of(self.base.clone(), parts)
    }

    /// Another name below this one.
    pub(crate) fn join(&self, other: &Self) -> Self {
        if other.is_absolute() {
            return other.clone();
        }
        if self.parts.is_empty() {
            return Self::of(self.base.clone(), other.parts.clone());
        }
        self.concat(&Self::text("/")).concat(other)
    }

    /// The directory that it stands in.
    pub(crate) fn parent(&self) -> Self {
        let mut parts = self.parts.clone();
        let mut passed_any = false;
        loop {
            match parts.pop() {
                // What stands before a part that is not known: `data/` of `data/*.csv`.
                Some(Part::Text(text)) if passed_any && text.ends_with('/') => {
                    parts.push(Part::Text(text.trim_end_matches('/').to_owned()));
                    return Self::of(self.base.clone(), parts);
                }
                Some(Part::Text(text)) => {
                    passed_any = true;
                    let text = text.trim_end_matches('/');
                    if let Some((dir, _)) = text.rsplit_once('/') {
                        parts.push(Part::Text(dir.to_owned()));
                        return Self::of(self.base.clone(), parts);
                    }
                    if parts.is_empty() && !text.is_empty() {
                        return Self::of(self.base.clone(), parts);
                    }
                }
                Some(Part::Any) => passed_any = true,
                None => break,
            }
        }
        match &self.base {
            Base::At(dir) => Self::at(dir.parent().unwrap_or(dir)),
            Base::Free | Base::Current if self.parts.is_empty() => Self::of(self.base.clone(), vec![Part::Text("..".to_owned())]),
            Base::Free | Base::Current => Self::of(self.base.clone(), Vec::new()),
        }
    }

    /// With another extension.
    pub(crate) fn with_extension(&self, extension: &str) -> Self {
        let mut parts = self.parts.clone();
        if let Some(Part::Text(text)) = parts.last_mut()
            && let Some(dot) = text.rfind('.')
            && !text[dot..].contains('/')
        {
            text.truncate(dot);
        }
        parts.push(Part::Text(extension.to_owned()));
        Self::of(self.base.clone(), parts)
    }
}

/// Every combination of two lists, bounded.
pub(crate) fn product(a: &[Value], b: &[Value], combine: impl Fn(&Value, &Value) -> Value) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    for one in a {
        for other in b {
            let value = combine(one, other);
            if all.len() < MOST && !all.contains(&value) {
                all.push(value);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_joined_and_climbed_as_paths_are() {
        let here = Value::at(Path::new("/p/app"));
        let file = here.join(&Value::text("main.py"));
        assert_eq!(file.parent(), here);
        assert_eq!(file.parent().parent(), Value::at(Path::new("/p")));
        assert_eq!(
            here.parent().join(&Value::text("conf.ini")),
            Value::at(Path::new("/p")).join(&Value::text("conf.ini"))
        );
        assert_eq!(Value::text("data").join(&Value::text("x.csv")), Value::text("data/x.csv"));
        assert_eq!(Value::text("data").join(&Value::text("/x.csv")), Value::text("/x.csv"));
        assert_eq!(Value::text("data/x.csv").parent(), Value::text("data"));
        assert_eq!(Value::text("x.csv").parent().known(), Some(""));
        assert_eq!(Value::text("a/b.txt").with_extension(".csv"), Value::text("a/b.csv"));
        let template = Value::text("data/").concat(&Value::any()).concat(&Value::text(".csv"));
        assert_eq!(template.parts.len(), 3);
        assert_eq!(template.parent(), Value::text("data"));
    }
}
