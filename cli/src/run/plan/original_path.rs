//! Maps outputs back to their original paths: inputs from outside of the current directory have another path in the job's directory.

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

use super::draft::JobRoot;
use crate::saving::{JobOutputs, OutputFile, Unsaved};

/// The original path of an input that has another path in the job's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OriginalPath {
    /// The path in the job's directory.
    pub(super) path: String,
    /// The local path, with all links resolved.
    pub(super) real: PathBuf,
    /// Whether it is a directory: paths below it map to paths below the original directory.
    pub(super) is_dir: bool,
}

impl OriginalPath {
    /// The same, with the path relative to the job's root.
    pub(crate) fn save_scope(self, root: &JobRoot) -> Self {
        Self {
            path: root.path_of(&self.path),
            ..self
        }
    }

    /// The local directory and relative path of a path in the job's directory; `None` if the path does not belong to this input.
    fn locate<'a>(&'a self, path: &'a str) -> Option<(&'a Path, &'a str)> {
        match path.strip_prefix(&self.path)? {
            "" => Some((self.real.parent()?, self.real.file_name()?.to_str()?)),
            below if self.is_dir => Some((&self.real, below.strip_prefix('/')?)),
            _ => None,
        }
    }
}

/// Where outputs may be saved: below the current directory, and at the paths that the command line names. Files that only the scan found
/// outside of the current directory are not changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SaveScope {
    /// The current directory in the job's, where that stands for one above it.
    dir: Option<RelPath>,
    /// What is named above the current directory, by its path in the job's.
    named: Vec<String>,
}

impl SaveScope {
    /// For a job's directory that stands for this one, and paths from the current directory that lead above it.
    pub(crate) fn of(root: &JobRoot, above: &[String]) -> Self {
        Self {
            dir: root.dir.clone(),
            named: above.iter().map(|path| root.path_of(path)).collect(),
        }
    }

    fn contains(&self, path: &str) -> bool {
        let Some(dir) = &self.dir else { return true };
        let is_below = |dir: &str| path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        is_below(dir.as_str()) || self.named.iter().any(|named| is_below(named))
    }
}

/// Removes the outputs that lie outside of the save scope, and returns them as unsaved.
pub(crate) fn hold_back(job: JobId, original_paths: &[OriginalPath], save_scope: &SaveScope, found: &mut Artifacts) -> Vec<Unsaved> {
    let may = |path: &RelPath| {
        save_scope.contains(path.as_str()) || original_paths.iter().any(|original| original.locate(path.as_str()).is_some())
    };
    let held = |path: &RelPath, is_link| Unsaved {
        path: path.to_string(),
        why: "it is outside of the current directory, and the command line does not name it".to_owned(),
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

/// Groups outputs by local directory: changed inputs go to their original paths, all others below `base`.
///
/// # Errors
/// If a path is not valid here.
pub(crate) fn by_directory(
    original_paths: &[OriginalPath],
    base: &Path,
    found: &Artifacts,
) -> anyhow::Result<BTreeMap<PathBuf, JobOutputs>> {
    let mut sorted: BTreeMap<PathBuf, JobOutputs> = BTreeMap::new();
    let locate = |path: &RelPath| -> anyhow::Result<(PathBuf, RelPath)> {
        let places = original_paths
            .iter()
            .filter_map(|original| Some((original.path.len(), original.locate(path.as_str())?)));
        let nearest = places.max_by_key(|(length, _)| *length).map(|(_, locate)| locate);
        let (dir, below) = nearest.unwrap_or((base, path.as_str()));
        let below = below.parse().with_context(|| format!("cannot save {path}"))?;
        Ok((dir.to_owned(), below))
    };
    for file in &found.artifacts {
        let (dir, path) = locate(&file.path)?;
        sorted.entry(dir).or_default().files.push(OutputFile {
            there: file.path.to_string(),
            what: ArtifactView { path, ..file.clone() },
        });
    }
    for link in &found.links {
        let (dir, path) = locate(&link.path)?;
        sorted.entry(dir).or_default().links.push(OutputFile {
            there: link.path.to_string(),
            what: Link { path, ..link.clone() },
        });
    }
    for gone in &found.deleted {
        // A link of the user's own that stood for what it leads to: by its name, a script removes the link.
        let (dir, what) = if base.join(gone.as_str()).is_symlink() {
            (base.to_owned(), gone.clone())
        } else {
            locate(gone)?
        };
        sorted.entry(dir).or_default().deleted.push(OutputFile {
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
        let root = JobRoot {
            path: "/p".into(),
            dir: Some("app/src".parse()?),
        };
        let save_scope = SaveScope::of(&root, &["../conf.ini".to_owned(), "../../data".to_owned()]);
        for (path, expected) in [
            ("app/src/out", true),
            ("app/conf.ini", true),
            ("data/a/b", true),
            ("data2", false),
            ("app/other", false),
            ("up", false),
            ("app/src2/x", false),
        ] {
            assert_eq!(save_scope.contains(path), expected, "{path}");
        }
        assert!(
            SaveScope::of(&JobRoot::default(), &[]).contains("anything"),
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
        let held = hold_back(JobId::new(), &[], &save_scope, &mut found);
        assert_eq!((held.len(), found.links.len(), found.deleted.len()), (1, 0, 1));
        Ok(())
    }

    #[test]
    fn what_came_from_elsewhere_goes_back_there() -> anyhow::Result<()> {
        let original = |path: &str, real: &str| OriginalPath {
            path: path.to_owned(),
            real: real.into(),
            is_dir: !real.ends_with(".txt"),
        };
        let original_paths = [
            original("rgrid-1/in.txt", "/data/in.txt"),
            original("rgrid-2/site", "/www/site"),
            // Within another, whichever was named first.
            original("rgrid-2/site/sub", "/far/sub"),
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
        let sorted = by_directory(&original_paths, Path::new("base"), &found)?;
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
