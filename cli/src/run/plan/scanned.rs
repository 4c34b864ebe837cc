//! Adds the files that the scan found to a plan, and reports them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::planner::Planner;
use crate::{
    failure::usage,
    output::{counted, harmless},
    paths::{normalized, relative},
    run::{
        args::files::FileArgs,
        scan::{self, Bounds, IncludeReason, Note, Start, works_on_project},
    },
};

/// The most runs of one script whose arguments are read for what they name.
const MAX_RUNS_READ: usize = 200;
/// The default limits of the scan.
const DEFAULT_MAX_FILES: usize = 10_000;
const DEFAULT_MAX_BYTES: u64 = 500_000_000;
/// The most groups that one line tells.
const MAX_GROUPS: usize = 4;

/// The files that the scan found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Scanned {
    /// The path of each file relative to the current directory, and why it is sent.
    pub(crate) files: Vec<(String, IncludeReason)>,
    /// Files that were found but are not sent, each as a sentence.
    pub(crate) notes: Vec<String>,
}

impl Scanned {
    /// Says in one line what was found: `also sends 14 files: 6 named in main.py, 8 in data/`. Nothing where nothing was.
    pub(crate) fn summary(&self) -> Option<String> {
        let mut groups: BTreeMap<String, usize> = BTreeMap::new();
        for (_, why) in &self.files {
            *groups.entry(why.to_string()).or_default() += 1;
        }
        let mut groups: Vec<(String, usize)> = groups.into_iter().collect();
        groups.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        let rest: usize = groups.iter().skip(MAX_GROUPS).map(|(_, count)| count).sum();
        let mut told: Vec<String> = groups
            .iter()
            .take(MAX_GROUPS)
            .map(|(why, count)| format!("{count} {why}"))
            .collect();
        if rest > 0 {
            told.push(format!("{rest} more (-v lists them)"));
        }
        (!told.is_empty()).then(|| format!("also sends {}: {}", counted(self.files.len(), "file"), told.join(", ")))
    }

    /// Reports which files are sent, and which are not.
    pub(crate) fn report(&self, verbose: bool) {
        if let Some(summary) = self.summary() {
            crate::output::say!("{}", harmless(&summary));
        }
        if verbose {
            for (path, why) in &self.files {
                crate::output::say!("  {} ({})", harmless(path), harmless(&why.to_string()));
            }
        }
        self.notes.iter().for_each(|note| crate::run::messages::warning(&harmless(note)));
    }
}

