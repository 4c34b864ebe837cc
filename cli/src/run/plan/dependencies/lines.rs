//! The lines of a requirements file, as pip's own parser has them: what belongs together, comments, and the options of a line.
//!
//! Options are cut into words as a shell does it, and several may stand in one line. What pip or uv would drop without a word is
//! rejected here: an option beside a requirement that pip applies to nothing, a second `-r` in a line.

/// Options that requirements files have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opt {
    List,
    Constraints,
    Editable,
    FindLinks,
    IndexUrl,
    ExtraIndexUrl,
    NoIndex,
    /// It names nothing of a machine, and stands for itself.
    Plain,
    /// It belongs to the requirement before it.
    OfRequirement,
}

/// How an option is written, whether it has a value, and what it is. The last spelling is the one that both installers know.
const OPTIONS: [(&[&str], bool, Opt); 18] = [
    (&["-r", "--requirement"], true, Opt::List),
    (&["-c", "--constraint"], true, Opt::Constraints),
    (&["-e", "--editable"], true, Opt::Editable),
    (&["-f", "--find-links"], true, Opt::FindLinks),
    (&["-i", "--pypi-url", "--index-url"], true, Opt::IndexUrl),
    (&["--extra-index-url"], true, Opt::ExtraIndexUrl),
    (&["--no-index"], false, Opt::NoIndex),
    (&["--no-binary"], true, Opt::Plain),
    (&["--only-binary"], true, Opt::Plain),
    (&["--prefer-binary"], false, Opt::Plain),
    (&["--require-hashes"], false, Opt::Plain),
    (&["--pre"], false, Opt::Plain),
    (&["--trusted-host"], true, Opt::Plain),
    (&["--use-feature"], true, Opt::Plain),
    (&["--hash"], true, Opt::OfRequirement),
    (&["--global-option"], true, Opt::OfRequirement),
    (&["-C", "--config-setting", "--config-settings"], true, Opt::OfRequirement),
    (&["--install-option"], true, Opt::OfRequirement),
];

/// An option as it is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) option: Opt,
    /// Its long name.
    pub(crate) name: &'static str,
    /// Its value; empty where it has none.
    pub(crate) value: String,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    /// Nothing, or a comment.
    Empty,
    /// A requirement, without the options behind it.
    Requirement(String),
    /// Options.
    Options(Vec<Said>),
}

/// Lines that belong together: the number of the first, how many they are, and what they come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) number: usize,
    pub(crate) count: usize,
    pub(crate) text: String,
    /// Whether they are one line as it stands.
    pub(crate) raw: String,
}

/// Cuts a text where Python cuts it, and joins what a `\` at its end continues.
pub(crate) fn joined(text: &str) -> Vec<Joined> {
    let mut all = Vec::new();
    let mut open: Option<Joined> = None;
    for (index, line) in physical(text).into_iter().enumerate() {
        let is_comment = comment(line) == Some(0);
        let continues = line.ends_with('\\') && !is_comment;
        let part = if continues { line.trim_end_matches('\\') } else { line };
        // What stands in front of a comment does not become part of it.
        let gap = if is_comment { " " } else { "" };
        let mut group = match open.take() {
            Some(mut group) => {
                group.count += 1;
                group.text.extend([gap, part]);
                group.raw.extend(["\n", line]);
                group
            }
            None => Joined {
                number: index + 1,
                count: 1,
                text: part.to_owned(),
                raw: line.to_owned(),
            },
        };
        if continues {
            open = Some(group);
        } else {
            let end = comment(&group.text).unwrap_or(group.text.len());
            group.text.truncate(end);
            group.text = group.text.trim().to_owned();
            all.push(group);
        }
    }
    if let Some(mut group) = open {
        group.text = group.text.trim().to_owned();
        all.push(group);
    }
    all
}

