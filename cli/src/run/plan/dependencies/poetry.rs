//! What a project tells Poetry (`[tool.poetry]`), as other installers read it.
//!
//! Versions become those of PEP 440 (`^1.2` is `>=1.2,<2`), sources become indexes of uv's. What has no such form is rejected with
//! its line.

use std::path::Path;

use toml::{Table, Value};

use super::{
    doc::Doc,
    local::path_of,
    requirements::{Entry, Read, Reader},
    uv::{at_url, file_url, name_of, normal, write},
};

/// Where Poetry's words stand.
const TOOL: [&str; 2] = ["tool", "poetry"];
/// What Poetry calls its default index, whose address it alone knows.
const DEFAULT_INDEX: &str = "pypi";
/// What can be said of a dependency.
const KEYS: [&str; 15] = [
    "version",
    "extras",
    "python",
    "platform",
    "markers",
    "optional",
    "git",
    "branch",
    "tag",
    "rev",
    "subdirectory",
    "url",
    "path",
    "source",
    "develop",
];

/// What a project tells Poetry.
#[derive(Debug, Default)]
pub(crate) struct Poetry {
    /// Its packages, those of groups that are not optional too.
    pub(crate) entries: Vec<Entry>,
    /// The versions of Python.
    pub(crate) python: Option<String>,
    /// Its indexes, as uv has them; none where all comes from `PyPI`, or whatever a worker has in its place.
    pub(crate) indexes: Vec<Value>,
    /// Which index a package comes from.
    pinned: Table,
    /// Where its indexes stand.
    pub(crate) at: String,
}

/// Reads what a project tells Poetry, if it does.
///
/// # Errors
/// A usage error with the line of what cannot be honoured.
pub(crate) fn read(doc: &Doc, dir: &Path) -> anyhow::Result<Option<Poetry>> {
    let Some(table) = doc.table(&TOOL)? else { return Ok(None) };
    let mut poetry = Poetry {
        at: doc.at(&["tool", "poetry", "source"]),
        ..Poetry::default()
    };
    let mut lists = vec![vec!["dependencies".to_owned()], vec!["dev-dependencies".to_owned()]];
    for (name, group) in table.get("group").and_then(Value::as_table).into_iter().flatten() {
        if group.get("optional").and_then(Value::as_bool) != Some(true) {
            lists.push(vec!["group".to_owned(), name.clone(), "dependencies".to_owned()]);
        }
    }
    for list in lists {
        let path: Vec<&str> = TOOL.into_iter().chain(list.iter().map(String::as_str)).collect();
        for (name, said) in doc.table(&path)?.into_iter().flatten() {
            let path = [&path[..], &[name]].concat();
            if name == "python" {
                let text = said
                    .as_str()
                    .ok_or_else(|| doc.wrong(&path, "is not a version of Python; correct it"))?;
                poetry.python = Some(python(text).map_err(|wrong| doc.wrong(&path, &wrong))?);
                continue;
            }
            let one = [said.clone()];
            let alternatives = said.as_array().map_or(&one[..], Vec::as_slice);
            for said in alternatives {
                let found = poetry.dependency(name, said, dir).map_err(|wrong| doc.wrong(&path, &wrong))?;
                poetry.entries.extend(found.map(|text| Entry { at: doc.at(&path), text }));
            }
        }
    }
    poetry.sources(doc)?;
    Ok(Some(poetry))
}

