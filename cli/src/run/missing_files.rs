//! What a script missed, although it is here: said by name, since the script's own words speak of another machine.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use bus::output::frame::Stream;

use crate::paths::{normalized, relative};

/// How much of the end of what it prints is looked through, in bytes.
const TAIL_BYTES: usize = 16 << 10;
/// The most files that are named.
const MOST: usize = 5;
/// The most directories beside the script that a module is looked for in.
const MOST_DIRS: usize = 200;
/// Words of programs that did not find a file.
const NOT_FOUND: [&str; 18] = [
    "no such file",
    "not found",
    "cannot find",
    "can't find",
    "could not find",
    "can't locate",
    "can't open",
    "cannot open",
    "could not open",
    "couldn't open",
    "unable to open",
    "failed to open",
    "failed opening",
    "not exist",
    "no module named",
    "enoent",
    "no rule to make target",
    "cannot load such file",
];
/// Directories that every machine has.
const SYSTEM: [&str; 11] = [
    "/usr/", "/bin/", "/sbin/", "/lib", "/etc/", "/dev/", "/proc/", "/sys/", "/run/", "/opt/", "/boot/",
];
/// What a module's name may leave out.
const ENDINGS: [&str; 13] = [
    "",
    ".py",
    ".js",
    ".mjs",
    ".cjs",
    ".json",
    ".ts",
    ".rb",
    ".pm",
    ".pl",
    ".php",
    ".jl",
    "/index.js",
];

/// What a job was given, to tell what it was not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SentPaths {
    /// The directory here that its work directory stands for.
    pub(crate) root: PathBuf,
    /// The current directory.
    pub(crate) cwd: PathBuf,
    /// The script's directory.
    pub(crate) script_dir: Option<PathBuf>,
    /// The paths of all that was sent, from the root, and of what the user keeps here.
    pub(crate) sent: BTreeSet<String>,
}

/// The end of what a job prints.
#[derive(Debug, Default)]
pub(crate) struct OutputTail {
    /// What it prints to standard error, and to standard output, where others' words come that it ran itself.
    errors: Vec<u8>,
    output: Vec<u8>,
}

/// A file of here that a job missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MissingFile {
    /// It can be sent along: its path from the current directory.
    Here(String),
    /// It is named by its absolute path, which leads nowhere on a worker.
    Absolute(String),
}

impl OutputTail {
    /// Takes what was printed.
    pub(crate) fn push(&mut self, stream: Stream, bytes: &[u8]) {
        let kept = if stream == Stream::Stderr {
            &mut self.errors
        } else {
            &mut self.output
        };
        kept.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL_BYTES)..]);
        // Not at every line.
        if kept.len() > 2 * TAIL_BYTES {
            kept.drain(..kept.len() - TAIL_BYTES);
        }
    }

    /// The files and directories of here that they miss, and that were not sent along.
    pub(crate) fn missing(&self, known: &SentPaths) -> Vec<MissingFile> {
        let text = [&self.errors, &self.output].map(|words| String::from_utf8_lossy(words)).join("\n");
        let bases = known.bases(&text);
        let mut missing = Vec::new();
        for line in text.lines() {
            let lower = line.to_lowercase();
            if !NOT_FOUND.iter().any(|words| lower.contains(words)) {
                continue;
            }
            let is_module = ["module", "locate", "import", "require", "load such"]
                .iter()
                .any(|word| lower.contains(word));
            for name in names(line) {
                if let Some(one) = known.missing(&name, is_module, &bases)
                    && !missing.contains(&one)
                    && missing.len() < MOST
                {
                    missing.push(one);
                }
            }
        }
        missing
    }
}

/// What a line may name: what stands between quotation marks, single words, and what stands behind a colon or a dash.
fn names(line: &str) -> Vec<String> {
    // That of "can't" is none.
    let line = line.replace("n't ", "nt ");
    let is_quote = |c: char| "'\"`‘’“”".contains(c);
    let quoted = line.split(is_quote).skip(1).step_by(2);
    let words = line.split(|c: char| c.is_whitespace() || "(),;[]<>'\"`‘’“”".contains(c));
    let pieces = line.split([':', ',']).chain(line.split(" - ")).chain(line.split(" -- "));
    let all = quoted.chain(words).chain(pieces);
    let cut = all.map(|name| name.trim().trim_end_matches([':', '.']).to_owned());
    let mut seen = BTreeSet::new();
    cut.filter(|name| !name.is_empty() && name.len() < 1024 && seen.insert(name.clone()))
        .collect()
}

