//! What a script that failed missed, although it is here: said by name, since the script's own words speak of another machine.

use std::collections::BTreeSet;

/// How much of the end of what it prints is looked through, in bytes.
const LAST_WORDS: usize = 16 << 10;
/// The most files that are named.
const MOST: usize = 3;
/// Words of programs that did not find a file.
const NOT_FOUND: [&str; 10] = [
    "no such file",
    "not found",
    "cannot find",
    "can't find",
    "can't locate",
    "can't open",
    "cannot open",
    "not exist",
    "no module named",
    "enoent",
];
/// What a module's name may leave out.
const ENDINGS: [&str; 8] = ["", ".py", ".js", ".mjs", ".cjs", ".json", ".ts", "/index.js"];

/// The end of what a job prints to standard error.
#[derive(Debug, Default)]
pub(super) struct LastWords(Vec<u8>);

impl LastWords {
    /// Takes what was printed.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(&bytes[bytes.len().saturating_sub(LAST_WORDS)..]);
        // Not at every line.
        if self.0.len() > 2 * LAST_WORDS {
            self.0.drain(..self.0.len() - LAST_WORDS);
        }
    }

    /// The files and directories of here that they miss, and that were not sent along.
    pub(super) fn missed(&self, sent: &BTreeSet<String>, is_here: impl Fn(&str) -> bool) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.0);
        let mut missed = Vec::new();
        for line in text.lines() {
            let lower = line.to_lowercase();
            if !NOT_FOUND.iter().any(|words| lower.contains(words)) {
                continue;
            }
            // That of "can't" is none.
            let line = &line.replace("n't", "nt");
            let is_quote = |c: char| "'\"`‘’“”".contains(c);
            // What stands between quotation marks is a name; where there are none, any word may be.
            let names: Vec<&str> = if line.contains(is_quote) {
                line.split(is_quote).skip(1).step_by(2).collect()
            } else {
                line.split(|c: char| c.is_whitespace() || "(),;[]<>".contains(c)).collect()
            };
            let is_module = ["module", "locate", "import", "require"].iter().any(|word| lower.contains(word));
            let found = names.into_iter().filter_map(|word| named(word, is_module, sent, &is_here));
            for name in found {
                if !missed.contains(&name) && missed.len() < MOST {
                    missed.push(name);
                }
            }
        }
        missed
    }
}

/// What a word names of here that was not sent.
fn named(word: &str, is_module: bool, sent: &BTreeSet<String>, is_here: &impl Fn(&str) -> bool) -> Option<String> {
    let word = word.trim_end_matches([':', '.']);
    // The job's directory, in a container and of a plain process.
    let own = word.strip_prefix("/work/").or_else(|| {
        let (_, attempt) = word.split_once("/attempts/")?;
        attempt.split_once('/')?.1.strip_prefix("work/")
    });
    let is_relative = word.starts_with('.');
    let word = own.unwrap_or(word).trim_start_matches("./");
    if word.is_empty() || word.starts_with('/') || word.split('/').any(|part| part == "..") {
        return None;
    }
    // A bare name is a package's, from wherever those come.
    let is_bare = own.is_none() && !is_relative && !word.contains(['/', '.']);
    let (endings, dotted) = (if is_module { &ENDINGS[..] } else { &ENDINGS[..1] }, word.replace('.', "/"));
    let names = if is_module { &[word, &dotted][..] } else { &[word][..] };
    let mut names = names
        .iter()
        .flat_map(|name| endings.iter().map(move |ending| format!("{name}{ending}")));
    names.find(|name| {
        let below = format!("{name}/");
        let is_sent = sent.contains(name) || sent.range(below.clone()..).next().is_some_and(|path| path.starts_with(&below));
        !(is_sent || is_module && is_bare && !name.ends_with(".py")) && is_here(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_here_and_was_not_sent_is_found_in_a_programs_words() {
        let here = [
            "data/in.txt",
            "a b/c d",
            "lib/h.js",
            "plugins/x.py",
            "lib.sh",
            "My/Mod.pm",
            "conf",
            "sent.txt",
        ];
        let sent = BTreeSet::from(["sent.txt".to_owned(), "a.py".to_owned()]);
        let missed = |said: &str| {
            let mut words = LastWords::default();
            words.push(said.as_bytes());
            words.missed(&sent, |name| here.contains(&name))
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
            ("Error: Cannot find module './lib/h'\nRequire stack:\n- /work/a.js", "lib/h.js"),
            (
                "Error [ERR_MODULE_NOT_FOUND]: Cannot find module '/work/lib/h.js' imported from /work/x.mjs",
                "lib/h.js",
            ),
            ("ModuleNotFoundError: No module named 'plugins.x'", "plugins/x.py"),
            ("a.sh: line 1: lib.sh: No such file or directory", "lib.sh"),
            (
                "Can't locate My/Mod.pm in @INC (you may need to install the My::Mod module)",
                "My/Mod.pm",
            ),
            ("No such file or directory: 'a b/c d'", "a b/c d"),
            ("cat: conf: No such file or directory", "conf"),
        ] {
            assert_eq!(missed(said), [expected], "{said}");
        }
        for said in [
            "opened data/in.txt",
            "FileNotFoundError: No such file or directory: 'sent.txt'",
            "No such file or directory: '../data/in.txt'",
            "No such file or directory: '/etc/data/in.txt'",
            "No such file or directory: '/srv/work/data/in.txt'",
            "Error: Cannot find module 'conf'",
            "FileNotFoundError: [Errno 2] No such file or directory: 'conf.d'",
        ] {
            assert!(missed(said).is_empty(), "{said}");
        }
    }

    #[test]
    fn only_the_last_words_are_kept() {
        let mut words = LastWords::default();
        for _ in 0..100 {
            words.push(&[b'x'; LAST_WORDS]);
        }
        assert!(words.0.len() <= 2 * LAST_WORDS);
    }
}
