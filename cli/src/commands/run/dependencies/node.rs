//! Packages that a package.json names, with its lock file and the archives beside it that it installs from.

use std::path::Path;

use bus::dependencies::Kind;
use serde_json::{Map, Value};

use super::{Content, Declared, LONGEST, wrong_file};
use crate::{commands::run::plan::parsed, failure::usage, text};

/// Lists of packages.
const LISTS: [&str; 4] = ["dependencies", "devDependencies", "optionalDependencies", "peerDependencies"];
/// What else decides what is installed; scripts, versions and the like are the project's own.
const ALSO: [&str; 7] = [
    "name",
    "bundleDependencies",
    "dependenciesMeta",
    "peerDependenciesMeta",
    "overrides",
    "engines",
    "type",
];
const LOCKS: [&str; 2] = ["npm-shrinkwrap.json", "package-lock.json"];

/// The packages that a package.json names; nothing where it names none.
///
/// # Errors
/// A usage error where it cannot be read, or names what cannot be sent.
pub(super) fn read(path: &Path, shown: String) -> anyhow::Result<Option<Declared>> {
    let wrong = |what: String| usage(format!("{shown} {what}, or leave it out with --no-requirements"));
    let text = text::read(path, LONGEST).map_err(|error| wrong_file(&error))?;
    let package: Map<String, Value> = serde_json::from_str(&text).map_err(|error| wrong(format!("cannot be read: {error}; correct it")))?;
    let lists = || LISTS.iter().filter_map(|list| package.get(*list)?.as_object());
    let packages = lists().map(Map::len).sum::<usize>();
    if packages == 0 {
        return Ok(None);
    }
    if package.contains_key("workspaces") {
        return Err(wrong(
            "has workspaces, which cannot be sent; bundle the script with what it uses of them".to_owned(),
        ));
    }
    let dir = path.parent().unwrap_or(Path::new("/"));
    let reduced: Map<String, Value> = package
        .iter()
        .filter(|(name, _)| LISTS.contains(&name.as_str()) || ALSO.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let mut files = vec![(
        parsed(Kind::Npm.declaration())?,
        Content::Made(serde_json::to_vec_pretty(&reduced)?),
    )];
    for (name, said) in lists().flatten() {
        let Some(local) = said.as_str().and_then(local) else { continue };
        let archive = local.trim_start_matches("./");
        let file = dir.join(archive);
        let fits = archive.parse::<bus::spec::RelPath>();
        match fits {
            Ok(at) if file.is_file() => files.push((at, Content::Of(file))),
            _ => {
                return Err(wrong(format!(
                    "installs `{name}` from `{local}`, which is no archive beside it; pack it (`npm pack {local}`), and name that (file:NAME.tgz)"
                )));
            }
        }
    }
    if let Some(lock) = LOCKS.iter().find(|lock| dir.join(lock).is_file()) {
        files.push((parsed(lock)?, Content::Of(dir.join(lock))));
    }
    files.dedup();
    Ok(Some(Declared {
        kind: Kind::Npm,
        declared_in: shown,
        packages: u32::try_from(packages).unwrap_or(u32::MAX),
        python: None,
        files,
    }))
}

/// The path here that a package is installed from, if it is one: what begins as npm has paths begin.
fn local(said: &str) -> Option<&str> {
    let path = said.strip_prefix("file:").or_else(|| said.strip_prefix("link:"));
    path.or_else(|| ["./", "../", "/", "~/"].iter().any(|start| said.starts_with(start)).then_some(said))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_package_says_what_it_needs() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("package.json");
        let of = |text: &str| {
            fs::write(&path, text)?;
            read(&path, "package.json".to_owned())
        };
        fs::write(dir.path().join("a.tgz"), "archive")?;
        assert_eq!(of(r#"{"name": "x", "type": "module", "scripts": {"prepare": "false"}}"#)?, None);
        let text = r#"{"version": "1.0.0", "scripts": {"prepare": "false"}, "dependencies": {"a": "file:./a.tgz", "b": "^1"}}"#;
        let declared = of(text)?.expect("two packages");
        let names: Vec<&str> = declared.files.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!((declared.packages, names), (2, vec!["package.json", "a.tgz"]));
        let again = of(&text.replace("1.0.0", "1.0.1").replace("false", "true"))?;
        assert_eq!(again.as_ref(), Some(&declared), "what installs nothing changes nothing");
        fs::write(dir.path().join("package-lock.json"), "{}")?;
        assert_eq!(of(text)?.map(|declared| declared.files.len()), Some(3));
        for (text, expected) in [
            (r#"{"dependencies": {"a": "file:../a.tgz"}}"#, "npm pack ../a.tgz"),
            (r#"{"dependencies": {"a": "file:lib"}}"#, "no archive beside it"),
            (r#"{"dependencies": {"a": "1"}, "workspaces": ["x"]}"#, "workspaces"),
            ("{", "cannot be read"),
        ] {
            let error = of(text).expect_err("it cannot be sent").to_string();
            assert!(error.contains(expected) && error.contains("--no-requirements"), "{error}");
        }
        Ok(())
    }
}