impl Planner<'_> {
    /// Adds the files that the script's text names.
    ///
    /// # Errors
    /// A usage error where a tool works on the whole directory, which is too large to be sent unasked.
    pub(crate) fn scan(&mut self, script: &str, called: &str, runtime: Option<&str>, runs: &[Vec<&str>]) -> anyhow::Result<Scanned> {
        let Some(files) = self.options.files.filter(|files| !files.no_scan) else {
            return Ok(Scanned::default());
        };
        let start = self.start(script, runtime, runs);
        let found = scan::scan(&self.scope, &start, &self.exclude, files.bounds());
        if let Some(note) = found.too_large.filter(|_| self.options.program && is_project_tool(runs)) {
            return Err(usage(format!(
                "{script} works on the whole directory: {note}; use --no-scan to send none of it"
            )));
        }
        let mut scanned = Scanned {
            notes: self.unsent_notes(found.notes),
            ..Scanned::default()
        };
        let no_input: Vec<PathBuf> = self
            .options
            .no_input
            .iter()
            .filter_map(|name| normalized(&self.scope.cwd.join(name)))
            .collect();
        for (source, why) in found.files {
            if no_input.contains(&source) {
                continue;
            }
            for path in self.places_of(&source, script, called) {
                if self.is_sent(&path) {
                    continue;
                }
                let Ok(meta) = fs::metadata(&source) else { continue };
                self.add(&path, source.clone(), &meta)?;
                scanned.files.push((path, why.clone()));
            }
        }
        for dir in found.dirs {
            self.parents.extend(relative(&self.scope.cwd, &dir).filter(|dir| !dir.is_empty()));
        }
        Ok(scanned)
    }

    /// What is said of files that do not go along in another way.
    fn unsent_notes(&self, notes: Vec<Note>) -> Vec<String> {
        let is_sent = |note: &Note| relative(&self.scope.cwd, &note.path).is_some_and(|path| self.sent.contains_key(&path));
        notes.into_iter().filter(|note| !is_sent(note)).map(|note| note.text).collect()
    }

    fn start(&self, script: &str, runtime: Option<&str>, runs: &[Vec<&str>]) -> Start {
        let at = |word: &str| normalized(&self.scope.cwd.join(word)).filter(|path| path.is_file());
        let words = runs.iter().take(MAX_RUNS_READ).flat_map(|words| &words[1..]);
        let names = words.flat_map(|word| super::named(word)).filter(|name| !self.is_excluded(name));
        // What the user includes may name more.
        let included = self
            .options
            .files
            .iter()
            .flat_map(|files| &files.include)
            .filter_map(|name| at(name));
        Start {
            arguments: names.filter_map(at).chain(included).collect(),
            script: (!self.options.program)
                .then(|| at(script).map(|path| (path, runtime.map(ToOwned::to_owned))))
                .flatten(),
            command: if self.options.program {
                runs.first()
                    .map(|words| words.iter().map(ToString::to_string).collect())
                    .unwrap_or_default()
            } else {
                Vec::new()
            },
            is_batch: runs.len() > 1,
            words: runs
                .iter()
                .take(MAX_RUNS_READ)
                .flat_map(|words| &words[1..])
                .map(ToString::to_string)
                .collect(),
            patterns: runs
                .iter()
                .take(MAX_RUNS_READ)
                .flat_map(|words| &words[1..])
                .filter(|word| word.contains(['*', '?', '[']))
                .map(ToString::to_string)
                .collect(),
        }
    }

    /// Where something that was found stands in the job's directory, from where the command starts.
    fn places_of(&self, source: &Path, script: &str, called: &str) -> Vec<String> {
        let mut places = Vec::new();
        let is_link = self.cwd.join(script).is_symlink();
        let beside_script = || {
            let below = source.strip_prefix(self.scope.script_dir.as_ref()?).ok()?.to_str()?;
            let dir = called.trim_start_matches("./").rsplit_once('/').map(|(dir, _)| format!("{dir}/"));
            Some(format!("{}{below}", dir.unwrap_or_default()))
        };
        if source.starts_with(&self.scope.top) {
            places.extend(relative(&self.scope.cwd, source));
            // A language looks beside the file that a link leads to, which stands in the link's place there.
            places.extend(beside_script().filter(|_| is_link && !self.options.program));
        } else {
            places.extend(beside_script());
        }
        places
    }

    /// Whether something goes to a path already, or it lies behind a link that goes along.
    fn is_sent(&self, path: &str) -> bool {
        let behind = |link: &str| path.strip_prefix(link).is_some_and(|rest| rest.starts_with('/'));
        self.sent.contains_key(path) || self.draft.links.iter().any(|(link, _)| behind(link))
    }
}

fn is_project_tool(runs: &[Vec<&str>]) -> bool {
    runs.first().is_some_and(|words| works_on_project(words))
}

impl FileArgs {
    /// How much the scan may add.
    fn bounds(&self) -> Bounds {
        Bounds {
            files: self.scan_files.unwrap_or(DEFAULT_MAX_FILES),
            bytes: self.scan_bytes.map_or(DEFAULT_MAX_BYTES, |size| size.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_told_in_one_line() {
        let named = |path: &str| (path.to_owned(), IncludeReason::Named("main.py".to_owned()));
        let scanned = Scanned {
            files: vec![named("a"), named("b"), ("data/x".to_owned(), IncludeReason::In("data/".to_owned()))],
            notes: Vec::new(),
        };
        assert_eq!(
            scanned.summary().as_deref(),
            Some("also sends 3 files: 2 named in main.py, 1 in data/")
        );
        assert_eq!(Scanned::default().summary(), None);
    }
}
