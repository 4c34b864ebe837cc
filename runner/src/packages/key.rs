//! What makes two environments the same.

use std::fmt;

use bus::{ids::Digest, spec::dependencies::Dependencies};
use sha2::{Digest as _, Sha256};

use crate::executor::Identity;

/// The version of the form, and of how environments are made: another one makes other keys.
const FORM: &str = "rgrid-packages-2";

/// What was installed, for which interpreter on which platform: the same key, the same packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key(Digest);

impl Key {
    /// The key of what is declared, for an interpreter. What the declaration is called, and in which order its files are listed,
    /// makes no difference.
    pub(crate) fn of(dependencies: &Dependencies, identity: &Identity) -> Self {
        let mut files: Vec<String> = dependencies
            .files
            .iter()
            .map(|file| format!("{}\0{}", file.sha256, file.path))
            .collect();
        files.sort_unstable();
        let head = [
            FORM.to_owned(),
            dependencies.kind.to_string(),
            dependencies.python.clone().unwrap_or_default(),
            identity.text.clone(),
        ];
        let hasher = head.iter().chain(&files).fold(Sha256::new(), |hasher, part| {
            hasher.chain_update((part.len() as u64).to_be_bytes()).chain_update(part)
        });
        Self(Digest::finish(hasher))
    }

    /// Its name in the store.
    pub(super) const fn digest(&self) -> &Digest {
        &self.0
    }

    /// A key by its name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use bus::spec::{InputFile, dependencies::Kind};

    use super::*;

    #[test]
    fn only_what_changes_the_packages_changes_the_key() {
        let file = |path: &str, content: &str| InputFile {
            path: path.parse().unwrap(),
            sha256: Digest::of(content.as_bytes()),
            size: 1,
            executable: false,
            mode: None,
            modified_ms: None,
        };
        let of = |change: &dyn Fn(&mut Dependencies, &mut Identity)| {
            let mut dependencies = Dependencies {
                kind: Kind::Pip,
                declared_in: "requirements.txt".to_owned(),
                packages: 2,
                python: None,
                files: vec![file("requirements.txt", "a"), file("w1/b.whl", "b")],
            };
            let mut identity = Identity {
                text: "python 3.11.7".to_owned(),
                executable: None,
            };
            change(&mut dependencies, &mut identity);
            Key::of(&dependencies, &identity)
        };
        let same = of(&|_, _| ());
        assert_eq!(of(&|dependencies, _| dependencies.files.reverse()), same);
        assert_eq!(of(&|dependencies, _| dependencies.declared_in = "script.py".to_owned()), same);
        assert_eq!(of(&|_, identity| identity.executable = Some("/usr/bin/python3".into())), same);
        let others = [
            of(&|dependencies, _| dependencies.kind = Kind::Npm),
            of(&|dependencies, _| dependencies.python = Some(">=3".to_owned())),
            of(&|dependencies, _| dependencies.files[0].sha256 = Digest::of(b"c")),
            of(&|dependencies, _| dependencies.files[1].path = "w2/b.whl".parse().unwrap()),
            of(&|dependencies, _| drop(dependencies.files.pop())),
            of(&|_, identity| identity.text = "python 3.12.1".to_owned()),
        ];
        for (place, other) in others.iter().enumerate() {
            assert!(*other != same && !others[..place].contains(other), "{place}");
        }
        assert_eq!(Key::parse(&same.to_string()), Some(same));
        assert_eq!(Key::parse("new-1"), None);
    }
}