impl Poetry {
    /// One dependency as a requirement; nothing where it is installed only if asked for.
    fn dependency(&mut self, name: &str, said: &Value, dir: &Path) -> Result<Option<String>, String> {
        let table = match said {
            Value::String(version) => {
                let versions = versions(version).map_err(|wrong| format!("needs `{name}`: {wrong}"))?;
                return Ok(Some(format!("{name}{versions}")));
            }
            Value::Table(table) => table,
            _ => return Err(format!("needs `{name}` as Poetry does not say it; correct it")),
        };
        let out = "name the packages with --requirements FILE";
        if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(format!(
                "has `{key}` for `{name}`, which rgrid cannot say to an installer; take it out, or {out}"
            ));
        }
        let text = |key: &str| table.get(key).and_then(Value::as_str);
        if table.get("optional").and_then(Value::as_bool) == Some(true) {
            return Ok(None);
        }
        let extras: Vec<&str> = table
            .get("extras")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let extras = if extras.is_empty() {
            String::new()
        } else {
            format!("[{}]", extras.join(","))
        };
        let mut markers: Vec<String> = text("markers").map(|marker| format!("({marker})")).into_iter().collect();
        if let Some(python) = text("python") {
            let all = python_clauses(python).map_err(|wrong| format!("needs `{name}` for some Pythons: {wrong}"))?;
            markers.extend(all.iter().map(|(sign, version)| format!("python_full_version {sign} '{version}'")));
        }
        markers.extend(text("platform").map(|platform| format!("sys_platform == '{platform}'")));
        let markers = if markers.is_empty() {
            String::new()
        } else {
            format!(" ; {}", markers.join(" and "))
        };
        if let Some(url) = url(name, table, dir)? {
            return Ok(Some(at_url(&format!("{name}{extras}{markers}"), &url)));
        }
        if let Some(source) = text("source") {
            let pin: Table = [("index".to_owned(), Value::String(source.to_ascii_lowercase()))]
                .into_iter()
                .collect();
            self.pinned.insert(normal(name), Value::Table(pin));
        }
        let versions = versions(text("version").unwrap_or("*")).map_err(|wrong| format!("needs `{name}`: {wrong}"))?;
        Ok(Some(format!("{name}{extras}{versions}{markers}")))
    }

    /// The indexes, in the order in which uv asks them: the first that has a package counts.
    fn sources(&mut self, doc: &Doc) -> anyhow::Result<()> {
        let path = ["tool", "poetry", "source"];
        let list = doc.get(&path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let (mut primary, mut second, mut explicit) = (Vec::new(), Vec::new(), Vec::new());
        let mut names_default = false;
        for (place, source) in list.iter().enumerate() {
            let place = place.to_string();
            let path = [&path[..], &[place.as_str()]].concat();
            let text = |key: &str| source.get(key).and_then(Value::as_str);
            let is_true = |key: &str| source.get(key).and_then(Value::as_bool) == Some(true);
            let name = text("name").unwrap_or_default().to_ascii_lowercase();
            if name == DEFAULT_INDEX && text("url").is_none() {
                names_default = true;
                continue;
            }
            let url = text("url");
            let (Some(url), false) = (url, name.is_empty()) else {
                return Err(doc.wrong(&path, "is a source without a name or a URL; correct it"));
            };
            if !url.contains("://") || url.starts_with("file:") {
                return Err(doc.wrong(
                    &path,
                    &format!("names the index `{url}` of this machine, which cannot be sent; name the packages with --requirements FILE"),
                ));
            }
            let index = (name, url.to_owned());
            match text("priority").unwrap_or("primary") {
                _ if is_true("secondary") => second.push(index),
                "primary" | "default" => primary.push(index),
                "supplemental" | "secondary" => second.push(index),
                "explicit" => explicit.push(index),
                other => {
                    return Err(doc.wrong(
                        &path,
                        &format!("gives a source the priority `{other}`, which rgrid does not know; correct it"),
                    ));
                }
            }
        }
        if let Some((name, _)) = self.pinned.iter().find(|(_, pin)| {
            let index = pin.get("index").and_then(Value::as_str).unwrap_or_default();
            index != DEFAULT_INDEX && !primary.iter().chain(&second).chain(&explicit).any(|(name, _)| name == index)
        }) {
            return Err(doc.wrong(
                &["tool", "poetry", "dependencies", name],
                &format!("takes `{name}` from a source that is not there; add the [[tool.poetry.source]]"),
            ));
        }
        let has_own = |all: &[(String, String)]| all.iter().any(|(name, _)| name == DEFAULT_INDEX);
        let is_pinned = self
            .pinned
            .iter()
            .any(|(_, pin)| pin.get("index").and_then(Value::as_str) == Some(DEFAULT_INDEX));
        let needs_default = names_default
            || primary.is_empty() && !second.is_empty()
            || is_pinned && ![&primary, &second, &explicit].into_iter().any(|all| has_own(all));
        let has_others = !(primary.is_empty() && second.is_empty() && explicit.is_empty());
        if needs_default && has_others {
            return Err(doc.wrong(
                &path,
                "mixes Poetry's default index with others, and rgrid does not know its address; name the packages and their indexes with --requirements FILE",
            ));
        }
        let general: Vec<_> = primary.into_iter().chain(second).collect();
        let last = general.len().checked_sub(1);
        let index = |(name, url): (String, String), flag: Option<&str>| {
            let pairs = [("name", Value::String(name)), ("url", Value::String(url))];
            let flag = flag.map(|flag| (flag, Value::Boolean(true)));
            Value::Table(pairs.into_iter().chain(flag).map(|(key, value)| (key.to_owned(), value)).collect())
        };
        let general = general.into_iter().enumerate();
        self.indexes
            .extend(general.map(|(place, one)| index(one, (Some(place) == last).then_some("default"))));
        self.indexes.extend(explicit.into_iter().map(|one| index(one, Some("explicit"))));
        Ok(())
    }

    /// Gives the requirements of `[project]` what the file says of them for Poetry: where they come from.
    pub(crate) fn enrich(&self, entries: &mut [Entry]) {
        for entry in entries {
            let name = name_of(&entry.text);
            let said = self.entries.iter().find(|said| name_of(&said.text) == name);
            if let Some((_, url)) = said.and_then(|said| said.text.split_once(" @ ")) {
                let url = url.split(" ;").next().unwrap_or(url);
                entry.text = at_url(&entry.text, url);
            }
        }
    }

    /// What goes along for these packages: a project of uv's, with the indexes.
    ///
    /// # Errors
    /// A usage error with the line of what cannot be sent.
    pub(crate) fn declared(&self, entries: &[Entry], (dir, cwd): (&Path, &Path)) -> anyhow::Result<Read> {
        let mut reader = Reader::new(cwd);
        let texts = entries.iter().map(|entry| reader.entry(entry, dir, true).map(Value::String));
        let dependencies = Value::Array(texts.collect::<anyhow::Result<_>>()?);
        let settings: Table = [("index".to_owned(), Value::Array(self.indexes.clone()))].into_iter().collect();
        write(reader.read, dependencies, settings, self.pinned.clone())
    }
}

