//! From the words of the command line to the job's command and the files that go along.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::{OsStr, OsString},
    fs::{File, Metadata},
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use bus::{spec::RelPath, tree::Link};
use globset::GlobSet;

use super::{
    dependencies::Declared,
    draft::{Draft, Root},
    files::FileArgs,
    first_line::Own,
    found::Scanned,
    gather::{Choice, below, globs},
    home::Home,
    place::{Look, Place, Taken, look, place},
    runtime::{Told, tell},
};
use crate::{failure::usage, scan::Ground};

/// How much of a script is read to learn what runs it.
const HEAD: u64 = 256;

/// What is to be run, with which files.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// What the script's first line tells its runtime, the script as the job calls it, and its arguments.
    pub(super) command: Vec<String>,
    /// What runs it; nothing for a program.
    pub(super) runtime: Option<String>,
    /// The files that go along.
    pub(super) inputs: Vec<Input>,
    /// The links that go along: where each will be, and what it says.
    pub(super) links: Vec<Link>,
    /// The directories that go along with nothing in them.
    pub(super) dirs: Vec<RelPath>,
    /// The directory of here that the job's work directory stands for, and where the command starts in it.
    pub(super) root: Root,
    /// Variables that its first line sets.
    pub(super) env: BTreeMap<String, String>,
    /// The packages that it needs.
    pub(super) dependencies: Option<Declared>,
    /// What it reads from standard input.
    pub(super) stdin: Option<PathBuf>,
    /// What goes along from elsewhere, or to elsewhere.
    pub(super) homes: Vec<Home>,
    /// What to call it, where its command does not begin with the script.
    pub(super) named: Option<String>,
    /// What was found that the script needs.
    pub(super) scanned: Scanned,
}

/// What is a job's own, of several with one script.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) command: Vec<String>,
    pub(super) inputs: Vec<Input>,
    pub(super) links: Vec<Link>,
    pub(super) dirs: Vec<RelPath>,
}

/// A file that goes along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Input {
    /// Where it is.
    pub(super) source: PathBuf,
    /// Where it will be.
    pub(super) path: RelPath,
    /// Its permission bits.
    pub(super) mode: u32,
    /// Its size in bytes, at first sight.
    pub(super) size: u64,
}

/// What the user said about all that.
#[derive(Debug, Default)]
pub(super) struct Wishes<'a> {
    /// The runtime, if named.
    pub(super) runtime: Option<&'a str>,
    /// What further extensions mean.
    pub(super) runtimes: Vec<(String, String)>,
    /// Whether the first word is a program that is there already.
    pub(super) program: bool,
    /// Arguments that are not to be sent along.
    pub(super) no_input: &'a [OsString],
    /// What goes along besides; nothing: what the arguments name, alone.
    pub(super) files: Option<&'a FileArgs>,
}

/// Plans a run from a directory.
///
/// # Errors
/// A usage error where a word cannot be meant so.
pub(super) fn plan(cwd: &Path, words: &[OsString], wishes: &Wishes<'_>) -> anyhow::Result<Plan> {
    Ok(plan_all(cwd, &[words.to_vec()], wishes, true)?.0)
}

/// Plans runs of one script from a directory, each with words of its own: what they share is looked at once.
///
/// # Errors
/// A usage error where a word cannot be meant so.
pub(super) fn plan_batch(cwd: &Path, runs: &[Vec<OsString>], wishes: &Wishes<'_>) -> anyhow::Result<(Plan, Vec<Member>)> {
    plan_all(cwd, runs, wishes, false)
}

