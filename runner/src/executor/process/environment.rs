//! The environment of a plain process: little, and nothing of the runner's own, which holds credentials.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
};

use super::mark::{self, Mark};

/// What every command gets, whatever it is: where programs are, UTF-8, and output that comes as it is written.
pub(super) fn base(path: &OsStr, user: Option<&OsStr>) -> Vec<(OsString, OsString)> {
    let mut base = vec![
        ("PATH".into(), path.to_owned()),
        ("LANG".into(), "C.UTF-8".into()),
        ("PYTHONUNBUFFERED".into(), "1".into()),
        // Compiled modules are nobody's outputs.
        ("PYTHONDONTWRITEBYTECODE".into(), "1".into()),
    ];
    base.extend(
        user.iter()
            .flat_map(|user| ["USER", "LOGNAME"].map(|name| (name.into(), user.to_os_string()))),
    );
    base
}

/// The whole environment of one command. The job's own variables win over the worker's, but for the mark.
pub(super) fn of<'a>(
    base: &[(OsString, OsString)],
    (work, scratch): (&Path, &Path),
    own: impl Iterator<Item = (&'a str, &'a str)>,
    mark: &Mark,
) -> Vec<(OsString, OsString)> {
    let places = [("HOME", scratch), ("TMPDIR", scratch), ("PWD", work)];
    let places = places.map(|(name, place)| (name.into(), place.as_os_str().to_owned()));
    let own = own.map(|(name, value)| (name.into(), value.into()));
    let mark = (mark::VARIABLE.into(), mark.to_string().into());
    base.iter().cloned().chain(places).chain(own).chain([mark]).collect()
}