/// The URL that a dependency comes from, if it does.
fn url(name: &str, table: &Table, dir: &Path) -> Result<Option<String>, String> {
    let text = |key: &str| table.get(key).and_then(Value::as_str);
    let subdirectory = text("subdirectory").map(|dir| format!("#subdirectory={dir}")).unwrap_or_default();
    if let Some(git) = text("git") {
        let git = match git.split_once(':') {
            Some((host, path)) if !git.contains("://") && host.contains('@') => format!("ssh://{host}/{path}"),
            _ => git.to_owned(),
        };
        if !git.contains("://") || git.starts_with("file:") {
            return Err(format!(
                "takes `{name}` from the repository `{git}`, which cannot be sent; build a wheel of it, or name a URL"
            ));
        }
        let version = ["rev", "tag", "branch"].into_iter().find_map(text);
        let version = version.map(|version| format!("@{version}")).unwrap_or_default();
        return Ok(Some(format!("git+{git}{version}{subdirectory}")));
    }
    if let Some(url) = text("url") {
        return Ok(Some(format!("{url}{subdirectory}")));
    }
    Ok(text("path").map(|path| file_url(&dir.join(path_of(path)))))
}

/// The versions of Python, as PEP 440 has them. Of alternatives, those of Python 2 do not count.
fn python(text: &str) -> Result<String, String> {
    let all = python_clauses(text)?.into_iter().map(|(sign, version)| format!("{sign}{version}"));
    Ok(all.collect::<Vec<_>>().join(","))
}

