//! The paths that a project's `rgrid.toml` names: all of them stay below the project, by their words and by where their links lead.

use std::path::{Path, PathBuf};

use crate::paths::normalized;

/// Options whose value is a path or a pattern, from the project's directory.
pub(super) const FROM_PROJECT: [&str; 2] = ["env-file", "requirements"];
/// Options whose value is a path or a pattern, from the current directory.
const FROM_HERE: [&str; 5] = ["include", "input", "stdin", "each-line", "batch"];

/// Whether what an option of a project's names stays below the project, which is a canonical directory.
pub(super) fn is_below(project: &Path, cwd: &Path, option: &str, value: &str) -> bool {
    let (base, path) = match option {
        option if FROM_PROJECT.contains(&option) => (project, value),
        "stdin" | "each-line" if matches!(value, "-" | "none") => return true,
        // HERE=THERE; where it stands there is the job's own directory in any case.
        "input" => (cwd, value.split_once('=').map_or(value, |(here, _)| here)),
        option if FROM_HERE.contains(&option) => (cwd, value),
        _ => return true,
    };
    path_is_below(project, &base.join(path))
}

/// Whether a path stays below a canonical directory: what of it is here, without the part that is a pattern, by where it really is.
pub(super) fn path_is_below(project: &Path, path: &Path) -> bool {
    let Some(path) = normalized(path) else { return false };
    let is_plain = |part: &std::path::Component<'_>| !part.as_os_str().as_encoded_bytes().iter().any(|byte| b"*?[{".contains(byte));
    // A name may hold such a character, too.
    let plain: PathBuf = if path.exists() {
        path.clone()
    } else {
        path.components().take_while(is_plain).collect()
    };
    let real = plain.ancestors().find_map(|part| part.canonicalize().ok());
    path.starts_with(project) && real.is_some_and(|real| real.starts_with(project))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn what_a_project_names_stays_below_it() -> anyhow::Result<()> {
        let temp = tempfile::tempdir()?;
        let root = temp.path().canonicalize()?;
        let project = root.join("project");
        fs::create_dir_all(project.join("sub"))?;
        fs::create_dir(root.join("keys"))?;
        fs::write(root.join("keys/id"), "")?;
        symlink("../keys", project.join("link"))?;
        symlink("../keys/id", project.join("file"))?;
        symlink("sub", project.join("inside"))?;
        let here = project.join("sub");
        for (option, value, expected) in [
            ("env-file", "a.env", true),
            ("env-file", "../a.env", false),
            ("env-file", "/etc/passwd", false),
            ("env-file", "file", false),
            ("requirements", "sub/../r.txt", true),
            ("include", "../x", true),
            ("include", "../../keys/id", false),
            ("include", "../link/*", false),
            ("include", "../inside/*", true),
            ("include", "**/*.yaml", true),
            ("include", "../../*", false),
            ("input", "../../keys=k", false),
            ("input", "../file=k", false),
            ("input", "x=k", true),
            ("stdin", "/etc/shadow", false),
            ("stdin", "-", true),
            ("each-line", "../../keys/id", false),
            ("batch", "../link/*", false),
            ("batch", "*.csv", true),
            ("cpu", "/etc", true),
        ] {
            assert_eq!(is_below(&project, &here, option, value), expected, "--{option} {value}");
        }
        Ok(())
    }
}