impl SentPaths {
    /// The directories that a relative name may be meant from: the current one, the script's, and those of files that the words mention.
    fn bases(&self, text: &str) -> Vec<PathBuf> {
        let mut bases = vec![self.cwd.clone()];
        bases.extend(self.script_dir.clone());
        for word in text.split(|c: char| c.is_whitespace() || "(),;[]<>'\"`:".contains(c)) {
            if bases.len() > 16 || !word.contains(['/', '.']) {
                continue;
            }
            let file = match own(word) {
                Some(own) => self.root.join(own),
                None if word.starts_with('/') => continue,
                None => self.cwd.join(word),
            };
            let file = normalized(&file).filter(|file| self.is_sent(file) && file.is_file());
            if let Some(dir) = file.as_deref().and_then(Path::parent)
                && !bases.iter().any(|base| base == dir)
            {
                bases.push(dir.to_owned());
            }
        }
        bases
    }

    /// Whether something of here, or of a directory of here, was sent.
    fn is_sent(&self, path: &Path) -> bool {
        let Some(path) = path.strip_prefix(&self.root).ok().and_then(Path::to_str) else {
            return false;
        };
        let below = format!("{path}/");
        self.sent.contains(path)
            || self
                .sent
                .range(below.clone()..)
                .next()
                .is_some_and(|other| other.starts_with(&below))
    }

    /// What a name in a program's words is of here that was not sent.
    fn missing(&self, name: &str, is_module: bool, bases: &[PathBuf]) -> Option<MissingFile> {
        if let Some(own) = own(name) {
            return self.first(std::slice::from_ref(&self.root), own, is_module);
        }
        if name.starts_with('/') {
            // What belongs to the system is the worker's matter: it has its own.
            let is_systems = SYSTEM.iter().any(|dir| name.starts_with(dir));
            let is_named = name.len() > 1 && !is_systems && Path::new(name).is_file();
            return is_named.then(|| MissingFile::Absolute(name.to_owned()));
        }
        // A bare name may be a package's, from wherever those come.
        let is_bare = is_module && !name.starts_with('.') && !name.contains('/');
        if !is_bare {
            return self.first(bases, name, is_module);
        }
        let dotted = name.replace("::", "/").replace('.', "/");
        let mut dirs = bases.to_vec();
        dirs.extend(bases.iter().take(2).flat_map(|base| directories(base)));
        let is_source = |missing: &MissingFile| matches!(missing, MissingFile::Here(path) if Path::new(path).extension().is_some() || dotted.contains('/'));
        self.first(&dirs, &dotted, true)
            .filter(is_source)
            .or_else(|| name.contains('.').then(|| self.first(bases, name, false)).flatten())
    }

    fn first(&self, bases: &[PathBuf], name: &str, is_module: bool) -> Option<MissingFile> {
        let endings = if is_module { &ENDINGS[..] } else { &ENDINGS[..1] };
        let paths = bases
            .iter()
            .flat_map(|base| endings.iter().map(move |ending| base.join(format!("{name}{ending}"))));
        paths.filter_map(|path| normalized(&path)).find_map(|path| {
            let is_around = self.cwd.starts_with(&path);
            let is_missed = !is_around && path.exists() && !self.is_sent(&path);
            let shown = relative(&self.cwd, &path).filter(|shown| is_missed && !shown.is_empty())?;
            Some(MissingFile::Here(shown))
        })
    }
}

