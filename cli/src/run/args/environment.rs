//! The options of `rgrid run` that say what stands in the script's environment.

use std::{collections::BTreeMap, path::Path};

use clap::Args;

use crate::{
    text,
    values::{Pair, Unfit, environment},
};

/// The longest file of variables, in bytes: they are part of the job, which is small.
const MAX_BYTES: u64 = 512 << 10;

/// What stands in the script's environment.
#[derive(Debug, Default, Args)]
pub(crate) struct EnvArgs {
    /// Set an environment variable; KEY alone uses its value in this shell; can be repeated
    #[arg(long, value_name = "KEY[=VALUE]", value_parser = environment, help_heading = "Runtime and environment")]
    env: Vec<Pair>,
    /// Read environment variables from a file, one KEY=VALUE per line; --env overrides it; can be repeated
    #[arg(long, value_name = "FILE", value_parser = read, help_heading = "Runtime and environment")]
    env_file: Vec<EnvFile>,
    /// Set an environment variable to a secret of the grid (see `rgrid secret set`); the variable has the secret's name unless VARIABLE is given; can be repeated
    #[arg(long, value_name = "[VARIABLE=]NAME", value_parser = secret, help_heading = "Runtime and environment")]
    secret: Vec<Pair>,
}

/// The variables of a file, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EnvFile {
    pairs: Vec<Pair>,
    /// The first variable of which it passes on the value that it has here.
    passed_on: Option<String>,
}

impl EnvArgs {
    /// The variables that several places say, where each goes before those in front of it.
    pub(crate) fn resolve<'a>(layers: impl IntoIterator<Item = &'a Self>) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for layer in layers {
            let said = layer.env_file.iter().flat_map(|file| &file.pairs).chain(&layer.env);
            all.extend(said.map(|pair| (pair.key.clone(), pair.value.clone())));
        }
        all
    }

    /// A variable of here that one of the files passes on, if one does.
    pub(crate) fn passed_on_by_a_file(&self) -> Option<&str> {
        self.env_file.iter().find_map(|file| file.passed_on.as_deref())
    }

    /// The secrets, by variable, likewise.
    pub(crate) fn secrets<'a>(layers: impl IntoIterator<Item = &'a Self>) -> BTreeMap<String, String> {
        let said = layers.into_iter().flat_map(|layer| &layer.secret);
        said.map(|pair| (pair.key.clone(), pair.value.clone())).collect()
    }
}

/// Reads `--secret`: a name, or a variable and a name.
#[allow(clippy::unnecessary_wraps, reason = "it is a parser of clap's")]
fn secret(text: &str) -> Result<Pair, Unfit> {
    let (variable, name) = text.split_once('=').unwrap_or((text, text));
    Ok(Pair {
        key: variable.to_owned(),
        value: name.to_owned(),
    })
}

fn read(path: &str) -> Result<EnvFile, Unfit> {
    let text = text::read(Path::new(path), MAX_BYTES).map_err(|error| match error {
        text::Error::TooLong { .. } => Unfit::new(format!("it is longer than {MAX_BYTES} bytes; send it as an input file instead")),
        error => Unfit::new(error.to_string()),
    })?;
    parse(&text)
}

/// Reads variables as Docker and dotenv write them. A `$` is a `$`: nothing is put in for it.
fn parse(text: &str) -> Result<EnvFile, Unfit> {
    let (mut pairs, mut passed_on) = (Vec::new(), None);
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let unfit = |what: &str| Unfit::new(format!("line {}: {what}", index + 1));
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").map_or(line, str::trim_start);
        let Some((key, value)) = line.split_once('=') else {
            pairs.push(environment(line).map_err(|error| unfit(&error.to_string()))?);
            passed_on.get_or_insert_with(|| line.to_owned());
            continue;
        };
        let (key, mut value) = (key.trim_end(), value.trim_start().to_owned());
        if key.is_empty() || key.contains(|c: char| c.is_whitespace() || c == '"' || c == '\'') {
            return Err(unfit("write KEY=VALUE"));
        }
        let value = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => loop {
                if let Some(unquoted) = unquote(&value, quote) {
                    break unquoted.map_err(|rest| unfit(&format!("`{rest}` follows the closing quotation mark")))?;
                }
                let (_, next) = lines
                    .next()
                    .ok_or_else(|| unfit("a quotation mark is open at the end of the file"))?;
                value.push('\n');
                value.push_str(next);
            },
            _ => value
                .split_once(" #")
                .map_or(value.as_str(), |(value, _)| value)
                .trim_end()
                .to_owned(),
        };
        let key = key.to_owned();
        pairs.push(Pair { key, value });
    }
    Ok(EnvFile { pairs, passed_on })
}

