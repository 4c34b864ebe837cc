//! The values of an attempt's secrets, and the files by which a container reads them.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use crate::beneath::{self, Stop};

/// The directory for them, beside an attempt's other directories.
const DIR: &str = "secrets";

/// Environment variables with secret values, which only the command may see.
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
    /// Whether there is no value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets a variable.
    pub(crate) fn insert(&mut self, variable: String, value: String) {
        self.0.insert(variable, value);
    }

    /// The length of all values together, in bytes.
    pub(crate) fn len_bytes(&self) -> usize {
        self.0.values().map(String::len).sum()
    }

    /// Each variable and its value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// The file with the variables that a container reads, beside its work directory.
pub(crate) fn file(work_dir: &Path) -> PathBuf {
    work_dir.with_file_name(DIR).join("env")
}

/// Writes the file from which a container's shell reads its variables, and the values that the next runner must mask. Both are removed with
/// the attempt's directory.
///
/// # Errors
/// If the files cannot be written.
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
/// If they cannot be read; then the command's output must not be shown.
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
    fn a_shell_reads_every_value_unchanged_and_debug_shows_none() -> anyhow::Result<()> {
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
