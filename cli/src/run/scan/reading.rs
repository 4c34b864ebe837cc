//! Reading a script and all that it leads to: first what it imports, then what each file mentions.

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    path::{Path, PathBuf},
};

use globset::GlobSet;

use super::{
    code::Source,
    finder::Finder,
    found::{Bounds, IncludeReason},
    is_source,
    language::Language,
    mention::{Mention, MentionKind, Mentions, Module},
    modules::{self, Stems},
    names::Names,
    parallel,
    scope::ScanScope,
    shell, text,
    unread::{Content, LARGEST_SOURCE, Unread},
    value::Base,
};
use crate::paths::normalized;

/// How many files are read, and how many bytes of them together.
const MOST_FILES: usize = 3_000;
const MOST_BYTES: u64 = 48 << 20;
/// How many files are read once more.
const MOST_READ_AGAIN: usize = 200;
/// How many configurations are read that nothing names.
const MOST_CONFIGURATIONS: usize = 200;
/// Endings of configurations, which are read also where they stand in a directory that is sent as a whole.
const CONFIGURATIONS: [&str; 11] = [
    "yaml",
    "yml",
    "ini",
    "cfg",
    "conf",
    "toml",
    "json",
    "env",
    "properties",
    "json5",
    "jsonc",
];
/// Endings of texts that name others, such as images and templates.
const PAGES: [&str; 10] = ["html", "htm", "md", "css", "tex", "rst", "j2", "tmpl", "tpl", "erb"];
/// Endings of what is not text that mentions files.
const DATA: [&str; 38] = [
    "csv", "tsv", "png", "jpg", "jpeg", "gif", "pdf", "zip", "gz", "bz2", "xz", "zst", "tar", "tgz", "whl", "egg", "db", "sqlite",
    "sqlite3", "parquet", "feather", "npy", "npz", "pkl", "pickle", "h5", "hdf5", "mp3", "mp4", "wav", "so", "pyc", "log", "lock", "bin",
    "ipynb", "svg", "doc",
];

/// What a name is given, and nothing else uses, counts as read.
fn as_read(mention: Mention) -> Mention {
    Mention {
        how: if matches!(mention.how, MentionKind::Define(_)) {
            MentionKind::Read
        } else {
            mention.how
        },
        ..mention
    }
}

/// A file that was read.
struct Unit {
    path: PathBuf,
    source: Content,
}

