//! The options that say which files go along, besides the arguments that name some.

use std::{
    env,
    fs::File,
    io::{self, Seek as _},
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use rustix::fs::{FileType, fstat};

use crate::{
    failure::usage,
    values::{ByteSize, Pair, Span, memory},
};

/// After so long without a byte, it is said that standard input is waited for: a pipe that never ends would be a riddle.
const PATIENCE: Duration = Duration::from_secs(2);

/// The options about files.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "What goes along")]
pub(crate) struct FileArgs {
    /// Further files: a file, a directory, or a glob from the current directory such as 'conf/**/*.yaml'; may be given several times
    #[arg(long, value_name = "GLOB")]
    pub(crate) include: Vec<String>,
    /// The whole current directory as git sees it: without .git and what .gitignore names, with what is tracked
    #[arg(long)]
    pub(crate) workdir: bool,
    /// What to leave out of all that goes along, but for the arguments themselves, by a glob such as '*.tmp'; may be given several times
    #[arg(long, value_name = "GLOB")]
    pub(crate) exclude: Vec<String>,
    /// A file or directory of here that is to stand at another path there; may be given several times
    #[arg(long, value_name = "PATH=ALIAS")]
    pub(crate) input: Vec<Pair>,
    /// What the script reads from standard input: a file, `-` for what comes here, or none [default: `-`, if that is a pipe or a file]
    #[arg(long, short = 'i', value_name = "FILE")]
    pub(crate) stdin: Option<PathBuf>,
    /// Send nothing but what is named here: neither the files that the script's text names, nor its own modules
    #[arg(long, alias = "no-imports")]
    pub(crate) no_scan: bool,
    /// How many files go along at most because the script names them or their directory [default: 10000]
    #[arg(long, value_name = "N")]
    pub(crate) scan_files: Option<usize>,
    /// How many bytes these files have together at most, such as 2GB [default: 500MB]
    #[arg(long, value_name = "SIZE", value_parser = memory, allow_hyphen_values = true)]
    pub(crate) scan_bytes: Option<ByteSize>,
    /// What names the packages that the script needs: a requirements.txt, pyproject.toml or package.json [default: the script's own head
    /// (PEP 723), else such a file beside it, or above it up to here]
    #[arg(long, value_name = "FILE", conflicts_with = "no_requirements")]
    pub(crate) requirements: Option<PathBuf>,
    /// Install no packages: what runs the script has them
    #[arg(long)]
    pub(crate) no_requirements: bool,
    /// Of what it makes or changes, only what this names comes back: a directory such as out, or a glob such as '*.csv'; may be given
    /// several times
    #[arg(long, value_name = "GLOB", help_heading = "What comes back")]
    pub(crate) output: Vec<String>,
    /// Nothing that it makes is kept
    #[arg(long, conflicts_with = "output", help_heading = "What comes back")]
    pub(crate) no_outputs: bool,
    /// What it removes or renames of the files that it was sent stays here under its old name too
    #[arg(long, help_heading = "What comes back")]
    pub(crate) keep_deleted: bool,
    /// How long what it makes is kept on the grid after its end, such as 30d [default: as long as the grid keeps it]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, help_heading = "What comes back")]
    pub(crate) keep_outputs: Option<Span>,
}

/// What the script reads from standard input.
#[derive(Debug)]
pub(crate) struct Stdin {
    pub(crate) path: PathBuf,
    /// A copy without a name, which `path` leads to: whatever ends the program, a signal too, nothing of it is left behind.
    _copy: Option<File>,
}

impl FileArgs {
    /// Which of its files are outputs, as a submission says it.
    pub(crate) fn outputs(&self) -> Option<Vec<String>> {
        (self.no_outputs || !self.output.is_empty()).then(|| self.output.iter().map(|pattern| from_here(pattern)).collect())
    }

    /// Refuses what can never name an output, before anything is sent.
    ///
    /// # Errors
    /// A usage error that says why.
    pub(crate) fn check_outputs(&self) -> anyhow::Result<()> {
        for pattern in self.outputs().iter().flatten() {
            bus::output::patterns::globs(pattern).map_err(|error| usage(format!("--output: {error}")))?;
        }
        Ok(())
    }

    /// What the script is to read from standard input; nothing where there is nothing. A pipe is read to its end.
    ///
    /// # Errors
    /// If it cannot be read or kept.
    pub(crate) async fn stdin(&self) -> anyhow::Result<Option<Stdin>> {
        match self.stdin.as_deref().and_then(|path| path.to_str()) {
            Some("none") => Ok(None),
            Some("-") => copied().await,
            None if self.stdin.is_none() && !is_fed() => Ok(None),
            None if self.stdin.is_none() => copied().await,
            _ => self.stdin.clone().map_or(Ok(None), given),
        }
    }
}

/// A pattern from the current directory on: an absolute one below it is made relative.
pub(crate) fn from_here(pattern: &str) -> String {
    let logical = env::var_os("PWD").map(PathBuf::from);
    let here = env::current_dir().ok().into_iter().chain(logical);
    let mut below = here.filter_map(|dir| relative_to(pattern, &dir));
    below.next().unwrap_or_else(|| pattern.to_owned())
}

fn relative_to(pattern: &str, dir: &Path) -> Option<String> {
    let dir = dir.to_str().filter(|dir| dir.starts_with('/'))?.trim_end_matches('/');
    match pattern.strip_prefix(dir)? {
        "" | "/" => Some(".".to_owned()),
        below => below.strip_prefix('/').map(ToOwned::to_owned),
    }
}

fn given(path: PathBuf) -> anyhow::Result<Option<Stdin>> {
    let shown = path.display();
    let meta = File::open(&path).and_then(|file| file.metadata()).map_err(|error| {
        usage(format!(
            "cannot read {shown} for standard input: {error}; name a file, `-` or `none` with --stdin"
        ))
    })?;
    if !meta.is_file() {
        return Err(usage(format!(
            "{shown} is no file, and cannot be the standard input; name a file, or pipe it in"
        )));
    }
    Ok((meta.len() > 0).then_some(Stdin { path, _copy: None }))
}

/// Whether somebody feeds our standard input: a pipe or a file, and neither a terminal nor nothing (/dev/null).
fn is_fed() -> bool {
    fstat(io::stdin().as_fd()).is_ok_and(|stat| matches!(FileType::from_raw_mode(stat.st_mode), FileType::Fifo | FileType::RegularFile))
}

/// All that comes, in a file: its hash must be known before it is sent.
async fn copied() -> anyhow::Result<Option<Stdin>> {
    let copying = tokio::task::spawn_blocking(|| -> io::Result<(File, u64)> {
        let mut copy = tempfile::tempfile()?;
        let bytes = io::copy(&mut io::stdin().lock(), &mut copy)?;
        copy.rewind()?;
        Ok((copy, bytes))
    });
    let mut copying = std::pin::pin!(copying);
    let copied = match tokio::time::timeout(PATIENCE, &mut copying).await {
        Ok(copied) => copied,
        Err(_) => {
            crate::output::say!("reading standard input to its end, for the script; without any: --stdin none");
            copying.await
        }
    };
    let (copy, bytes) = copied?.context("cannot keep a copy of standard input; make room in the directory for temporary files (TMPDIR)")?;
    Ok((bytes > 0).then(|| Stdin {
        path: format!("/proc/self/fd/{}", copy.as_raw_fd()).into(),
        _copy: Some(copy),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absolute_pattern_below_this_directory_is_made_relative() {
        let cases = [
            ("/home/me/p/out/*.csv", "/home/me/p", Some("out/*.csv")),
            ("/home/me/p", "/home/me/p", Some(".")),
            ("/home/me/p/", "/home/me/p/", Some(".")),
            ("/home/me/project/x", "/home/me/p", None),
            ("/etc/x", "/home/me/p", None),
            ("out", "/home/me/p", None),
            ("/out", "/", Some("out")),
        ];
        for (pattern, dir, expected) in cases {
            assert_eq!(relative_to(pattern, Path::new(dir)).as_deref(), expected, "{pattern} in {dir}");
        }
    }
}
