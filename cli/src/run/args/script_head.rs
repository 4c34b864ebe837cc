//! Options that stand in a script itself: `# rgrid: --cpu 2 --timeout 10m` in the comment that it begins with.

use std::{fs::File, io::Read as _, path::Path};

use crate::{failure::usage, project::Setting, text};

/// How much of a script is looked through.
const HEAD: u64 = 64 << 10;

/// The options in a script's head; none where there is no such script, which others complain about.
///
/// # Errors
/// A usage error where a line cannot be cut into words.
pub(crate) fn options(script: &Path) -> anyhow::Result<Vec<Setting>> {
    let mut head = Vec::new();
    let is_read = script.is_file() && File::open(script).is_ok_and(|file| file.take(HEAD).read_to_end(&mut head).is_ok());
    // Scripts may be written in other encodings, which their runtime knows.
    let text = text::lossy(&head);
    if !is_read || text.contains('\0') {
        return Ok(Vec::new());
    }
    read(&script.display().to_string(), &text)
}

/// The options in the comment that a text begins with; empty lines may stand in it.
fn read(name: &str, text: &str) -> anyhow::Result<Vec<Setting>> {
    let mut settings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        let Some(comment) = line.strip_prefix('#').or_else(|| line.strip_prefix("//")) else {
            if line.is_empty() {
                continue;
            }
            break;
        };
        let Some(options) = comment.trim_start().strip_prefix("rgrid:") else {
            continue;
        };
        let from = format!("{name}, line {}", index + 1);
        if options.contains(char::REPLACEMENT_CHARACTER) {
            return Err(usage(format!(
                "{from}: its options are not text (UTF-8); save the script as UTF-8, or give them on the command line"
            )));
        }
        let words = shell_words::split(options).map_err(|_| usage(format!("{from}: a quotation mark is open at the end of the line")))?;
        settings.push(Setting { from, words });
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_stand_in_the_comment_that_a_script_begins_with() -> anyhow::Result<()> {
        let text =
            "#!/usr/bin/env python3\n# What it does.\n\n#rgrid: --cpu 2 --label 'a=b c'\n  // rgrid: -d\nimport sys\n# rgrid: --cpu 3\n";
        let expected = [("s, line 4", &["--cpu", "2", "--label", "a=b c"][..]), ("s, line 5", &["-d"])];
        let expected = expected.map(|(from, words)| Setting {
            from: from.to_owned(),
            words: words.iter().map(|&word| word.to_owned()).collect(),
        });
        assert_eq!(read("s", text)?, expected);
        let error = read("s", &text::lossy(b"#\xe9\n# rgrid: --name \xe9\n")).expect_err("Latin-1");
        assert!(error.to_string().starts_with("s, line 2: its options are not text"), "{error}");
        let error = read("s", "# rgrid: --name 'open\n").expect_err("open");
        assert_eq!(error.to_string(), "s, line 1: a quotation mark is open at the end of the line");
        Ok(())
    }
}
