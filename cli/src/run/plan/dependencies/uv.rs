//! What a project or a script tells uv: where packages come from, and which versions are allowed (`[tool.uv]`).
//!
//! What every installer can do is written into requirements.txt. What uv alone can do (an index for one package, overrides …) goes
//! along as a project of uv's, which only uv installs: a worker without uv refuses it, since pip would ask the default index instead.

use std::{collections::BTreeSet, path::Path};

use bus::spec::dependencies::{Kind, UV_PROJECT, UV_SETTINGS};
use toml::{Table, Value};

use super::{
    Content,
    doc::Doc,
    local::{is_remote, path_of},
    requirements::{Entry, Read, Reader, THERE, of_entries},
    settings::{is_honoured, is_idle},
};
use crate::run::plan::input::parsed;

/// Lists of requirements among them.
const REQUIREMENTS: [&str; 3] = ["override-dependencies", "constraint-dependencies", "build-constraint-dependencies"];
/// Settings that say from where packages come.
const PLACES: [&str; 5] = ["index", "index-url", "extra-index-url", "find-links", "no-index"];
/// What a source of a package can say.
const SOURCE: [&str; 14] = [
    "git",
    "rev",
    "tag",
    "branch",
    "subdirectory",
    "lfs",
    "url",
    "path",
    "editable",
    "package",
    "index",
    "workspace",
    "marker",
    "group",
];
/// Where `[tool.uv]` stands.
pub(crate) const TOOL: [&str; 2] = ["tool", "uv"];

/// The settings of uv, checked.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Settings that change what is installed.
    pub(crate) settings: Table,
    /// Sources of packages.
    pub(crate) sources: Table,
}

/// Says what a document tells uv about these packages.
///
/// # Errors
/// A usage error with the line of what cannot be honoured.
pub(crate) fn told(doc: &Doc, entries: &[Entry]) -> anyhow::Result<Told> {
    let mut told = Told::default();
    let Some(table) = doc.table(&TOOL)? else { return Ok(told) };
    for (name, value) in table {
        let path = [&TOOL[..], &[name]].concat();
        match name.as_str() {
            "sources" => {}
            "pip" => pip(doc, &path)?,
            name if is_honoured(name) => drop(told.settings.insert(name.to_owned(), value.clone())),
            name if is_idle(name) => {}
            _ => {
                return Err(doc.wrong(
                    &path,
                    &format!("sets `{name}` for uv, of which rgrid does not know what it changes; take it out, or name the packages with --requirements FILE"),
                ));
            }
        }
    }
    let mut named: BTreeSet<String> = entries.iter().map(|entry| name_of(&entry.text)).collect();
    for list in REQUIREMENTS {
        let path = [&TOOL[..], &[list]].concat();
        named.extend(doc.entries(&path)?.iter().map(|entry| name_of(&entry.text)));
    }
    let path = [&TOOL[..], &["sources"]].concat();
    for (name, value) in doc.table(&path)?.into_iter().flatten() {
        if named.contains(&normal(name)) {
            let checked = source(doc, &[&path[..], &[name]].concat(), value)?;
            checked.and_then(|source| told.sources.insert(name.clone(), source));
        }
    }
    Ok(told)
}

/// `[tool.uv.pip]` is `uv pip`'s alone; what changes packages there is not what `uv run` and `uv sync` install.
fn pip(doc: &Doc, path: &[&str]) -> anyhow::Result<()> {
    const CHANGES: [&str; 7] = [
        "all-extras",
        "extra",
        "group",
        "no-deps",
        "python-platform",
        "python-version",
        "require-hashes",
    ];
    let table = doc.table(path)?;
    let changing = table
        .into_iter()
        .flatten()
        .find(|(name, _)| is_honoured(name) || CHANGES.contains(&name.as_str()));
    match changing {
        Some((name, _)) => Err(doc.wrong(
            &[path, &[name]].concat(),
            &format!("sets `{name}` for `uv pip` alone, which cannot be honoured; move it to [tool.uv], or name the packages with --requirements FILE"),
        )),
        None => Ok(()),
    }
}

