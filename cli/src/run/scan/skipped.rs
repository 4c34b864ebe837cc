//! Directories and files that a scan passes over, by their names.

use std::path::Path;

/// Directories that hold what others made: no script means them by naming what they stand in.
const SKIPPED: [&str; 16] = [
    ".git",
    ".hg",
    ".svn",
    ".rgrid",
    "__pycache__",
    "node_modules",
    ".venv",
    ".tox",
    ".nox",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".ipynb_checkpoints",
    ".DS_Store",
    ".direnv",
    ".terraform",
];

/// Whether a directory or file of this name is never meant by naming what it stands in.
pub(crate) fn is_skipped(path: &Path, is_dir: bool) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_ours = name.starts_with(".rgrid-") && name.ends_with(".part");
    SKIPPED.contains(&name) || is_ours || (is_dir && path.join("pyvenv.cfg").is_file())
}

/// Whether something is what git, Mercurial or Subversion keep for themselves.
pub(crate) fn is_repository_metadata(path: &Path) -> bool {
    let mut parts = path.components().filter_map(|part| part.as_os_str().to_str());
    parts.any(|part| matches!(part, ".git" | ".hg" | ".svn"))
}