/// As Python's `str.splitlines` does it.
fn physical(text: &str) -> Vec<&str> {
    let is_end = |c: char| {
        matches!(
            c,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let (mut lines, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let end = rest.find(is_end).unwrap_or(rest.len());
        lines.push(&rest[..end]);
        let behind = &rest[end..];
        let length = if behind.starts_with("\r\n") {
            2
        } else {
            behind.chars().next().map_or(0, char::len_utf8)
        };
        rest = &behind[length..];
    }
    lines
}

/// Where a comment begins, with the space before it: at the beginning, or behind white space.
fn comment(line: &str) -> Option<usize> {
    let mut before = None;
    for (at, c) in line.char_indices() {
        if c == '#' && (at == 0 || before.is_some()) {
            return Some(before.filter(|_| at > 0).unwrap_or(0));
        }
        before = if c.is_whitespace() { before.or(Some(at)) } else { None };
    }
    None
}

/// What joined lines say.
///
/// # Errors
/// In the second half of a sentence, what cannot be meant.
pub(crate) fn line(text: &str) -> Result<Line, String> {
    if text.is_empty() {
        return Ok(Line::Empty);
    }
    let begins_option = text
        .match_indices(' ')
        .map(|(at, _)| at + 1)
        .chain([0])
        .filter(|at| text[*at..].starts_with('-'));
    let split = begins_option.min().unwrap_or(text.len());
    let (requirement, options) = text.split_at(split);
    let options = said(options)?;
    let requirement = requirement.trim();
    if requirement.is_empty() {
        return of_options(options);
    }
    match options.iter().find(|said| said.option != Opt::OfRequirement) {
        Some(said) => Err(format!(
            "has `{}` behind a requirement, where installers leave it out without a word; give it a line of its own",
            said.name
        )),
        None => Ok(Line::Requirement(requirement.to_owned())),
    }
}

fn of_options(options: Vec<Said>) -> Result<Line, String> {
    if let Some(said) = options.iter().find(|said| said.option == Opt::OfRequirement) {
        return Err(format!("has `{}` without a requirement before it; put it behind one", said.name));
    }
    let is_file = |said: &&Said| matches!(said.option, Opt::List | Opt::Constraints | Opt::Editable);
    if options.len() > 1
        && let Some(said) = options.iter().find(is_file)
    {
        return Err(format!(
            "has `{}` and another option, of which pip takes one; give each a line of its own",
            said.name
        ));
    }
    Ok(Line::Options(options))
}

/// The options in a text.
fn said(text: &str) -> Result<Vec<Said>, String> {
    let words = shell_words::split(text).map_err(|_| "has a quotation mark that is not closed; close it".to_owned())?;
    let mut words = words.into_iter();
    let mut all = Vec::new();
    while let Some(word) = words.next() {
        let unknown =
            || format!("has `{word}`, which is not an option of a requirements file that rgrid knows; take it out, or correct it");
        let known = OPTIONS.iter().find_map(|(names, takes_value, option)| {
            let rest = names.iter().find_map(|name| rest_of(&word, name))?;
            Some((*names.last()?, *takes_value, *option, rest.map(ToOwned::to_owned)))
        });
        let (name, takes_value, option, rest) = known.ok_or_else(unknown)?;
        let value = match (takes_value, rest) {
            (true, Some(value)) => value,
            (true, None) => words.next().ok_or_else(|| format!("has `{word}` without a value; give it one"))?,
            (false, None) => String::new(),
            (false, Some(_)) => return Err(unknown()),
        };
        all.push(Said { option, name, value });
    }
    Ok(all)
}

/// What a word has behind an option's name, if it is that option: `-rx`, `--requirement=x`.
fn rest_of<'a>(word: &'a str, name: &str) -> Option<Option<&'a str>> {
    let rest = word.strip_prefix(name)?;
    match (rest, name.starts_with("--")) {
        ("", _) => Some(None),
        (rest, true) => rest.strip_prefix('=').map(Some),
        (rest, false) => Some(Some(rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_joined_and_cut_as_pip_does_it() {
        let of = |text: &str| -> Vec<(usize, usize, String)> {
            let all = joined(text).into_iter();
            all.map(|one| (one.number, one.count, one.text)).collect()
        };
        let expected = |all: &[(usize, usize, &str)]| -> Vec<(usize, usize, String)> {
            all.iter()
                .map(|(number, count, text)| (*number, *count, (*text).to_owned()))
                .collect()
        };
        assert_eq!(
            of("a\r\n  # b\\\nc==1 \\\n  --hash=x \\\n  --hash=y # z\n\nd#e  #f\n"),
            expected(&[
                (1, 1, "a"),
                (2, 1, ""),
                (3, 3, "c==1   --hash=x   --hash=y"),
                (6, 1, ""),
                (7, 1, "d#e")
            ])
        );
        assert_eq!(of("a \\\n# b\nc"), expected(&[(1, 2, "a"), (3, 1, "c")]));
        assert_eq!(
            of("a # b\u{c}--pre\u{2028}c\\"),
            expected(&[(1, 1, "a"), (2, 1, "--pre"), (3, 1, "c")])
        );
    }

    #[test]
    fn options_are_cut_into_words_as_pip_does_it() {
        let of = |text: &str| match line(text) {
            Ok(Line::Options(all)) => all
                .into_iter()
                .map(|said| format!("{} {}", said.name, said.value))
                .collect::<Vec<_>>()
                .join("|"),
            Ok(Line::Requirement(text)) => text,
            Ok(Line::Empty) => String::new(),
            Err(error) => format!("! {error}"),
        };
        for (text, expected) in [
            ("--index-url X --extra-index-url=Y", "--index-url X|--extra-index-url Y"),
            ("-i 'X'  --no-index", "--index-url X|--no-index "),
            ("-rmore.txt", "--requirement more.txt"),
            ("-f x --no-index", "--find-links x|--no-index "),
            ("-f \"a b\"", "--find-links a b"),
            ("pkg==1 --hash=sha256:0 --hash sha256:1", "pkg==1"),
            ("pkg -C x=y", "pkg"),
            ("a-b @ https://host/a-b-1.whl", "a-b @ https://host/a-b-1.whl"),
            ("-r a.txt -c b.txt", "! has `--requirement` and another option"),
            ("--pre -e .", "! has `--editable` and another option"),
            ("pkg --index-url X", "! has `--index-url` behind a requirement"),
            ("--hash=x", "! has `--hash` without a requirement"),
            ("--index-url", "! has `--index-url` without a value"),
            ("--no-index=1", "! has `--no-index=1`, which is not an option"),
            ("--no-deps", "! has `--no-deps`, which is not an option"),
            ("-f 'x", "! has a quotation mark"),
        ] {
            let said = of(text);
            assert!(
                said == expected || (said.starts_with('!') && said.starts_with(expected)),
                "{text}: {said}"
            );
        }
    }
}
