//! What an attempt left outside the grid, as `ticker` writes it.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use bus::ids::{Attempt, JobId};

use super::Micros;

/// One process's trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Of which job.
    pub job: JobId,
    /// Which try at it.
    pub attempt: Attempt,
    /// Which process.
    pub pid: u32,
    /// When it started.
    pub start: Micros,
    /// When it was last seen alive: at its end, its last tick, or its start.
    pub last: Micros,
    /// When it ended by itself; absent if it was killed.
    pub end: Option<Micros>,
}

/// Reads every trace in a directory. An attempt that was killed before its first word left none.
///
/// # Errors
/// If a file there is no trace.
pub fn read(dir: &Path) -> Result<Vec<Trace>> {
    let mut traces = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .context("a trace has a name")?
            .to_owned();
        let text = fs::read_to_string(&path)?;
        traces.extend(parse(&name, &text).with_context(|| format!("{name} is no trace: {text}"))?);
    }
    traces.sort_by_key(|trace| (trace.job, trace.attempt, trace.start));
    Ok(traces)
}

fn parse(name: &str, text: &str) -> Result<Option<Trace>> {
    let mut parts = name.split('.');
    let mut next = || parts.next().context("job.attempt.pid");
    let (job, attempt, pid) = (next()?.parse()?, Attempt(next()?.parse()?), next()?.parse()?);
    let mut trace: Option<Trace> = None;
    for line in text.lines() {
        let (word, at) = line.split_once(' ').context("a word and a time")?;
        let at: Micros = at.parse()?;
        match (word, &mut trace) {
            ("start", None) => {
                let (start, last, end) = (at, at, None);
                trace = Some(Trace {
                    job,
                    attempt,
                    pid,
                    start,
                    last,
                    end,
                });
            }
            ("tick", Some(trace)) => trace.last = trace.last.max(at),
            ("end", Some(trace)) => {
                ensure!(trace.end.is_none(), "it ended twice");
                trace.end = Some(at);
                trace.last = trace.last.max(at);
            }
            _ => anyhow::bail!("`{line}` does not follow"),
        }
    }
    Ok(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_read_as_it_was_written() -> Result<()> {
        let job = JobId::new();
        let killed = parse(&format!("{job}.2.77"), "start 100\ntick 150\n")?.context("a trace")?;
        assert_eq!((killed.job, killed.attempt, killed.pid), (job, Attempt(2), 77));
        assert_eq!((killed.start, killed.last, killed.end), (100, 150, None));
        let ended = parse(&format!("{job}.1.7"), "start 100\ntick 150\nend 160\n")?.context("a trace")?;
        assert_eq!((ended.last, ended.end), (160, Some(160)));
        assert_eq!(parse(&format!("{job}.1.7"), "")?, None);
        for wrong in ["tick 1\n", "start 1\nstart 2\n", "start 1\nend 2\nend 3\n", "start x\n"] {
            assert!(parse(&format!("{job}.1.7"), wrong).is_err(), "{wrong}");
        }
        Ok(())
    }
}