fn python_clauses(text: &str) -> Result<Vec<(String, String)>, String> {
    let alternatives: Vec<&str> = text.split("||").flat_map(|part| part.split('|')).map(str::trim).collect();
    let of_three: Vec<&&str> = alternatives
        .iter()
        .filter(|part| alternatives.len() == 1 || !part.trim_start_matches(['^', '~', '=', '>', '<']).starts_with('2'))
        .collect();
    match of_three.as_slice() {
        [one] => clauses(one),
        _ => Err(format!(
            "`{text}` has alternatives, which no installer reads; write one range, as in `>=3.9,<4`"
        )),
    }
}

/// A version constraint of Poetry's as specifiers; nothing for any version.
fn versions(text: &str) -> Result<String, String> {
    if text.contains('|') {
        return Err(format!(
            "`{text}` has alternatives, which no installer reads; write one range, as in `>=1.2,<3`"
        ));
    }
    let all = clauses(text)?.into_iter().map(|(sign, version)| format!("{sign}{version}"));
    Ok(all.collect::<Vec<_>>().join(","))
}

/// The clauses of a constraint: signs, and versions.
fn clauses(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut all = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        // `>=1 <2` are two.
        let mut words: Vec<String> = Vec::new();
        for word in part.split_whitespace() {
            match words.last_mut() {
                Some(before) if before.ends_with(['=', '<', '>', '~', '^', '!']) => before.push_str(word),
                _ => words.push(word.to_owned()),
            }
        }
        for word in words {
            all.extend(clause(&word)?);
        }
    }
    Ok(all)
}

fn clause(word: &str) -> Result<Vec<(String, String)>, String> {
    let end = word.find(|c: char| !"=<>~^!".contains(c)).unwrap_or(word.len());
    let (sign, version) = word.split_at(end);
    let wrong = || format!("cannot read the version `{word}`; write it as in `^1.2` or `>=1.2,<3`");
    if word == "*" {
        return Ok(Vec::new());
    }
    let is_version = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(|c| c.is_ascii_alphanumeric() || ".+-_!".contains(c))
    };
    if let Some(begin) = version.strip_suffix(".*") {
        return match sign {
            "" | "==" | "!=" if is_version(begin) => Ok(vec![(if sign.is_empty() { "==" } else { sign }.to_owned(), version.to_owned())]),
            _ => Err(wrong()),
        };
    }
    if !is_version(version) {
        return Err(wrong());
    }
    let pair = |sign: &str, version: String| (sign.to_owned(), version);
    let own = version.to_owned();
    match sign {
        "" | "=" | "==" => Ok(vec![pair("==", own)]),
        ">=" | "<=" | ">" | "<" | "!=" | "~=" | "===" => Ok(vec![pair(sign, own)]),
        "^" | "~" => {
            let numbers: Vec<u64> = version.split('.').map_while(leading_number).collect();
            let above = above(sign, &numbers).ok_or_else(wrong)?;
            Ok(vec![pair(">=", own), pair("<", above)])
        }
        _ => Err(wrong()),
    }
}

fn leading_number(part: &str) -> Option<u64> {
    let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
    part[..end].parse().ok()
}

/// The first version that is not allowed any more: the first part that is not zero goes up (`^`), or the second (`~`).
fn above(sign: &str, numbers: &[u64]) -> Option<String> {
    let place = match sign {
        "^" => numbers
            .iter()
            .position(|number| *number != 0)
            .unwrap_or(numbers.len().checked_sub(1)?),
        _ => 1.min(numbers.len().checked_sub(1)?),
    };
    let mut above = numbers.get(..=place)?.to_vec();
    *above.last_mut()? += 1;
    above.resize(numbers.len().max(above.len()), 0);
    Some(above.iter().map(ToString::to_string).collect::<Vec<_>>().join("."))
}

#[cfg(test)]
#[path = "poetry_tests.rs"]
mod tests;
