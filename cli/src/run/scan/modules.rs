//! Where a module's name leads: the rules by which each language looks for its own modules, as far as they lead into the project.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

use super::{language::Language, mention::Module, regular};
use crate::paths::normalized;

/// A larger package.json is none that somebody wrote, in bytes.
const LARGEST_MANIFEST: u64 = 1 << 20;
/// The most entries of a directory that are looked at.
const MOST_ENTRIES: usize = 20_000;
/// The most packages that one needs.
const MOST_PACKAGES: usize = 2_000;

/// What directories hold, by names without extensions: most modules that a project imports are not its own, and need no further look.
#[derive(Debug, Default)]
pub(crate) struct Stems(HashMap<PathBuf, HashSet<String>>);

impl Stems {
    fn holds(&mut self, dir: &Path, stem: &str) -> bool {
        if !self.0.contains_key(dir) {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten().take(MOST_ENTRIES);
            let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
            let stems = names.map(|name| name.split('.').next().unwrap_or(&name).to_owned()).collect();
            self.0.insert(dir.to_owned(), stems);
        }
        self.0.get(dir).is_some_and(|stems| stems.contains(stem))
    }
}

/// What a module is made of here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) files: Vec<PathBuf>,
    /// Directories of which all belongs to it.
    pub(crate) packages: Vec<PathBuf>,
    /// Directories of which only the source belongs to it.
    pub(crate) sources: Vec<PathBuf>,
}

impl Parts {
    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.packages.is_empty() && self.sources.is_empty()
    }

    fn file(path: PathBuf) -> Self {
        Self {
            files: vec![path],
            ..Self::default()
        }
    }

    fn and(mut self, other: Self) -> Self {
        self.files.extend(other.files);
        self.packages.extend(other.packages);
        self.sources.extend(other.sources);
        self
    }
}

/// Finds a module that a file mentions. `roots` are the directories that the language searches, the nearest first; `top` ends a search
/// that climbs.
pub(crate) fn find(stems: &mut Stems, language: Language, module: &Module, from: &Path, roots: &[PathBuf], top: &Path) -> Parts {
    let dir = from.parent().unwrap_or(from);
    match language {
        Language::Python => python(stems, module, dir, roots),
        Language::JavaScript => node(&module.name, dir, top),
        Language::Ruby => with_ending(&module.name, ".rb", &[dir], roots),
        Language::Perl if module.is_open => {
            let below = module.name.replace("::", "/");
            let found = roots
                .iter()
                .map(|root| root.join(&below))
                .find(|dir| !below.is_empty() && dir.is_dir());
            Parts {
                sources: found.into_iter().collect(),
                ..Parts::default()
            }
        }
        Language::Perl => {
            let name = format!("{}.pm", module.name.replace("::", ".").replace('.', "/"));
            let file = if module.name.ends_with(".pl") || module.name.contains('/') {
                module.name.as_str()
            } else {
                &name
            };
            with_ending(file, "", &[], roots)
        }
        _ => Parts::default(),
    }
}

fn with_ending(name: &str, ending: &str, nearest: &[&Path], roots: &[PathBuf]) -> Parts {
    let names = [format!("{name}{ending}"), name.to_owned()];
    let dirs = nearest.iter().copied().chain(roots.iter().map(PathBuf::as_path));
    let mut paths = dirs.flat_map(|dir| names.iter().map(move |name| dir.join(name)));
    paths.find(|path| path.is_file()).map(Parts::file).unwrap_or_default()
}

/// A package before a module before a directory of modules, as Python has it, and compiled modules before all.
fn python(stems: &mut Stems, module: &Module, dir: &Path, roots: &[PathBuf]) -> Parts {
    let mut relative = dir.to_owned();
    for _ in 1..module.level {
        relative.pop();
    }
    let roots = if module.level > 0 { std::slice::from_ref(&relative) } else { roots };
    let name = if module.is_open {
        module.name.rsplit_once('.').map_or("", |(package, _)| package)
    } else {
        &module.name
    };
    let names: Vec<&str> = name.split('.').filter(|part| !part.is_empty()).collect();
    if names.iter().any(|name| !name.chars().all(|c| c == '_' || c.is_alphanumeric())) {
        return Parts::default();
    }
    for root in roots {
        if names.first().is_some_and(|first| !stems.holds(root, first)) {
            continue;
        }
        let found = if module.is_open && names.is_empty() {
            Parts {
                files: python_files(root, &module.name),
                ..Parts::default()
            }
        } else if names.is_empty() {
            // `from . import a`, `f"{name}_plugin"`.
            let members = module.members.iter().map(|member| python_at(root, &[member.as_str()]));
            members.fold(Parts::default(), Parts::and)
        } else {
            python_at(root, &names)
        };
        if !found.is_empty() {
            return found;
        }
    }
    Parts::default()
}

