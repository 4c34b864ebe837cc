//! A Python script's own modules: what it imports, and what lies beside it.
//!
//! Only what stands in import statements is looked for, and only beside the script, which is where Python looks first. Of a package
//! all of it goes along, data too, since a package may read what lies in it. A statement that is none (in a text, say) costs
//! nothing: it names a module that lies there, or nothing at all.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use globset::GlobSet;

use super::gather::{Choice, below};

/// A script or module larger than this is no source that somebody wrote.
const LARGEST: u64 = 4 << 20;

/// The modules that a script imports from the directory that it lies in, directly or by others: each by its path from there.
///
/// # Errors
/// If a package cannot be read.
pub(super) fn beside(script: &Path, exclude: &GlobSet) -> anyhow::Result<Vec<(String, PathBuf)>> {
    // Python takes the directory of the file that a link leads to.
    let Ok(script) = script.canonicalize() else { return Ok(Vec::new()) };
    let Some(dir) = script.parent() else { return Ok(Vec::new()) };
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut to_read = vec![script.clone()];
    while let Some(source) = to_read.pop() {
        for name in imported(&source) {
            if !seen.insert(name.clone()) {
                continue;
            }
            for (path, source) in module(dir, &name, exclude)? {
                if source != script && found.insert((path, source.clone())) && source.extension().is_some_and(|kind| kind == "py") {
                    to_read.push(source);
                }
            }
        }
    }
    Ok(found.into_iter().collect())
}

/// The files of a module: a package before a module before a directory of modules, as Python has it.
fn module(dir: &Path, name: &str, exclude: &GlobSet) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let package = dir.join(name);
    let file = dir.join(format!("{name}.py"));
    let is_package = package.join("__init__.py").is_file();
    if !is_package && file.is_file() {
        let path = format!("{name}.py");
        return Ok(if exclude.is_match(&path) { Vec::new() } else { vec![(path, file)] });
    }
    if !package.is_dir() {
        return Ok(Vec::new());
    }
    let choice = Choice {
        exclude,
        as_git: false,
        only: None,
    };
    let found = below(&package, choice)?;
    // What a link names goes along in its place.
    let linked = found.links.into_iter().map(|(path, _)| {
        let at = package.join(&path);
        (path, at)
    });
    let all = found.files.into_iter().chain(linked.filter(|(_, at)| at.is_file()));
    let files = all.filter(|(path, _)| {
        let compiled = path.split('/').any(|part| part == "__pycache__");
        // Without an __init__.py, it may be any directory.
        !compiled && (is_package || Path::new(path).extension().is_some_and(|kind| kind == "py"))
    });
    Ok(files.map(|(path, source)| (format!("{name}/{path}"), source)).collect())
}

/// The first parts of all module names in import statements.
fn imported(source: &Path) -> Vec<String> {
    let is_source = fs::metadata(source).is_ok_and(|meta| meta.len() <= LARGEST);
    let text = if is_source {
        fs::read(source).unwrap_or_default()
    } else {
        Vec::new()
    };
    names(&String::from_utf8_lossy(&text))
}

fn names(text: &str) -> Vec<String> {
    let text = text.replace("\\\n", " ");
    // `if x: import y`, and `import x; import y`.
    let statements = text.lines().flat_map(|line| line.split([';', ':'])).map(str::trim_start);
    let mut names = Vec::new();
    for statement in statements {
        let mut words = statement.split_whitespace();
        match words.next() {
            Some("from") => names.extend(words.next().and_then(first_part)),
            Some("import") => {
                let list = statement.trim_start_matches("import").split('#').next().unwrap_or_default();
                names.extend(list.split(',').filter_map(|one| first_part(one.split_whitespace().next()?)));
            }
            _ => {}
        }
    }
    names
}

/// `a` of `a.b.c`; nothing of `.b`, which lies in a package that goes along as a whole.
fn first_part(name: &str) -> Option<String> {
    let first = name.split('.').next()?;
    let is_name = !first.is_empty() && first.chars().all(|c| c == '_' || c.is_alphanumeric());
    is_name.then(|| first.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn import_statements_are_read_as_python_does() {
        let text = "import os, a.b as c, d # import e\nfrom f.g import (h,\n  i)\nfrom . import j\nfrom .k import l\n\
                    try: import m\nif x: import n; import o\n  import \\\n  p\nprint('import q')\nimportant = 1\nfrom r import*\n";
        assert_eq!(names(text), ["os", "a", "d", "f", "m", "n", "o", "p", "r"]);
    }

    #[test]
    fn modules_beside_the_script_go_along_with_what_they_import() -> anyhow::Result<()> {
        let temp = tempfile::tempdir()?;
        let files = [
            ("main.py", "import helper, json\nfrom pkg.core import run\nimport space.one\n"),
            ("helper.py", "import deep\nimport main\n"),
            ("deep.py", ""),
            ("unused.py", ""),
            ("pkg/__init__.py", ""),
            ("pkg/core.py", "from . import util\nimport third\n"),
            ("pkg/util.py", ""),
            ("pkg/data.txt", "x"),
            ("pkg/__pycache__/core.pyc", ""),
            ("third.py", ""),
            ("space/one.py", ""),
            ("space/big.csv", "x"),
        ];
        for (path, text) in files {
            let path = temp.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent"))?;
            fs::write(path, text)?;
        }
        let found = beside(&temp.path().join("main.py"), &GlobSet::empty())?;
        let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
        let expected = [
            "deep.py",
            "helper.py",
            "pkg/__init__.py",
            "pkg/core.py",
            "pkg/data.txt",
            "pkg/util.py",
            "space/one.py",
            "third.py",
        ];
        assert_eq!(paths, expected);
        Ok(())
    }
}
