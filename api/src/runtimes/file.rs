//! Parses `runtimes.toml`. Pure, and strict, because one edit affects the whole grid.

use std::{collections::BTreeMap, ops::Range, path::Path, str::FromStr};

use bus::{
    grid::runtimes::{Alias, RuntimeDefinition, RuntimesSet},
    ids::Token,
    spec::runtime,
};
use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

/// The file of a new grid: only comments, with examples.
pub const TEMPLATE: &str = "\
# The runtimes of this grid. An edit takes effect at once, for all workers and clients; `rgrid runtimes` shows the result.
# Built in: python, node, bash, sh, perl, ruby, php, R, julia. A field that is left out of an entry keeps its built-in value.

# [runtimes.racket]
# interpreter = \"racket -W error\"             # the program on the workers' PATH, and its own arguments
# images = [\"lab/racket:8\", \"racket/racket:8\"]  # the first one that a worker has is used; if it has none, the last is pulled
# extensions = [\"rkt\"]                        # rgrid run x.rkt

# [aliases]
# py311 = \"python:3.11\"                       # rgrid run --runtime py311 x.py
# science = \"image:lab/science:2\"
";

/// Why a file is invalid: with its line, and with what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Wrong(pub(super) String);

/// Parses the text of a `runtimes.toml`; errors name it as `path`.
///
/// # Errors
/// [`Wrong`] at the first error.
pub fn read(path: &Path, text: &str) -> Result<RuntimesSet, Wrong> {
    let reader = Reader { path, text };
    let table = DeTable::parse(text).map_err(|error| reader.wrong(&error.span().unwrap_or_default(), error.message().trim()))?;
    let mut set = RuntimesSet::default();
    for (key, value) in table.get_ref() {
        match (key.get_ref().as_ref(), value.get_ref()) {
            ("runtimes", DeValue::Table(runtimes)) => set.runtimes = reader.runtimes(runtimes)?,
            ("aliases", DeValue::Table(_)) => {}
            (name, _) => {
                let sentence = format!(
                    "`{name}` is not allowed here; write tables `[runtimes.NAME]` and `[aliases]`, as in `py311 = \"python:3.11\"`"
                );
                return Err(reader.wrong(&key.span(), &sentence));
            }
        }
    }
    // After the runtimes, in whatever order the tables are: an alias may not have the name of a runtime.
    if let Some(DeValue::Table(aliases)) = table.get_ref().get("aliases").map(Spanned::get_ref) {
        set.aliases = reader.aliases(aliases, &set.runtimes)?;
    }
    Ok(set)
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
}

type Key<'a> = Spanned<DeString<'a>>;

