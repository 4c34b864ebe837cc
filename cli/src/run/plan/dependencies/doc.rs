//! A TOML document whose every value knows its line.

use toml::{
    Spanned, Table, Value,
    de::{DeTable, DeValue},
};

use super::requirements::{Entry, wrong_line};
use crate::failure::usage;

/// A TOML document.
#[derive(Debug)]
pub(crate) struct Doc {
    shown: String,
    text: String,
    /// How many lines stand before it in its file.
    skipped: usize,
    table: Table,
}

impl Doc {
    /// Reads a text that stands behind `skipped` lines of a file.
    ///
    /// # Errors
    /// A usage error with the line that cannot be read.
    pub(crate) fn parse(shown: &str, text: String, skipped: usize) -> anyhow::Result<Self> {
        let table = toml::from_str(&text).map_err(|error| {
            let line = skipped + line_of(&text, error.span().map_or(0, |span| span.start));
            usage(format!(
                "{shown}, line {line} cannot be read: {}; correct it, or leave it out with --no-requirements",
                error.message()
            ))
        })?;
        Ok(Self {
            shown: shown.to_owned(),
            text,
            skipped,
            table,
        })
    }

    /// What the user calls it.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// Where a value stands: `pyproject.toml, line 7`. Elements of a list are told by their number.
    pub(crate) fn at(&self, path: &[&str]) -> String {
        self.at_in(DeTable::parse(&self.text).ok().as_ref(), path)
    }

    fn at_in(&self, tree: Option<&Spanned<DeTable<'_>>>, path: &[&str]) -> String {
        let start = tree.and_then(|tree| locate(tree.get_ref(), path));
        format!(
            "{}, line {}",
            self.shown,
            self.skipped + line_of(&self.text, start.unwrap_or_default())
        )
    }

    /// What is said of a value that cannot be honoured.
    pub(crate) fn wrong(&self, path: &[&str], wrong: &str) -> anyhow::Error {
        wrong_line(&self.at(path), wrong)
    }

    /// A value, if it is there.
    pub(crate) fn get(&self, path: &[&str]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.table.get(*first)?, |value, key| value.get(key))
    }

    /// The names at its top.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.table.keys().map(String::as_str)
    }

    /// A table, if it is there.
    ///
    /// # Errors
    /// A usage error where something else is.
    pub(crate) fn table(&self, path: &[&str]) -> anyhow::Result<Option<&Table>> {
        let value = self.get(path);
        value
            .map(|value| value.as_table().ok_or_else(|| self.wrong(path, "is not a table; correct it")))
            .transpose()
    }

    /// A text, if it is there.
    ///
    /// # Errors
    /// A usage error where something else is.
    pub(crate) fn text(&self, path: &[&str]) -> anyhow::Result<Option<&str>> {
        let value = self.get(path);
        value
            .map(|value| value.as_str().ok_or_else(|| self.wrong(path, "is not text; correct it")))
            .transpose()
    }

    /// A list of texts, with their lines; none where it is not there.
    ///
    /// # Errors
    /// A usage error where something else is.
    pub(crate) fn entries(&self, path: &[&str]) -> anyhow::Result<Vec<Entry>> {
        let Some(value) = self.get(path) else { return Ok(Vec::new()) };
        let list = value.as_array().ok_or_else(|| self.wrong(path, "is not a list; correct it"))?;
        let tree = DeTable::parse(&self.text).ok();
        let one = |(place, value): (usize, &Value)| {
            let place = place.to_string();
            let path = [path, &[place.as_str()]].concat();
            let text = value.as_str().ok_or_else(|| self.wrong(&path, "is not text; correct it"))?;
            Ok(Entry {
                at: self.at_in(tree.as_ref(), &path),
                text: text.to_owned(),
            })
        };
        list.iter().enumerate().map(one).collect()
    }
}

fn line_of(text: &str, byte: usize) -> usize {
    1 + text.as_bytes().iter().take(byte).filter(|byte| **byte == b'\n').count()
}

/// Where the last part of a path begins that is there.
fn locate(table: &DeTable<'_>, path: &[&str]) -> Option<usize> {
    let (first, rest) = path.split_first()?;
    let (key, value) = table.iter().find(|(key, _)| key.get_ref() == first)?;
    within(value.get_ref(), rest).or(Some(key.span().start))
}

fn within(value: &DeValue<'_>, path: &[&str]) -> Option<usize> {
    match value {
        DeValue::Table(table) => locate(table, path),
        DeValue::Array(list) => {
            let (first, rest) = path.split_first()?;
            let one = list.get(first.parse::<usize>().ok()?)?;
            within(one.get_ref(), rest).or(Some(one.span().start))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_knows_its_line() -> anyhow::Result<()> {
        let text = "a = 1\n[b]\nc = [\n  'x',\n  'y',\n]\n[[d]]\nname = 'p'\n[[d]]\nname = 'q'\n";
        let doc = Doc::parse("f.toml", text.to_owned(), 10)?;
        for (path, expected) in [
            (&["a"][..], 11),
            (&["b", "c", "1"], 15),
            (&["d", "1", "name"], 20),
            (&["d", "1", "gone"], 19),
        ] {
            assert_eq!(doc.at(path), format!("f.toml, line {expected}"), "{path:?}");
        }
        assert_eq!(doc.entries(&["b", "c"])?.len(), 2);
        let error = doc.text(&["b", "c"]).expect_err("a list").to_string();
        assert!(error.starts_with("f.toml, line 13 is not text"), "{error}");
        let error = Doc::parse("f.toml", "a = 1\nb = \n".to_owned(), 0).expect_err("wrong").to_string();
        assert!(
            error.starts_with("f.toml, line 2 cannot be read: ") && error.contains("--no-requirements"),
            "{error}"
        );
        Ok(())
    }
}
