//! Packages that a project names in its pyproject.toml, in the words of several tools: `[project]`, uv's, and Poetry's.

use std::{collections::BTreeSet, path::Path};

use toml::Value;

use super::{
    Declared, LONGEST,
    doc::Doc,
    poetry, python,
    requirements::{self, Entry, Read},
    settings, uv, wrong_file,
};
use crate::{
    run::{messages, scan::is_of_project},
    text,
};

/// What other tools say of where packages come from, or of their versions: not read here, and never left out without a word.
const FOREIGN: [&[&str]; 4] = [
    &["tool", "pdm", "source"],
    &["tool", "pdm", "resolution", "overrides"],
    &["tool", "pdm", "resolution", "excludes"],
    &["tool", "rye", "sources"],
];
/// Tables of packages that other tools install in addition.
const OTHER_TABLES: [&[&str]; 6] = [
    &["tool", "pdm", "dev-dependencies"],
    &["tool", "hatch", "envs", "default", "dependencies"],
    &["tool", "rye", "dev-dependencies"],
    &["tool", "pixi", "dependencies"],
    &["tool", "pixi", "pypi-dependencies"],
    &["tool", "flit", "metadata", "requires"],
];
/// Lock files of other tools, which they alone read.
const LOCKS: [&str; 4] = ["uv.lock", "poetry.lock", "pdm.lock", "pylock.toml"];

/// The packages and the Python that a pyproject.toml names; nothing where it names neither.
///
/// # Errors
/// A usage error with the line that cannot be honoured.
pub(crate) fn read(path: &Path, shown: &str, cwd: &Path) -> anyhow::Result<Option<Declared>> {
    let text = text::read(path, LONGEST).map_err(|error| wrong_file(&error))?;
    let doc = Doc::parse(shown, text, 0)?;
    let dir = path.parent().unwrap_or(cwd);
    let poetry = poetry::read(&doc, dir)?;
    let own = doc.text(&["project", "requires-python"])?.map(ToOwned::to_owned);
    if let Some(own) = &own {
        python::check(own).map_err(|wrong| doc.wrong(&["project", "requires-python"], &wrong))?;
    }
    let python = own.or_else(|| poetry.as_ref().and_then(|poetry| poetry.python.clone()));
    let Some((entries, declared)) = entries(&doc, poetry.as_ref(), (dir, cwd))? else {
        return Ok(Declared::pip(shown.to_owned(), python, Read::default()));
    };
    if entries.is_empty() {
        say_what_others_install(&doc);
        return Ok(Declared::pip(shown.to_owned(), python, declared.unwrap_or_default()));
    }
    if let Some(path) = FOREIGN.iter().find(|path| doc.get(path).is_some()) {
        return Err(doc.wrong(
            path,
            &format!("says with `{}` where packages come from or which are left out, which rgrid does not read; say it with [tool.uv], or name the packages with --requirements FILE", path.join(".")),
        ));
    }
    say_what_others_install(&doc);
    no_settings_beside(dir)?;
    let read = match poetry.filter(|poetry| !poetry.indexes.is_empty()) {
        Some(poetry) if doc.get(&uv::TOOL).is_some() => {
            return Err(doc.wrong(
                &["tool", "poetry", "source"],
                &format!("names an index beside [tool.uv] ({}); say it once", poetry.at),
            ));
        }
        Some(poetry) => poetry.declared(&entries, (dir, cwd))?,
        None => {
            let told = uv::told(&doc, &entries)?;
            uv::declared(&doc, &entries, told, (dir, cwd))?
        }
    };
    not_locked(dir, shown);
    Ok(Declared::pip(shown.to_owned(), python, read))
}

