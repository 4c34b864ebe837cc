//! Staging files: cached contents are copied, all others are fetched.
//!
//! All files of one directory are made by one thread: several would only wait for the directory's lock, and burn a CPU each at that.

use std::{
    collections::HashMap,
    fs::{File, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bus::{ids::Digest, spec::InputFile};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use parking_lot::Mutex;
use store::Files;

use super::{Error, blocking};
use crate::{
    beneath::{Stop, StopGuard},
    input_cache::InputCache,
    inputs::{StagedFile, Stamp},
    patience::patiently,
};

/// Files that are fetched at once.
const AT_ONCE: usize = 8;
/// Threads that copy for one attempt.
const THREADS: usize = 4;
/// From this size on, in bytes, a file takes so long to be written that its directory's lock does not matter.
const LARGE: u64 = 1 << 20;

/// What was staged.
type Staged = Vec<(PathBuf, StagedFile)>;

/// Stages files below a directory; its threads end when it is dropped.
pub(super) struct Staging<'a> {
    store: &'a Files,
    cache: &'a InputCache,
    base: &'a Path,
    stop: Stop,
    _ends: StopGuard,
}

impl<'a> Staging<'a> {
    pub(super) fn new(store: &'a Files, cache: &'a InputCache, base: &'a Path) -> Self {
        let stop = Stop::default();
        Self {
            store,
            cache,
            base,
            _ends: stop.guard(),
            stop,
        }
    }

    /// Stages files in directories that exist, each verified against its hash; returns what was staged where.
    ///
    /// # Errors
    /// If the store lacks one, or the disk does not take it.
    pub(super) async fn files(&self, inputs: Vec<InputFile>) -> Result<HashMap<PathBuf, StagedFile>, Error> {
        if self.cache.is_off() {
            return Ok(self.past_cache(inputs).await?.into_iter().collect());
        }
        let (staged, missing) = self.kept(inputs).await?;
        let mut staged: HashMap<_, _> = staged.into_iter().collect();
        let turn = tokio::sync::Mutex::new(());
        let mut rest = Vec::new();
        let mut fetching =
            stream::iter(by_content(missing).into_iter().map(|same| self.fetch_and_stage(same, &turn))).buffer_unordered(AT_ONCE);
        while let Some((fetched, not_kept)) = fetching.try_next().await? {
            staged.extend(fetched);
            rest.extend(not_kept);
        }
        staged.extend(self.past_cache(rest).await?);
        Ok(staged)
    }

    /// Stages the cached files; returns the others.
    async fn kept(&self, inputs: Vec<InputFile>) -> Result<(Staged, Vec<InputFile>), Error> {
        let groups = by_directory(inputs);
        let threads = groups.len().min(THREADS);
        let groups = Arc::new(Mutex::new(groups));
        let lay = |()| {
            let (groups, lay) = (Arc::clone(&groups), self.stager());
            blocking(move || {
                let (mut staged, mut missing) = (Vec::new(), Vec::new());
                loop {
                    let Some(group) = groups.lock().pop() else {
                        return Ok((staged, missing));
                    };
                    let (more, less) = lay(group)?;
                    staged.extend(more);
                    missing.extend(less);
                }
            })
        };
        let all = futures::future::try_join_all(std::iter::repeat_n((), threads).map(lay)).await?;
        let (staged, missing): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        Ok((staged.into_iter().flatten().collect(), missing.into_iter().flatten().collect()))
    }

    /// Fetches a content, and stages the files that have it; returns the files that must be fetched past the cache.
    async fn fetch_and_stage(&self, same: Vec<InputFile>, turn: &tokio::sync::Mutex<()>) -> Result<(Staged, Vec<InputFile>), Error> {
        let Some(first) = same.first() else {
            return Ok((Vec::new(), same));
        };
        let fetched = self.cache.fetch(self.store, &first.sha256, first.size).await;
        let fetched = fetched.map_err(|source| Error::Fetch {
            path: first.path.to_string(),
            source,
        })?;
        let Some(fetched) = fetched else {
            return Ok((Vec::new(), same));
        };
        let _alone = if first.size < LARGE { Some(turn.lock().await) } else { None };
        let lay = self.stager();
        blocking(move || {
            fetched.admit();
            lay(same)
        })
        .await
    }

    /// Lays files on a thread that may wait, as far as they are kept.
    fn stager(&self) -> impl Fn(Vec<InputFile>) -> Result<(Staged, Vec<InputFile>), Error> + Send + use<> {
        let (cache, base, stop) = (self.cache.clone(), self.base.to_owned(), self.stop.clone());
        move |inputs| {
            let (mut staged, mut missing) = (Vec::with_capacity(inputs.len()), Vec::new());
            for input in inputs {
                let path = base.join(input.path.as_str());
                let lay = || -> io::Result<_> {
                    let file = cache.lay(&input.sha256, &path, &stop)?;
                    file.map(|file| set_attributes(&file, &input)).transpose()
                };
                match lay() {
                    Ok(Some(one)) => staged.push(one),
                    Ok(None) => missing.push(input),
                    Err(source) => return Err(Error::Disk { path, source }),
                }
            }
            Ok((staged, missing))
        }
    }

    /// Fetches files to where they are to be.
    async fn past_cache(&self, inputs: Vec<InputFile>) -> Result<Staged, Error> {
        let fetching = inputs.into_iter().map(|input| self.fetch(input));
        stream::iter(fetching).buffer_unordered(AT_ONCE).try_collect().await
    }

    async fn fetch(&self, input: InputFile) -> Result<(PathBuf, StagedFile), Error> {
        let path = self.base.join(input.path.as_str());
        let fetched = content(self.store, &input.sha256, &path, input.executable).await;
        fetched.map_err(|source| Error::Fetch {
            path: input.path.to_string(),
            source,
        })?;
        blocking(move || {
            let adjusted = File::open(&path).and_then(|file| set_attributes(&file, &input));
            adjusted.map_err(|source| Error::Disk { path, source })
        })
        .await
    }
}

/// Fetches a content to a path, verified.
///
/// # Errors
/// If the store lacks it, or the disk does not take it.
async fn content(files: &Files, sha256: &Digest, path: &Path, executable: bool) -> Result<(), store::Error> {
    patiently("fetch an input", || files.get_file(sha256, path, executable))
        .await
        .map(drop)
}

/// Files of the same content together: it is fetched once.
fn by_content(inputs: Vec<InputFile>) -> Vec<Vec<InputFile>> {
    let mut groups: HashMap<Digest, Vec<InputFile>> = HashMap::new();
    for input in inputs {
        groups.entry(input.sha256).or_default().push(input);
    }
    groups.into_values().collect()
}

/// Files of the same directory together, and each large one alone; what takes longest is last.
fn by_directory(inputs: Vec<InputFile>) -> Vec<Vec<InputFile>> {
    let (large, small): (Vec<_>, Vec<_>) = inputs.into_iter().partition(|input| input.size >= LARGE);
    let mut groups: HashMap<PathBuf, Vec<InputFile>> = HashMap::new();
    for input in small {
        let directory = Path::new(input.path.as_str()).parent().unwrap_or(Path::new(""));
        match groups.get_mut(directory) {
            Some(group) => group.push(input),
            None => drop(groups.insert(directory.to_owned(), vec![input])),
        }
    }
    let mut groups: Vec<_> = groups.into_values().chain(large.into_iter().map(|input| vec![input])).collect();
    // To make a file costs about as much as to copy some ten thousand bytes.
    groups.sort_by_cached_key(|group| {
        group
            .iter()
            .map(|input| input.size.saturating_add(LARGE / 64))
            .fold(0, u64::saturating_add)
    });
    groups
}

/// Sets the permissions and the time of a file that was just staged.
fn set_attributes(file: &File, input: &InputFile) -> io::Result<(PathBuf, StagedFile)> {
    let mode = input.permissions();
    file.set_permissions(Permissions::from_mode(mode))?;
    if let Some(modified) = input.modified_ms.and_then(time_of) {
        // What orders files by their age sees them as they are where they came from. Some file systems cannot keep a time: no harm.
        let _kept = file.set_modified(modified);
    }
    let metadata = file.metadata()?;
    let staged = StagedFile {
        sha256: input.sha256,
        size: input.size,
        modified: metadata.modified().ok(),
        mode: Some(mode),
        stamp: Some(Stamp::of(&metadata)),
    };
    Ok((PathBuf::from(input.path.as_str()), staged))
}

/// Milliseconds since 1970 as a time; nothing where there is no such time.
fn time_of(ms: i64) -> Option<SystemTime> {
    let span = Duration::from_millis(ms.unsigned_abs());
    if ms < 0 {
        UNIX_EPOCH.checked_sub(span)
    } else {
        UNIX_EPOCH.checked_add(span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(path: &str, content: &str, size: u64) -> InputFile {
        InputFile {
            path: path.parse().expect("a path"),
            sha256: Digest::of(content.as_bytes()),
            size,
            executable: false,
            mode: None,
            modified_ms: None,
        }
    }

    fn paths(groups: &[Vec<InputFile>]) -> Vec<Vec<&str>> {
        let groups = groups.iter().map(|group| group.iter().map(|input| input.path.as_str()).collect());
        groups.collect()
    }

    #[test]
    fn files_are_grouped_by_directory_and_a_large_file_comes_first_and_alone() {
        let groups = by_directory(vec![
            input("a/1", "1", 1),
            input("top", "t", 1),
            input("a/large", "l", 2 * LARGE),
            input("a/2", "2", 1),
        ]);
        assert_eq!(paths(&groups), [vec!["top"], vec!["a/1", "a/2"], vec!["a/large"]]);
    }

    #[test]
    fn equal_contents_are_fetched_once() {
        let groups = by_content(vec![input("a", "x", 1), input("b", "y", 1), input("c", "x", 1)]);
        let mut groups = paths(&groups);
        groups.sort_unstable();
        assert_eq!(groups, [vec!["a", "c"], vec!["b"]]);
    }
}
