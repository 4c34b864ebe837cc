//! A script's first line, `#!/usr/bin/env -S NAME=value prog -x`: the program, its options, and the other arguments of `env`.
//!
//! Without `-S`, Linux hands `env` all that follows as one word, which no program has as its name, and macOS cuts it into words. The
//! latter is what its author meant.

/// What a first line says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Shebang {
    /// The program, without its directory.
    pub(crate) program: String,
    /// What counts where the script may be executed.
    pub(crate) own: ShebangOptions,
}

/// What a first line says in addition to the program that runs the script.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ShebangOptions {
    /// The program's options.
    pub(crate) options: Vec<String>,
    /// Variables that are set for it.
    pub(crate) env: Vec<(String, String)>,
    /// What cannot be honoured, in the second half of a sentence.
    pub(crate) wrong: Option<String>,
}

/// Variables that a worker sets for every job, and that cannot be taken away.
const WORKERS: [&str; 8] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "LANG",
    "USER",
    "PYTHONUNBUFFERED",
    "PYTHONDONTWRITEBYTECODE",
    "VIRTUAL_ENV",
];

/// Reads how a script begins; nothing where its first line names no program.
pub(crate) fn read(head: &[u8]) -> Option<Shebang> {
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    let line = line.trim();
    let end = line.find([' ', '\t']).unwrap_or(line.len());
    let (program, rest) = line.split_at(end);
    if name_of(program) != "env" {
        let program = name_of(program).to_owned();
        return (!program.is_empty()).then(|| Shebang {
            program,
            own: ShebangOptions {
                options: words(rest),
                ..ShebangOptions::default()
            },
        });
    }
    Env::default().read(words(rest).into())
}