/// A source of a package, without what is for extras, which are not installed; nothing where nothing else is said.
fn source(doc: &Doc, path: &[&str], value: &Value) -> anyhow::Result<Option<Value>> {
    let Value::Array(list) = value else {
        return one_source(doc, path, value);
    };
    let mut kept = Vec::new();
    for (place, value) in list.iter().enumerate() {
        kept.extend(one_source(doc, &[path, &[place.to_string().as_str()]].concat(), value)?);
    }
    Ok((!kept.is_empty()).then_some(Value::Array(kept)))
}

fn one_source(doc: &Doc, path: &[&str], value: &Value) -> anyhow::Result<Option<Value>> {
    let Value::Table(table) = value else {
        return Err(doc.wrong(path, "is not a source of a package that uv knows; correct it"));
    };
    if table.contains_key("extra") {
        return Ok(None);
    }
    let text = |key: &str| table.get(key).and_then(Value::as_str);
    let is_true = |key: &str| table.get(key).and_then(Value::as_bool) == Some(true);
    let wrong = |key: &str, what: &str| Err(doc.wrong(&[path, &[key]].concat(), what));
    if let Some(key) = table.keys().find(|key| !SOURCE.contains(&key.as_str())) {
        return wrong(
            key,
            &format!("has `{key}`, which no source of a package has that rgrid knows; take it out"),
        );
    }
    if is_true("workspace") {
        return wrong(
            "workspace",
            "installs a member of the workspace, which cannot be sent; build a wheel of it (`uv build --package NAME`) and name that with `path`",
        );
    }
    if is_true("editable") {
        return wrong(
            "editable",
            "installs a package so that it can be edited, which cannot be sent; build a wheel of it (`uv build`) and name that with `path`",
        );
    }
    if table.contains_key("group") {
        return wrong(
            "group",
            "gives a source for one group of dependencies, which cannot be honoured; give it for all",
        );
    }
    if let Some(git) = text("git").filter(|git| !git.contains("://") || git.starts_with("file:")) {
        return wrong(
            "git",
            &format!("names the repository `{git}`, which cannot be sent or is no URL; build a wheel of it, or name a URL"),
        );
    }
    if let Some(index) = text("index") {
        let path = [&TOOL[..], &["index"]].concat();
        let known = doc.get(&path).and_then(Value::as_array).into_iter().flatten();
        if !known.filter_map(|one| one.get("name")?.as_str()).any(|name| name == index) {
            return wrong(
                "index",
                &format!("names the index `{index}`, and there is no [[tool.uv.index]] of that name; add it"),
            );
        }
    }
    Ok(Some(value.clone()))
}

/// Where a document names an index, or a directory of archives, that is asked for every package; if it does.
pub(crate) fn place(doc: &Doc) -> Option<String> {
    let is_for_all = |name: &&&str| match doc.get(&[&TOOL[..], &[name]].concat()) {
        Some(Value::Array(list)) => list.iter().any(|one| one.get("explicit").and_then(Value::as_bool) != Some(true)),
        found => found.is_some(),
    };
    let name = PLACES.iter().find(is_for_all)?;
    Some(doc.at(&[&TOOL[..], &[name]].concat()))
}

/// What goes along for these packages, and for the settings of uv on them.
///
/// # Errors
/// A usage error with the line of what cannot be sent.
pub(crate) fn declared(doc: &Doc, entries: &[Entry], told: Told, (dir, cwd): (&Path, &Path)) -> anyhow::Result<Read> {
    let limits = doc.entries(&[&TOOL[..], &["constraint-dependencies"]].concat())?;
    let by_uv_alone = told.settings.keys().any(|name| name != "constraint-dependencies");
    let simple: Option<Vec<Entry>> = entries.iter().map(|entry| with_source(entry, &told.sources, dir)).collect();
    match simple.filter(|_| !by_uv_alone && limits.iter().all(|limit| told.source(&limit.text).is_none())) {
        Some(entries) => of_entries(&entries, &limits, dir, cwd),
        None => project(doc, entries, told, (dir, cwd)),
    }
}

