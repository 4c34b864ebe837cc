//! What a configuration, a list, a template or another text mentions.

use super::{
    mention::{Mention, MentionKind},
    value::Value,
};

/// The most names that one text is read for.
const MOST: usize = 20_000;

/// The names in a configuration in JSON or TOML: its texts, wherever they stand. Nothing where it is neither.
pub(crate) fn read_structured(text: &str) -> Option<Vec<Mention>> {
    let mut found = Vec::new();
    if text.trim_start().starts_with(['{', '[']) {
        let json = serde_json::from_str::<serde_json::Value>(text);
        if let Ok(json) = json {
            structured("", &json, &mut found);
            return Some(found);
        }
    }
    let toml = toml::from_str::<toml::Table>(text).ok()?;
    structured("", &serde_json::to_value(toml).ok()?, &mut found);
    Some(found)
}

fn structured(key: &str, value: &serde_json::Value, found: &mut Vec<Mention>) {
    match value {
        serde_json::Value::String(text) if found.len() < MOST && text.len() < 1024 => {
            let how = if is_output(key) && !text.contains('.') {
                MentionKind::Write
            } else {
                MentionKind::Read
            };
            let is_weak = text.contains(' ') && !text.contains(['/', '.']);
            found.push(Mention {
                value: Value::text(text.as_str()),
                how,
                is_weak,
                group: 0,
                stands_in: false,
                line: 1,
            });
        }
        serde_json::Value::Array(list) => list.iter().for_each(|value| structured(key, value, found)),
        serde_json::Value::Object(map) => map.iter().for_each(|(key, value)| structured(key, value, found)),
        _ => {}
    }
}

/// The names in a text: values behind keys, strings in quotation marks, whole lines, and words that look like paths.
pub(crate) fn read(text: &str) -> Vec<Mention> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if found.len() > MOST {
            break;
        }
        let line_number = u32::try_from(index + 1).unwrap_or(u32::MAX);
        let mut add = |text: &str, how: MentionKind, is_weak: bool| {
            let text = text.trim();
            if !text.is_empty() && text.len() < 1024 {
                found.push(Mention {
                    value: Value::text(text),
                    how,
                    is_weak,
                    group: 0,
                    stands_in: false,
                    line: line_number,
                });
            }
        };
        let trimmed = line.trim();
        if trimmed.starts_with(['#', ';']) && !trimmed.starts_with("#include") {
            continue;
        }
        let item = trimmed.strip_prefix("- ").unwrap_or(trimmed);
        if let Some((key, value)) = key_and_value(item) {
            let is_directory = !value.contains('.');
            let how = if is_output(key) && is_directory {
                MentionKind::Write
            } else {
                MentionKind::Read
            };
            match value.strip_prefix('[').map(|list| list.trim_end_matches(']')) {
                Some(list) => list
                    .split(',')
                    .for_each(|one| add(one.trim().trim_matches(['"', '\'']), how.clone(), false)),
                None => add(value, how, false),
            }
        } else {
            // A list names a file in each line.
            add(
                item.trim_matches(['"', '\'', ',']),
                MentionKind::Read,
                item.contains(' ') || item.len() == trimmed.len() && !item.contains(['.', '/']),
            );
        }
        for quoted in item.split(['"', '\'', '`']).skip(1).step_by(2) {
            add(quoted, MentionKind::Read, true);
        }
        for word in item.split(|c: char| c.is_whitespace() || ",;=()[]{}<>\"'|`".contains(c)) {
            add(word.trim_end_matches([':', '.']), MentionKind::Read, true);
        }
    }
    found
}

/// `key: value` and `key = value`.
fn key_and_value(line: &str) -> Option<(&str, &str)> {
    let at = line.find([':', '='])?;
    let (key, value) = (line[..at].trim().trim_matches(['"', '\'']), line[at + 1..].trim());
    let is_key = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || "_-. ".contains(c)) && !value.starts_with("//");
    let value = value.split(" #").next().unwrap_or(value).trim_end_matches(',').trim();
    is_key.then(|| (key, value.trim_matches(['"', '\''])))
}

/// Whether a key names something that is written.
fn is_output(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["out", "dest", "target"]
        .iter()
        .any(|word| key.split(['_', '-', '.', ' ']).any(|part| part.starts_with(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_json_and_toml_name_files() {
        for text in ["{\"include\": [\"src\"], \"out\": \"dist\"}", "include = ['src']\nout = 'dist'\n"] {
            let found = read_structured(text).expect("it can be read");
            let told: Vec<_> = found.iter().map(|mention| (mention.value.known(), &mention.how)).collect();
            assert_eq!(
                told,
                [(Some("src"), &MentionKind::Read), (Some("dist"), &MentionKind::Write)],
                "{text}"
            );
        }
        assert_eq!(read_structured("a: b\n"), None);
    }

    #[test]
    fn values_and_lists_name_files() {
        let text = "# data/no.csv\ninput_dir: inbox\nfiles:\n  - data/a b.csv\n\"template\": \"t/page.html\",\noutput_dir = out\nsee data/x.csv, please\n";
        let found = read(text);
        let has = |text: &str, how: &MentionKind, is_weak| {
            found
                .iter()
                .any(|mention| mention.value == Value::text(text) && mention.how == *how && mention.is_weak == is_weak)
        };
        assert!(has("inbox", &MentionKind::Read, false));
        assert!(has("data/a b.csv", &MentionKind::Read, true));
        assert!(has("t/page.html", &MentionKind::Read, false));
        assert!(has("out", &MentionKind::Write, false));
        assert!(has("data/x.csv", &MentionKind::Read, true));
        assert!(!found.iter().any(|mention| mention.value == Value::text("data/no.csv")));
    }
}
