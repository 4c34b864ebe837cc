//! Where what comes back belongs that stood elsewhere in the job's directory than here.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use api::view::{ArtifactView, Artifacts};
use bus::{spec::RelPath, tree::Link};

use super::{draft::Root, planner::Planner};
use crate::bring::{At, Back};

/// A file or directory that went along from outside of the current directory, or to another path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Home {
    /// Where it stands in the job's directory.
    path: String,
    /// Where it is here, with every link resolved.
    real: PathBuf,
    /// Whether it is a directory: what is below it is of it then.
    is_dir: bool,
}

impl Home {
    /// As it stands in a job's directory that stands for this one.
    pub(super) fn within(self, root: &Root) -> Self {
        Self {
            path: root.path_of(&self.path),
            ..self
        }
    }

    /// The directory here that a path of the job's belongs to, and its path from there; nothing for what is not of this home.
    fn place<'a>(&'a self, path: &'a str) -> Option<(&'a Path, &'a str)> {
        match path.strip_prefix(&self.path)? {
            "" => Some((self.real.parent()?, self.real.file_name()?.to_str()?)),
            below if self.is_dir => Some((&self.real, below.strip_prefix('/')?)),
            _ => None,
        }
    }
}

/// Sorts what a job left by the directories here where it belongs: what it changed of a file or directory from elsewhere goes back
/// there, and all the rest below the directory that stands for the job's own.
///
/// # Errors
/// If a path cannot be had here.
pub(super) fn sort(homes: &[Home], base: &Path, found: &Artifacts) -> anyhow::Result<BTreeMap<PathBuf, Back>> {
    let mut sorted: BTreeMap<PathBuf, Back> = BTreeMap::new();
    let place = |path: &RelPath| -> anyhow::Result<(PathBuf, RelPath)> {
        let places = homes.iter().filter_map(|home| Some((home.path.len(), home.place(path.as_str())?)));
        let nearest = places.max_by_key(|(length, _)| *length).map(|(_, place)| place);
        let (dir, below) = nearest.unwrap_or((base, path.as_str()));
        let below = below.parse().with_context(|| format!("cannot save {path}"))?;
        Ok((dir.to_owned(), below))
    };
    for file in &found.artifacts {
        let (dir, path) = place(&file.path)?;
        sorted.entry(dir).or_default().files.push(At {
            there: file.path.to_string(),
            what: ArtifactView { path, ..file.clone() },
        });
    }
    for link in &found.links {
        let (dir, path) = place(&link.path)?;
        sorted.entry(dir).or_default().links.push(At {
            there: link.path.to_string(),
            what: Link { path, ..link.clone() },
        });
    }
    for gone in &found.deleted {
        // A link of the user's own that stood for what it leads to: by its name, a script removes the link.
        let (dir, what) = if base.join(gone.as_str()).is_symlink() {
            (base.to_owned(), gone.clone())
        } else {
            place(gone)?
        };
        sorted.entry(dir).or_default().deleted.push(At {
            there: gone.to_string(),
            what,
        });
    }
    Ok(sorted)
}

impl Planner<'_> {
    /// Notes where something is here that stands at another path there. Not of a link: what is written there would be written to
    /// whatever it leads to, and who laid it need not be who named it.
    pub(super) fn has_home(&mut self, path: &str, at: &Path) {
        let meta = fs::symlink_metadata(at).ok().filter(|meta| !meta.is_symlink());
        if let (Some(meta), Ok(real)) = (meta, at.canonicalize()) {
            self.note(path, real, meta.is_dir());
        }
    }

    /// Notes where something of the current directory really is, if a link in its path leads out: the user's own link, and named.
    pub(super) fn leads_out(&mut self, path: &str) {
        let at = self.cwd.join(path);
        let (Ok(cwd), Ok(real)) = (self.cwd.canonicalize(), at.canonicalize()) else {
            return;
        };
        if !real.starts_with(cwd) {
            let is_dir = real.is_dir();
            self.note(path, real, is_dir);
        }
    }

    fn note(&mut self, path: &str, real: PathBuf, is_dir: bool) {
        let home = Home {
            path: path.to_owned(),
            real,
            is_dir,
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
            is_dir: !real.ends_with(".txt"),
        };
        let homes = [
            home("rgrid-1/in.txt", "/data/in.txt"),
            home("rgrid-2/site", "/www/site"),
            // Within another, whichever was named first.
            home("rgrid-2/site/sub", "/far/sub"),
        ];
        let file = |path: &str| -> anyhow::Result<ArtifactView> {
            Ok(serde_json::from_value(serde_json::json!({
                "path": path, "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "size": 1
            }))?)
        };
        let files = [
            "rgrid-1/in.txt",
            "rgrid-1/in.txt.bak",
            "rgrid-1/in.txt/odd",
            "rgrid-2/site/a/b.md",
            "rgrid-2/site/sub/c",
            "rgrid-2/site2",
            "new",
        ];
        let found = Artifacts {
            artifacts: files.map(file).into_iter().collect::<anyhow::Result<Vec<_>>>()?,
            links: vec![Link {
                path: "rgrid-2/site/latest".parse()?,
                target: "a".to_owned(),
            }],
            deleted: vec!["rgrid-1/in.txt".parse()?, "rgrid-2/site/sub".parse()?, "old".parse()?],
            ..Artifacts::default()
        };
        let sorted = sort(&homes, Path::new("base"), &found)?;
        assert_eq!(sorted[Path::new("/www/site")].files[0].there, "rgrid-2/site/a/b.md");
        let found: Vec<(String, Vec<String>)> = sorted
            .iter()
            .map(|(dir, back)| {
                let paths = back.files.iter().map(|file| file.what.path.to_string());
                let links = back.links.iter().map(|link| link.what.path.to_string());
                let gone = back.deleted.iter().map(|gone| format!("-{}", gone.what));
                (dir.display().to_string(), paths.chain(links).chain(gone).collect())
            })
            .collect();
        let expected = [
            ("/data", vec!["in.txt", "-in.txt"]),
            ("/far", vec!["-sub"]),
            ("/far/sub", vec!["c"]),
            ("/www/site", vec!["a/b.md", "latest"]),
            (
                "base",
                vec!["rgrid-1/in.txt.bak", "rgrid-1/in.txt/odd", "rgrid-2/site2", "new", "-old"],
            ),
        ];
        let expected = expected.map(|(dir, paths)| (dir.to_owned(), paths.into_iter().map(str::to_owned).collect()));
        assert_eq!(found, expected);
        Ok(())
    }
}