impl Told {
    fn source(&self, requirement: &str) -> Option<&Value> {
        source_of(&self.sources, requirement)
    }
}

fn source_of<'a>(sources: &'a Table, requirement: &str) -> Option<&'a Value> {
    let name = name_of(requirement);
    sources.iter().find(|(known, _)| normal(known) == name).map(|(_, source)| source)
}

/// A requirement with its source in it, as every installer reads it; nothing where only uv can read it.
fn with_source(entry: &Entry, sources: &Table, dir: &Path) -> Option<Entry> {
    let Some(source) = source_of(sources, &entry.text) else {
        return Some(entry.clone());
    };
    let source = source.as_table()?;
    let text = |key: &str| source.get(key).and_then(Value::as_str);
    if source.contains_key("marker") || source.contains_key("lfs") || source.contains_key("index") || entry.text.contains('@') {
        return None;
    }
    let subdirectory = text("subdirectory").map(|dir| format!("#subdirectory={dir}")).unwrap_or_default();
    let url = match (text("git"), text("url"), text("path")) {
        (Some(git), None, None) => {
            let version = ["rev", "tag", "branch"].into_iter().find_map(text);
            let git = git.strip_prefix("git+").unwrap_or(git);
            format!(
                "git+{git}{}{subdirectory}",
                version.map(|version| format!("@{version}")).unwrap_or_default()
            )
        }
        (None, Some(url), None) => format!("{url}{subdirectory}"),
        (None, None, Some(path)) if subdirectory.is_empty() => file_url(&dir.join(path_of(path))),
        _ => return None,
    };
    Some(Entry {
        at: entry.at.clone(),
        text: at_url(&entry.text, &url),
    })
}

/// A requirement by its URL: its name and extras, and its marker.
pub(crate) fn at_url(requirement: &str, url: &str) -> String {
    let (named, marker) = requirement.split_once(';').unwrap_or((requirement, ""));
    let end = named
        .find(|c: char| !(c.is_ascii_alphanumeric() || "._-".contains(c)))
        .unwrap_or(named.len());
    let extras = named[end..].trim_start();
    let extras = extras
        .split_once(']')
        .filter(|_| extras.starts_with('['))
        .map(|(extras, _)| format!("{extras}]"));
    let marker = Some(marker.trim())
        .filter(|marker| !marker.is_empty())
        .map(|marker| format!(" ; {marker}"));
    format!(
        "{}{} @ {url}{}",
        &named[..end],
        extras.unwrap_or_default(),
        marker.unwrap_or_default()
    )
}

pub(crate) fn file_url(path: &Path) -> String {
    let path = path.display().to_string();
    format!(
        "file://{}",
        path.replace('%', "%25").replace(' ', "%20").replace('#', "%23").replace(';', "%3B")
    )
}

/// A package's name, as it is compared.
pub(crate) fn name_of(requirement: &str) -> String {
    let text = requirement.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || "._-".contains(c)))
        .unwrap_or(text.len());
    normal(&text[..end])
}

pub(crate) fn normal(name: &str) -> String {
    let parts = name.split(['-', '_', '.']).filter(|part| !part.is_empty());
    parts.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-")
}

