//! What a shell script mentions.

use std::path::Path;

use super::{
    code::{How, Mention, Mentions, Module, Names},
    language::Language,
    shell_lex::{Token, Word, Words},
    value::{Part, Value},
};

/// How deeply scripts may stand in words of scripts.
const DEPTH: usize = 6;

/// Programs that work on the project that they are started in.
const PROJECT_TOOLS: &[&str] = &[
    "make",
    "gmake",
    "pytest",
    "py.test",
    "tox",
    "nox",
    "cargo",
    "go",
    "npm",
    "npx",
    "yarn",
    "pnpm",
    "just",
    "rake",
    "gradle",
    "gradlew",
    "mvn",
    "cmake",
    "ninja",
    "meson",
    "ruff",
    "mypy",
    "black",
    "flake8",
    "pylint",
    "eslint",
    "tsc",
    "jest",
    "vitest",
    "mocha",
    "bundle",
    "rspec",
    "phpunit",
    "composer",
    "dvc",
    "snakemake",
    "nextflow",
    "terraform",
    "sphinx-build",
    "mkdocs",
    "hugo",
    "jekyll",
    "latexmk",
    "prove",
    "poetry",
];
/// Modules of Python that do (`python -m unittest`).
const PROJECT_MODULES: &[&str] = &[
    "unittest",
    "pytest",
    "tox",
    "nox",
    "build",
    "mypy",
    "ruff",
    "black",
    "flake8",
    "pylint",
    "compileall",
    "http.server",
    "zipapp",
];

/// Whether a command works on the whole directory that it is started in: `make`, `pytest`, `python3 -m unittest`.
pub(crate) fn works_on_project(words: &[&str]) -> bool {
    let Some((program, arguments)) = words.split_first() else {
        return false;
    };
    let name = program.rsplit('/').next().unwrap_or(program);
    if PROJECT_TOOLS.contains(&name) {
        return true;
    }
    let module = arguments.iter().position(|word| *word == "-m").and_then(|at| arguments.get(at + 1));
    Language::of_program(name) == Some(Language::Python) && module.is_some_and(|module| PROJECT_MODULES.contains(module))
}

/// What a script mentions, and the programs of other languages that stand in it.
#[derive(Debug, Default)]
pub(super) struct Script {
    pub(super) mentions: Mentions,
    /// Programs in here-documents and options.
    pub(super) embedded: Vec<(Language, String)>,
    /// Modules of Python that are run by their names.
    pub(super) python_modules: Vec<Module>,
    /// Further places that commands work in (`cd`).
    pub(super) places: Vec<Value>,
}

/// Reads a script. `path` is where it stands.
pub(super) fn read(text: &str, path: &Path, line: u32, names: &mut Names) -> Script {
    let mut found = Script::default();
    Reader {
        path,
        names,
        found: &mut found,
    }
    .script(text, line, 0);
    found
}

struct Reader<'a> {
    path: &'a Path,
    names: &'a mut Names,
    found: &'a mut Script,
}

