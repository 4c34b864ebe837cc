//! An attempt's secrets: fetched sealed when it starts, opened here, and nowhere written but for a container to read.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use bus::{grid::secrets, job::Job, log};
use tracing::warn;

use crate::{
    attempt::{run::Context, stage::chain},
    beneath::{self, Stop},
};

/// How often NATS is asked for a secret that it does not tell, and the pause between.
const TRIES: u32 = 60;
const PAUSE: Duration = Duration::from_millis(500);
/// How long an attempt's secrets may be together, in bytes: all are searched for in all that it prints. Linux gives a plain process no
/// more than 2 MiB of variables and arguments.
const MAX_TOTAL: usize = 512 << 10;
/// The directory for them, beside an attempt's others.
const DIR: &str = "secrets";

/// Values of variables that nobody else may see.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Values(BTreeMap<String, String>);

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl FromIterator<(String, String)> for Values {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(pairs: T) -> Self {
        Self(pairs.into_iter().collect())
    }
}

impl Values {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each variable and its value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Why an attempt does not get its secrets, as its user reads it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("worker {0} has no key for secrets; start its runner with --secrets-key-file, or let the job run without --secret")]
    NoKey(bus::ids::WorkerId),
    #[error("the secret `{name}` does not exist in namespace {namespace} any more; set it with `rgrid secret set {name}`")]
    Absent {
        name: bus::ids::Token,
        namespace: bus::ids::Namespace,
    },
    #[error("the secret `{name}` cannot be opened: {why}")]
    Closed { name: bus::ids::Token, why: secrets::Error },
    #[error("the job's secrets are longer than {} KiB together; let it read the largest from where they are kept", MAX_TOTAL >> 10)]
    TooLong,
    #[error("the secret `{name}` cannot be read: {why}")]
    Away { name: bus::ids::Token, why: String },
}

/// The values of a job's secrets.
///
/// # Errors
/// If one is not there, or cannot be opened. A server that is away is waited for, half a minute.
pub(crate) async fn of(context: &Context, job: &Job) -> Result<Values, Error> {
    let mut values = Values::default();
    for (variable, name) in &job.spec.secrets {
        let key = context.secrets.as_ref().ok_or_else(|| Error::NoKey(context.worker.clone()))?;
        let (name, namespace) = (name.clone(), &job.namespace);
        let mut tries = 0;
        let sealed = loop {
            tries += 1;
            match log::secrets::get(&context.js, namespace, &name).await {
                Ok(sealed) => break sealed,
                Err(error) if tries < TRIES => {
                    warn!(job.id = %job.id, "job {} waits for its secret `{name}`: {}", job.id, chain(&error));
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => {
                    let why = chain(&error);
                    return Err(Error::Away { name, why });
                }
            }
        };
        let Some(sealed) = sealed else {
            let namespace = namespace.clone();
            return Err(Error::Absent { name, namespace });
        };
        match secrets::open(key, namespace, &name, &sealed.sealed) {
            Ok(value) => values.0.insert(variable.clone(), value),
            Err(why) => return Err(Error::Closed { name, why }),
        };
        if values.0.values().map(String::len).sum::<usize>() > MAX_TOTAL {
            return Err(Error::TooLong);
        }
    }
    Ok(values)
}

/// Where the variables stand that a container reads, beside its work directory.
pub(crate) fn file(work_dir: &Path) -> PathBuf {
    work_dir.with_file_name(DIR).join("env")
}

/// Writes what a container's shell reads its variables from, and for a runner that takes it up what is to be masked. Both are gone
/// with the attempt's directory.
///
/// # Errors
/// If the disk does not take it.
pub(crate) fn write(work_dir: &Path, values: &Values) -> io::Result<PathBuf> {
    let dir = work_dir.with_file_name(DIR);
    beneath::remove(&dir, &Stop::default()).map_err(io::Error::other)?;
    fs::DirBuilder::new().mode(0o700).create(&dir)?;
    let private = |name: &str| fs::OpenOptions::new().write(true).create_new(true).mode(0o400).open(dir.join(name));
    let lines: String = values
        .iter()
        .map(|(name, value)| format!("export {name}='{}'\n", value.replace('\'', "'\\''")))
        .collect();
    private("env")?.write_all(lines.as_bytes())?;
    private("values.json")?.write_all(&serde_json::to_vec(&values.0)?)?;
    Ok(dir.join("env"))
}

/// The values that an earlier runner gave a command in this work directory; none where it gave none.
///
/// # Errors
/// If they cannot be read: then what the command prints must not be shown.
pub(crate) fn left(work_dir: &Path) -> io::Result<Values> {
    match fs::read(work_dir.with_file_name(DIR).join("values.json")) {
        Ok(json) => Ok(Values(serde_json::from_slice(&json)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Values::default()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_shell_reads_every_value_as_it_is_and_debug_shows_none() -> anyhow::Result<()> {
        let temp = tempfile::tempdir()?;
        let value = "it's $HOME `id` \\ \"x\"\nsecond line";
        let values: Values = [("A".to_owned(), value.to_owned())].into_iter().collect();
        let file = write(&temp.path().join("work"), &values)?;
        let said = Command::new("/bin/sh")
            .args(["-c", ". \"$1\" && printf %s \"$A\"", "sh"])
            .arg(&file)
            .output()?;
        assert_eq!(String::from_utf8(said.stdout)?, value);
        assert_eq!(left(&temp.path().join("work"))?, values);
        assert_eq!(format!("{values:?}"), "{\"A\"}");
        Ok(())
    }
}
