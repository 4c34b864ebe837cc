//! Which interpreters a worker has, for others to know.

use std::collections::{BTreeMap, BTreeSet};

use bus::ids::Token;

use super::Process;

impl Process {
    /// The versions that each runtime's interpreter is found in, the one first that is taken where a job names none. Runtimes that
    /// are not here are left out.
    pub async fn interpreters(&self) -> BTreeMap<Token, Vec<String>> {
        let table = self.config.runtimes.table();
        let mut found = BTreeMap::new();
        for (name, runtime) in table.iter() {
            let Some(program) = runtime.process.first() else { continue };
            let versions = self.versions.all(&self.programs, program).await;
            if !versions.is_empty() {
                found.insert(name.clone(), versions);
            }
        }
        found
    }
}

/// `python3.12` and `python3.11` for `python3`: what has the same name but for the digits and dots at its end.
pub(super) fn siblings(names: impl Iterator<Item = String>, program: &str) -> BTreeSet<String> {
    let bare = bare(program);
    names
        .filter(|name| {
            let version = name.strip_prefix(bare).unwrap_or("-");
            name != program && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        })
        .collect()
}

/// A program's name without the version at its end.
pub(super) fn bare(program: &str) -> &str {
    program.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_other_versions_are_known_by_their_names() {
        let names = [
            "python3",
            "python3.12",
            "python",
            "python3-config",
            "python3.12-config",
            "pytho",
            "node",
        ];
        let found = siblings(names.map(ToOwned::to_owned).into_iter(), "python3");
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["python", "python3.12"]);
    }
}