/// What a redirection does with the file that follows.
type Redirected = (&'static str, Word);

impl Reader<'_> {
    fn script(&mut self, text: &str, line: u32, depth: usize) {
        let mut tokens = Words::new(text, self.path, line, depth);
        let (mut words, mut redirected): (Vec<Word>, Vec<Redirected>) = (Vec::new(), Vec::new());
        let mut pending: Option<&'static str> = None;
        // A document follows the command that awaits it, behind the line's end.
        let mut reads_document: Vec<Word> = Vec::new();
        while let Some(token) = tokens.next(self.names) {
            match token {
                Token::Word(word) => match pending.take() {
                    Some(operator) => redirected.push((operator, word)),
                    None => words.push(word),
                },
                Token::Redirect("<<") => reads_document = words.clone(),
                Token::Redirect(operator) => pending = Some(operator),
                Token::Document { body, is_quoted } => {
                    let command = if words.is_empty() {
                        std::mem::take(&mut reads_document)
                    } else {
                        words.clone()
                    };
                    self.document(&command, &body, is_quoted, depth);
                }
                Token::End => {
                    self.command(&words, &redirected, depth);
                    words.clear();
                    redirected.clear();
                    pending = None;
                }
            }
        }
        self.command(&words, &redirected, depth);
    }

    fn document(&mut self, command: &[Word], body: &str, is_quoted: bool, depth: usize) {
        let program = command.iter().map(|word| word.raw.as_str()).find(|word| !word.contains('='));
        match program.and_then(Language::of_program) {
            Some(Language::Shell) if depth < DEPTH => self.script(body, 1, depth + 1),
            Some(language) if language != Language::Shell => self.found.embedded.push((language, body.to_owned())),
            _ if !is_quoted => {
                // Commands in it run.
                let mut rest = body;
                while let Some(at) = rest.find("$(") {
                    rest = &rest[at + 2..];
                    if let Some(end) = rest.find(')').filter(|_| depth < DEPTH) {
                        self.script(&rest[..end], 1, depth + 1);
                    }
                }
            }
            _ => {}
        }
    }

    fn emit(&mut self, word: &Word, how: &How, is_weak: bool) {
        for value in word.values.iter().filter(|value| !value.is_any()) {
            let how = if *how == How::Read && word.is_pattern {
                How::Glob
            } else {
                how.clone()
            };
            self.found.mentions.files.push(Mention {
                value: value.clone(),
                how,
                is_weak,
                line: word.line,
            });
        }
    }

    fn command(&mut self, words: &[Word], redirected: &[Redirected], depth: usize) {
        for word in words.iter().chain(redirected.iter().map(|(_, word)| word)) {
            for inner in word.commands.clone() {
                if depth < DEPTH {
                    self.script(&inner, word.line, depth + 1);
                }
            }
        }
        for (operator, word) in redirected {
            match *operator {
                ">" => self.emit(word, &How::Write, false),
                "<<<" => {}
                _ => self.emit(word, &How::Read, false),
            }
        }
        self.words(words, depth);
    }

    /// A command's words, behind assignments and the shell's own words.
    fn words(&mut self, mut words: &[Word], depth: usize) {
        while let Some((first, rest)) = words.split_first() {
            if let Some(name) = first.key.as_deref().filter(|key| !key.starts_with('-')) {
                self.assignment(name.trim_end_matches('+'), first);
                words = rest;
                continue;
            }
            match first.raw.as_str() {
                "if" | "then" | "while" | "until" | "do" | "else" | "elif" | "!" | "{" | "}" | "time" | "sudo" | "env" | "exec"
                | "nohup" | "command" | "builtin" | "nice" | "export" | "local" | "readonly" | "declare" | "typeset" | "fi" | "done"
                | "esac" => words = rest,
                "timeout" => words = rest.get(1..).unwrap_or_default(),
                "xargs" => {
                    let at = rest
                        .iter()
                        .position(|word| !word.raw.starts_with('-') && word.raw.parse::<u32>().is_err() && word.raw != "{}");
                    words = at.map_or(&[][..], |at| &rest[at..]);
                }
                "for" => return self.loop_over(rest),
                "case" => return,
                name => {
                    let name = first.values.first().and_then(Value::known).unwrap_or(name).to_owned();
                    return self.program(&name, first, rest, depth);
                }
            }
        }
    }

    fn assignment(&mut self, name: &str, word: &Word) {
        self.names.define(name, &word.values);
        for item in &word.items {
            self.emit(item, &How::Define(name.to_owned()), false);
        }
        let found = &mut self.found.mentions;
        for value in word.values.iter().filter(|value| !value.is_any()).cloned() {
            if matches!(name, "PYTHONPATH" | "PERL5LIB" | "RUBYLIB" | "NODE_PATH") {
                found.search.push(value.clone());
                continue;
            }
            found.files.push(Mention {
                value,
                how: How::Define(name.to_owned()),
                is_weak: false,
                line: word.line,
            });
        }
    }

    fn loop_over(&mut self, words: &[Word]) {
        let Some((name, rest)) = words.split_first() else { return };
        for word in rest.iter().filter(|word| word.raw != "in") {
            self.emit(word, &How::Read, false);
            if !word.is_pattern {
                self.names.define(&name.raw, &word.values);
            }
        }
    }

    fn program(&mut self, name: &str, first: &Word, arguments: &[Word], depth: usize) {
        let bare = name.rsplit('/').next().unwrap_or(name);
        if name.contains('/') || name.ends_with(".sh") {
            self.emit(first, &How::Read, false);
        }
        let plain: Vec<&str> = std::iter::once(name)
            .chain(arguments.iter().map(|word| word.raw.as_str()))
            .collect();
        if works_on_project(&plain) {
            self.list_here(first.line);
        }
        if let Some(language) = Language::of_program(bare) {
            return self.interpreter(language, arguments, depth);
        }
        match bare {
            "echo" | "printf" | "trap" | "alias" | "set" | "shopt" | "unset" | "return" | "exit" | "read" | "shift" | "kill" | "wait"
            | "sleep" | "date" | "true" | "false" | ":" | "local" | "function" | "type" | "which" | "hash" | "umask" | "ulimit"
            | "getopts" => {}
            "eval" => {
                for word in arguments {
                    if depth < DEPTH {
                        self.script(&word.raw, word.line, depth + 1);
                    }
                }
            }
            "cd" | "pushd" => {
                for word in operands(arguments) {
                    self.found
                        .places
                        .extend(word.values.iter().filter(|value| !value.is_any()).cloned());
                    self.emit(word, &How::Write, false);
                }
            }
            "mkdir" | "mktemp" => self.each(arguments, &How::Write),
            "tee" if !arguments.iter().any(|word| matches!(word.raw.as_str(), "-a" | "--append")) => self.each(arguments, &How::Write),
            "cp" | "mv" | "ln" | "install" | "rsync" => self.last_is_written(arguments),
            "find" => self.find(arguments),
            "ls" | "tree" | "du" => self.listed(arguments, first.line),
            "tar" => self.archive(arguments),
            "zip" => {
                let mut operands = operands(arguments);
                if let Some(archive) = operands.next() {
                    self.emit(archive, &How::Read, false);
                }
                operands
                    .cloned()
                    .collect::<Vec<_>>()
                    .iter()
                    .for_each(|word| self.emit(word, &How::Read, false));
            }
            "awk" | "gawk" | "mawk" | "nawk" | "sed" | "gsed" | "grep" | "egrep" | "fgrep" | "rg" | "jq" | "yq" => {
                self.with_text(arguments);
            }
            "[" | "[[" | "test" => {
                for pair in arguments.windows(2) {
                    let tests_file = pair[0].raw.len() == 2 && pair[0].raw.starts_with('-') && !matches!(pair[0].raw.as_str(), "-z" | "-n");
                    if tests_file {
                        self.emit(&pair[1], &How::Read, false);
                    }
                }
            }
            _ => self.each(arguments, &How::Read),
        }
    }

    fn list_here(&mut self, line: u32) {
        self.found.mentions.files.push(Mention {
            value: Value::current(),
            how: How::List,
            is_weak: false,
            line,
        });
    }

    /// The arguments of a program that is not known: each may be a file, also behind `--option=`. What `-o` names is written.
    fn each(&mut self, arguments: &[Word], how: &How) {
        let mut is_output = false;
        for word in arguments {
            if word.raw.starts_with('-') {
                is_output = matches!(word.raw.as_str(), "-o" | "-O" | "--output" | "--out" | "--output-document");
                if let Some(key) = &word.key {
                    let is_written = matches!(key.as_str(), "-o" | "--output" | "--out");
                    self.emit(word, if is_written { &How::Write } else { how }, false);
                }
                continue;
            }
            // A word of several may be a text of the program's own language: `sqlite3 x.db ".read q.sql"`.
            if word.is_quoted && word.raw.contains(' ') {
                for part in word.raw.split_whitespace() {
                    let part = Word {
                        values: vec![Value::text(part.trim_matches(['\'', '"', ';', ',', '(', ')']))],
                        line: word.line,
                        ..Word::default()
                    };
                    self.emit(&part, &How::Read, true);
                }
            }
            let how = if std::mem::take(&mut is_output) { How::Write } else { how.clone() };
            self.emit(word, &how, false);
        }
    }

    fn last_is_written(&mut self, arguments: &[Word]) {
        let words: Vec<&Word> = operands(arguments).collect();
        for (at, word) in words.iter().enumerate() {
            let is_last = at + 1 == words.len() && at > 0;
            self.emit(word, if is_last { &How::Write } else { &How::Read }, false);
        }
    }

    fn listed(&mut self, arguments: &[Word], line: u32) {
        let words: Vec<&Word> = operands(arguments).collect();
        if words.is_empty() {
            self.list_here(line);
        }
        for word in words {
            self.emit(word, if word.is_pattern { &How::Glob } else { &How::List }, false);
        }
    }

    /// `find PLACE… -name PATTERN`: what the pattern names below the places, or all of them.
    fn find(&mut self, arguments: &[Word]) {
        let end = arguments
            .iter()
            .position(|word| word.raw.starts_with(['-', '(', '!']))
            .unwrap_or(arguments.len());
        let patterns: Vec<Value> = arguments
            .windows(2)
            .filter(|pair| matches!(pair[0].raw.as_str(), "-name" | "-iname"))
            .flat_map(|pair| pair[1].values.clone())
            .collect();
        let here = Word {
            values: vec![Value::current()],
            line: arguments.first().map_or(1, |word| word.line),
            ..Word::default()
        };
        let places = if end == 0 { std::slice::from_ref(&here) } else { &arguments[..end] };
        for place in places {
            if patterns.is_empty() {
                self.emit(place, &How::List, false);
            }
            for pattern in &patterns {
                let below = Word {
                    values: place
                        .values
                        .iter()
                        .map(|value| value.join(&Value::text("**")).join(pattern))
                        .collect(),
                    ..place.clone()
                };
                self.emit(&below, &How::Glob, false);
            }
        }
        // `-exec command {} +`.
        if let Some(at) = arguments.iter().position(|word| matches!(word.raw.as_str(), "-exec" | "-execdir")) {
            let command: Vec<Word> = arguments[at + 1..]
                .iter()
                .filter(|word| !matches!(word.raw.as_str(), "{}" | ";" | "+"))
                .cloned()
                .collect();
            self.words(&command, DEPTH);
        }
    }

    fn archive(&mut self, arguments: &[Word]) {
        let flags = arguments
            .first()
            .map(|word| word.raw.trim_start_matches('-').to_owned())
            .unwrap_or_default();
        let makes = flags.contains('c') && !arguments.first().is_some_and(|word| word.raw.starts_with("--"));
        let mut is_archive = makes && flags.contains('f');
        for word in arguments.iter().skip(1).filter(|word| !word.raw.starts_with('-')) {
            let how = if std::mem::take(&mut is_archive) { How::Write } else { How::Read };
            self.emit(word, &how, false);
        }
    }

    /// Programs whose first operand is a text of their own language, unless an option gives it.
    fn with_text(&mut self, arguments: &[Word]) {
        let mut awaits_text = true;
        let mut names_file = false;
        for word in arguments {
            match word.raw.as_str() {
                "-f" | "--file" | "--from-file" => (names_file, awaits_text) = (true, false),
                "-e" | "--expression" | "--regexp" => awaits_text = true,
                option if option.starts_with('-') && option.len() > 1 => {}
                text if awaits_text && !names_file => {
                    // What awk itself reads and writes.
                    awaits_text = false;
                    for quoted in text.split('"').skip(1).step_by(2) {
                        self.emit(
                            &Word {
                                values: vec![Value::text(quoted)],
                                line: word.line,
                                ..Word::default()
                            },
                            &How::Read,
                            true,
                        );
                    }
                }
                _ => {
                    names_file = false;
                    self.emit(word, &How::Read, false);
                }
            }
        }
    }

    fn interpreter(&mut self, language: Language, arguments: &[Word], depth: usize) {
        for (at, word) in arguments.iter().enumerate() {
            let next = arguments.get(at + 1);
            match (word.raw.as_str(), language, next) {
                ("-m", Language::Python, Some(module)) => {
                    self.found.python_modules.push(Module {
                        name: module.raw.clone(),
                        is_open: false,
                        level: 0,
                        members: vec!["__main__".to_owned()],
                        line: word.line,
                    });
                    return self.each(arguments.get(at + 2..).unwrap_or_default(), &How::Read);
                }
                ("-c" | "-e" | "-r" | "-p" | "-E" | "-ne" | "-pe" | "-lne" | "--eval" | "--print", _, Some(text))
                    if !(language == Language::Shell && word.raw == "-e") =>
                {
                    if language == Language::Shell && depth < DEPTH {
                        self.script(&text.raw, text.line, depth + 1);
                    } else {
                        self.found.embedded.push((language, text.raw.clone()));
                    }
                    return self.each(arguments.get(at + 2..).unwrap_or_default(), &How::Read);
                }
                ("-I", Language::Ruby | Language::Perl, Some(dir)) => self.found.mentions.search.extend(dir.values.clone()),
                (option, Language::Ruby | Language::Perl, _) if option.starts_with("-I") => {
                    self.found.mentions.search.extend(word.values.iter().map(|value| behind(value, 2)));
                }
                (option, _, _) if option.starts_with('-') => {}
                // The script; what follows is its own.
                _ => return self.each(&arguments[at..], &How::Read),
            }
        }
    }
}

fn operands(arguments: &[Word]) -> impl Iterator<Item = &Word> {
    arguments.iter().filter(|word| !word.raw.starts_with('-'))
}

/// What stands behind so many bytes at the beginning of a value.
fn behind(value: &Value, skip: usize) -> Value {
    let mut parts = value.parts.clone();
    if let Some(Part::Text(text)) = parts.first_mut() {
        *text = text.get(skip..).unwrap_or_default().to_owned();
    }
    Value::of(value.base.clone(), parts)
}
