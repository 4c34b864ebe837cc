//! What stands below a directory: files, links that stay in it, empty directories.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use bus::tree::Link;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use ignore::WalkBuilder;

use crate::failure::usage;

/// The most files of one directory: far more are surely not meant.
const MOST: usize = 200_000;

/// What stands below a directory, by paths from there with `/`.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// Each file, and where it really is.
    pub(super) files: Vec<(String, PathBuf)>,
    /// Links, and what they say.
    pub(super) links: Vec<(String, String)>,
    /// Directories without anything in them.
    pub(super) dirs: Vec<String>,
}

/// Which part of a directory is meant.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice<'a> {
    /// What is left out.
    pub(super) exclude: &'a GlobSet,
    /// Whether to leave out .git, and what .gitignore names.
    pub(super) as_git: bool,
    /// The only files that are meant, if not all.
    pub(super) only: Option<&'a GlobSet>,
}

/// A set of globs, as .gitignore has them: one without a `/` matches a name anywhere.
///
/// # Errors
/// A usage error that names the option.
pub(super) fn globs(option: &str, globs: &[String], anywhere: bool) -> anyhow::Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    for text in globs {
        let wrong = |error: globset::Error| {
            usage(format!(
                "{option} `{text}` is not a glob: {}; quote it, as in '*.csv'",
                error.kind()
            ))
        };
        let path = text.trim_start_matches("./").trim_end_matches('/');
        let path = if anywhere && !path.contains('/') {
            format!("**/{path}")
        } else {
            path.to_owned()
        };
        set.add(GlobBuilder::new(&path).literal_separator(true).build().map_err(wrong)?);
    }
    set.build().map_err(|error| usage(format!("{option}: {error}")))
}

/// Looks through a directory.
///
/// # Errors
/// A usage error where something in it cannot be read or sent, or there is too much.
pub(super) fn below(root: &Path, choice: Choice<'_>) -> anyhow::Result<Gathered> {
    let mut found = Gathered::default();
    let mut filled = BTreeSet::new();
    let mut visited = BTreeSet::new();
    let mut to_visit = vec![(root.to_owned(), String::new())];
    while let Some((dir, prefix)) = to_visit.pop() {
        // A link that leads into a directory it stands in would have no end.
        if !visited.insert(dir.canonicalize().unwrap_or_else(|_| dir.clone())) {
            continue;
        }
        visit(&dir, &prefix, choice, &mut found, &mut to_visit)?;
    }
    let paths = found
        .files
        .iter()
        .map(|(path, _)| path)
        .chain(found.links.iter().map(|(path, _)| path));
    for path in paths.chain(&found.dirs) {
        filled.extend(path.match_indices('/').map(|(at, _)| path[..at].to_owned()));
    }
    found.dirs.retain(|dir| !filled.contains(dir));
    if choice.only.is_some() {
        found.dirs.clear();
    }
    found.files.sort();
    Ok(found)
}

fn visit(dir: &Path, prefix: &str, choice: Choice<'_>, found: &mut Gathered, to_visit: &mut Vec<(PathBuf, String)>) -> anyhow::Result<()> {
    let (root, before, exclude, as_git) = (dir.to_owned(), prefix.to_owned(), choice.exclude.clone(), choice.as_git);
    let walk = WalkBuilder::new(dir)
        .standard_filters(false)
        .git_ignore(as_git)
        .git_exclude(as_git)
        .parents(as_git)
        .require_git(false)
        .filter_entry(move |entry| {
            let path = entry.path().strip_prefix(&root).unwrap_or(entry.path());
            let own = as_git && entry.file_name() == ".git";
            !own && !exclude.is_match(Path::new(&before).join(path))
        })
        .build();
    for entry in walk {
        let entry = entry.map_err(|error| {
            usage(format!(
                "cannot look through {}: {error}; make it readable, or leave it out with --exclude",
                dir.display()
            ))
        })?;
        let Ok(relative) = entry.path().strip_prefix(dir) else { continue };
        if relative.as_os_str().is_empty() {
            continue;
        }
        let path = text(prefix, relative)?;
        let kind = entry.file_type();
        if kind.is_some_and(|kind| kind.is_symlink()) {
            link(entry.path(), path, choice, found, to_visit);
        } else if kind.is_some_and(|kind| kind.is_dir()) {
            found.dirs.push(path);
        } else if kind.is_some_and(|kind| kind.is_file()) && is_meant(choice, &path) {
            found.files.push((path, entry.into_path()));
        }
        if found.files.len() > MOST {
            return Err(usage(format!(
                "{} has more than {MOST} files; leave some out with --exclude, or pass it as plain text with --no-input",
                dir.display()
            )));
        }
    }
    Ok(())
}

