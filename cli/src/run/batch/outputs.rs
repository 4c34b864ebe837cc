//! Where the outputs of members come to lie.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use bus::{ids::JobId, job::State};
use client::Client;
use model::{ArtifactView, Artifacts};
use parking_lot::Mutex;

use crate::saving::{JobOutputs, NamedOutputs, Report, SaveMode, SaveTarget, SentInputs, save_all};

/// The longest name of a directory, in bytes.
const NAME_MAX: usize = 200;

/// A directory for each member, or one for all.
#[derive(Debug)]
pub(crate) struct OutputDirs {
    root: PathBuf,
    names: Vec<String>,
    /// With one for all: the paths that are taken.
    flat: Option<Mutex<HashSet<String>>>,
    /// The automatically used outputs that the user allowed by name.
    asked: NamedOutputs,
}

impl OutputDirs {
    /// Below `root`, named after the members; with `flat`, `root` itself.
    pub(crate) fn new(root: &Path, items: &[String], flat: bool) -> Self {
        Self {
            root: root.to_owned(),
            names: names(items),
            flat: flat.then(|| Mutex::new(HashSet::new())),
            asked: NamedOutputs::Nothing,
        }
    }

    /// For a run whose user asked for these.
    pub(crate) fn asked(mut self, asked: NamedOutputs) -> Self {
        self.asked = asked;
        self
    }

    /// For those of these places alone, which are counted anew.
    pub(crate) fn only(mut self, places: &[usize]) -> Self {
        self.names = places.iter().filter_map(|place| self.names.get(*place).cloned()).collect();
        self
    }

    fn own(&self, index: u32) -> PathBuf {
        let name = self.names.get(index as usize).cloned();
        self.root.join(name.unwrap_or_else(|| index.to_string()))
    }

    /// Where these files of a member belong: with all others only if no other member left one of the same name.
    fn of(&self, index: u32, files: &[ArtifactView]) -> PathBuf {
        let Some(taken) = &self.flat else { return self.own(index) };
        let mut taken = taken.lock();
        if files.iter().any(|file| taken.contains(file.path.as_str())) {
            let own = self.own(index);
            crate::output::say!("another job has outputs with the same names; these are saved in {}", own.display());
            return own;
        }
        taken.extend(files.iter().map(|file| file.path.as_str().to_owned()));
        self.root.clone()
    }
}

/// A name for each that can be a directory's: the last part of a path, more of it where that is not enough, and its place where
/// nothing else is.
fn names(items: &[String]) -> Vec<String> {
    let plain = |text: &str| {
        let text: String = text
            .chars()
            .map(|c| if c == '/' || c == '\\' || c.is_control() { '_' } else { c })
            .collect();
        let mut end = text.len().min(NAME_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let text = &text[..end];
        if text.is_empty() || text.starts_with('.') {
            format!("_{text}")
        } else {
            text.to_owned()
        }
    };
    let last = |item: &String| {
        let path = item.split_once(' ').map_or(item.as_str(), |_| item);
        plain(path.rsplit('/').next().unwrap_or(path))
    };
    let short: Vec<String> = items.iter().map(last).collect();
    let mut counts = std::collections::HashMap::new();
    for name in &short {
        *counts.entry(name.clone()).or_insert(0_u32) += 1;
    }
    let mut taken = HashSet::new();
    let chosen = items.iter().zip(short).enumerate().map(|(index, (item, short))| {
        let wanted = if counts.get(&short) == Some(&1) { short } else { plain(item) };
        if taken.insert(wanted.clone()) {
            return wanted;
        }
        let numbered = format!("{wanted}-{index}");
        taken.insert(numbered.clone());
        numbered
    });
    chosen.collect()
}

/// Brings what a member left to its place. As a run does (whether the member failed, its own end says), or as the user says.
///
/// # Errors
/// If the list of it cannot be had.
pub(crate) async fn fetch(client: &Client, job: JobId, index: u32, output_dirs: &OutputDirs, mode: SaveMode) -> anyhow::Result<Report> {
    let found: Artifacts = client.get(&format!("/v1/jobs/{job}/artifacts"), &()).await?;
    let unmatched = found
        .unmatched
        .iter()
        .map(|pattern| format!("the output pattern `{}` matches no file", pattern.escape_debug()));
    let notes = found.left_out.iter().cloned().chain(unmatched).map(|note| (note, 1)).collect();
    let mut report = Report {
        notes,
        ..Report::default()
    };
    if found.artifacts.is_empty() && found.links.is_empty() {
        return Ok(report);
    }
    let into = output_dirs.of(index, &found.artifacts);
    let failed = found.state.is_some_and(|state| state != State::Succeeded);
    let target = SaveTarget {
        job,
        into: &into,
        base: &output_dirs.root,
        mode: match mode {
            SaveMode::AsRun { .. } => SaveMode::AsRun { failed },
            mode => mode,
        },
        // What was sent is not there.
        sent: &SentInputs::default(),
        removes: false,
        asked: &output_dirs.asked,
    };
    report.add(save_all(client, target, JobOutputs::here(found.artifacts, found.links)).await);
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_distinct_and_never_lead_elsewhere() {
        let items = ["data/a.csv", "more/a.csv", "b.csv", "..", "", "x y/z", "b.csv", "."].map(ToOwned::to_owned);
        let names = names(&items);
        assert_eq!(names[0..3], ["data_a.csv", "more_a.csv", "b.csv"]);
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), items.len());
        assert!(
            names
                .iter()
                .all(|name| !name.contains('/') && !name.starts_with('.') && !name.is_empty()),
            "{names:?}"
        );
    }
}