fn plan_all(cwd: &Path, runs: &[Vec<OsString>], wishes: &Wishes<'_>, is_one: bool) -> anyhow::Result<(Plan, Vec<Member>)> {
    let runs = runs
        .iter()
        .map(|words| words.iter().map(|word| text(word)).collect::<anyhow::Result<Vec<&str>>>())
        .collect::<anyhow::Result<Vec<_>>>()?;
    let Some(script) = runs.first().and_then(|words| words.first()).copied() else {
        return Err(usage("name a script"));
    };
    check_no_input(&runs, wishes)?;
    let mut planner = Planner::new(cwd, script, &runs, wishes)?;
    planner.aliases()?;
    // First those that keep their path, so that nothing from elsewhere takes it; then whole directories, in which others may be.
    for here in [true, false] {
        for words in &runs {
            words.iter().for_each(|word| planner.reserve(word, here));
        }
    }
    let (mut command, runtime) = if wishes.program {
        (vec![script.to_owned()], None)
    } else {
        planner.script(script)?
    };
    let called = command.last().cloned().unwrap_or_default();
    let named = (command.len() > 1).then(|| called.clone());
    // Of one run, its arguments come before what is found, as the user wrote them.
    let mut drafts = Vec::with_capacity(runs.len());
    if is_one {
        for word in &runs[0][1..] {
            command.push(planner.argument(word)?);
        }
    }
    let scanned = planner.scan(script, &called, runtime.as_deref(), &runs)?;
    planner.besides()?;
    planner.room()?;
    let dependencies = planner.dependencies(script, runtime.as_deref(), &called)?;
    let shared = planner.draft.take();
    if !is_one {
        for words in &runs {
            let mut own = command.clone();
            for word in &words[1..] {
                own.push(planner.argument(word)?);
            }
            planner.room()?;
            drafts.push((own, planner.take_member()));
        }
    }
    let homes = std::mem::take(&mut planner.homes);
    let root = Root::around(&planner.ground.cwd, drafts.iter().map(|(_, draft)| draft).chain([&shared]));
    let (inputs, links, dirs) = shared.finish(&root)?;
    let members = drafts.into_iter().map(|(command, draft)| {
        let (inputs, links, dirs) = draft.finish(&root)?;
        Ok(Member {
            command,
            inputs,
            links,
            dirs,
        })
    });
    let members = members.collect::<anyhow::Result<Vec<_>>>()?;
    let plan = Plan {
        command,
        runtime,
        inputs,
        links,
        dirs,
        homes: homes.into_iter().map(|home| home.within(&root)).collect(),
        root,
        env: std::mem::take(&mut planner.env),
        dependencies,
        stdin: None,
        named,
        scanned,
    };
    Ok((plan, members))
}

fn check_no_input(runs: &[Vec<&str>], wishes: &Wishes<'_>) -> anyhow::Result<()> {
    let names = |path: &OsString| {
        runs.iter()
            .flat_map(|words| &words[1..])
            .any(|word| named(word).any(|name| name == path.as_os_str()))
    };
    match wishes.no_input.iter().find(|path| !names(path)) {
        Some(path) => Err(usage(format!(
            "--no-input {} names none of the script's arguments; write it exactly as the argument",
            path.display()
        ))),
        None => Ok(()),
    }
}

fn text(word: &OsStr) -> anyhow::Result<&str> {
    word.to_str().ok_or_else(|| {
        usage(format!(
            "the argument `{}` is not text (UTF-8), and cannot be sent; rename the file, or write it otherwise",
            word.display()
        ))
    })
}

/// The names that a word may give to a file: all of it, or what stands behind `--option=` or `key=`, or behind `@` (a file of arguments).
pub(super) fn named(word: &str) -> impl Iterator<Item = &str> {
    let value = word.split_once('=').map(|(_, value)| value);
    let listed = word.strip_prefix('@').or_else(|| value?.strip_prefix('@'));
    std::iter::once(word).chain(value).chain(listed)
}

/// A plan in the making.
pub(super) struct Planner<'a> {
    pub(super) cwd: &'a Path,
    pub(super) ground: Ground,
    pub(super) wishes: &'a Wishes<'a>,
    pub(super) exclude: GlobSet,
    pub(super) taken: Taken,
    /// The paths that something goes to already, and what that is.
    pub(super) sent: HashMap<String, PathBuf>,
    /// What is to be called otherwise there, by what it is called here.
    pub(super) aliases: HashMap<String, String>,
    /// Whether that is being sent now.
    pub(super) aliasing: bool,
    pub(super) draft: Draft,
    /// Directories of here that arguments name something in that is not here: the job may make it there.
    pub(super) parents: BTreeSet<String>,
    pub(super) homes: Vec<Home>,
    /// Variables that the script's first line sets.
    env: BTreeMap<String, String>,
}

impl<'a> Planner<'a> {
    fn new(cwd: &'a Path, script: &str, runs: &[Vec<&str>], wishes: &'a Wishes<'a>) -> anyhow::Result<Self> {
        // Of a program, the script may be among its words: `python3 s.py`.
        let words = runs.first().map_or(&[][..], Vec::as_slice);
        let script = if wishes.program {
            words
                .iter()
                .copied()
                .find(|word| crate::scan::is_source(Path::new(word)) && cwd.join(word).is_file())
        } else {
            Some(script)
        };
        let ground = Ground::of(cwd, script.map(Path::new), std::env::home_dir().as_deref()).map_err(|error| {
            usage(format!(
                "cannot look at the current directory: {error}; change to one that can be read"
            ))
        })?;
        Ok(Self {
            cwd,
            ground,
            wishes,
            exclude: globs("--exclude", wishes.files.map_or(&[][..], |files| &files.exclude), true)?,
            taken: Taken::default(),
            sent: HashMap::new(),
            aliases: HashMap::new(),
            aliasing: false,
            draft: Draft::default(),
            parents: BTreeSet::new(),
            homes: Vec::new(),
            env: BTreeMap::new(),
        })
    }

