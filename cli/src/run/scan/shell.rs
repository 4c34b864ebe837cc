//! What a shell script mentions.

use std::path::Path;

use super::{
    language::Language,
    mention::{Mention, MentionKind, Mentions, Module},
    names::Names,
    shell_lex::{Token, Word, Words},
    value::Value,
};

/// How deeply scripts may stand in words of scripts.
pub(crate) const DEPTH: usize = 6;

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
pub(crate) struct Script {
    pub(crate) mentions: Mentions,
    /// Programs in here-documents and options.
    pub(crate) embedded: Vec<(Language, String)>,
    /// Modules of Python that are run by their names.
    pub(crate) python_modules: Vec<Module>,
    /// Further places that commands work in (`cd`).
    pub(crate) places: Vec<Value>,
}

/// Reads a script. `path` is where it stands.
pub(crate) fn read(text: &str, path: &Path, line: u32, names: &mut Names) -> Script {
    names.enter(path);
    let mut found = Script::default();
    Reader {
        path,
        names,
        found: &mut found,
    }
    .script(text, line, 0);
    found
}

pub(crate) struct Reader<'a> {
    pub(crate) path: &'a Path,
    pub(crate) names: &'a mut Names,
    pub(crate) found: &'a mut Script,
}

/// What a redirection does with the file that follows.
type Redirected = (&'static str, Word);

impl Reader<'_> {
    pub(crate) fn script(&mut self, text: &str, line: u32, depth: usize) {
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

    pub(crate) fn emit(&mut self, word: &Word, how: &MentionKind, is_weak: bool) {
        for value in word.cut().iter().filter(|value| !value.is_any()) {
            let how = if *how == MentionKind::Read && word.is_pattern {
                MentionKind::Glob
            } else {
                how.clone()
            };
            self.found.mentions.files.push(Mention {
                value: value.clone(),
                how,
                is_weak,
                group: 0,
                stands_in: false,
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
        for word in words {
            for (name, values) in &word.assigned {
                self.names.define(name, values);
                self.emit(
                    &Word {
                        values: values.clone(),
                        line: word.line,
                        ..Word::default()
                    },
                    &MentionKind::Read,
                    false,
                );
            }
        }
        for (operator, word) in redirected {
            match *operator {
                ">" => self.emit(word, &MentionKind::Write, false),
                "<<<" => {}
                _ => self.emit(word, &MentionKind::Read, false),
            }
        }
        self.words(words, depth);
    }

    /// A command's words, behind assignments and the shell's own words.
    pub(crate) fn words(&mut self, mut words: &[Word], depth: usize) {
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
            self.emit(item, &MentionKind::Define(name.to_owned()), false);
        }
        let found = &mut self.found.mentions;
        for value in word.values.iter().filter(|value| !value.is_any()).cloned() {
            if matches!(name, "PYTHONPATH" | "PERL5LIB" | "RUBYLIB" | "NODE_PATH") {
                found.search.push(value.clone());
                continue;
            }
            found.files.push(Mention {
                value,
                how: MentionKind::Define(name.to_owned()),
                is_weak: false,
                group: 0,
                stands_in: false,
                line: word.line,
            });
        }
    }

    fn loop_over(&mut self, words: &[Word]) {
        let Some((name, rest)) = words.split_first() else { return };
        for word in rest.iter().filter(|word| word.raw != "in") {
            self.emit(word, &MentionKind::Read, false);
            if !word.is_pattern {
                self.names.define(&name.raw, &word.cut());
            }
        }
    }
}