pub(crate) struct Scan<'a> {
    pub(crate) finder: Finder<'a>,
    pub(super) names: Names,
    /// Files to be read, and those that were.
    queue: Vec<Unit>,
    seen: HashSet<PathBuf>,
    bytes: u64,
    /// Where modules are searched for, in addition to the script's directory.
    roots: Vec<PathBuf>,
    /// Modules that were not found yet, and the file that mentions each.
    missing: Vec<(Language, Module, PathBuf)>,
    pub(super) new: Vec<PathBuf>,
    /// How many configurations were read.
    configurations: usize,
    /// What directories hold, for the search of modules.
    stems: Stems,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(scope: &'a ScanScope, exclude: &'a GlobSet, bounds: Bounds) -> Self {
        Self {
            finder: Finder::new(scope, exclude, bounds),
            names: Names::default(),
            queue: Vec::new(),
            seen: HashSet::new(),
            bytes: 0,
            roots: Vec::new(),
            missing: Vec::new(),
            new: Vec::new(),
            configurations: 0,
            stems: Stems::default(),
        }
    }

    pub(crate) fn run(&mut self) {
        loop {
            let mut units = Vec::new();
            // What is imported may define what others name files by: all of it is read before any mention counts.
            while let Some(unit) = self.queue.pop() {
                self.follow(&unit);
                units.push(unit);
                self.enqueue_new();
            }
            units.reverse();
            // Once more: what a function is given may be said in a file that was read before it. In a large project that costs too much.
            for unit in units.iter().filter(|_| units.len() <= MOST_READ_AGAIN) {
                self.learn(unit);
            }
            for unit in &units {
                self.look_up(unit);
                self.enqueue_new();
            }
            if self.queue.is_empty() {
                return;
            }
        }
    }

    /// Has what was found read too, where it may mention more.
    pub(super) fn enqueue_new(&mut self) {
        let mut unread = Vec::new();
        for path in std::mem::take(&mut self.new) {
            let is_named = matches!(
                self.finder.found.files.get(&path),
                Some(IncludeReason::Named(_) | IncludeReason::Imported(_))
            );
            let ending = path
                .extension()
                .and_then(|ending| ending.to_str())
                .unwrap_or_default()
                .to_ascii_lowercase();
            // Of many that stand in one directory, the first say what the others say.
            let is_configuration = CONFIGURATIONS.contains(&ending.as_str()) && (is_named || self.configurations < MOST_CONFIGURATIONS);
            self.configurations += usize::from(is_configuration);
            let is_page = PAGES.contains(&ending.as_str());
            let is_read = is_page || is_source(&path) || is_configuration || (is_named && !DATA.contains(&ending.as_str()));
            // A package's manifest names what is not a file of the script's: `modules` reads it.
            if is_read
                && path
                    .file_name()
                    .is_none_or(|name| name != "package.json" && name != "package-lock.json")
            {
                unread.push(Unread {
                    path,
                    language: None,
                    is_script: false,
                });
            }
        }
        self.enqueue_all(unread);
    }

    /// Has a file read.
    pub(crate) fn enqueue(&mut self, path: &Path, language: Option<Language>, is_script: bool) {
        self.enqueue_all(vec![Unread {
            path: path.to_owned(),
            language,
            is_script,
        }]);
    }

    fn enqueue_all(&mut self, mut files: Vec<Unread>) {
        files.retain(|file| self.is_to_be_read(&file.path));
        let contents = parallel::map(&files, Unread::read);
        let units = files.into_iter().zip(contents);
        self.queue.extend(units.filter_map(|(file, source)| {
            Some(Unit {
                path: file.path,
                source: source?,
            })
        }));
    }

    /// Whether a file is to be read, for the first time and within the bounds.
    fn is_to_be_read(&mut self, path: &Path) -> bool {
        let Ok(meta) = fs::metadata(path) else { return false };
        let fits = self.seen.len() < MOST_FILES && self.bytes + meta.len() <= MOST_BYTES && meta.len() <= LARGEST_SOURCE;
        let is_new = meta.is_file() && fits && self.seen.insert(path.to_owned());
        if is_new {
            self.bytes += meta.len();
        }
        is_new
    }

    fn learn(&mut self, unit: &Unit) {
        if let Content::Code(source) = &unit.source {
            source.read(&unit.path, &mut self.names);
        }
    }

    /// Follows what a file imports, and learns what its names stand for.
    fn follow(&mut self, unit: &Unit) {
        let Content::Code(source) = &unit.source else { return };
        let mentions = source.read(&unit.path, &mut self.names);
        self.import(source.language, mentions, &unit.path);
    }

    fn import(&mut self, language: Language, mentions: Mentions, by: &Path) {
        let bases = self.bases(by, &[]);
        let mut has_new_roots = false;
        for value in mentions.search {
            let Some(text) = value.known() else { continue };
            let dirs = match &value.base {
                Base::At(dir) => vec![dir.clone()],
                Base::Current => vec![self.finder.scope.cwd.clone()],
                Base::Free => bases.clone(),
            };
            for path in dirs.iter().filter_map(|dir| normalized(&dir.join(text.trim_start_matches('/')))) {
                if path.is_file() {
                    let mut new = Vec::new();
                    self.finder.file(&path, &IncludeReason::Named(self.finder.shown(by)), by, &mut new);
                } else if path.is_dir() && self.finder.scope.holds(&path) && !self.roots.contains(&path) {
                    self.roots.push(path);
                    has_new_roots = true;
                }
            }
        }
        for module in mentions.modules {
            if !self.module(language, &module, by) {
                self.missing.push((language, module, by.to_owned()));
            }
        }
        if has_new_roots {
            for (language, module, by) in std::mem::take(&mut self.missing) {
                if !self.module(language, &module, &by) {
                    self.missing.push((language, module, by));
                }
            }
        }
    }

    fn module(&mut self, language: Language, module: &Module, by: &Path) -> bool {
        let mut roots: Vec<PathBuf> = self.finder.scope.script_dir.iter().cloned().collect();
        let extra = [by.parent().unwrap_or(by).to_owned(), self.finder.scope.cwd.clone()];
        roots.extend(self.roots.iter().cloned());
        roots.extend(extra);
        let libraries: Vec<PathBuf> = match language {
            Language::Ruby | Language::Perl => roots.iter().map(|root| root.join("lib")).collect(),
            _ => Vec::new(),
        };
        roots.extend(libraries);
        let mut seen = HashSet::new();
        roots.retain(|root| seen.insert(root.clone()));
        let parts = modules::find(&mut self.stems, language, module, by, &roots, &self.finder.scope.top);
        if parts.is_empty() {
            return false;
        }
        let why = IncludeReason::Imported(self.finder.shown(by));
        let mut new = Vec::new();
        for file in parts.files.iter().filter_map(|file| normalized(file)) {
            self.finder.file(&file, &why, by, &mut new);
        }
        for package in parts.packages.iter().filter_map(|dir| normalized(dir)) {
            self.finder.whole(&package, false, &why, by, &mut new);
        }
        let endings: &[&str] = match language {
            Language::Python => &["py", "so", "pyc"],
            Language::Perl => &["pm", "pl"],
            _ => &["js", "mjs", "cjs", "json", "ts"],
        };
        for dir in parts.sources.iter().filter_map(|dir| normalized(dir)) {
            self.finder.sources(&dir, endings, &why, by, &mut new);
        }
        self.new.extend(new);
        true
    }

    /// The directories that a relative name in a file may be meant from.
    fn bases(&self, by: &Path, places: &[PathBuf]) -> Vec<PathBuf> {
        let scope = self.finder.scope;
        let own = by.parent().map(Path::to_owned);
        let all = [scope.cwd.clone()]
            .into_iter()
            .chain(scope.script_dir.clone())
            .chain(own)
            .chain(places.iter().cloned());
        let mut seen = BTreeSet::new();
        all.filter(|dir| seen.insert(dir.clone())).collect()
    }

    /// Looks up what a file mentions.
    fn look_up(&mut self, unit: &Unit) {
        match &unit.source {
            Content::Code(source) => {
                let mentions = source.read(&unit.path, &mut self.names);
                self.look_up_all(&mentions, &unit.path, &[]);
            }
            Content::Shell(text) => self.shell(text, &unit.path, 1),
            Content::Text(text) => {
                let files = text::read_structured(text).unwrap_or_else(|| text::read(text));
                self.look_up_all(
                    &Mentions {
                        files,
                        ..Mentions::default()
                    },
                    &unit.path,
                    &[],
                );
            }
        }
    }

    fn look_up_all(&mut self, mentions: &Mentions, by: &Path, places: &[PathBuf]) {
        let bases = self.bases(by, places);
        // Where a name is used, its uses say what it is for.
        let counts = |mention: &&Mention| !matches!(&mention.how, MentionKind::Define(name) if self.names.is_used(name));
        let files: Vec<Mention> = mentions.files.iter().filter(counts).cloned().map(as_read).collect();
        let new = self.finder.mentions(&files, by, &bases);
        self.new.extend(new);
        for mention in &files {
            self.module_by_name(mention, by);
        }
        for (command, line) in &mentions.commands {
            self.shell(command, by, *line);
        }
    }

    /// A text such as `backends.text:Store` may name a module of Python, which a program imports by it.
    fn module_by_name(&mut self, mention: &Mention, by: &Path) {
        let Some(text) = mention.value.known().filter(|text| text.len() < 256) else {
            return;
        };
        let name = text.split(':').next().unwrap_or(text);
        let is_part = |part: &str| {
            !part.is_empty() && !part.starts_with(|c: char| c.is_ascii_digit()) && part.chars().all(|c| c == '_' || c.is_alphanumeric())
        };
        if !(name.contains('.') && name.split('.').all(is_part)) {
            return;
        }
        let path = name.replace('.', "/");
        let is_here = |root: &PathBuf| root.join(&path).with_extension("py").is_file() || root.join(&path).is_dir();
        if self.bases(by, &self.roots.clone()).iter().any(is_here) {
            let module = Module {
                name: name.to_owned(),
                is_open: false,
                level: 0,
                members: Vec::new(),
                line: mention.line,
            };
            self.module(Language::Python, &module, by);
        }
    }

    pub(super) fn shell(&mut self, text: &str, path: &Path, line: u32) {
        let script = shell::read(text, path, line, &mut self.names);
        let bases = self.bases(path, &[]);
        let mut places = Vec::new();
        for place in &script.places {
            let dirs = match &place.base {
                Base::At(dir) => vec![dir.clone()],
                Base::Current => vec![self.finder.scope.cwd.clone()],
                Base::Free => bases.iter().chain(&places).cloned().collect(),
            };
            let found = dirs
                .iter()
                .filter_map(|dir| normalized(&dir.join(place.known()?.trim_start_matches('/'))))
                .filter(|dir| dir.is_dir());
            places.extend(found.collect::<Vec<_>>());
        }
        self.import(
            Language::Python,
            Mentions {
                search: script.mentions.search.clone(),
                modules: script.python_modules,
                ..Mentions::default()
            },
            path,
        );
        self.look_up_all(&script.mentions, path, &places);
        for (language, program) in script.embedded {
            let source = Source::of(&program, language);
            let mentions = source.read(path, &mut self.names);
            self.look_up_all(&mentions, path, &places);
            self.import(language, mentions, path);
        }
    }
}
