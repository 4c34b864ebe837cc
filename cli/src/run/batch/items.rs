//! From the options to the members: what each is called, and its words.

use std::{ffi::OsString, path::Path};

use crate::{failure::usage, run::args::batch::BatchArgs, text};

/// The variable that holds a member's number.
const INDEX: &str = "RGRID_ARRAY_INDEX";
/// The most members that are made.
const MOST: usize = bus::batch::MAX_MEMBERS as usize;
/// The longest list of lines that is read, in bytes.
const LONGEST: u64 = 256 << 20;

/// One member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Item {
    /// What stands for {}, or {1}, {2} …
    values: Vec<String>,
    /// What stands for {NAME}.
    params: Vec<(String, String)>,
    numbered: bool,
}

impl Item {
    /// What it is called.
    pub(crate) fn name(&self) -> String {
        let params = self.params.iter().map(|(name, value)| format!("{name}={value}"));
        self.values.iter().cloned().chain(params).collect::<Vec<_>>().join(" ")
    }

    /// Variables that it has of its own.
    pub(crate) fn env(&self) -> Option<(String, String)> {
        let number = self.values.first().filter(|_| self.numbered)?;
        Some((INDEX.to_owned(), number.clone()))
    }

    /// The words of the command line, with its own in them: in their places, or behind the others.
    pub(crate) fn words(&self, words: &[OsString]) -> anyhow::Result<Vec<OsString>> {
        let mut made = Vec::with_capacity(words.len() + self.values.len());
        let mut placed = false;
        let mut placed_params = vec![false; self.params.len()];
        for (place, word) in words.iter().enumerate() {
            let Some(text) = word.to_str().filter(|_| place > 0) else {
                made.push(word.clone());
                continue;
            };
            let filled = fill(text, |name| self.value_of(name, &mut placed, &mut placed_params));
            made.push(filled.into());
        }
        for ((name, value), placed) in self.params.iter().zip(placed_params) {
            if !placed {
                made.extend([format!("--{name}").into(), value.into()]);
            }
        }
        if !placed && !self.numbered {
            made.extend(self.values.iter().map(OsString::from));
        }
        Ok(made)
    }

    fn value_of(&self, name: &str, placed: &mut bool, placed_params: &mut [bool]) -> Option<String> {
        if let Some(at) = self.params.iter().position(|(param, _)| param == name) {
            placed_params[at] = true;
            return Some(self.params[at].1.clone());
        }
        let at = if name.is_empty() {
            0
        } else {
            name.parse::<usize>().ok()?.checked_sub(1)?
        };
        let value = self.values.get(at)?;
        *placed = true;
        Some(value.clone())
    }
}

/// Fills in what stands in braces, once: what is filled in is not looked at again. Braces that mean nothing stay.
fn fill(text: &str, mut value: impl FnMut(&str) -> Option<String>) -> String {
    let (mut made, mut rest) = (String::new(), text);
    while let Some(open) = rest.find('{') {
        made.push_str(&rest[..open]);
        let behind = &rest[open + 1..];
        match behind.find(['{', '}']) {
            Some(close) if behind[close..].starts_with('}') => {
                match value(&behind[..close]) {
                    Some(value) => made.push_str(&value),
                    None => made.push_str(&rest[open..open + close + 2]),
                }
                rest = &behind[close + 1..];
            }
            _ => {
                made.push('{');
                rest = behind;
            }
        }
    }
    made.push_str(rest);
    made
}

/// The members that the options ask for, in their order.
///
/// # Errors
/// A usage error that says what matches nothing or cannot be meant.
pub(crate) fn items(args: &BatchArgs, cwd: &Path) -> anyhow::Result<Vec<Item>> {
    let mut items = values(args, cwd)?;
    for param in &args.param {
        let (name, values) = param
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| usage(format!("--param {param} is not of the form NAME=VALUE,VALUE…")))?;
        let of_each = items.into_iter().flat_map(|item| {
            values.split(',').map(move |value| {
                let mut item = item.clone();
                item.params.push((name.to_owned(), value.to_owned()));
                item
            })
        });
        items = of_each.take(MOST + 1).collect();
    }
    if items.len() > MOST {
        return Err(usage(format!(
            "a batch may have at most {MOST} jobs; split it into several batches"
        )));
    }
    Ok(items)
}

fn values(args: &BatchArgs, cwd: &Path) -> anyhow::Result<Vec<Item>> {
    let one = |value: String| Item {
        values: vec![value],
        ..Item::default()
    };
    if let Some(steps) = &args.array {
        let numbers = steps.numbers().take(MOST + 1).map(|number| Item {
            numbered: true,
            ..one(number.to_string())
        });
        return Ok(numbers.collect());
    }
    if let Some(file) = &args.each_line {
        let lines = lines(file, cwd)?;
        return Ok(lines.into_iter().map(one).collect());
    }
    if args.batch.is_empty() {
        return Ok(vec![Item::default()]);
    }
    let lists = args
        .batch
        .iter()
        .map(|pattern| matches(pattern, cwd))
        .collect::<anyhow::Result<Vec<_>>>()?;
    if !args.zip {
        let mut seen = std::collections::HashSet::new();
        let all = lists.into_iter().flatten().filter(|path| seen.insert(path.clone()));
        return Ok(all.map(one).collect());
    }
    let lengths: Vec<String> = lists.iter().map(|list| list.len().to_string()).collect();
    let length = lists.first().map_or(0, Vec::len);
    if lists.len() < 2 || lists.iter().any(|list| list.len() != length) {
        return Err(usage(format!(
            "--zip needs two or more --batch that match the same number of files; they match {}",
            lengths.join(" and ")
        )));
    }
    let pair = |at: usize| Item {
        values: lists.iter().map(|list| list[at].clone()).collect(),
        ..Item::default()
    };
    Ok((0..length).map(pair).collect())
}

