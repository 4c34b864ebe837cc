//! The options that select input files, in addition to the arguments that name files.

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
#[command(next_help_heading = "Inputs")]
pub(crate) struct FileArgs {
    /// Send more files: a file, a directory, or a glob relative to the current directory, such as 'conf/**/*.yaml'; can be repeated
    #[arg(long, value_name = "GLOB")]
    pub(crate) include: Vec<String>,
    /// Send the whole current directory, except .git and the files that git ignores
    #[arg(long)]
    pub(crate) workdir: bool,
    /// Do not send files that match this glob, such as '*.tmp'; arguments are sent anyway; can be repeated
    #[arg(long, value_name = "GLOB")]
    pub(crate) exclude: Vec<String>,
    /// Send the file or directory PATH, and place it at ALIAS in the job's directory; can be repeated
    #[arg(long, value_name = "PATH=ALIAS")]
    pub(crate) input: Vec<Pair>,
    /// The script's standard input: a file, `-` for the standard input of rgrid, or none [default: `-` if it is a pipe or a file]
    #[arg(long, short = 'i', value_name = "FILE")]
    pub(crate) stdin: Option<PathBuf>,
    /// Do not scan the script's text for files and modules to send
    #[arg(long, alias = "no-imports")]
    pub(crate) no_scan: bool,
    /// The maximum number of files that the scan may add [default: 10000]
    #[arg(long, value_name = "N")]
    pub(crate) scan_files: Option<usize>,
    /// The maximum total size of the files that the scan may add, such as 2GB [default: 500MB]
    #[arg(long, value_name = "SIZE", value_parser = memory, allow_hyphen_values = true)]
    pub(crate) scan_bytes: Option<ByteSize>,
    /// The file that declares the script's packages: a requirements.txt, pyproject.toml or package.json [default: the script's head (PEP 723), or else such a file beside the script or above it, up to the current directory]
    #[arg(long, value_name = "FILE", conflicts_with = "no_requirements")]
    pub(crate) requirements: Option<PathBuf>,
    /// Do not install packages
    #[arg(long)]
    pub(crate) no_requirements: bool,
    /// Save only the outputs that match: a directory such as out, or a glob such as '*.csv'; can be repeated
    #[arg(long, value_name = "GLOB", help_heading = "Outputs")]
    pub(crate) output: Vec<String>,
    /// Do not store any outputs
    #[arg(long, conflicts_with = "output", help_heading = "Outputs")]
    pub(crate) no_outputs: bool,
    /// If the script removes or renames an input file, keep the local file
    #[arg(long, help_heading = "Outputs")]
    pub(crate) keep_deleted: bool,
    /// How long the grid stores the outputs after the job's end, such as 30d [default: the grid's setting]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, help_heading = "Outputs")]
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
            "{shown} is not a file, and cannot be the standard input; name a file, or use a pipe"
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
            crate::output::say!("reading standard input to its end for the script; use --stdin none to run without it");
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
