//! Packages that a package.json names, with its lock file and the archives beside it that it installs from.

use std::{
    env,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use bus::spec::dependencies::Kind;
use serde_json::{Map, Value};

use super::{Content, Declared, LONGEST, npmrc, requirements::wrong_line, wrong_file};
use crate::{
    failure::usage,
    run::{messages, plan::input::parsed, scan::is_of_project},
    text,
};

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
/// The most members of a workspace that are looked at.
const MEMBERS: usize = 1000;
/// Lock files of tools that do not install here, and of a workspace.
const OTHER_LOCKS: [&str; 5] = ["yarn.lock", "pnpm-lock.yaml", "bun.lock", "bun.lockb", "package-lock.json"];
const LOCKS: [&str; 2] = ["npm-shrinkwrap.json", "package-lock.json"];

/// The packages that a package.json names; nothing where it names none.
///
/// # Errors
/// A usage error where it cannot be read, or names what cannot be sent.
pub(crate) fn read(path: &Path, shown: String) -> anyhow::Result<Option<Declared>> {
    let wrong = |what: String| usage(format!("{shown} {what}, or leave it out with --no-requirements"));
    let text = text::read(path, LONGEST).map_err(|error| wrong_file(&error))?;
    let package: Map<String, Value> = serde_json::from_str(&text).map_err(|error| wrong(format!("cannot be read: {error}; correct it")))?;
    let lists = || LISTS.iter().filter_map(|list| package.get(*list)?.as_object());
    let packages = lists().map(Map::len).sum::<usize>();
    if packages == 0 {
        return Ok(None);
    }
    let dir = path.parent().unwrap_or(Path::new("/"));
    let root = foreign(&package)
        .map_or(Ok(()), |what| Err(wrong(what)))
        .and_then(|()| workspace(dir))?;
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
        if let Some(what) = root.as_ref().and_then(|root| root.member(name)) {
            return Err(wrong(format!(
                "needs `{name}`, a member of the workspace ({what}), which cannot be sent; pack it (`npm pack`), and name that (file:NAME.tgz)"
            )));
        }
        let protocol = ["workspace:", "catalog:", "portal:", "patch:"]
            .iter()
            .find(|one| said.as_str().is_some_and(|said| said.starts_with(*one)));
        if let Some(protocol) = protocol {
            return Err(wrong(format!(
                "needs `{name}` by `{protocol}`, which npm does not read; name a version, or an archive (file:NAME.tgz)"
            )));
        }
        let Some(local) = said.as_str().and_then(local) else { continue };
        let archive = local.trim_start_matches("./");
        let file = dir.join(archive);
        let fits = archive.parse::<bus::spec::RelPath>();
        match fits {
            Ok(at) if file.is_file() && is_of_project(&file, &[dir]) => files.push((at, Content::Of(file))),
            _ => {
                return Err(wrong(format!(
                    "installs `{name}` from `{local}`, which is not an archive beside it; pack it (`npm pack {local}`), and name that (file:NAME.tgz)"
                )));
            }
        }
    }
    let config_dir = root.as_ref().map_or(dir, |root| &root.dir);
    let config = shown
        .rsplit_once('/')
        .map_or(npmrc::NAME.to_owned(), |(dir, _)| format!("{dir}/{}", npmrc::NAME));
    if let Some(text) = npmrc::read(config_dir, &config)? {
        files.push((parsed(npmrc::NAME)?, Content::Made(text.into_bytes())));
    }
    not_yarns(config_dir)?;
    let is_own = |name: &&&str| dir.join(name).is_file() && is_of_project(&dir.join(name), &[dir]);
    match LOCKS.iter().find(is_own) {
        Some(lock) => files.push((parsed(lock)?, Content::Of(dir.join(lock)))),
        None => not_locked(config_dir, &shown),
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

/// What a package.json says that npm does not read, in the second half of a sentence.
fn foreign(package: &Map<String, Value>) -> Option<String> {
    if package.contains_key("workspaces") {
        return Some("has workspaces, which cannot be sent; bundle the script with what it uses of them".to_owned());
    }
    let of_pnpm = ["overrides", "patchedDependencies", "packageExtensions"];
    let pnpm = package.get("pnpm").and_then(Value::as_object);
    let other = pnpm
        .and_then(|pnpm| of_pnpm.iter().find(|key| pnpm.contains_key(**key)))
        .map(|key| format!("pnpm.{key}"));
    let other = other.or_else(|| package.contains_key("resolutions").then(|| "resolutions".to_owned()))?;
    Some(format!(
        "has `{other}`, which npm does not read, and npm installs; say it with `overrides`"
    ))
}

/// A workspace that a package may be a member of.
#[derive(Debug)]
struct Workspace {
    dir: PathBuf,
    /// Its members: their names, and where they are.
    members: Vec<(String, String)>,
}

impl Workspace {
    fn member(&self, name: &str) -> Option<&str> {
        self.members.iter().find(|(known, _)| known == name).map(|(_, at)| at.as_str())
    }
}

/// The workspace above a package, up to the root of its repository, in directories of the same owner; nothing where there is none.
fn workspace(dir: &Path) -> anyhow::Result<Option<Workspace>> {
    let owner = |dir: &Path| std::fs::metadata(dir).map(|meta| meta.uid()).ok();
    let is_root = |dir: &Path| dir.join(".git").exists();
    let above = dir.ancestors().skip(1).take_while(|above| owner(above) == owner(dir));
    let mut below_root = !is_root(dir);
    for above in above.take_while(|above| std::mem::replace(&mut below_root, !is_root(above)) && Some(*above) != env::home_dir().as_deref())
    {
        let patterns = patterns(above)?;
        if !patterns.is_empty() {
            let members = patterns.iter().flat_map(|pattern| members(above, pattern)).collect();
            return Ok(Some(Workspace {
                dir: above.to_owned(),
                members,
            }));
        }
    }
    Ok(None)
}

/// The patterns of a workspace's members; none where a directory is not the root of one.
fn patterns(dir: &Path) -> anyhow::Result<Vec<String>> {
    let package = dir.join("package.json");
    let mut patterns = Vec::new();
    if package.is_file() {
        let text = text::read(&package, LONGEST).map_err(|error| wrong_file(&error))?;
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        let list = value.get("workspaces").map(|list| list.get("packages").unwrap_or(list));
        let list = list.and_then(Value::as_array).into_iter().flatten();
        patterns.extend(list.filter_map(Value::as_str).map(ToOwned::to_owned));
    }
    let pnpm = dir.join("pnpm-workspace.yaml");
    if pnpm.is_file() {
        let text = text::read(&pnpm, LONGEST).map_err(|error| wrong_file(&error))?;
        let lines = text.lines().skip_while(|line| !line.starts_with("packages:")).skip(1);
        let lines = lines.map_while(|line| line.trim().strip_prefix('-'));
        patterns.extend(lines.map(|line| line.trim().trim_matches(['"', '\'']).to_owned()));
    }
    Ok(patterns)
}

/// The members that a pattern names.
fn members(root: &Path, pattern: &str) -> Vec<(String, String)> {
    let whole = format!("{}/{pattern}/package.json", glob::Pattern::escape(&root.to_string_lossy()));
    let found = glob::glob(&whole).into_iter().flatten().filter_map(Result::ok).take(MEMBERS);
    let name = |path: PathBuf| {
        let text = text::read(&path, LONGEST).ok()?;
        let name = serde_json::from_str::<Value>(&text).ok()?.get("name")?.as_str()?.to_owned();
        let shown = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        Some((name, shown))
    };
    found.filter_map(name).collect()
}

/// Rejects what yarn alone is told of registries.
fn not_yarns(dir: &Path) -> anyhow::Result<()> {
    for name in [".yarnrc.yml", ".yarnrc"] {
        let path = dir.join(name);
        if !path.is_file() {
            continue;
        }
        let text = text::read(&path, LONGEST).map_err(|error| wrong_file(&error))?;
        let says = |line: &str| {
            ["npmRegistryServer", "npmScopes", "registry "]
                .iter()
                .any(|key| line.trim_start().starts_with(key))
                || line.contains(":registry")
        };
        if let Some(index) = text.lines().position(says) {
            return Err(wrong_line(
                &format!("{name}, line {}", index + 1),
                &format!("names a registry for yarn, and npm installs; say it in {}", npmrc::NAME),
            ));
        }
    }
    Ok(())
}

/// Says that a lock file of another tool is not read, once.
fn not_locked(dir: &Path, shown: &str) {
    if let Some(lock) = OTHER_LOCKS.iter().find(|lock| dir.join(lock).is_file()) {
        messages::once(&format!(
            "{lock} is not read: npm installs what {shown} allows; for the very versions, make a package-lock.json beside it (`npm install --package-lock-only`)"
        ));
    }
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
            (r#"{"dependencies": {"a": "file:lib"}}"#, "not an archive beside it"),
            (r#"{"dependencies": {"a": "1"}, "workspaces": ["x"]}"#, "workspaces"),
            (r#"{"dependencies": {"a": "workspace:*"}}"#, "by `workspace:`"),
            (r#"{"dependencies": {"a": "catalog:"}}"#, "by `catalog:`"),
            (r#"{"dependencies": {"a": "1"}, "resolutions": {"b": "2"}}"#, "has `resolutions`"),
            (
                r#"{"dependencies": {"a": "1"}, "pnpm": {"overrides": {"b": "2"}}}"#,
                "has `pnpm.overrides`",
            ),
            ("{", "cannot be read"),
        ] {
            let error = of(text).expect_err("it cannot be sent").to_string();
            assert!(error.contains(expected) && error.contains("--no-requirements"), "{error}");
        }
        Ok(())
    }

    #[test]
    fn what_decides_where_packages_come_from_counts_or_is_rejected() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent"))?;
            fs::write(path, text)
        };
        fs::create_dir(dir.path().join(".git"))?;
        write("package.json", r#"{"workspaces": ["packages/*"]}"#)?;
        write("packages/lib/package.json", r#"{"name": "@corp/lib"}"#)?;
        write("packages/app/package.json", r#"{"name": "app", "dependencies": {"six": "1"}}"#)?;
        write(".npmrc", "@corp:registry=https://npm.corp.example/\n")?;
        let app = dir.path().join("packages/app/package.json");
        let names = |declared: &Declared| declared.files.iter().map(|(path, _)| path.to_string()).collect::<Vec<_>>();
        let declared = read(&app, "packages/app/package.json".to_owned())?.expect("a package");
        assert_eq!(
            names(&declared),
            ["package.json", ".npmrc"],
            "the workspace's configuration is its members'"
        );
        write(
            "packages/app/package.json",
            r#"{"name": "app", "dependencies": {"@corp/lib": "^1.0.0"}}"#,
        )?;
        let error = read(&app, "packages/app/package.json".to_owned())
            .expect_err("a member")
            .to_string();
        assert!(
            error.contains("needs `@corp/lib`, a member of the workspace (packages/lib/package.json)"),
            "{error}"
        );
        write("package.json", "{}")?;
        write("pnpm-workspace.yaml", "packages:\n  - 'packages/*'\n")?;
        let error = read(&app, "packages/app/package.json".to_owned())
            .expect_err("a member")
            .to_string();
        assert!(error.contains("a member of the workspace"), "{error}");
        fs::remove_file(dir.path().join("pnpm-workspace.yaml"))?;
        write("packages/app/.yarnrc.yml", "nodeLinker: node-modules\nnpmScopes:\n  corp:\n")?;
        let error = read(&app, "packages/app/package.json".to_owned()).expect_err("yarn's").to_string();
        assert!(error.contains(".yarnrc.yml, line 2 names a registry for yarn"), "{error}");
        Ok(())
    }
}
