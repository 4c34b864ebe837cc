//! Which language a source file is written in, as far as the scan reads it.

use std::path::Path;

/// A language that the scan reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Language {
    Python,
    JavaScript,
    Ruby,
    Perl,
    Php,
    R,
    Julia,
    Shell,
    /// A configuration, a list, a template or any other text: names stand in it as plain words.
    Text,
}

/// How interpolated parts are written inside a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holes {
    /// There are none, or (Python) only in strings with the prefix `f`.
    Braces,
    /// `${x}` in a template literal.
    DollarBrace,
    /// `#{x}`.
    HashBrace,
    /// `$x`, `${x}`, `{$x}`, `$(x)`.
    Dollar,
    None,
}

/// How a language writes comments and strings.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools, reason = "each is a trait of a language")]
pub(crate) struct Syntax {
    /// `#` begins a comment.
    pub(crate) hash_comments: bool,
    /// `//` and `/* … */` are comments.
    pub(crate) slash_comments: bool,
    /// `"""…"""` and `'''…'''` are strings.
    pub(crate) triple_quotes: bool,
    /// A string in single or double quotes may hold a line's end.
    pub(crate) multiline: bool,
    /// A word may begin with a sigil that is no part of its name.
    pub(crate) sigils: &'static str,
    /// A `.` joins two strings, and `->` names a member.
    pub(crate) dot_joins: bool,
    /// `<<EOF` begins a here-document.
    pub(crate) here_documents: bool,
    pub(crate) holes: Holes,
}

impl Language {
    /// The language of a file, by its first line and its name.
    pub(crate) fn of(path: &Path, head: &str) -> Self {
        if let Some(language) = head.strip_prefix("#!").and_then(|rest| Self::of_first_line(rest.lines().next()?)) {
            return language;
        }
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        match extension.to_ascii_lowercase().as_str() {
            "py" | "pyw" | "pyi" => Self::Python,
            "js" | "mjs" | "cjs" | "jsx" | "ts" | "tsx" | "mts" | "cts" => Self::JavaScript,
            "rb" | "rake" | "gemspec" => Self::Ruby,
            "pl" | "pm" | "t" => Self::Perl,
            "php" | "inc" => Self::Php,
            "r" => Self::R,
            "jl" => Self::Julia,
            "sh" | "bash" | "zsh" | "ksh" | "dash" => Self::Shell,
            _ => Self::Text,
        }
    }

    fn of_first_line(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace().map(|word| word.rsplit('/').next().unwrap_or(word));
        words.find_map(Self::of_program)
    }

    /// The language that a program of this name runs.
    pub(crate) fn of_program(program: &str) -> Option<Self> {
        let name = program.rsplit('/').next().unwrap_or(program);
        let bare = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
        Some(match bare {
            "python" | "pypy" | "ipython" => Self::Python,
            "node" | "nodejs" | "deno" | "bun" | "tsx" | "ts-node" => Self::JavaScript,
            "ruby" => Self::Ruby,
            "perl" => Self::Perl,
            "php" => Self::Php,
            "Rscript" => Self::R,
            "julia" => Self::Julia,
            "sh" | "bash" | "dash" | "zsh" | "ksh" => Self::Shell,
            _ => return None,
        })
    }

    /// The language of one of rgrid's runtimes (`python:3.12`).
    pub(crate) fn of_runtime(runtime: &str) -> Option<Self> {
        match runtime.split(':').next().unwrap_or(runtime) {
            "R" => Some(Self::R),
            name => Self::of_program(name),
        }
    }

    /// How it writes comments and strings.
    pub(crate) const fn syntax(self) -> Syntax {
        const PLAIN: Syntax = Syntax {
            hash_comments: true,
            slash_comments: false,
            triple_quotes: false,
            multiline: false,
            sigils: "",
            dot_joins: false,
            here_documents: false,
            holes: Holes::None,
        };
        match self {
            Self::Python => Syntax {
                triple_quotes: true,
                holes: Holes::Braces,
                ..PLAIN
            },
            Self::JavaScript => Syntax {
                hash_comments: false,
                slash_comments: true,
                holes: Holes::DollarBrace,
                ..PLAIN
            },
            Self::Ruby => Syntax {
                multiline: true,
                sigils: "@$",
                here_documents: true,
                holes: Holes::HashBrace,
                ..PLAIN
            },
            Self::Perl => Syntax {
                multiline: true,
                sigils: "$@%&",
                dot_joins: true,
                here_documents: true,
                holes: Holes::Dollar,
                ..PLAIN
            },
            Self::Php => Syntax {
                slash_comments: true,
                multiline: true,
                sigils: "$",
                dot_joins: true,
                here_documents: true,
                holes: Holes::Dollar,
                ..PLAIN
            },
            Self::Julia => Syntax {
                triple_quotes: true,
                multiline: true,
                sigils: "@",
                holes: Holes::Dollar,
                ..PLAIN
            },
            Self::R | Self::Shell | Self::Text => Syntax { multiline: true, ..PLAIN },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_goes_before_the_extension() {
        for (path, head, expected) in [
            ("a.py", "", Language::Python),
            ("tool", "#!/usr/bin/env python3\n", Language::Python),
            ("a.sh", "#!/usr/bin/env -S node --no-warnings\n", Language::JavaScript),
            ("a.PL", "", Language::Perl),
            ("Makefile", "all:\n", Language::Text),
            ("conf.yaml", "", Language::Text),
            ("a.R", "", Language::R),
        ] {
            assert_eq!(Language::of(Path::new(path), head), expected, "{path}");
        }
    }
}
