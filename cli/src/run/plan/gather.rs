//! Lists a directory: files, links that stay in it, and empty directories.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use bus::spec::tree::Link;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::{failure::usage, saving::OWN_DIR};

/// The maximum number of files of one directory.
const MOST: usize = 200_000;

/// What stands below a directory, by paths from there with `/`.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// Each file, and where it really is.
    pub(crate) files: Vec<(String, PathBuf)>,
    /// Links, and their targets.
    pub(crate) links: Vec<(String, String)>,
    /// Directories without anything in them.
    pub(crate) dirs: Vec<String>,
}

impl Gathered {
    /// Whether there is nothing at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.links.is_empty() && self.dirs.is_empty()
    }
}

/// Which part of a directory is meant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice<'a> {
    /// What is left out.
    pub(crate) exclude: &'a GlobSet,
    /// Whether to leave out .git, and what .gitignore names.
    pub(crate) as_git: bool,
    /// The only files that are meant, if not all.
    pub(crate) only: Option<&'a GlobSet>,
}

/// A set of globs, as .gitignore has them: one without a `/` matches a name anywhere.
///
/// # Errors
/// A usage error that names the option.
pub(crate) fn globs(option: &str, globs: &[String], anywhere: bool) -> anyhow::Result<GlobSet> {
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
pub(crate) fn below(root: &Path, choice: Choice<'_>) -> anyhow::Result<Gathered> {
    let mut found = Gathered::default();
    let mut filled = BTreeSet::new();
    let mut to_visit = vec![Visit::of(root.to_owned(), String::new(), &[])];
    while let Some(next) = to_visit.pop() {
        visit(&next, choice, &mut found, &mut to_visit)?;
    }
    if choice.as_git {
        add_tracked(root, choice, &mut found)?;
    }
    follow_left_out(root, choice, &mut found);
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

/// What git tracks is part of the project, also where .gitignore names it.
fn add_tracked(root: &Path, choice: Choice<'_>, found: &mut Gathered) -> anyhow::Result<()> {
    let known: BTreeSet<String> = found.files.iter().map(|(path, _)| path.clone()).collect();
    for source in crate::run::scan::tracked(root) {
        let Ok(relative) = source.strip_prefix(root) else { continue };
        let path = text("", relative)?;
        let is_left_out = Path::new(&path)
            .ancestors()
            .any(|part| !part.as_os_str().is_empty() && choice.exclude.is_match(part));
        if !known.contains(&path) && !is_left_out && is_meant(choice, &path) && !source.is_symlink() {
            found.files.push((path, source));
        }
    }
    Ok(())
}

/// A directory to look through: the root, or what a link leads to.
struct Visit {
    dir: PathBuf,
    /// What stands before the paths of what is in it.
    prefix: String,
    /// Where it really is, after those through whose links it is reached.
    chain: Vec<PathBuf>,
}

impl Visit {
    fn of(dir: PathBuf, prefix: String, before: &[PathBuf]) -> Self {
        let real = dir.canonicalize().unwrap_or_else(|_| dir.clone());
        let chain = before.iter().cloned().chain([real]).collect();
        Self { dir, prefix, chain }
    }

    /// Whether a link at a path of this directory leads back into what it stands in, or is reached through: that has no end.
    fn is_endless(&self, at: &Path) -> bool {
        let Ok(target) = at.canonicalize() else { return false };
        let stands_in = at.parent().and_then(|parent| parent.canonicalize().ok());
        stands_in.is_some_and(|parent| parent.starts_with(&target)) || self.chain.contains(&target)
    }
}

/// A link to a file that is not sent (.gitignore names it) would lead nowhere there: the file goes along in its place.
fn follow_left_out(root: &Path, choice: Choice<'_>, found: &mut Gathered) {
    if !choice.as_git {
        return;
    }
    let sent: BTreeSet<&str> = found.files.iter().map(|(path, _)| path.as_str()).collect();
    let is_left_out = |(path, target): &(String, String)| {
        let link = path.parse().ok().map(|path| Link {
            path,
            target: target.clone(),
        });
        let led = link.and_then(|link| link.leads_to());
        led.is_some_and(|to| !sent.contains(to.as_str()) && fs::symlink_metadata(root.join(to)).is_ok_and(|meta| meta.is_file()))
    };
    let (followed, kept) = std::mem::take(&mut found.links).into_iter().partition::<Vec<_>, _>(is_left_out);
    found.links = kept;
    found
        .files
        .extend(followed.into_iter().map(|(path, _)| (path.clone(), root.join(path))));
}

fn visit(at: &Visit, choice: Choice<'_>, found: &mut Gathered, to_visit: &mut Vec<Visit>) -> anyhow::Result<()> {
    let Visit { dir, prefix, .. } = at;
    if choice.as_git && !crate::run::scan::can_be_asked(dir) {
        return Err(usage(format!(
            "{}: a .gitignore or .git/info/exclude here or above is not a file, or larger than 1 MiB; correct it, or name the files to send with --include",
            dir.display()
        )));
    }
    let (root, before, exclude, as_git) = (dir.clone(), prefix.clone(), choice.exclude.clone(), choice.as_git);
    let walk = crate::run::scan::walk_of(dir, as_git)
        .filter_entry(move |entry| {
            let path = entry.path().strip_prefix(&root).unwrap_or(entry.path());
            // What rgrid keeps beside outputs is nobody's input.
            let is_dir = entry.file_type().is_some_and(|kind| kind.is_dir());
            let own = (as_git && entry.file_name() == ".git") || (is_dir && entry.file_name() == OWN_DIR);
            // A pipe in the place of a .gitignore would be waited for.
            let stops = as_git && is_dir && fs::metadata(entry.path().join(".gitignore")).is_ok_and(|meta| !meta.is_file());
            !own && !stops && !exclude.is_match(Path::new(&before).join(path))
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
            link(at, relative, path, choice, (found, to_visit));
        } else if kind.is_some_and(|kind| kind.is_dir()) {
            found.dirs.push(path);
        } else if kind.is_some_and(|kind| kind.is_file()) && is_meant(choice, &path) {
            found.files.push((path, entry.into_path()));
        }
        if found.files.len().max(found.dirs.len()) > MOST {
            return Err(usage(format!(
                "{} has more than {MOST} files or directories; leave some out with --exclude, or pass it as plain text with --no-input",
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
fn link(within: &Visit, relative: &Path, path: String, choice: Choice<'_>, (found, to_visit): (&mut Gathered, &mut Vec<Visit>)) {
    let at = within.dir.join(relative);
    let target = fs::read_link(&at).ok().and_then(|target| target.to_str().map(str::to_owned));
    // What its words say holds in the directory that it stands in here, which itself may stand elsewhere there.
    let own = relative.to_str().and_then(|relative| relative.parse().ok());
    let inside = own.zip(target.clone()).is_some_and(|(path, target)| {
        let led = Link { path, target }.leads_to().map(|to| joined(&within.prefix, &to));
        led.is_some_and(|to| choice.only.is_none_or(|only| only.is_match(&to)) && !choice.exclude.is_match(&to))
    });
    match (inside, target, fs::metadata(&at)) {
        (true, Some(target), _) if is_meant(choice, &path) => found.links.push((path, target)),
        (false, _, Ok(meta)) if meta.is_file() && is_meant(choice, &path) => found.files.push((path, at)),
        (false, _, Ok(meta)) if meta.is_dir() && !within.is_endless(&at) => to_visit.push(Visit::of(at, path, &within.chain)),
        (_, _, _) => {}
    }
}

fn joined(prefix: &str, path: &str) -> String {
    match (prefix, path) {
        ("", path) => path.to_owned(),
        (prefix, "") => prefix.to_owned(),
        (prefix, path) => format!("{prefix}/{path}"),
    }
}

fn text(prefix: &str, relative: &Path) -> anyhow::Result<String> {
    let relative = relative.to_str().ok_or_else(|| {
        usage(format!(
            "the name `{}` is not text (UTF-8), and cannot be sent; rename it, or leave it out with --exclude",
            relative.display()
        ))
    })?;
    Ok(joined(prefix, relative))
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
        for dir in ["a/empty", "node_modules/x", "a/b", ".git", ".rgrid/replaced", "a/.rgrid"] {
            fs::create_dir_all(root.join(dir))?;
        }
        for file in [
            ".rgrid/replaced/x",
            "a/.rgrid/y",
            "a/1.csv",
            "a/b/2.csv",
            "skip.tmp",
            "node_modules/x/y.js",
            ".git/config",
            ".hidden",
        ] {
            fs::write(root.join(file), file)?;
        }
        fs::write(root.join(".gitignore"), "node_modules/\n")?;
        fs::create_dir(temp.path().join("out"))?;
        fs::write(temp.path().join("out/far"), "far")?;
        symlink("1.csv", root.join("a/inside"))?;
        symlink("../out", root.join("outside"))?;
        symlink("nowhere", root.join("dangling"))?;
        symlink("..", root.join("a/up"))?;
        // Another way to the same, and what lies there: links that are of there, and one that leads back.
        symlink("../../out", root.join("a/too"))?;
        fs::write(temp.path().join("beside"), "beside")?;
        symlink("far", temp.path().join("out/near"))?;
        symlink("../beside", temp.path().join("out/up"))?;
        symlink("../root", temp.path().join("out/back"))?;
        symlink("../skip.tmp", root.join("a/skipped"))?;
        symlink("../node_modules/x/y.js", root.join("a/ignored"))?;
        let exclude = globs("--exclude", &["*.tmp".to_owned()], true)?;
        let choice = Choice {
            exclude: &exclude,
            as_git: true,
            only: None,
        };
        let found = below(&root, choice)?;
        assert_eq!(
            paths(&found.files),
            [
                ".gitignore",
                ".hidden",
                "a/1.csv",
                "a/b/2.csv",
                "a/ignored",
                "a/skipped",
                "a/too/far",
                "a/too/up",
                "outside/far",
                "outside/up"
            ]
        );
        let mut links = paths(&found.links);
        links.sort_unstable();
        assert_eq!(links, ["a/inside", "a/too/near", "a/up", "dangling", "outside/near"]);
        assert_eq!(found.dirs, ["a/empty"]);
        let only = globs("--include", &["a/**/*.csv".to_owned()], false)?;
        let only = Choice {
            only: Some(&only),
            ..choice
        };
        assert_eq!(paths(&below(&root, only)?.files), ["a/1.csv", "a/b/2.csv"]);
        let everything = Choice { as_git: false, ..choice };
        assert_eq!(below(&root, everything)?.files.len(), 11);
        Ok(())
    }
}