impl Reader<'_> {
    fn wrong(&self, span: &Range<usize>, sentence: &str) -> Wrong {
        let before = self.text.as_bytes().get(..span.start).unwrap_or_default();
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        Wrong(format!("{}, line {line}: {sentence}", self.path.display()))
    }

    fn name(&self, what: &str, key: &Key<'_>) -> Result<Token, Wrong> {
        Token::from_str(key.get_ref()).map_err(|_| {
            let sentence = format!(
                "`{}` cannot be {what}'s name; use 1 to 64 letters, digits, `_` and `-`",
                key.get_ref().escape_debug()
            );
            self.wrong(&key.span(), &sentence)
        })
    }

    fn runtimes(&self, table: &DeTable<'_>) -> Result<BTreeMap<Token, RuntimeDefinition>, Wrong> {
        let mut runtimes: BTreeMap<Token, RuntimeDefinition> = BTreeMap::new();
        for (key, value) in table {
            let name = self.name("a runtime", key)?;
            let DeValue::Table(fields) = value.get_ref() else {
                let sentence = format!("`{name}` must be a table: `[runtimes.{name}]`, and below it `interpreter = \"…\"`");
                return Err(self.wrong(&key.span(), &sentence));
            };
            let meaning = self.meaning(&name, fields, &runtimes)?;
            if meaning.interpreter.is_empty() && !runtime::is_built_in(name.as_str()) {
                let sentence = format!("the runtime `{name}` needs an interpreter for workers and images: `interpreter = \"{name}\"`");
                return Err(self.wrong(&key.span(), &sentence));
            }
            runtimes.insert(name, meaning);
        }
        Ok(runtimes)
    }

    fn meaning(&self, name: &Token, fields: &DeTable<'_>, before: &BTreeMap<Token, RuntimeDefinition>) -> Result<RuntimeDefinition, Wrong> {
        let mut meaning = RuntimeDefinition::default();
        for (key, value) in fields {
            match key.get_ref().as_ref() {
                "interpreter" => {
                    meaning.interpreter = match value.get_ref() {
                        DeValue::String(words) => words.split_whitespace().map(ToOwned::to_owned).collect(),
                        _ => self.texts(key, value)?,
                    };
                    if meaning.interpreter.is_empty() {
                        return Err(self.wrong(
                            &key.span(),
                            "`interpreter` is empty; name a program, as in `interpreter = \"racket\"`",
                        ));
                    }
                }
                "images" => {
                    meaning.images = self.texts(key, value)?;
                    if let Some(image) = meaning
                        .images
                        .iter()
                        .find(|image| format!("image:{image}").parse::<Alias>().is_err())
                    {
                        let sentence = format!("`{image}` is not an image's name; write it as for `docker run`, as in `racket/racket:8`");
                        return Err(self.wrong(&key.span(), &sentence));
                    }
                }
                "extensions" => {
                    meaning.extensions = self.texts(key, value)?;
                    for extension in &mut meaning.extensions {
                        *extension = self.extension(name, key, extension, before)?;
                    }
                }
                other => {
                    let sentence =
                        format!("`{other}` is not allowed in `[runtimes.{name}]`; write `interpreter`, `images` or `extensions`");
                    return Err(self.wrong(&key.span(), &sentence));
                }
            }
        }
        Ok(meaning)
    }

    fn extension(&self, name: &Token, key: &Key<'_>, given: &str, before: &BTreeMap<Token, RuntimeDefinition>) -> Result<String, Wrong> {
        let extension = given.trim_start_matches('.').to_ascii_lowercase();
        if extension.is_empty() || extension.contains(['.', '/']) || extension.contains(char::is_whitespace) {
            let sentence = format!(
                "`{}` is not an extension; write it without the dot, as in `\"rkt\"`",
                given.escape_debug()
            );
            return Err(self.wrong(&key.span(), &sentence));
        }
        let ours = before
            .iter()
            .find(|(_, meaning)| meaning.extensions.contains(&extension))
            .map(|(name, _)| name.as_str());
        match runtime::of_extension(&extension).or(ours) {
            Some(other) if other != name.as_str() => {
                let sentence = format!("`.{extension}` files are already run by `{other}`; leave the extension out, or change `{other}`");
                Err(self.wrong(&key.span(), &sentence))
            }
            _ => Ok(extension),
        }
    }

    fn texts(&self, key: &Key<'_>, value: &Spanned<DeValue<'_>>) -> Result<Vec<String>, Wrong> {
        let text = |value: &Spanned<DeValue<'_>>| match value.get_ref() {
            DeValue::String(text) if !text.is_empty() => Some(text.to_string()),
            _ => None,
        };
        let texts = match value.get_ref() {
            DeValue::Array(values) => values.iter().map(text).collect(),
            _ => text(value).map(|text| vec![text]),
        };
        texts.ok_or_else(|| {
            let name = key.get_ref();
            self.wrong(
                &key.span(),
                &format!("`{name}` must be a string, or a list of strings: `{name} = [\"…\", \"…\"]`"),
            )
        })
    }

    fn aliases(&self, table: &DeTable<'_>, runtimes: &BTreeMap<Token, RuntimeDefinition>) -> Result<BTreeMap<Token, Alias>, Wrong> {
        let mut aliases = BTreeMap::new();
        for (key, value) in table {
            let name = self.name("an alias", key)?;
            if runtimes.contains_key(&name) || runtime::is_built_in(name.as_str()) {
                let sentence =
                    format!("`{name}` is a runtime, and cannot also be an alias; give the alias another name, as in `my-{name}`");
                return Err(self.wrong(&key.span(), &sentence));
            }
            let alias = match value.get_ref() {
                DeValue::String(text) => text
                    .parse::<Alias>()
                    .map_err(|error| self.wrong(&value.span(), &error.to_string()))?,
                _ => {
                    return Err(self.wrong(
                        &key.span(),
                        &format!("`{name}` must be a string: `{name} = \"python:3.11\"`, or `\"image:NAME:TAG\"`"),
                    ));
                }
            };
            if let Alias::Runtime(target) = &alias
                && !runtimes.contains_key(&target.name)
                && !runtime::is_built_in(target.name.as_str())
            {
                let sentence = format!(
                    "`{name}` stands for `{target}`, but the runtime `{}` does not exist; use one that is built in, or add `[runtimes.{}]`",
                    target.name, target.name
                );
                return Err(self.wrong(&value.span(), &sentence));
            }
            aliases.insert(name, alias);
        }
        Ok(aliases)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_becomes_what_the_log_keeps() {
        let text = "[aliases]\npy311 = \"python:3.11\"\nscience = \"image:lab/science:2\"\nscheme = \"racket\"\n\n[runtimes.racket]\n\
                    interpreter = \"racket -W error\"\nimages = [\"lab/racket:8\", \"racket/racket:8\"]\nextensions = \".RKT\"\n\n\
                    [runtimes.python]\nimages = \"lab/python:3\"\n";
        let set = read(Path::new("runtimes.toml"), text).expect("it is well-formed");
        let json = serde_json::to_string(&set).expect("JSON");
        assert_eq!(
            json,
            r#"{"runtimes":{"python":{"images":["lab/python:3"]},"racket":{"interpreter":["racket","-W","error"],"images":["lab/racket:8","racket/racket:8"],"extensions":["rkt"]}},"aliases":{"py311":"python:3.11","scheme":"racket","science":"image:lab/science:2"}}"#
        );
        assert_eq!(read(Path::new("x"), TEMPLATE), Ok(RuntimesSet::default()));
        let example = TEMPLATE.replace("\n# [", "\n[").replace("\n# i", "\ni").replace("\n# e", "\ne");
        let example = example.replace("\n# py", "\npy").replace("\n# sc", "\nsc");
        assert_eq!(
            read(Path::new("x"), &example).map(|set| (set.runtimes.len(), set.aliases.len())),
            Ok((1, 2))
        );
    }

    #[test]
    fn an_error_names_its_line_and_what_to_write() {
        for (text, words) in [
            ("\nrkt = 1\n", "line 2: `rkt` is not allowed here; write tables"),
            ("[runtimes.racket\n", "line 1: "),
            (
                "[runtimes]\nracket = \"racket\"\n",
                "line 2: `racket` must be a table: `[runtimes.racket]`",
            ),
            ("[runtimes.\"a b\"]\n", "line 1: `a b` cannot be a runtime's name; use"),
            (
                "[runtimes.racket]\nimages = [\"x\"]\n",
                "line 1: the runtime `racket` needs an interpreter",
            ),
            (
                "[runtimes.racket]\ninterpreter = \" \"\n",
                "line 2: `interpreter` is empty; name a program",
            ),
            (
                "[runtimes.python]\nimages = [\"a b\"]\n",
                "line 2: `a b` is not an image's name; write",
            ),
            ("[runtimes.python]\nimages = [1]\n", "line 2: `images` must be a string, or a list"),
            (
                "[runtimes.python]\nversion = \"3\"\n",
                "line 2: `version` is not allowed in `[runtimes.python]`; write",
            ),
            (
                "[runtimes.python]\nextensions = [\"rb\"]\n",
                "line 2: `.rb` files are already run by `ruby`; leave",
            ),
            (
                "[runtimes.node]\nextensions = [\"a.b\"]\n",
                "line 2: `a.b` is not an extension; write",
            ),
            (
                "[aliases]\n\npython = \"node\"\n",
                "line 3: `python` is a runtime, and cannot also be an alias; give",
            ),
            (
                "[aliases]\npy = \"cobol\"\n",
                "line 2: `py` stands for `cobol`, but the runtime `cobol` does not exist; use",
            ),
            ("[aliases]\npy = \"python:\"\n", "line 2: `python:` is not a runtime"),
            ("[aliases]\npy = \"image:\"\n", "line 2: `image:` is not an image"),
            ("[aliases]\npy = 3\n", "line 2: `py` must be a string: `py = "),
        ] {
            let error = read(Path::new("runtimes.toml"), text).expect_err(text).to_string();
            assert!(error.starts_with("runtimes.toml, ") && error.contains(words), "{text}: {error}");
        }
    }
}
