//! Texts that others chose, written so that they do nothing to a terminal.

use std::fmt::Write as _;

/// A text that holds a table's line together: control characters are shown, not done, and a long one is cut.
pub(crate) fn one_line(text: &str, most: usize) -> String {
    let mut line = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == most {
            line.push('…');
            break;
        }
        if is_harmful(c) {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// A command as one would type it in a shell, on one line.
pub(crate) fn typed(command: &[String], most: usize) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "%+,-./:=@_^".contains(c);
    let quote = |word: &String| match word.as_str() {
        "" => "''".to_owned(),
        word if word.chars().all(is_plain) => word.to_owned(),
        word => format!("'{}'", word.replace('\'', r"'\''")),
    };
    one_line(&command.iter().map(quote).collect::<Vec<_>>().join(" "), most)
}

/// A text that others chose, with what would move the cursor, begin a line or turn the direction of writing shown as what it is.
pub(crate) fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_harmful(c) {
            shown.extend(c.escape_debug());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// What does something instead of being shown: it controls a terminal (C0, DEL, C1), begins a line, or turns the direction of writing.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// JSON with such characters in its texts as JSON's own escapes, so that it says the same. Those below U+0020 are escaped in it already.
pub(crate) fn harmless_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && is_harmful(c) {
            let _ = write!(shown, "\\u{:04x}", u32::from(c));
        } else {
            shown.push(c);
        }
    }
    shown
}

/// A text of several lines that others wrote, each line of it harmless and indented; of a long one the beginning.
pub(crate) fn shown_lines(text: &str, most: usize) -> String {
    let mut lines: Vec<String> = text.lines().take(most).map(|line| format!("  {}", harmless(line))).collect();
    if text.lines().nth(most).is_some() {
        lines.push("  …".to_owned());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_moves_no_cursor_and_begins_no_line() {
        assert_eq!(
            harmless("a\nrgrid: all is well \u{1b}[2K\u{202e}ü"),
            "a\\nrgrid: all is well \\u{1b}[2K\\u{202e}ü"
        );
    }

    #[test]
    fn no_character_that_does_something_is_left() {
        let all: String = (0..=0x2100).filter_map(char::from_u32).collect();
        for shown in [harmless(&all), one_line(&all, usize::MAX), harmless_json(&all.replace('\n', ""))] {
            for c in ["\u{1b}", "\u{7f}", "\u{9b}", "\n", "\r", "\u{202e}", "\u{2067}", "\u{2028}"] {
                assert!(!shown.contains(c), "{c:?}");
            }
        }
        let said = serde_json::json!({ "reason": "a\u{1b}[2J\u{9b}\u{202e}\u{7f}\n" });
        let shown = harmless_json(&said.to_string());
        assert!(shown.is_ascii(), "{shown}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&shown).expect("JSON"),
            said,
            "it says the same"
        );
    }

    #[test]
    fn a_name_cannot_break_a_table() {
        assert_eq!(one_line("a\nb\u{1b}[31m", 40), "a\\nb\\u{1b}[31m");
        assert_eq!(one_line("abcdef", 3), "abc…");
        let command = ["a.py", "", "b c", "it's", "ü\n"].map(str::to_owned);
        assert_eq!(typed(&command, 99), r"a.py '' 'b c' 'it'\''s' 'ü\n'");
    }
}
