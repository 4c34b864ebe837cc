//! What a job was given: by it, a file here that nobody changed since is told from one that somebody did.

use std::collections::{HashMap, HashSet};

use bus::{
    ids::Digest,
    spec::{InputFile, tree::Tree},
};

use super::look::link;

/// A file or link that a job was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Given {
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

impl Given {
    /// What identifies it.
    pub(crate) fn identity(&self) -> Digest {
        match self {
            Self::File { sha256, .. } => *sha256,
            Self::Link(target) => link(target),
        }
    }
}

/// Everything that a job was given, by its path in the job's directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    things: HashMap<String, Given>,
    dirs: HashSet<String>,
}

impl Sent {
    /// These inputs.
    pub(crate) fn new(inputs: &[InputFile], tree: &Tree) -> Self {
        let file = |input: &InputFile| {
            let given = Given::File {
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
            .map(|link| (link.path.to_string(), Given::Link(link.target.clone())));
        Self {
            things: files.chain(links).collect(),
            dirs: tree.dirs.iter().map(ToString::to_string).collect(),
        }
    }

    /// What was given at a path.
    pub(crate) fn get(&self, path: &str) -> Option<&Given> {
        self.things.get(path)
    }

    /// Every directory that was given, by itself or for what stands in it.
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
        let sent = Sent::new(&[input("a")], &tree);
        assert!(matches!(sent.get("a"), Some(Given::File { mode: 0o755, .. })));
        assert_eq!(sent.get("d/l").map(Given::identity), Some(link("e/f")));
        assert_eq!(sent.get("d"), None);
        let mut dirs: Vec<_> = sent.all_dirs().into_iter().collect();
        dirs.sort_unstable();
        assert_eq!(dirs, ["d", "d/e", "empty", "empty/in"]);
    }
}