/// All requirements of a project, and of the groups that its tool installs by default; nothing where a build system alone knows them.
fn entries(doc: &Doc, poetry: Option<&poetry::Poetry>, (dir, cwd): (&Path, &Path)) -> anyhow::Result<Option<(Vec<Entry>, Option<Read>)>> {
    let is_dynamic = doc
        .entries(&["project", "dynamic"])?
        .iter()
        .any(|field| field.text == "dependencies");
    let path = ["project", "dependencies"];
    let mut entries = doc.entries(&path)?;
    if let Some(entry) = entries
        .iter()
        .find(|entry| entry.text.contains("{root:") || entry.text.contains("{home:"))
    {
        return Err(requirements::wrong_line(
            &entry.at,
            &format!(
                "names `{}`, which Hatch alone can resolve; build a wheel of it and name that",
                entry.text
            ),
        ));
    }
    match poetry {
        Some(poetry) if entries.is_empty() => entries.extend(poetry.entries.iter().cloned()),
        Some(poetry) => poetry.enrich(&mut entries),
        None if is_dynamic => match setuptools(doc, dir, cwd)? {
            Some(read) => return Ok(Some((Vec::new(), Some(read)))),
            None => {
                messages::once(&format!(
                    "{} leaves the dependencies to a build system, and none are installed; name them with --requirements FILE",
                    doc.at(&["project", "dynamic"])
                ));
                return Ok(None);
            }
        },
        None => {}
    }
    entries.extend(doc.entries(&["tool", "uv", "dev-dependencies"])?);
    entries.extend(groups(doc, dir)?);
    Ok(Some((entries, None)))
}

/// `[tool.setuptools.dynamic] dependencies = { file = "requirements.txt" }`.
fn setuptools(doc: &Doc, dir: &Path, cwd: &Path) -> anyhow::Result<Option<Read>> {
    let path = ["tool", "setuptools", "dynamic", "dependencies", "file"];
    let file = match doc.get(&path) {
        None => return Ok(None),
        Some(Value::String(file)) => file.clone(),
        Some(Value::Array(list)) => match list.as_slice() {
            [Value::String(file)] => file.clone(),
            _ => {
                return Err(doc.wrong(&path, "names several files of requirements, which cannot be sent; name one that names the others (-r), or --requirements FILE"));
            }
        },
        Some(_) => return Err(doc.wrong(&path, "is not a file; correct it")),
    };
    let at = dir.join(&file);
    if !at.is_file() {
        return Err(doc.wrong(&path, &format!("names `{file}`, which is not there; correct it")));
    }
    if !is_of_project(&at, &[dir, cwd]) {
        return Err(doc.wrong(
            &path,
            &format!("names `{file}`, which lies outside the project; copy it into the project"),
        ));
    }
    requirements::read(&at, &file, cwd).map(Some)
}

/// The groups that `uv run` and `uv sync` install by default, in a project of uv's.
fn groups(doc: &Doc, dir: &Path) -> anyhow::Result<Vec<Entry>> {
    if doc.get(&uv::TOOL).is_none() && !dir.join("uv.lock").is_file() {
        return Ok(Vec::new());
    }
    let table = doc.table(&["dependency-groups"])?;
    let names: Vec<String> = match doc.get(&["tool", "uv", "default-groups"]) {
        None => vec!["dev".to_owned()],
        Some(Value::String(all)) if all == "all" => table.into_iter().flatten().map(|(name, _)| name.clone()).collect(),
        Some(_) => {
            let names = doc.entries(&["tool", "uv", "default-groups"])?;
            names.into_iter().map(|entry| entry.text).collect()
        }
    };
    let (mut entries, mut seen) = (Vec::new(), BTreeSet::new());
    for name in names {
        group(doc, &name, &mut seen, &mut entries)?;
    }
    Ok(entries)
}

fn group(doc: &Doc, name: &str, seen: &mut BTreeSet<String>, entries: &mut Vec<Entry>) -> anyhow::Result<()> {
    if !seen.insert(uv::normal(name)) {
        return Ok(());
    }
    let table = doc.table(&["dependency-groups"])?;
    let found = table.into_iter().flatten().find(|(known, _)| uv::normal(known) == uv::normal(name));
    let Some((known, value)) = found else { return Ok(()) };
    let path = ["dependency-groups", known.as_str()];
    let list = value.as_array().ok_or_else(|| doc.wrong(&path, "is not a list; correct it"))?;
    for (place, value) in list.iter().enumerate() {
        let place = place.to_string();
        let path = [&path[..], &[place.as_str()]].concat();
        let included = value.get("include-group").and_then(Value::as_str);
        match (value, included) {
            (Value::String(text), _) => entries.push(Entry {
                at: doc.at(&path),
                text: text.clone(),
            }),
            (_, Some(name)) => group(doc, name, seen, entries)?,
            _ => return Err(doc.wrong(&path, "is not a requirement; correct it")),
        }
    }
    Ok(())
}