fn lines(file: &OsString, cwd: &Path) -> anyhow::Result<Vec<String>> {
    let shown = file.display();
    let read = if file == "-" {
        text::read_from(std::io::stdin().lock(), Path::new("standard input"), LONGEST)
    } else {
        text::read(&cwd.join(file), LONGEST)
    };
    let text = read.map_err(|error| usage(format!("--each-line {shown}: {error}")))?;
    let lines: Vec<String> = text.lines().filter(|line| !line.trim().is_empty()).map(ToOwned::to_owned).collect();
    if lines.is_empty() {
        return Err(usage(format!("{shown} has no lines, so there is no job to run")));
    }
    Ok(lines)
}

/// The files that a pattern matches, sorted; relative ones from the current directory.
fn matches(pattern: &str, cwd: &Path) -> anyhow::Result<Vec<String>> {
    let wrong = |why: String| usage(format!("--batch {pattern}: {why}"));
    let whole = cwd.join(pattern);
    let escaped = glob::Pattern::escape(&cwd.to_string_lossy());
    let whole = if Path::new(pattern).is_absolute() {
        whole.to_string_lossy().into_owned()
    } else {
        format!("{escaped}/{pattern}")
    };
    let options = glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: true,
    };
    let found = glob::glob_with(&whole, options).map_err(|error| wrong(error.to_string()))?;
    let mut paths = Vec::new();
    for path in found {
        let path = path.map_err(|error| wrong(error.to_string()))?;
        if !path.is_file() {
            continue;
        }
        let path = path.strip_prefix(cwd).unwrap_or(&path);
        let text = path
            .to_str()
            .ok_or_else(|| wrong(format!("the name `{}` is not text (UTF-8)", path.display())))?;
        paths.push(text.to_owned());
    }
    if paths.is_empty() {
        return Err(wrong(
            "no file matches; quote the pattern, so that it comes here as it is".to_owned(),
        ));
    }
    paths.sort_unstable();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn words(item: &Item, words: &[&str]) -> Vec<String> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let made = item.words(&words).expect("words");
        made.into_iter().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn what_is_in_braces_is_filled_in_once_and_else_stands_last() {
        let item = Item {
            values: vec!["a{lr}.csv".to_owned()],
            params: vec![("lr".to_owned(), "0.1".to_owned()), ("seed".to_owned(), "7".to_owned())],
            numbered: false,
        };
        assert_eq!(item.name(), "a{lr}.csv lr=0.1 seed=7");
        assert_eq!(
            words(&item, &["s.py", "-v"]),
            ["s.py", "-v", "--lr", "0.1", "--seed", "7", "a{lr}.csv"]
        );
        assert_eq!(
            words(&item, &["s.py", "--in={}", "{lr}{x}", "{", "{}{seed}"]),
            ["s.py", "--in=a{lr}.csv", "0.1{x}", "{", "a{lr}.csv7"]
        );
    }

    #[test]
    fn lines_are_read_in_every_encoding_or_rejected_with_the_line() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        for bytes in text::in_each_encoding("größer\r\n\nb c\n") {
            fs::write(dir.path().join("list"), bytes)?;
            assert_eq!(lines(&"list".into(), dir.path())?, ["größer", "b c"]);
        }
        fs::write(dir.path().join("list"), b"a\n\xe9\n")?;
        let error = lines(&"list".into(), dir.path()).expect_err("Latin-1").to_string();
        assert!(
            error.starts_with("--each-line list: ") && error.contains("line 2 is not text"),
            "{error}"
        );
        Ok(())
    }

    #[test]
    fn files_are_matched_in_order_and_paired() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        for name in ["b [1].csv", "a.csv", "a.txt", "b.txt", ".hidden.csv"] {
            fs::write(dir.path().join(name), "")?;
        }
        fs::create_dir(dir.path().join("d.csv"))?;
        let args = |batch: &[&str], zip| BatchArgs {
            batch: batch.iter().map(ToString::to_string).collect(),
            zip,
            ..BatchArgs::default()
        };
        let names = |args| anyhow::Ok(items(&args, dir.path())?.iter().map(Item::name).collect::<Vec<_>>());
        assert_eq!(names(args(&["*.csv"], false))?, ["a.csv", "b [1].csv"]);
        assert_eq!(names(args(&["*.csv", "a.*"], false))?, ["a.csv", "b [1].csv", "a.txt"]);
        assert_eq!(names(args(&["*.csv", "*.txt"], true))?, ["a.csv a.txt", "b [1].csv b.txt"]);
        assert!(names(args(&["*.csv", "a.txt"], true)).is_err() && names(args(&["*.json"], false)).is_err());
        let matrix = BatchArgs {
            param: vec!["lr=1,2".to_owned(), "k=x,y".to_owned()],
            ..BatchArgs::default()
        };
        assert_eq!(names(matrix)?, ["lr=1 k=x", "lr=1 k=y", "lr=2 k=x", "lr=2 k=y"]);
        Ok(())
    }
}
