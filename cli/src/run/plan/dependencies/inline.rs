//! Packages that a script itself names, in a comment of its own form (PEP 723): `# /// script` … `# ///`, with TOML in it.

use std::{fs, path::Path};

use super::{Declared, doc::Doc, python, requirements::wrong_line, uv};
use crate::{failure::usage, run::messages, text};

/// A script larger than this is not a source that somebody wrote.
const LARGEST: u64 = 4 << 20;

/// What a script says that it needs; nothing where it has no such block.
///
/// # Errors
/// A usage error where it says so twice, or what cannot be honoured.
pub(crate) fn read(script: &Path, shown: &str, cwd: &Path) -> anyhow::Result<Option<Declared>> {
    let is_source = fs::metadata(script).is_ok_and(|meta| meta.len() <= LARGEST);
    let text = if is_source {
        fs::read(script).unwrap_or_default()
    } else {
        Vec::new()
    };
    // A script may be written in another encoding, which Python knows; only its block must be text.
    let Some((doc, python)) = of_text(&text::lossy(&text), shown)? else {
        return Ok(None);
    };
    let entries = doc.entries(&["dependencies"])?;
    let told = uv::told(&doc, &entries)?;
    let dir = script.parent().unwrap_or(cwd);
    let read = uv::declared(&doc, &entries, told, (dir, cwd))?;
    if read.packages > 0 {
        let mut lock = script.as_os_str().to_owned();
        lock.push(".lock");
        if Path::new(&lock).is_file() {
            messages::once(&format!(
                "{shown}.lock is not read: what {shown} allows is installed; for the very versions: uv export --script {shown} -o FILE, and --requirements FILE"
            ));
        }
    }
    Ok(Some(Declared {
        // A block without any says that none are needed.
        python,
        ..Declared::of(shown.to_owned(), read)
    }))
}

fn of_text(text: &str, shown: &str) -> anyhow::Result<Option<(Doc, Option<String>)>> {
    let wrong = |what: &str| usage(format!("{shown}: {what}"));
    let mut lines = text.lines().enumerate();
    let mut found = None;
    while let Some((begin, _)) = lines.find(|(_, line)| line.trim_end() == "# /// script") {
        if found.is_some() {
            return Err(wrong("it has two blocks `# /// script`; make one of them"));
        }
        let mut toml = String::new();
        let mut closed = false;
        for (index, line) in lines.by_ref() {
            let line = line.trim_end();
            if line == "# ///" {
                closed = true;
                break;
            }
            let Some(content) = line.strip_prefix("# ").or_else(|| (line == "#").then_some("")) else {
                break;
            };
            if content.contains(char::REPLACEMENT_CHARACTER) {
                return Err(wrong_line(
                    &format!("{shown}, line {}", index + 1),
                    "stands in a block `# /// script`, and is not text (UTF-8); save the script as UTF-8",
                ));
            }
            toml.push_str(content);
            toml.push('\n');
        }
        if !closed {
            return Err(wrong("its block `# /// script` is not closed; end it with the line `# ///`"));
        }
        found = Some(Doc::parse(shown, toml, begin + 1)?);
    }
    let Some(doc) = found else { return Ok(None) };
    let python = doc.text(&["requires-python"])?.map(ToOwned::to_owned);
    if let Some(python) = &python {
        python::check(python).map_err(|wrong| doc.wrong(&["requires-python"], &wrong))?;
    }
    Ok(Some((doc, python)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_says_what_it_needs() -> anyhow::Result<()> {
        let text = "#!/usr/bin/env python3\n# /// script\n# requires-python = \">=3.11\"\n# dependencies = [\n#   \"six<2\",\n#\n#   \"rich\",\n# ]\n\
                    # [tool.other]\n# x = 1\n# ///\nimport six\n";
        let (doc, python) = of_text(text, "s.py")?.expect("a block");
        let entries: Vec<_> = doc
            .entries(&["dependencies"])?
            .into_iter()
            .map(|entry| (entry.at, entry.text))
            .collect();
        let entry = |line: u32, text: &str| (format!("s.py, line {line}"), text.to_owned());
        assert_eq!(entries, [entry(5, "six<2"), entry(7, "rich")]);
        assert_eq!(python.as_deref(), Some(">=3.11"));
        assert!(of_text("# /// other\n# a = 1\n# ///\nprint('# /// script')\n", "s.py")?.is_none());
        Ok(())
    }

    #[test]
    fn what_a_script_cannot_mean_is_said_with_its_line() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let script = dir.path().join("s.py");
        for (text, expected) in [
            (
                &b"#\xe9\n# /// script\n# # \xe9\n# ///\n"[..],
                "s.py, line 3 stands in a block `# /// script`, and is not text (UTF-8)",
            ),
            (
                b"# /// script\n# dependencies = []\nimport os\n# ///\n",
                "s.py: its block `# /// script` is not closed",
            ),
            (b"# /// script\n# ///\n# /// script\n# ///\n", "s.py: it has two blocks"),
            (b"# /// script\n# dependencies = 1\n# ///\n", "s.py, line 2 is not a list"),
            (b"# /// script\n# dependencies = [1]\n# ///\n", "s.py, line 2 is not text"),
            (b"\n# /// script\n# x =\n# ///\n", "s.py, line 3 cannot be read"),
            (
                b"# /// script\n# requires-python = 'three'\n# ///\n",
                "s.py, line 2 requires Python `three`",
            ),
            (
                b"# /// script\n# dependencies = ['-r x.txt']\n# ///\n",
                "s.py, line 2 names `-r x.txt`, which is not a requirement",
            ),
            (
                b"# /// script\n# dependencies = [\"a\\n--pre\"]\n# ///\n",
                "which is not a requirement",
            ),
            (
                b"# /// script\n# dependencies = ['./a.whl']\n# ///\n",
                "s.py, line 2 names the path `./a.whl` without a name",
            ),
            (
                b"# /// script\n# dependencies = ['a']\n# [tool.uv]\n# sources.a = {workspace = true}\n# ///\n",
                "s.py, line 4 installs a member",
            ),
        ] {
            fs::write(&script, text)?;
            let Err(error) = read(&script, "s.py", dir.path()) else {
                panic!("{expected}")
            };
            assert!(error.to_string().contains(expected), "{expected}: {error}");
        }
        Ok(())
    }
}