fn is_meant(choice: Choice<'_>, path: &str) -> bool {
    choice.only.is_none_or(|only| only.is_match(path))
}

/// A link that stays inside stays a link; where one leads out, what it leads to goes along in its place. One that leads nowhere
/// leads nowhere there either.
fn link(at: &Path, path: String, choice: Choice<'_>, found: &mut Gathered, to_visit: &mut Vec<(PathBuf, String)>) {
    let target = fs::read_link(at).ok().and_then(|target| target.to_str().map(str::to_owned));
    let inside = path.parse().ok().zip(target.clone()).is_some_and(|(path, target)| {
        let led = Link { path, target }.leads_to();
        led.is_some_and(|to| choice.only.is_none_or(|only| only.is_match(&to)) && !choice.exclude.is_match(&to))
    });
    match (inside, target, fs::metadata(at)) {
        (true, Some(target), _) if is_meant(choice, &path) => found.links.push((path, target)),
        (false, _, Ok(meta)) if meta.is_file() && is_meant(choice, &path) => found.files.push((path, at.to_owned())),
        (false, _, Ok(meta)) if meta.is_dir() => to_visit.push((at.to_owned(), path)),
        (_, _, _) => {}
    }
}

fn text(prefix: &str, relative: &Path) -> anyhow::Result<String> {
    let relative = relative.to_str().ok_or_else(|| {
        usage(format!(
            "the name `{}` is not text (UTF-8), and cannot be sent; rename it, or leave it out with --exclude",
            relative.display()
        ))
    })?;
    Ok(if prefix.is_empty() {
        relative.to_owned()
    } else {
        format!("{prefix}/{relative}")
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn paths<T>(found: &[(String, T)]) -> Vec<&str> {
        found.iter().map(|(path, _)| path.as_str()).collect()
    }

    #[test]
    fn what_stands_below_is_found_and_links_that_lead_out_are_followed() -> anyhow::Result<()> {
        let temp = tempfile::tempdir()?;
        let root = temp.path().join("root");
        for dir in ["a/empty", "node_modules/x", "a/b", ".git"] {
            fs::create_dir_all(root.join(dir))?;
        }
        for file in ["a/1.csv", "a/b/2.csv", "skip.tmp", "node_modules/x/y.js", ".git/config", ".hidden"] {
            fs::write(root.join(file), file)?;
        }
        fs::write(root.join(".gitignore"), "node_modules/\n")?;
        fs::create_dir(temp.path().join("out"))?;
        fs::write(temp.path().join("out/far"), "far")?;
        symlink("1.csv", root.join("a/inside"))?;
        symlink("../out", root.join("outside"))?;
        symlink("nowhere", root.join("dangling"))?;
        symlink("..", root.join("a/up"))?;
        let exclude = globs("--exclude", &["*.tmp".to_owned()], true)?;
        let choice = Choice {
            exclude: &exclude,
            as_git: true,
            only: None,
        };
        let found = below(&root, choice)?;
        assert_eq!(
            paths(&found.files),
            [".gitignore", ".hidden", "a/1.csv", "a/b/2.csv", "outside/far"]
        );
        let mut links = paths(&found.links);
        links.sort_unstable();
        assert_eq!(links, ["a/inside", "a/up", "dangling"]);
        assert_eq!(found.dirs, ["a/empty"]);
        let only = globs("--include", &["a/**/*.csv".to_owned()], false)?;
        let only = Choice {
            only: Some(&only),
            ..choice
        };
        assert_eq!(paths(&below(&root, only)?.files), ["a/1.csv", "a/b/2.csv"]);
        let everything = Choice { as_git: false, ..choice };
        assert_eq!(below(&root, everything)?.files.len(), 7);
        Ok(())
    }
}
