//! Where what comes back belongs that stood elsewhere in the job's directory than here.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use api::view::ArtifactView;
use bus::{spec::RelPath, tree::Link};

use super::plan::Planner;

/// A file or directory that went along from outside of the current directory, or to another path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Home {
    /// Where it stands in the job's directory.
    path: String,
    /// Where it is here, with every link resolved.
    real: PathBuf,
}

/// What comes back to one directory.
#[derive(Debug, Default)]
pub(super) struct Back {
    /// Files, by their paths from there.
    pub(super) files: Vec<ArtifactView>,
    /// Links, by theirs.
    pub(super) links: Vec<Link>,
}

impl Home {
    /// The directory here that a path of the job's belongs to, and its path from there; nothing for what is not of this home.
    fn place<'a>(&'a self, path: &'a str) -> Option<(&'a Path, &'a str)> {
        match path.strip_prefix(&self.path)? {
            "" => Some((self.real.parent()?, self.real.file_name()?.to_str()?)),
            below => Some((&self.real, below.strip_prefix('/')?)),
        }
    }
}

/// Sorts what a job left by the directories here where it belongs: what it changed of a file or directory from elsewhere goes back
/// there, and all the rest below the current directory.
///
/// # Errors
/// If a path cannot be had here.
pub(super) fn sort(homes: &[Home], files: Vec<ArtifactView>, links: Vec<Link>) -> anyhow::Result<BTreeMap<PathBuf, Back>> {
    let mut sorted: BTreeMap<PathBuf, Back> = BTreeMap::new();
    let place = |path: &RelPath| -> anyhow::Result<(PathBuf, RelPath)> {
        let (dir, below) = homes
            .iter()
            .find_map(|home| home.place(path.as_str()))
            .unwrap_or((Path::new(""), path.as_str()));
        let below = below.parse().with_context(|| format!("cannot save {path}"))?;
        Ok((dir.to_owned(), below))
    };
    for file in files {
        let (dir, path) = place(&file.path)?;
        sorted.entry(dir).or_default().files.push(ArtifactView { path, ..file });
    }
    for link in links {
        let (dir, path) = place(&link.path)?;
        sorted.entry(dir).or_default().links.push(Link { path, ..link });
    }
    Ok(sorted)
}

impl Planner<'_> {
    /// Notes where something is here that stands at another path there.
    pub(super) fn has_home(&mut self, path: &str, real: PathBuf) {
        let home = Home {
            path: path.to_owned(),
            real,
        };
        if !self.homes.contains(&home) {
            self.homes.push(home);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_from_elsewhere_goes_back_there() -> anyhow::Result<()> {
        let home = |path: &str, real: &str| Home {
            path: path.to_owned(),
            real: real.into(),
        };
        let homes = [
            home("in.txt", "/data/in.txt"),
            home("site", "/www/site"),
            home("rgrid-2/in.txt", "/old/in.txt"),
        ];
        let file = |path: &str| -> anyhow::Result<ArtifactView> {
            Ok(serde_json::from_value(serde_json::json!({
                "path": path, "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "size": 1
            }))?)
        };
        let files = ["in.txt", "in.txt.bak", "site/a/b.md", "site2/x", "rgrid-2/in.txt", "new"].map(file);
        let files = files.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        let links = vec![Link {
            path: "site/latest".parse()?,
            target: "a".to_owned(),
        }];
        let sorted = sort(&homes, files, links)?;
        let found: Vec<(String, Vec<String>)> = sorted
            .iter()
            .map(|(dir, back)| {
                let paths = back.files.iter().map(|file| file.path.to_string());
                let links = back.links.iter().map(|link| link.path.to_string());
                (dir.display().to_string(), paths.chain(links).collect())
            })
            .collect();
        let expected = [
            ("", vec!["in.txt.bak", "site2/x", "new"]),
            ("/data", vec!["in.txt"]),
            ("/old", vec!["in.txt"]),
            ("/www/site", vec!["a/b.md", "latest"]),
        ];
        let expected = expected.map(|(dir, paths)| (dir.to_owned(), paths.into_iter().map(str::to_owned).collect()));
        assert_eq!(found, expected);
        Ok(())
    }
}
