//! Packages that a project names: `[project] dependencies` in its pyproject.toml.

use std::path::Path;

use serde::Deserialize;

use super::{Declared, LONGEST, requirements, wrong_file};
use crate::{commands::run::say, failure::usage, text};

#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default)]
    project: Project,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Project {
    #[serde(default)]
    dependencies: Vec<String>,
    requires_python: Option<String>,
    #[serde(default)]
    dynamic: Vec<String>,
}

/// The packages that a pyproject.toml names; nothing where it names none.
///
/// # Errors
/// A usage error where it cannot be read.
pub(super) fn read(path: &Path, shown: String, cwd: &Path) -> anyhow::Result<Option<Declared>> {
    let text = text::read(path, LONGEST).map_err(|error| wrong_file(&error))?;
    let File { project } = toml::from_str(&text).map_err(|error| {
        usage(format!(
            "{shown} cannot be read: {}; correct it, or leave it out with --no-requirements",
            error.message()
        ))
    })?;
    if project.dynamic.iter().any(|field| field == "dependencies") {
        say::warning(&format!(
            "{shown} leaves its dependencies to a build system, and none are installed; name them with --requirements FILE"
        ));
        return Ok(None);
    }
    let read = requirements::of_text(&project.dependencies, &shown, path.parent().unwrap_or(cwd), cwd)?;
    Ok(Declared::pip(shown, project.requires_python, read))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_project_says_what_it_needs() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("pyproject.toml");
        let of = |text: &str| {
            fs::write(&path, text)?;
            read(&path, "pyproject.toml".to_owned(), dir.path())
        };
        let declared = of("[project]\nname = 'x'\nrequires-python = '>=3.9'\ndependencies = ['six', 'rich>13']\n")?.expect("two packages");
        assert_eq!((declared.packages, declared.python.as_deref()), (2, Some(">=3.9")));
        assert_eq!(declared.made().next().map(Vec::as_slice), Some(&b"six\nrich>13\n"[..]));
        assert_eq!(of("[tool.ruff]\nline-length = 100\n")?, None);
        assert_eq!(of("[project]\nname = 'x'\ndynamic = ['dependencies']\n")?, None);
        assert!(of("[project\n").expect_err("wrong").to_string().contains("--no-requirements"));
        Ok(())
    }
}
