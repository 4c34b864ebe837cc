//! Packages that a script itself names, in a comment of its own form (PEP 723): `# /// script` … `# ///`, with TOML in it.

use std::{fs, path::Path};

use serde::Deserialize;

use crate::{failure::usage, text};

/// A script larger than this is no source that somebody wrote.
const LARGEST: u64 = 4 << 20;

/// What a script says that it needs.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Inline {
    /// The packages.
    #[serde(default)]
    pub(super) dependencies: Vec<String>,
    /// The versions of Python.
    pub(super) requires_python: Option<String>,
}

/// What a script says that it needs; nothing where it says nothing.
///
/// # Errors
/// A usage error where it says so twice, or what cannot be read.
pub(super) fn read(script: &Path, shown: &str) -> anyhow::Result<Option<Inline>> {
    let is_source = fs::metadata(script).is_ok_and(|meta| meta.len() <= LARGEST);
    let text = if is_source {
        fs::read(script).unwrap_or_default()
    } else {
        Vec::new()
    };
    // A script may be written in another encoding, which Python knows; only its block must be text.
    of_text(&text::lossy(&text), shown)
}

fn of_text(text: &str, shown: &str) -> anyhow::Result<Option<Inline>> {
    let wrong = |what: &str| usage(format!("{shown}: {what}"));
    let mut lines = text.lines();
    let mut found = None;
    while lines.any(|line| line.trim_end() == "# /// script") {
        if found.is_some() {
            return Err(wrong("it has two blocks `# /// script`; make one of them"));
        }
        let mut toml = String::new();
        let mut closed = false;
        for line in lines.by_ref() {
            let line = line.trim_end();
            if line == "# ///" {
                closed = true;
                break;
            }
            let Some(content) = line.strip_prefix("# ").or_else(|| (line == "#").then_some("")) else {
                break;
            };
            if content.contains(char::REPLACEMENT_CHARACTER) {
                return Err(wrong("its block `# /// script` is not text (UTF-8); save the script as UTF-8"));
            }
            toml.push_str(content);
            toml.push('\n');
        }
        if !closed {
            return Err(wrong("its block `# /// script` is not closed; end it with the line `# ///`"));
        }
        let inline =
            toml::from_str(&toml).map_err(|error| wrong(&format!("its block `# /// script` cannot be read: {}", error.message())))?;
        found = Some(inline);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_says_what_it_needs() -> anyhow::Result<()> {
        let text = "#!/usr/bin/env python3\n# /// script\n# requires-python = \">=3.11\"\n# dependencies = [\n#   \"six<2\",\n#\n#   \"rich\",\n# ]\n\
                    # [tool.uv]\n# x = 1\n# ///\nimport six\n";
        let expected = Inline {
            dependencies: vec!["six<2".to_owned(), "rich".to_owned()],
            requires_python: Some(">=3.11".to_owned()),
        };
        assert_eq!(of_text(text, "s.py")?, Some(expected));
        assert_eq!(of_text("# /// other\n# a = 1\n# ///\nprint('# /// script')\n", "s.py")?, None);
        let latin_1 = text::lossy(b"#\xe9\n# /// script\n# # \xe9\n# ///\n");
        for (text, expected) in [
            (latin_1.as_str(), "not text (UTF-8)"),
            ("# /// script\n# dependencies = []\nimport os\n# ///\n", "not closed"),
            ("# /// script\n# ///\n# /// script\n# ///\n", "two blocks"),
            ("# /// script\n# dependencies = 1\n# ///\n", "cannot be read"),
        ] {
            let error = of_text(text, "s.py").expect_err("wrong").to_string();
            assert!(error.starts_with("s.py: ") && error.contains(expected), "{error}");
        }
        Ok(())
    }
}