/// Warns once of packages that only other tools install.
fn say_what_others_install(doc: &Doc) {
    if let Some(path) = OTHER_TABLES.iter().find(|path| doc.get(path).is_some()) {
        messages::once(&format!(
            "{} names packages with `{}`, which are not installed; name them with --requirements FILE if the script needs them",
            doc.at(path),
            path.join(".")
        ));
    }
}

/// Rejects a uv.toml, whose settings uv reads instead of those of a project.
///
/// # Errors
/// A usage error where there is one that says something.
pub(crate) fn no_settings_beside(dir: &Path) -> anyhow::Result<()> {
    let path = dir.join("uv.toml");
    if !path.is_file() {
        return Ok(());
    }
    let text = text::read(&path, LONGEST).map_err(|error| wrong_file(&error))?;
    let doc = Doc::parse(&path.display().to_string(), text, 0)?;
    match doc.names().find(|name| settings::is_honoured(name)) {
        Some(name) => Err(doc.wrong(
            &[name],
            &format!("sets `{name}` for uv, and rgrid reads no uv.toml; say it with [tool.uv] in pyproject.toml, or name the packages with --requirements FILE"),
        )),
        None => Ok(()),
    }
}

/// The Python that a project needs whose packages another file names.
///
/// # Errors
/// A usage error where it cannot be read.
pub(crate) fn python_of(path: &Path, shown: &str) -> anyhow::Result<Option<String>> {
    let text = text::read(path, LONGEST).map_err(|error| wrong_file(&error))?;
    let doc = Doc::parse(shown, text, 0)?;
    let python = doc.text(&["project", "requires-python"])?;
    if let Some(python) = python {
        python::check(python).map_err(|wrong| doc.wrong(&["project", "requires-python"], &wrong))?;
    }
    Ok(python.map(ToOwned::to_owned))
}

/// Rejects an index in a project beside a list that names none: what is meant to come from there would be asked of the default index.
///
/// # Errors
/// A usage error where there is one.
pub(crate) fn no_index_beside(project: Option<&Path>, list: &str, shown: &dyn Fn(&Path) -> String) -> anyhow::Result<()> {
    let Some(path) = project else { return Ok(()) };
    let text = text::read(path, LONGEST).map_err(|error| wrong_file(&error))?;
    let doc = Doc::parse(&shown(path), text, 0)?;
    let others = [
        &["tool", "poetry", "source"][..],
        &["tool", "pdm", "source"],
        &["tool", "rye", "sources"],
    ];
    let of_others = others.iter().find(|path| doc.get(path).is_some()).map(|path| doc.at(path));
    match uv::place(&doc).or(of_others) {
        Some(at) => Err(requirements::wrong_line(
            &at,
            &format!(
                "names an index, and {list}, which counts, names none: its packages would come from the default index; name the index there too (--index-url), or say --requirements {}",
                doc.shown()
            ),
        )),
        None => Ok(()),
    }
}

/// Says that a lock file is not read, once.
fn not_locked(dir: &Path, shown: &str) {
    if let Some(lock) = LOCKS.iter().find(|lock| dir.join(lock).is_file()) {
        let export = match *lock {
            "poetry.lock" => "poetry export -o requirements.txt",
            "pdm.lock" => "pdm export -o requirements.txt",
            "pylock.toml" => "--requirements FILE",
            _ => "uv export -o requirements.txt",
        };
        messages::once(&format!(
            "{lock} is not read: what {shown} allows is installed; for the very versions of the lock: {export}"
        ));
    }
}

#[cfg(test)]
#[path = "pyproject_tests.rs"]
mod tests;
