//! The inputs that a job was sent: they show whether a local file has changed since.

use std::collections::{HashMap, HashSet};

use bus::{
    ids::Digest,
    spec::{InputFile, tree::Tree},
};

use super::path_kind::link;

/// A file or link that was sent to a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SentInput {
    /// A file.
    File {
        /// Its content's SHA-256.
        sha256: Digest,
        /// Its size in bytes.
        size: u64,
        /// Its permission bits.
        mode: u32,
    },
    /// A link, and what it says.
    Link(String),
}

impl SentInput {
    /// The digest of its content.
    pub(crate) fn identity(&self) -> Digest {
        match self {
            Self::File { sha256, .. } => *sha256,
            Self::Link(target) => link(target),
        }
    }
}

/// All inputs that were sent to a job, by their path in the job's directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SentInputs {
    things: HashMap<String, SentInput>,
    dirs: HashSet<String>,
}

impl SentInputs {
    /// These inputs.
    pub(crate) fn new(inputs: &[InputFile], tree: &Tree) -> Self {
        let file = |input: &InputFile| {
            let given = SentInput::File {
                sha256: input.sha256,
                size: input.size,
                mode: input.permissions(),
            };
            (input.path.to_string(), given)
        };
        let files = inputs.iter().chain(&tree.files).map(file);
        let links = tree
            .links
            .iter()
            .map(|link| (link.path.to_string(), SentInput::Link(link.target.clone())));
        Self {
            things: files.chain(links).collect(),
            dirs: tree.dirs.iter().map(ToString::to_string).collect(),
        }
    }

    /// The input at a path.
    pub(crate) fn get(&self, path: &str) -> Option<&SentInput> {
        self.things.get(path)
    }

    /// All directories that were sent, explicitly or as parents of files.
    pub(crate) fn all_dirs(&self) -> HashSet<&str> {
        let named = self.things.keys().chain(&self.dirs);
        let above = named.flat_map(|path| path.match_indices('/').map(|(at, _)| &path[..at]));
        above.chain(self.dirs.iter().map(String::as_str)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_links_and_directories_are_known_by_their_paths() {
        let input = |path: &str| InputFile {
            path: path.parse().expect("a path"),
            sha256: Digest::of(b"x"),
            size: 1,
            executable: true,
            mode: None,
            modified_ms: None,
        };
        let tree = Tree {
            files: vec![input("d/e/f")],
            links: vec![bus::spec::tree::Link {
                path: "d/l".parse().expect("a path"),
                target: "e/f".to_owned(),
            }],
            dirs: vec!["empty/in".parse().expect("a path")],
        };
        let sent = SentInputs::new(&[input("a")], &tree);
        assert!(matches!(sent.get("a"), Some(SentInput::File { mode: 0o755, .. })));
        assert_eq!(sent.get("d/l").map(SentInput::identity), Some(link("e/f")));
        assert_eq!(sent.get("d"), None);
        let mut dirs: Vec<_> = sent.all_dirs().into_iter().collect();
        dirs.sort_unstable();
        assert_eq!(dirs, ["d", "d/e", "empty", "empty/in"]);
    }
}
