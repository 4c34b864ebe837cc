//! Many inputs, links and empty directories: a list that stands in the store, where a job itself would grow too large.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ids::Digest,
    spec::{InputFile, RelPath},
};

/// The most files that a job names itself, rather than in a list in the store: some 50 KB of its event.
pub const MAX_INLINE_INPUTS: usize = 300;
/// The most bytes that the paths of these files have together; more stand in a list too.
pub const MAX_INLINE_PATHS: usize = 64 << 10;
/// The largest list, in bytes: about 300,000 files.
pub const MAX_TREE_BYTES: usize = 64 << 20;

/// A content in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// Its SHA-256, its name in the store.
    pub sha256: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// A list of inputs in the store ([`Tree`]), and what it adds up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TreeRef {
    /// The list's own SHA-256.
    pub sha256: Digest,
    /// The list's size in bytes.
    pub size: u64,
    /// How many files it names.
    pub files: u64,
    /// Their sizes together, in bytes.
    pub bytes: u64,
}

/// What is to be laid into a job's work directory, besides what the job names itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tree {
    /// Files.
    #[serde(default)]
    pub files: Vec<InputFile>,
    /// Symbolic links, which must stay inside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// Directories that may be empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dirs: Vec<RelPath>,
}

/// A symbolic link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Where it stands.
    pub path: RelPath,
    /// What it says: a relative path from its own directory, to something in the same tree.
    pub target: String,
}

impl Link {
    /// Where it leads, in the tree that it stands in: the path as its words say it, whether or not anything is there. Nothing
    /// where it may lead out of the tree: where it is absolute, climbs too high, or climbs (`..`) after it has gone down.
    ///
    /// What goes down may go through another link, and `..` behind a link means the parent of where that one leads: with words
    /// alone, `a/link/../x` cannot be judged. A climb at the beginning starts from the directory that the link itself stands in.
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

/// Why a tree cannot be laid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unlayable {
    /// Its JSON is none.
    #[error("the list of inputs cannot be read: {0}")]
    Malformed(String),
    /// Two things at one path, or one below what is no directory.
    #[error("two inputs are to stand at `{0}`, or one of them below the other; give one of them another path")]
    Collision(String),
    /// A link that leads out.
    #[error("the link `{0}` leads out of the job's directory; send what it leads to instead")]
    Escapes(String),
}

impl Tree {
    /// Reads a list, and checks that it can be laid beside these inputs: no path twice, nothing below a file or a link, and no
    /// link that leads out.
    ///
    /// # Errors
    /// [`Unlayable`].
    pub fn read(json: &[u8], beside: &[InputFile]) -> Result<Self, Unlayable> {
        let tree: Self = serde_json::from_slice(json).map_err(|error| Unlayable::Malformed(error.to_string()))?;
        tree.check(beside)?;
        Ok(tree)
    }

    fn check(&self, beside: &[InputFile]) -> Result<(), Unlayable> {
        let files = self.files.iter().chain(beside).map(|file| file.path.as_str());
        let links = self.links.iter().map(|link| link.path.as_str());
        let mut leaves = BTreeSet::new();
        if let Some(twice) = files.chain(links).find(|path| !leaves.insert(*path)) {
            return Err(Unlayable::Collision(twice.to_owned()));
        }
        let dirs = self.dirs.iter().map(RelPath::as_str);
        let below_a_leaf = |path: &str| path.match_indices('/').any(|(at, _)| leaves.contains(&path[..at]));
        if let Some(path) = leaves.iter().copied().chain(dirs.clone()).find(|path| below_a_leaf(path)) {
            return Err(Unlayable::Collision(path.to_owned()));
        }
        if let Some(path) = dirs.clone().find(|path| leaves.contains(path)) {
            return Err(Unlayable::Collision(path.to_owned()));
        }
        match self.links.iter().find(|link| link.leads_to().is_none()) {
            Some(link) => Err(Unlayable::Escapes(link.path.to_string())),
            None => Ok(()),
        }
    }

    /// Whether it holds nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.files.is_empty() && self.links.is_empty() && self.dirs.is_empty()
    }

    /// The list as it is stored, and the reference to it.
    ///
    /// # Panics
    /// Never: it holds only what JSON can carry.
    #[must_use]
    #[allow(clippy::expect_used, reason = "a tree holds no map, which is all that could fail")]
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

    fn read(tree: &Tree, beside: &[InputFile]) -> Result<Tree, Unlayable> {
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
    fn nothing_stands_at_a_path_twice_or_below_a_file_or_a_link() {
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
            assert_eq!(refused, Err(Unlayable::Collision(at.to_owned())));
        }
    }

    #[test]
    fn no_link_leads_out() {
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