    /// What was planned for one run of several; its paths are free again for the next.
    fn take_member(&mut self) -> Draft {
        let draft = self.draft.take();
        for path in draft.paths() {
            self.sent.remove(path);
        }
        draft
    }
}

impl Planner<'_> {
    /// Takes the paths of what a word names: of what lies here, or of whole directories from elsewhere.
    fn reserve(&mut self, word: &str, here: bool) {
        for name in named(word) {
            if self.is_excluded(name) {
                continue;
            }
            match (look(self.cwd, name), place(self.cwd, &self.ground.top, name)) {
                (Look::File(_) | Look::Directory, Ok(Place::Inside { path, .. })) if here => drop(self.taken.inside(&path)),
                (Look::Directory, Ok(Place::Outside { real, name: called })) if !here && !self.aliases.contains_key(name) => {
                    self.taken.outside(self.cwd, &real, &called);
                }
                (_, _) => {}
            }
        }
    }

    pub(super) fn is_excluded(&self, name: &str) -> bool {
        self.wishes.no_input.iter().any(|path| path == name)
    }

    /// Has the script sent along; says how its runtime is to be called with it, and which that is.
    fn script(&mut self, word: &str) -> anyhow::Result<(Vec<String>, Option<String>)> {
        let shown = word.escape_debug();
        let meta = match look(self.cwd, word) {
            Look::File(meta) => meta,
            Look::Directory => return Err(usage(format!("`{shown}` is a directory, not a script; name a file in it"))),
            Look::Pipe => {
                return Err(usage(format!(
                    "`{shown}` is a pipe, which cannot be sent; save the script in a file first"
                )));
            }
            Look::Closed(error) => return Err(usage(format!("cannot read the script {shown}: {}", cause(&error)))),
            Look::Nothing if word.starts_with('-') && word.len() > 1 => {
                return Err(usage(format!(
                    "rgrid run has no option `{shown}`, and there is no such script; see `rgrid run --help`"
                )));
            }
            Look::Nothing => {
                return Err(usage(format!(
                    "there is no script `{shown}`; check its path (a program that is on the worker already is run with --program)"
                )));
            }
        };
        let head = self
            .head(word)
            .map_err(|error| usage(format!("cannot read the script {shown}: {}", cause(&error))))?;
        let told = match self.wishes.runtime {
            Some(runtime) => Told::Runtime(runtime.to_owned(), Own::default()),
            None => tell(Path::new(word), &head, mode(&meta) & 0o111 != 0, &self.wishes.runtimes),
        };
        let (runtime, mut command) = match told {
            // Who may not execute it runs it by its interpreter's name, to which the first line is a comment.
            Told::Runtime(runtime, _) if mode(&meta) & 0o111 == 0 => (Some(runtime), Vec::new()),
            Told::Runtime(runtime, own) => {
                if let Some(wrong) = own.wrong {
                    return Err(usage(format!(
                        "{shown}, line 1 {wrong}; take that out, or name the runtime, which leaves the line out: --runtime {runtime}"
                    )));
                }
                self.env.extend(own.env);
                (Some(runtime), own.options)
            }
            Told::Itself => (None, Vec::new()),
            Told::Nothing => {
                let executable = mode(&meta) & 0o111 != 0;
                let otherwise = if executable {
                    "begin it with a line such as #!/bin/sh"
                } else {
                    "make it executable"
                };
                return Err(usage(format!(
                    "cannot tell what runs `{shown}`; name it, for instance with --runtime python, or {otherwise}"
                )));
            }
        };
        let (path, mut name) = self.settle(word)?;
        self.add(&path, self.cwd.join(word), &meta)?;
        // Neither an interpreter nor the search in PATH may take the script's name for something else.
        if name.starts_with('-') || (runtime.is_none() && !name.contains('/')) {
            name.insert_str(0, "./");
        }
        command.push(name);
        Ok((command, runtime))
    }

    fn argument(&mut self, word: &str) -> anyhow::Result<String> {
        for name in named(word) {
            let shown = name.escape_debug();
            if self.is_excluded(name) {
                return Ok(word.to_owned());
            }
            match look(self.cwd, name) {
                Look::Nothing => {}
                Look::File(meta) => {
                    self.head(name).map_err(|error| {
                        usage(format!(
                            "cannot read {shown}: {}; make it readable, or leave it out with --no-input {shown}",
                            cause(&error)
                        ))
                    })?;
                    let prefix = &word[..word.len() - name.len()];
                    return Ok(format!("{prefix}{}", self.send(name, &meta)?));
                }
                Look::Directory => {
                    let prefix = &word[..word.len() - name.len()];
                    return Ok(format!("{prefix}{}", self.send_dir(name)?));
                }
                Look::Pipe => {
                    return Err(usage(format!(
                        "`{shown}` is a pipe, whose content cannot be sent along; save it in a file first, or pipe it in and let the script read standard input"
                    )));
                }
                Look::Closed(error) => {
                    return Err(usage(format!(
                        "cannot read {shown}: {}; make it readable, or leave it out with --no-input {shown}",
                        cause(&error)
                    )));
                }
            }
        }
        for name in named(word) {
            if let Some(called) = self.place_of_new(name) {
                let prefix = &word[..word.len() - name.len()];
                return Ok(format!("{prefix}{called}"));
            }
        }
        Ok(word.to_owned())
    }

    /// How a file begins; also shows that it can be read.
    fn head(&self, word: &str) -> std::io::Result<Vec<u8>> {
        let mut head = Vec::new();
        File::open(self.cwd.join(word))?.take(HEAD).read_to_end(&mut head)?;
        Ok(head)
    }

    /// Has a file sent along, and says what the job is to call it.
    pub(super) fn send(&mut self, word: &str, meta: &Metadata) -> anyhow::Result<String> {
        let (path, called) = self.settle(word)?;
        if !self.send_link(&path, word)? {
            self.add(&path, self.cwd.join(word), meta)?;
        }
        Ok(called)
    }

    /// Has all of a directory sent along, and says what the job is to call it.
    pub(super) fn send_dir(&mut self, word: &str) -> anyhow::Result<String> {
        let (path, called) = self.settle(word)?;
        let choice = Choice {
            exclude: &self.exclude,
            as_git: false,
            only: None,
        };
        let found = below(&self.cwd.join(word), choice)?;
        if found.is_empty() && !path.is_empty() {
            self.parents.insert(path.clone());
        }
        self.add_all(&path, found)?;
        Ok(called)
    }

    /// Where something that is here will be there (nothing: the work directory itself), and what the job is to call it.
    fn settle(&mut self, word: &str) -> anyhow::Result<(String, String)> {
        if let Some(alias) = self.aliases.get(word).cloned() {
            self.has_home(&alias, &self.cwd.join(word));
            return Ok((alias.clone(), alias));
        }
        let shown = word.escape_debug();
        Ok(
            match place(self.cwd, &self.ground.top, word).map_err(|error| usage(format!("cannot send {shown}: {}", cause(&error))))? {
                // Above the current directory, within its project: it keeps its place from here.
                Place::Inside { path, .. } if path.starts_with("..") => {
                    let slash = if word.ends_with('/') { "/" } else { "" };
                    (path.clone(), format!("{path}{slash}"))
                }
                Place::Inside { path, plain } if plain => {
                    self.leads_out(&path);
                    (path, word.to_owned())
                }
                Place::Inside { path, .. } if path.is_empty() => (path, ".".to_owned()),
                Place::Inside { path, .. } => (path.clone(), path),
                Place::Outside { real, name } => {
                    let path = self.taken.outside(self.cwd, &real, &name);
                    self.has_home(&path, &real);
                    // As it was written: with a `/` at its end, more may be put behind it.
                    let slash = if word.ends_with('/') { "/" } else { "" };
                    (path.clone(), format!("{path}{slash}"))
                }
            },
        )
    }
}

pub(super) fn parsed(path: &str) -> anyhow::Result<RelPath> {
    path.parse()
        .map_err(|error| usage(format!("cannot send {}: {error}", path.escape_debug())))
}

pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> anyhow::Error {
    usage(format!(
        "cannot read {}: {}; make it readable, or leave it out with --exclude",
        path.display(),
        cause(error)
    ))
}

impl Input {
    /// Whether it may be executed.
    pub(super) const fn executable(&self) -> bool {
        self.mode & 0o111 != 0
    }
}

pub(super) fn mode(meta: &Metadata) -> u32 {
    meta.permissions().mode() & 0o777
}

/// The permission bits that a file goes along with. Root reads and writes here whatever the bits say; the script may run as somebody else
/// there, whom they bind, and is to have the same rights. Bits that the job leaves so are left alone here.
pub(super) const fn sent_mode(mode: u32, is_root: bool) -> u32 {
    if is_root { mode | 0o600 } else { mode }
}

/// The cause of an error of the operating system, as the style of our sentences has it.
fn cause(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
