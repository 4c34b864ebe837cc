//! A list of inputs in the store: for many files, and for links and empty directories, with which an event would be too large.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ids::Digest,
    spec::{InputFile, RelPath},
};

/// The most input files that a spec lists itself; with more, the list goes into the store. 300 files are about 50 KB of the event.
pub const MAX_INLINE_INPUTS: usize = 300;
/// The longest total length of these files' paths, in bytes; with more, the list goes into the store.
pub const MAX_INLINE_PATHS: usize = 64 << 10;
/// The largest list, in bytes: about 300,000 files.
pub const MAX_TREE_BYTES: usize = 64 << 20;

/// A content in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// The content's SHA-256, which is also its name in the store.
    pub sha256: Digest,
    /// The content's size in bytes.
    pub size: u64,
}

/// A reference to a list of inputs in the store ([`Tree`]), with its totals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TreeRef {
    /// The list's own SHA-256.
    pub sha256: Digest,
    /// The list's size in bytes.
    pub size: u64,
    /// The number of files in the list.
    pub files: u64,
    /// The total size of these files, in bytes.
    pub bytes: u64,
}

/// A list of inputs to place into a job's work directory, in addition to those in the job's spec.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tree {
    /// Files.
    #[serde(default)]
    pub files: Vec<InputFile>,
    /// Symbolic links. They must lead to a path inside the work directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// Directories, which may be empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dirs: Vec<RelPath>,
}

/// A symbolic link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// The link's own path.
    pub path: RelPath,
    /// The link's target: a path relative to the link's directory, inside the same tree.
    pub target: String,
}

impl Link {
    /// The path that the link leads to, relative to the top of its tree, computed from the text alone: the target need not exist. `None`
    /// if the target may be outside of the tree: it is absolute, has too many leading `..`, or has a `..` after a name.
    ///
    /// A name in the target may be another link, and a `..` after a link means the parent of that link's target. So the text alone does
    /// not tell where `a/link/../x` leads. A leading `..` is safe, because it starts from the directory of the link itself.
    #[must_use]
    pub fn leads_to(&self) -> Option<String> {
        let mut at: Vec<&str> = self.path.as_str().split('/').collect();
        at.pop();
        if self.target.is_empty() || self.target.starts_with('/') || self.target.contains('\0') {
            return None;
        }
        let mut down = false;
        for part in self.target.split('/') {
            match part {
                "" | "." => {}
                ".." if down => return None,
                ".." => drop(at.pop()?),
                name => {
                    down = true;
                    at.push(name);
                }
            }
        }
        Some(at.join("/"))
    }
}

/// Why a list of inputs is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTree {
    /// The list is not valid JSON of this shape.
    #[error("the list of inputs cannot be read: {0}")]
    Malformed(String),
    /// Two inputs have the same path, or one is below another that is not a directory.
    #[error("two inputs have the path `{0}`, or one of them is below the other; give one of them another path")]
    Collision(String),
    /// A link leads out of the tree.
    #[error("the link `{0}` leads out of the job's directory; send the file that it leads to instead")]
    Escapes(String),
}

impl Tree {
    /// Reads a list, and checks that it can be staged together with these inputs: no path twice, nothing below a file or a link, and no
    /// link that leads out of the tree.
    ///
    /// # Errors
    /// [`InvalidTree`].
    pub fn read(json: &[u8], beside: &[InputFile]) -> Result<Self, InvalidTree> {
        let tree: Self = serde_json::from_slice(json).map_err(|error| InvalidTree::Malformed(error.to_string()))?;
        tree.check(beside)?;
        Ok(tree)
    }

    fn check(&self, beside: &[InputFile]) -> Result<(), InvalidTree> {
        let files = self.files.iter().chain(beside).map(|file| file.path.as_str());
        let links = self.links.iter().map(|link| link.path.as_str());
        let mut leaves = BTreeSet::new();
        if let Some(twice) = files.chain(links).find(|path| !leaves.insert(*path)) {
            return Err(InvalidTree::Collision(twice.to_owned()));
        }
        let dirs = self.dirs.iter().map(RelPath::as_str);
        let below_a_leaf = |path: &str| path.match_indices('/').any(|(at, _)| leaves.contains(&path[..at]));
        if let Some(path) = leaves.iter().copied().chain(dirs.clone()).find(|path| below_a_leaf(path)) {
            return Err(InvalidTree::Collision(path.to_owned()));
        }
        if let Some(path) = dirs.clone().find(|path| leaves.contains(path)) {
            return Err(InvalidTree::Collision(path.to_owned()));
        }
        match self.links.iter().find(|link| link.leads_to().is_none()) {
            Some(link) => Err(InvalidTree::Escapes(link.path.to_string())),
            None => Ok(()),
        }
    }

    /// Whether the list is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.files.is_empty() && self.links.is_empty() && self.dirs.is_empty()
    }

    /// The list as it is stored, and the reference to it.
    ///
    /// # Panics
    /// Never: every field can be written as JSON.
    #[must_use]
    #[allow(clippy::expect_used, reason = "a tree has no map, and only map keys can fail")]
    pub fn to_json(&self) -> (Vec<u8>, TreeRef) {
        let json = serde_json::to_vec(self).expect("a tree is JSON");
        let reference = TreeRef {
            sha256: Digest::of(&json),
            size: json.len() as u64,
            files: self.files.len() as u64,
            bytes: self.files.iter().map(|file| file.size).sum(),
        };
        (json, reference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> InputFile {
        InputFile {
            path: path.parse().expect("a path"),
            sha256: Digest::of(b""),
            size: 0,
            executable: false,
            mode: None,
            modified_ms: None,
        }
    }

    fn link(path: &str, target: &str) -> Link {
        Link {
            path: path.parse().expect("a path"),
            target: target.to_owned(),
        }
    }

    fn read(tree: &Tree, beside: &[InputFile]) -> Result<Tree, InvalidTree> {
        Tree::read(&tree.to_json().0, beside)
    }

    #[test]
    fn a_tree_reads_back_as_it_was_written() {
        let tree = Tree {
            files: vec![file("a"), file("d/b")],
            links: vec![link("d/l", "../a"), link("x", "d")],
            dirs: vec!["e".parse().expect("a path"), "d".parse().expect("a path")],
        };
        assert_eq!(read(&tree, &[file("c")]), Ok(tree));
    }

    #[test]
    fn two_inputs_at_one_path_or_below_a_file_or_a_link_are_refused() {
        let trees = [
            (vec![file("a"), file("a")], vec![], "a"),
            (vec![file("a"), file("a/b")], vec![], "a/b"),
            (vec![file("l/b")], vec![link("l", "d")], "l/b"),
            (vec![file("own")], vec![], "own"),
            (vec![file("own/x")], vec![], "own/x"),
        ];
        for (files, links, at) in trees {
            let dirs = Vec::new();
            let refused = read(&Tree { files, links, dirs }, &[file("own")]);
            assert_eq!(refused, Err(InvalidTree::Collision(at.to_owned())));
        }
    }

    #[test]
    fn a_link_that_leads_out_is_refused() {
        for target in ["/etc/passwd", "..", "../..", "../../x", "b/../../../x", "b/../x", "", "a\0b"] {
            let links = vec![link("d/l", target)];
            let refused = read(&Tree { links, ..Tree::default() }, &[]);
            let out = link("d/l", target).leads_to().is_none();
            assert_eq!(refused.is_err(), out, "{target}");
            assert_eq!(out, target != "..", "{target}");
        }
        assert_eq!(link("d/l", "./../x/y").leads_to().as_deref(), Some("x/y"));
    }
}
