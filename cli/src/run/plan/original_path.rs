//! Where what comes back belongs that stood elsewhere in the job's directory than here.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use bus::{
    ids::JobId,
    spec::{RelPath, tree::Link},
};
use model::{ArtifactView, Artifacts};

use super::draft::Root;
use crate::saving::{At, Back, Unsaved};

/// A file or directory that went along from outside of the current directory, or to another path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Home {
    /// Where it stands in the job's directory.
    pub(super) path: String,
    /// Where it is here, with every link resolved.
    pub(super) real: PathBuf,
    /// Whether it is a directory: what is below it is of it then.
    pub(super) is_dir: bool,
}

impl Home {
    /// As it stands in a job's directory that stands for this one.
    pub(crate) fn within(self, root: &Root) -> Self {
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

/// Where what a job leaves may go: below the current directory, and to what the command line names. A script's text, and what it finds,
/// are nobody's word on what is changed elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Within {
    /// The current directory in the job's, where that stands for one above it.
    dir: Option<RelPath>,
    /// What is named above the current directory, by its path in the job's.
    named: Vec<String>,
}

impl Within {
    /// For a job's directory that stands for this one, and paths from the current directory that lead above it.
    pub(crate) fn of(root: &Root, above: &[String]) -> Self {
        Self {
            dir: root.dir.clone(),
            named: above.iter().map(|path| root.path_of(path)).collect(),
        }
    }

    fn holds(&self, path: &str) -> bool {
        let Some(dir) = &self.dir else { return true };
        let is_below = |dir: &str| path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        is_below(dir.as_str()) || self.named.iter().any(|named| is_below(named))
    }
}

/// Takes out of what a job left all that would change something outside, and says of what is held back that it is.
pub(crate) fn hold_back(job: JobId, homes: &[Home], within: &Within, found: &mut Artifacts) -> Vec<Unsaved> {
    let may = |path: &RelPath| within.holds(path.as_str()) || homes.iter().any(|home| home.place(path.as_str()).is_some());
    let held = |path: &RelPath, is_link| Unsaved {
        path: path.to_string(),
        why: "it lies outside of the current directory, and the command line does not name it".to_owned(),
        is_link,
        job,
    };
    let files = found
        .artifacts
        .iter()
        .filter(|file| !may(&file.path))
        .map(|file| held(&file.path, false));
    let links = found
        .links
        .iter()
        .filter(|link| !may(&link.path))
        .map(|link| held(&link.path, true));
    let all = files.chain(links).collect();
    found.artifacts.retain(|file| may(&file.path));
    found.links.retain(|link| may(&link.path));
    found.deleted.retain(|path| may(path));
    all
}

/// Sorts what a job left by the directories here where it belongs: what it changed of a file or directory from elsewhere goes back
/// there, and all the rest below the directory that stands for the job's own.
///
/// # Errors
/// If a path cannot be had here.
pub(crate) fn sort(homes: &[Home], base: &Path, found: &Artifacts) -> anyhow::Result<BTreeMap<PathBuf, Back>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_is_changed_that_the_command_line_does_not_name() -> anyhow::Result<()> {
        let root = Root {
            path: "/p".into(),
            dir: Some("app/src".parse()?),
        };
        let within = Within::of(&root, &["../conf.ini".to_owned(), "../../data".to_owned()]);
        for (path, expected) in [
            ("app/src/out", true),
            ("app/conf.ini", true),
            ("data/a/b", true),
            ("data2", false),
            ("app/other", false),
            ("up", false),
            ("app/src2/x", false),
        ] {
            assert_eq!(within.holds(path), expected, "{path}");
        }
        assert!(
            Within::of(&Root::default(), &[]).holds("anything"),
            "the job's directory is the current one"
        );
        let mut found = Artifacts {
            links: vec![Link {
                path: "up".parse()?,
                target: "app".to_owned(),
            }],
            deleted: vec!["up2".parse()?, "app/src/x".parse()?],
            ..Artifacts::default()
        };
        let held = hold_back(JobId::new(), &[], &within, &mut found);
        assert_eq!((held.len(), found.links.len(), found.deleted.len()), (1, 0, 1));
        Ok(())
    }

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