fn python_at(root: &Path, names: &[&str]) -> Parts {
    let Some(first) = names.first() else { return Parts::default() };
    let package = root.join(first);
    if package.join("__init__.py").is_file() || package.join("__init__.pyc").is_file() {
        return Parts {
            packages: vec![package],
            ..Parts::default()
        };
    }
    if let Some(file) = python_file(root, first) {
        return Parts::file(file);
    }
    if package.is_dir() {
        return Parts {
            sources: vec![package],
            ..Parts::default()
        };
    }
    Parts::default()
}

/// Modules whose names begin so: `day1.py`, `day2.py` of `"day" + str(n)`.
fn python_files(root: &Path, prefix: &str) -> Vec<PathBuf> {
    let begins = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        !prefix.is_empty() && name.starts_with(prefix) && Path::new(name).extension().is_some_and(|ending| ending == "py")
    };
    let entries = fs::read_dir(root).into_iter().flatten().flatten().take(MOST_ENTRIES);
    entries.map(|entry| entry.path()).filter(begins).collect()
}

fn python_file(root: &Path, name: &str) -> Option<PathBuf> {
    let plain = [".abi3.so", ".so", ".pyd", ".py", ".pyc"].map(|ending| root.join(format!("{name}{ending}")));
    // `name.cpython-312-x86_64-linux-gnu.so`.
    let prefix = format!("{name}.cpython-");
    let is_compiled = |path: &PathBuf| {
        let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
        file.starts_with(&prefix) && file.ends_with(".so")
    };
    let found = plain.into_iter().find(|path| path.is_file());
    found.or_else(|| {
        fs::read_dir(root)
            .ok()?
            .flatten()
            .take(MOST_ENTRIES)
            .map(|entry| entry.path())
            .find(is_compiled)
    })
}

/// A path as Node resolves it: the file, the file with an ending, the directory's main file; and a package of `node_modules`.
fn node(name: &str, dir: &Path, top: &Path) -> Parts {
    let name = name.strip_prefix("node:").unwrap_or(name);
    let name = name.split('?').next().unwrap_or(name);
    if name.starts_with(['.', '/']) {
        // An absolute path is one that the code made of its own place.
        let path = dir.join(name);
        return if path.starts_with(top) {
            node_path(&path)
        } else {
            Parts::default()
        };
    }
    let mut parts = name.split('/');
    let first = parts.next().unwrap_or_default();
    let package = if first.starts_with('@') {
        format!("{first}/{}", parts.next().unwrap_or_default())
    } else {
        first.to_owned()
    };
    if package.is_empty() || package.split('/').any(|part| part == "..") {
        return Parts::default();
    }
    for above in dir.ancestors().take_while(|above| above.starts_with(top)) {
        let manifest = above.join("package.json");
        if manifest.is_file() && (name.starts_with('#') || json_text(&manifest, "name").as_deref() == Some(&package)) {
            return Parts::file(manifest.clone()).and(exported(&manifest, &mut HashSet::new()));
        }
        let installed = above.join("node_modules").join(&package);
        if installed.is_dir() {
            return node_package(&installed, top);
        }
    }
    Parts::default()
}

/// A package that lies in `node_modules`, and those that it needs.
fn node_package(installed: &Path, top: &Path) -> Parts {
    let mut packages = vec![installed.to_owned()];
    let mut seen: HashSet<PathBuf> = packages.iter().cloned().collect();
    let mut next = 0;
    while let Some(package) = packages.get(next).cloned().filter(|_| next < MOST_PACKAGES) {
        next += 1;
        let manifest = json(&package.join("package.json"));
        let needed = manifest.as_ref().and_then(|manifest| manifest.get("dependencies")?.as_object());
        for name in needed
            .into_iter()
            .flat_map(serde_json::Map::keys)
            .filter(|name| !name.contains(".."))
        {
            let above = package.ancestors().skip(1).take_while(|above| above.starts_with(top));
            let found = above.map(|above| above.join("node_modules").join(name)).find(|path| path.is_dir());
            packages.extend(found.filter(|found| seen.insert(found.clone())));
        }
    }
    packages.sort();
    Parts {
        packages,
        ..Parts::default()
    }
}

fn node_path(path: &Path) -> Parts {
    node_path_in(path, &mut HashSet::new())
}

/// The same, where these directories were looked at already: a package may lead back to itself.
fn node_path_in(path: &Path, seen: &mut HashSet<PathBuf>) -> Parts {
    const ENDINGS: [&str; 11] = ["", ".js", ".json", ".node", ".mjs", ".cjs", ".ts", ".tsx", ".jsx", ".mts", ".cts"];
    for ending in ENDINGS {
        let mut whole = path.as_os_str().to_owned();
        whole.push(ending);
        let whole = PathBuf::from(whole);
        if whole.is_file() {
            return Parts::file(whole);
        }
    }
    // TypeScript names the file that is made of it.
    let source = path.extension().filter(|ending| *ending == "js").map(|_| path.with_extension("ts"));
    if let Some(source) = source.filter(|source| source.is_file()) {
        return Parts::file(source);
    }
    let is_new = normalized(path).is_some_and(|path| seen.insert(path));
    let manifest = path.join("package.json");
    if is_new && manifest.is_file() {
        let main = json_text(&manifest, "main").or_else(|| json_text(&manifest, "module"));
        let main = main
            .filter(|main| !main.starts_with('/'))
            .map(|main| node_path_in(&path.join(main), seen));
        return Parts::file(manifest.clone())
            .and(main.unwrap_or_default())
            .and(exported(&manifest, seen))
            .and(index(path));
    }
    index(path)
}