fn name_of(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

/// As a shell cuts words. Some write a comment behind them, for their editor.
fn words(text: &str) -> Vec<String> {
    let cut = || text.split_whitespace().map(ToOwned::to_owned).collect();
    let words: Vec<String> = if text.contains(['"', '\'', '\\']) {
        shell_words::split(text).unwrap_or_else(|_| cut())
    } else {
        cut()
    };
    words.into_iter().take_while(|word| !word.starts_with('#')).collect()
}

/// What `env` is told.
#[derive(Debug, Default)]
struct Env {
    own: ShebangOptions,
}

impl Env {
    fn read(mut self, mut words: std::collections::VecDeque<String>) -> Option<Shebang> {
        let mut ended = false;
        loop {
            let word = words.pop_front()?;
            if !ended && word.starts_with('-') {
                ended = word == "--";
                let more = if ended { Vec::new() } else { self.option(&word, &mut words) };
                more.into_iter().rev().for_each(|word| words.push_front(word));
            } else if let Some((name, value)) = word.split_once('=') {
                ended = true;
                self.own.env.push((name.to_owned(), value.to_owned()));
            } else {
                self.own.options = words.into();
                self.check();
                return Some(Shebang {
                    program: name_of(&word).to_owned(),
                    own: self.own,
                });
            }
        }
    }

    /// One option of `env`; what it puts in its place.
    fn option(&mut self, word: &str, words: &mut std::collections::VecDeque<String>) -> Vec<String> {
        let (name, value) = match word.strip_prefix("--") {
            Some(_) => word
                .split_once('=')
                .map_or((word, None), |(name, value)| (name, Some(value.to_owned()))),
            None => {
                let end = word.char_indices().nth(2).map_or(word.len(), |(at, _)| at);
                (&word[..end], Some(word[end..].to_owned()).filter(|rest| !rest.is_empty()))
            }
        };
        match (name, value) {
            ("-S" | "--split-string", value) => return value.as_deref().map(self::words).unwrap_or_default(),
            // -vS: it says what it does, and does the same.
            ("-v" | "--debug", value) => return value.map(|rest| vec![format!("-{rest}")]).unwrap_or_default(),
            ("-u" | "--unset", value) => match value.or_else(|| words.pop_front()) {
                Some(variable) if WORKERS.contains(&variable.as_str()) => {
                    self.refuse(format!("takes the variable {variable} away (`{name}`), which every job has"));
                }
                // No variable of this shell is there anyway.
                variable => self.own.env.retain(|(known, _)| Some(known) != variable.as_ref()),
            },
            ("-C" | "--chdir", value) => {
                let dir = value.or_else(|| words.pop_front()).unwrap_or_default();
                self.refuse(format!(
                    "changes to the directory `{dir}` (`{name}`), which cannot be done for a job"
                ));
            }
            ("-" | "-i" | "--ignore-environment", _) => {
                self.refuse(format!(
                    "empties the environment (`{word}`), and a job always has a few variables of its worker"
                ));
            }
            _ => self.refuse(format!("gives `env` the option `{word}`, which cannot be honoured")),
        }
        Vec::new()
    }

    fn refuse(&mut self, wrong: String) {
        self.own.wrong.get_or_insert(wrong);
    }

    /// `${NAME}` is a variable of the process that starts the script.
    fn check(&mut self) {
        let said = self.own.env.iter().map(|(_, value)| value).chain(&self.own.options);
        if let Some(word) = said.clone().find(|word| word.contains("${")).cloned() {
            self.refuse(format!(
                "has `{word}` filled in from the environment, which is not there; write its value"
            ));
        }
        if let Some((name, _)) = self.own.env.iter().find(|(name, _)| name.is_empty()).cloned() {
            self.refuse(format!("sets a variable without a name (`{name}=`)"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Shebang {
        read(format!("{line}\nprint(1)\n").as_bytes()).unwrap_or_default()
    }

    #[test]
    fn what_env_is_told_is_read_as_it_reads_it() {
        let line = |program: &str, env: &[(&str, &str)], options: &[&str]| Shebang {
            program: program.to_owned(),
            own: ShebangOptions {
                options: options.iter().map(ToString::to_string).collect(),
                env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
                wrong: None,
            },
        };
        for (text, expected) in [
            ("#!/bin/bash -e", line("bash", &[], &["-e"])),
            ("#!/usr/bin/env python3", line("python3", &[], &[])),
            (
                "#!/usr/bin/env -S A=b C='d e' python3 -u -W error",
                line("python3", &[("A", "b"), ("C", "d e")], &["-u", "-W", "error"]),
            ),
            ("#!/usr/bin/env A=b node", line("node", &[("A", "b")], &[])),
            ("#!/usr/bin/env -SA=b node", line("node", &[("A", "b")], &[])),
            ("#!/usr/bin/env --split-string=A=b node", line("node", &[("A", "b")], &[])),
            ("#!/usr/bin/env -vS A=b node -r x", line("node", &[("A", "b")], &["-r", "x"])),
            (
                "#!/usr/bin/env -S -u FOO --unset=BAR A=b bash -e\r",
                line("bash", &[("A", "b")], &["-e"]),
            ),
            ("#!/usr/bin/env -S -- A= perl -w", line("perl", &[("A", "")], &["-w"])),
            ("#!/usr/bin/env -S A=b=c /opt/bin/ruby # vim: x", line("ruby", &[("A", "b=c")], &[])),
        ] {
            assert_eq!(of(text), expected, "{text}");
        }
        assert_eq!(read(b"#!\n"), None);
        assert_eq!(read(b"#!/usr/bin/env\n"), None);
        assert_eq!(read(b"print(1)\n"), None);
    }

    #[test]
    fn what_cannot_be_honoured_is_said() {
        for (text, expected) in [
            ("-S -i A=b python3", "empties the environment (`-i`)"),
            ("-S - python3", "empties the environment (`-`)"),
            ("-S -u PATH python3", "takes the variable PATH away"),
            ("-S -C /data python3", "changes to the directory `/data`"),
            ("-S --chdir=/data python3", "changes to the directory `/data`"),
            ("-S --ignore-signal=INT python3", "the option `--ignore-signal=INT`"),
            ("-S A=${HOME} python3", "has `${HOME}` filled in"),
            ("-S =b python3", "without a name"),
        ] {
            let read = of(&format!("#!/usr/bin/env {text}"));
            assert_eq!(read.program, "python3", "{text}");
            assert!(
                read.own.wrong.as_ref().is_some_and(|wrong| wrong.contains(expected)),
                "{text}: {read:?}"
            );
        }
    }
}