/// A project that uv installs, with what it names of this machine.
fn project(doc: &Doc, entries: &[Entry], told: Told, (dir, cwd): (&Path, &Path)) -> anyhow::Result<Read> {
    let mut reader = Reader::new(cwd);
    let list = |reader: &mut Reader<'_>, entries: &[Entry], counts| {
        let texts = entries.iter().map(|entry| reader.entry(entry, dir, counts).map(Value::String));
        texts.collect::<anyhow::Result<Vec<_>>>().map(Value::Array)
    };
    let dependencies = list(&mut reader, entries, true)?;
    let Told { mut settings, mut sources } = told;
    for name in REQUIREMENTS {
        let path = [&TOOL[..], &[name]].concat();
        if let Some(value) = settings.get_mut(name) {
            *value = list(&mut reader, &doc.entries(&path)?, false)?;
        }
    }
    places(doc, &mut reader, &mut settings, dir)?;
    for (name, source) in &mut sources {
        let tables: Vec<&mut Value> = match source {
            Value::Array(list) => list.iter_mut().collect(),
            one => vec![one],
        };
        for table in tables.into_iter().filter_map(Value::as_table_mut) {
            let is_file = |(key, value): &(&str, String)| *key == "path" || value.starts_with("file:");
            let text = |key: &'static str| Some((key, table.get(key)?.as_str()?.to_owned()));
            if let Some((key, path)) = text("path").or_else(|| text("url")).filter(is_file) {
                let at = doc.at(&[&TOOL[..], &["sources", name]].concat());
                let there = reader.archive(&path_of(&path), &at, dir)?;
                table.remove(key);
                table.insert("path".to_owned(), Value::String(format!("../{there}")));
            }
        }
    }
    write(reader.read, dependencies, settings, sources)
}

/// Sends what indexes and lists of links name of this machine.
fn places(doc: &Doc, reader: &mut Reader<'_>, settings: &mut Table, dir: &Path) -> anyhow::Result<()> {
    let mut send = |path: &[&str], value: &mut Value, is_flat: bool| {
        let Some(said) = value.as_str().filter(|said| !is_remote(said)) else {
            return Ok(());
        };
        let path = [&TOOL[..], path].concat();
        if !is_flat {
            return Err(doc.wrong(
                &path,
                &format!(
                    "names the index `{said}` of this machine, which cannot be sent; name a directory of archives with `format = \"flat\"`"
                ),
            ));
        }
        let there = reader.links(said, &doc.at(&path), dir)?;
        *value = Value::String(format!("file://{THERE}/{there}"));
        Ok(())
    };
    for (place, index) in each(settings.get_mut("index")) {
        let is_flat = index.get("format").and_then(Value::as_str) == Some("flat");
        if let Some(url) = index.get_mut("url") {
            send(&["index", &place.to_string(), "url"], url, is_flat)?;
        }
    }
    if let Some(url) = settings.get_mut("index-url") {
        send(&["index-url"], url, false)?;
    }
    for (name, is_flat) in [("extra-index-url", false), ("find-links", true)] {
        for (place, url) in each(settings.get_mut(name)) {
            send(&[name, &place.to_string()], url, is_flat)?;
        }
    }
    Ok(())
}

/// The elements of a list, if it is one.
fn each(value: Option<&mut Value>) -> impl Iterator<Item = (usize, &mut Value)> {
    value.and_then(Value::as_array_mut).into_iter().flatten().enumerate()
}

/// Writes what uv reads, and what tells every other installer that it cannot.
pub(crate) fn write(mut read: Read, dependencies: Value, settings: Table, sources: Table) -> anyhow::Result<Read> {
    let text = |table: &Table| toml::to_string(table).map(String::into_bytes);
    read.files.push((parsed(UV_SETTINGS)?, Content::Made(text(&settings)?)));
    let mut uv = settings;
    if !sources.is_empty() {
        uv.insert("sources".to_owned(), Value::Table(sources));
    }
    let table =
        |pairs: Vec<(&str, Value)>| -> Value { Value::Table(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()) };
    let named = |name: &str| Value::String(name.to_owned());
    let project = table(vec![
        ("name", named("rgrid-job")),
        ("version", named("0")),
        ("dependencies", dependencies),
    ]);
    let tool = table(vec![("uv", Value::Table(uv))]);
    let whole: Table = [("project".to_owned(), project), ("tool".to_owned(), tool)].into_iter().collect();
    read.files.push((parsed(UV_PROJECT)?, Content::Made(text(&whole)?)));
    let other = format!("# Only uv can install this, from {UV_PROJECT}: what follows stops every other installer.\n--needs-uv\n");
    read.files
        .push((parsed(Kind::Pip.declaration())?, Content::Made(other.into_bytes())));
    Ok(read)
}