fn index(path: &Path) -> Parts {
    let files = ["index.js", "index.json", "index.mjs", "index.cjs", "index.ts"].map(|name| path.join(name));
    files.into_iter().find(|file| file.is_file()).map(Parts::file).unwrap_or_default()
}

/// What a package.json says that its names lead to.
fn exported(manifest: &Path, seen: &mut HashSet<PathBuf>) -> Parts {
    let dir = manifest.parent().unwrap_or(manifest);
    let mut texts = Vec::new();
    if let Some(said) = json(manifest) {
        for field in ["main", "module", "exports", "imports"] {
            collect(said.get(field).unwrap_or(&serde_json::Value::Null), &mut texts);
        }
    }
    let mut found = Parts::default();
    for text in texts.iter().filter(|text| !text.starts_with('/')) {
        if let Some((before, _)) = text.split_once('*') {
            let below = dir.join(before.rsplit_once('/').map_or("", |(below, _)| below));
            found.sources.extend(Some(below).filter(|below| below != dir && below.is_dir()));
        } else {
            found = found.and(node_path_in(&dir.join(text), seen));
        }
    }
    found
}

fn collect(value: &serde_json::Value, texts: &mut Vec<String>) {
    match value {
        serde_json::Value::String(text) => texts.push(text.clone()),
        serde_json::Value::Object(map) => map.values().for_each(|value| collect(value, texts)),
        serde_json::Value::Array(list) => list.iter().for_each(|value| collect(value, texts)),
        _ => {}
    }
}

fn json(path: &Path) -> Option<serde_json::Value> {
    serde_json::from_slice(&regular::read(path, LARGEST_MANIFEST)?).ok()
}

fn json_text(path: &Path, field: &str) -> Option<String> {
    Some(json(path)?.get(field)?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(name: &str, level: usize) -> Module {
        Module {
            name: name.to_owned(),
            is_open: false,
            level,
            members: vec!["member".to_owned()],
            line: 1,
        }
    }

    #[test]
    fn modules_are_found_as_each_language_finds_them() -> anyhow::Result<()> {
        let temp = tempfile::tempdir()?;
        let root = temp.path();
        for (path, text) in [
            ("helper.py", ""),
            ("pkg/__init__.py", ""),
            ("pkg/member.py", ""),
            ("space/one.py", ""),
            ("fast.cpython-311-x86_64-linux-gnu.so", ""),
            ("old.pyc", ""),
            ("lib/x.js", ""),
            ("lib/dir/package.json", "{\"main\": \"m.js\"}"),
            ("lib/dir/m.js", ""),
            ("package.json", "{\"name\": \"me\", \"imports\": {\"#u\": \"./lib/x.js\"}}"),
            ("node_modules/a/package.json", "{\"dependencies\": {\"b\": \"1\"}}"),
            ("node_modules/b/index.js", ""),
            ("lib/Ballot/Count.pm", ""),
            ("lib/r.rb", ""),
        ] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("a parent"))?;
            fs::write(path, text)?;
        }
        let roots = [root.to_owned(), root.join("lib")];
        let main = root.join("main");
        let at = |language, name: &str, from: &Path, level| find(&mut Stems::default(), language, &module(name, level), from, &roots, root);
        let file = |path: &str| Parts::file(root.join(path));
        assert_eq!(at(Language::Python, "helper", &main, 0), file("helper.py"));
        assert_eq!(at(Language::Python, "pkg.member", &main, 0).packages, [root.join("pkg")]);
        assert_eq!(at(Language::Python, "", &root.join("pkg/a.py"), 1), file("pkg/member.py"));
        assert_eq!(at(Language::Python, "space.one", &main, 0).sources, [root.join("space")]);
        assert_eq!(at(Language::Python, "fast", &main, 0), file("fast.cpython-311-x86_64-linux-gnu.so"));
        assert_eq!(at(Language::Python, "old", &main, 0), file("old.pyc"));
        assert!(at(Language::Python, "json", &main, 0).is_empty());
        assert_eq!(at(Language::JavaScript, "./lib/x", &main, 0), file("lib/x.js"));
        assert!(
            at(Language::JavaScript, "./lib/dir", &main, 0)
                .files
                .contains(&root.join("lib/dir/m.js"))
        );
        assert_eq!(at(Language::JavaScript, "#u", &main, 0).files.last(), Some(&root.join("lib/x.js")));
        assert_eq!(at(Language::JavaScript, "a", &main, 0).packages.len(), 2);
        assert!(at(Language::JavaScript, "fs", &main, 0).is_empty());
        assert_eq!(at(Language::Perl, "Ballot.Count", &main, 0), file("lib/Ballot/Count.pm"));
        assert_eq!(at(Language::Ruby, "lib/r", &main, 0), file("lib/r.rb"));
        Ok(())
    }
}
