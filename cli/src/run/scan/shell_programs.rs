//! What programs do with their arguments, as far as it is known.

use super::{
    language::Language,
    mention::{Mention, MentionKind, Module},
    shell::{DEPTH, Reader, works_on_project},
    shell_lex::Word,
    value::{Part, Value},
};

impl Reader<'_> {
    pub(crate) fn program(&mut self, name: &str, first: &Word, arguments: &[Word], depth: usize) {
        let bare = name.rsplit('/').next().unwrap_or(name);
        if name.contains('/') || name.ends_with(".sh") {
            self.emit(first, &MentionKind::Read, false);
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
        if !self.own(bare, arguments, depth) {
            self.tool(bare, first, arguments);
        }
    }

    /// A command of the shell itself. Says whether it is one.
    fn own(&mut self, name: &str, arguments: &[Word], depth: usize) -> bool {
        match name {
            "echo" | "trap" | "alias" | "shopt" | "unset" | "return" | "exit" | "read" | "shift" | "kill" | "wait" | "sleep" | "date"
            | "true" | "false" | ":" | "local" | "function" | "type" | "which" | "hash" | "umask" | "ulimit" | "getopts" => {}
            "eval" => {
                for word in arguments {
                    if depth < DEPTH {
                        self.script(&word.raw, word.line, depth + 1);
                    }
                }
            }
            "set" => {
                let given: Vec<Value> = arguments
                    .iter()
                    .skip_while(|word| word.raw != "--")
                    .skip(1)
                    .flat_map(Word::cut)
                    .collect();
                self.names.define("@", &given);
                for (place, value) in given.iter().enumerate().take(9) {
                    self.names.define(&(place + 1).to_string(), std::slice::from_ref(value));
                }
            }
            "printf" => {
                // `printf -v name 'x%02d'`.
                if let [option, name, value, ..] = arguments
                    && option.raw == "-v"
                {
                    self.names.define(&name.raw, &value.values);
                }
            }
            "cd" | "pushd" => {
                for word in operands(arguments) {
                    self.found
                        .places
                        .extend(word.values.iter().filter(|value| !value.is_any()).cloned());
                    self.emit(word, &MentionKind::Write, false);
                }
            }
            "[" | "[[" | "test" => {
                for pair in arguments.windows(2) {
                    let tests_file = pair[0].raw.len() == 2 && pair[0].raw.starts_with('-') && !matches!(pair[0].raw.as_str(), "-z" | "-n");
                    if tests_file {
                        self.emit(&pair[1], &MentionKind::Read, false);
                    }
                    if matches!(pair[1].raw.as_str(), "-nt" | "-ot" | "-ef") {
                        self.emit(&pair[0], &MentionKind::Read, false);
                    }
                }
            }
            _ => return false,
        }
        true
    }

    /// A program that does something known with its files.
    fn tool(&mut self, name: &str, first: &Word, arguments: &[Word]) {
        match name {
            "mkdir" | "mktemp" => self.each(arguments, &MentionKind::Write),
            "tee" if !arguments.iter().any(|word| matches!(word.raw.as_str(), "-a" | "--append")) => {
                self.each(arguments, &MentionKind::Write);
            }
            "cp" | "mv" | "ln" | "install" | "rsync" => self.last_is_written(arguments),
            "find" => self.find(arguments),
            "ls" | "tree" | "du" => self.listed(arguments, first.line),
            "tar" => self.archive(arguments),
            "zip" => {
                let mut operands = operands(arguments);
                if let Some(archive) = operands.next() {
                    self.emit(archive, &MentionKind::Read, false);
                }
                operands
                    .cloned()
                    .collect::<Vec<_>>()
                    .iter()
                    .for_each(|word| self.emit(word, &MentionKind::Read, false));
            }
            "awk" | "gawk" | "mawk" | "nawk" | "sed" | "gsed" | "grep" | "egrep" | "fgrep" | "rg" | "jq" | "yq" => {
                self.with_text(arguments);
            }
            _ => self.each(arguments, &MentionKind::Read),
        }
    }

    fn list_here(&mut self, line: u32) {
        self.found.mentions.files.push(Mention {
            value: Value::current(),
            how: MentionKind::List,
            is_weak: false,
            group: 0,
            stands_in: false,
            line,
        });
    }

    /// The arguments of a program that is not known: each may be a file, also behind `--option=`. What `-o` names is written.
    fn each(&mut self, arguments: &[Word], how: &MentionKind) {
        let mut is_output = false;
        for word in arguments {
            if word.raw.starts_with('-') {
                is_output = matches!(word.raw.as_str(), "-o" | "-O" | "--output" | "--out" | "--output-document");
                if let Some(key) = &word.key {
                    let is_written = matches!(key.as_str(), "-o" | "--output" | "--out");
                    self.emit(word, if is_written { &MentionKind::Write } else { how }, false);
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
                    self.emit(&part, &MentionKind::Read, true);
                }
            }
            let how = if std::mem::take(&mut is_output) {
                MentionKind::Write
            } else {
                how.clone()
            };
            self.emit(word, &how, false);
        }
    }

    fn last_is_written(&mut self, arguments: &[Word]) {
        let words: Vec<&Word> = operands(arguments).collect();
        for (at, word) in words.iter().enumerate() {
            let is_last = at + 1 == words.len() && at > 0;
            self.emit(word, if is_last { &MentionKind::Write } else { &MentionKind::Read }, false);
        }
    }

    fn listed(&mut self, arguments: &[Word], line: u32) {
        let words: Vec<&Word> = operands(arguments).collect();
        if words.is_empty() {
            self.list_here(line);
        }
        for word in words {
            self.emit(word, if word.is_pattern { &MentionKind::Glob } else { &MentionKind::List }, false);
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
                self.emit(place, &MentionKind::List, false);
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
                self.emit(&below, &MentionKind::Glob, false);
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
        for word in arguments.iter().skip(1) {
            // `--exclude-from=x`.
            if word.raw.starts_with('-') {
                if word.key.is_some() {
                    self.emit(word, &MentionKind::Read, false);
                }
                continue;
            }
            let how = if std::mem::take(&mut is_archive) {
                MentionKind::Write
            } else {
                MentionKind::Read
            };
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
                // `-xFf FILE`, `-v name=FILE`.
                option if option.starts_with('-') && !option.starts_with("--") && option.ends_with('f') => {
                    (names_file, awaits_text) = (true, false);
                }
                _ if word.key.is_some() && awaits_text => self.emit(word, &MentionKind::Read, false),
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
                            &MentionKind::Read,
                            true,
                        );
                    }
                }
                _ => {
                    names_file = false;
                    self.emit(word, &MentionKind::Read, false);
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
                    return self.each(arguments.get(at + 2..).unwrap_or_default(), &MentionKind::Read);
                }
                ("-c" | "-e" | "-r" | "-p" | "-E" | "-ne" | "-pe" | "-lne" | "--eval" | "--print", _, Some(text))
                    if !(language == Language::Shell && word.raw == "-e") =>
                {
                    if language == Language::Shell && depth < DEPTH {
                        self.script(&text.raw, text.line, depth + 1);
                    } else {
                        self.found.embedded.push((language, text.raw.clone()));
                    }
                    return self.each(arguments.get(at + 2..).unwrap_or_default(), &MentionKind::Read);
                }
                ("-I", Language::Ruby | Language::Perl, Some(dir)) => self.found.mentions.search.extend(dir.values.clone()),
                (option, Language::Ruby | Language::Perl, _) if option.starts_with("-I") => {
                    self.found.mentions.search.extend(word.values.iter().map(|value| behind(value, 2)));
                }
                (option, _, _) if option.starts_with('-') => {}
                // The script; what follows is its own.
                _ => return self.each(&arguments[at..], &MentionKind::Read),
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