/// The directories in a directory, for modules that a program searches by rules of its own.
fn directories(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().take(MOST_DIRS);
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// The path from a job's work directory that a path of a worker is, in a container and of a plain process.
fn own(word: &str) -> Option<&str> {
    word.strip_prefix("/work/").or_else(|| {
        let (_, attempt) = word.split_once("/attempts/")?;
        attempt.split_once('/')?.1.strip_prefix("work/")
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_here_and_was_not_sent_is_found_in_a_programs_words() -> anyhow::Result<()> {
        let temp = tempfile::tempdir()?;
        let root = temp.path().canonicalize()?;
        let here = [
            "data/in.txt",
            "a b/c d",
            "lib/h.js",
            "plugins/x.py",
            "src/deep.py",
            "lib.sh",
            "My/Mod.pm",
            "conf/x",
            "sent.txt",
            "tools/ask.py",
            "tools/near.csv",
            "up.ini",
            "lib/part.rb",
        ];
        for path in here {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("a parent"))?;
            fs::write(path, "")?;
        }
        let known = SentPaths {
            root: root.clone(),
            cwd: root.clone(),
            script_dir: Some(root.clone()),
            sent: ["sent.txt", "a.py", "tools/ask.py"].map(str::to_owned).into(),
        };
        let missing = |said: &str| {
            let mut words = OutputTail::default();
            words.push(Stream::Stderr, said.as_bytes());
            let found = words.missing(&known).into_iter().map(|missing| match missing {
                MissingFile::Here(path) | MissingFile::Absolute(path) => path,
            });
            found.collect::<Vec<_>>()
        };
        for (said, expected) in [
            (
                "FileNotFoundError: [Errno 2] No such file or directory: 'data/in.txt'",
                "data/in.txt",
            ),
            (
                "open /var/lib/x/attempts/7/work/data/in.txt: no such file or directory",
                "data/in.txt",
            ),
            ("Error: ENOENT: no such file or directory, open 'data/in.txt'", "data/in.txt"),
            ("Error: Cannot find module './lib/h'\nRequire stack:\n- /work/a.js", "lib/h.js"),
            (
                "Error [ERR_MODULE_NOT_FOUND]: Cannot find module '/work/lib/h.js' imported from /work/x.mjs",
                "lib/h.js",
            ),
            ("ModuleNotFoundError: No module named 'plugins.x'", "plugins/x.py"),
            ("ModuleNotFoundError: No module named 'deep'", "src/deep.py"),
            ("a.sh: line 1: lib.sh: No such file or directory", "lib.sh"),
            ("a.sh: 1: .: Can't open lib.sh", "lib.sh"),
            (
                "Can't locate My/Mod.pm in @INC (you may need to install the My::Mod module)",
                "My/Mod.pm",
            ),
            ("No such file or directory: 'a b/c d'", "a b/c d"),
            ("cat: conf: No such file or directory", "conf"),
            (
                "x.rb:1:in `read': No such file or directory @ rb_sysopen - data/in.txt (Errno::ENOENT)",
                "data/in.txt",
            ),
            (
                "x.rb:1:in `require': cannot load such file -- /work/lib/part (LoadError)",
                "lib/part.rb",
            ),
            ("cannot open file 'data/in.txt': No such file or directory", "data/in.txt"),
            (
                "PHP Warning: file_get_contents(data/in.txt): Failed to open stream: No such file or directory in /work/x.php on line 2",
                "data/in.txt",
            ),
            ("could not open data/in.txt at x.pl line 3.", "data/in.txt"),
            ("awk: can't open file data/in.txt", "data/in.txt"),
            (
                "make: *** No rule to make target 'data/in.txt', needed by 'all'.  Stop.",
                "data/in.txt",
            ),
            (
                "  File \"/work/tools/ask.py\", line 2\nFileNotFoundError: No such file or directory: 'near.csv'",
                "tools/near.csv",
            ),
            (
                "subprocess failed: b'cat: data/in.txt: No such file or directory\\n'",
                "data/in.txt",
            ),
        ] {
            assert_eq!(missing(said), [expected], "{said}");
        }
        let absolute = root.join("up.ini").display().to_string();
        assert_eq!(missing(&format!("No such file or directory: '{absolute}'")), [absolute]);
        for said in [
            "opened data/in.txt",
            "FileNotFoundError: No such file or directory: 'sent.txt'",
            "No such file or directory: '/etc/data/in.txt'",
            "Error: Cannot find module 'conf'",
            "FileNotFoundError: [Errno 2] No such file or directory: 'conf.d'",
        ] {
            assert!(missing(said).is_empty(), "{said}: {:?}", missing(said));
        }
        Ok(())
    }

    #[test]
    fn only_the_last_words_are_kept() {
        let mut words = OutputTail::default();
        for _ in 0..100 {
            words.push(Stream::Stdout, &[b'x'; TAIL_BYTES]);
        }
        assert!(words.output.len() <= 2 * TAIL_BYTES);
    }
}