/// What stands between quotation marks; nothing while they are open; an error with what stands behind them.
fn unquote(text: &str, quote: char) -> Option<Result<String, String>> {
    let mut value = String::new();
    let mut chars = text.strip_prefix(quote)?.chars();
    loop {
        match chars.next()? {
            c if c == quote => break,
            '\\' if quote == '"' => match chars.next()? {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                c @ ('"' | '\\' | '$') => value.push(c),
                c => value.extend(['\\', c]),
            },
            c => value.push(c),
        }
    }
    let rest = chars.as_str().trim();
    Some(if rest.is_empty() || rest.starts_with('#') {
        Ok(value)
    } else {
        Err(rest.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read_as_docker_and_dotenv_write_them() {
        let text =
            "# a comment\n\nA=1\nexport B = two words # why\nC='#$x \\n'\nD=\"a\\nb\\\"\"\nE=\nF=\"one\ntwo\" # end\nG=a#b=c\nPATH\n";
        let EnvFile { pairs, passed_on } = parse(text).expect("well-formed");
        assert_eq!(passed_on.as_deref(), Some("PATH"));
        let path = std::env::var("PATH").expect("a PATH");
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "#$x \\n"),
            ("D", "a\nb\""),
            ("E", ""),
            ("F", "one\ntwo"),
            ("G", "a#b=c"),
            ("PATH", &path),
        ];
        let read: Vec<(&str, &str)> = pairs.iter().map(|pair| (pair.key.as_str(), pair.value.as_str())).collect();
        assert_eq!(read, expected);
    }

    #[test]
    fn a_file_is_read_in_every_encoding_or_rejected_with_the_line() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("a.env");
        let path = path.to_str().expect("UTF-8");
        for bytes in text::in_each_encoding("A=größer\r\nB=2\r\n") {
            std::fs::write(path, bytes)?;
            let EnvFile { pairs, .. } = read(path).expect("it is text");
            let pairs: Vec<_> = pairs.iter().map(|pair| (pair.key.as_str(), pair.value.as_str())).collect();
            assert_eq!(pairs, [("A", "größer"), ("B", "2")]);
        }
        std::fs::write(path, b"A=1\nB=\xe9\n")?;
        let error = read(path).expect_err("Latin-1").to_string();
        assert!(error.contains("line 2 is not text"), "{error}");
        Ok(())
    }

    #[test]
    fn what_is_no_variable_is_said_with_its_line() {
        for (text, words) in [
            ("A=1\n=2\n", "line 2: write KEY=VALUE"),
            ("two words=3", "line 1: write KEY=VALUE"),
            ("A='x' y\n", "line 1: `y` follows"),
            ("\nA=\"x\n\n", "line 2: a quotation mark is open"),
            ("RGRID_SURELY_NOT_SET", "line 1: `RGRID_SURELY_NOT_SET` is not set here"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn the_nearer_place_goes_before_and_in_it_an_option_before_a_file() {
        let pair = |key: &str, value: &str| Pair {
            key: key.to_owned(),
            value: value.to_owned(),
        };
        let layer = |file: &str, option: &str| EnvArgs {
            env: vec![pair(option, "option")],
            env_file: vec![EnvFile {
                pairs: vec![pair(file, "file")],
                passed_on: None,
            }],
            secret: Vec::new(),
        };
        let all = EnvArgs::resolve([&layer("B", "A"), &layer("A", "C"), &layer("D", "D")]);
        let all: Vec<_> = all.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(all, [("A", "file"), ("B", "file"), ("C", "option"), ("D", "option")]);
    }
}
