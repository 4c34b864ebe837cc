//! The runtimes and aliases of a deployment: what its `runtimes.toml` says, as the log keeps it.

use std::{borrow::Cow, collections::BTreeMap, fmt, path::Path, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    envelope::{DecodeError, Event, data},
    ids::{ParseError, Token},
    spec::{
        Refusal,
        runtime::{self, RuntimeRef},
        submission::Submission,
    },
};

/// What happens to the deployment's table. On `rgrid.evt.sys.runtimes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum RuntimesEvent {
    /// It is this from now on.
    Set(RuntimesSet),
}

/// `runtimes.set.v1`: all of the table; what stood there before does not count any more.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct RuntimesSet {
    /// Runtimes that are not built in, and other meanings of those that are, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub runtimes: BTreeMap<Token, Meaning>,
    /// Other names of runtimes and images. A job is stored with what its alias means.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub aliases: BTreeMap<Token, Alias>,
}

/// What a runtime is. What is empty stays as it is built in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Meaning {
    /// The interpreter, and its own arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interpreter: Vec<String>,
    /// The images that have it: the first that is there is used, and if none is, the last is pulled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// The extensions of scripts that it runs, without the dot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<String>,
}

/// What an alias means: a runtime (`python:3.11`), or an image (`image:lab/science:2`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alias {
    /// A runtime, and a version where that matters.
    Runtime(RuntimeRef),
    /// An image, by its name.
    Image(String),
}

/// What an alias or a user's `--runtime` begins with where it names an image.
pub const IMAGE: &str = "image:";

impl RuntimesSet {
    /// The runtime that runs scripts with this extension, where the deployment says so.
    #[must_use]
    pub fn of_extension(&self, extension: &str) -> Option<&Token> {
        let runs = |meaning: &Meaning| meaning.extensions.iter().any(|known| known.eq_ignore_ascii_case(extension));
        self.runtimes.iter().find(|(_, meaning)| runs(meaning)).map(|(name, _)| name)
    }

    /// What `text` means, if it is an alias.
    ///
    /// # Errors
    /// A [`Refusal`] where an alias is asked for in a version: it has one.
    pub fn alias(&self, text: &str) -> Result<Option<&Alias>, Refusal> {
        let Ok(RuntimeRef { name, version }) = text.parse() else {
            return Ok(None);
        };
        match (self.aliases.get(&name), version) {
            (Some(alias), None) => Ok(Some(alias)),
            (Some(alias), Some(_)) => Err(Refusal(format!(
                "`{name}` stands for {alias} on this grid, and takes no version: write `{name}`, or the runtime and version that you mean"
            ))),
            (None, _) => Ok(None),
        }
    }

    /// Puts what a submission's runtime stands for in its place, so that the job is the same whatever the alias means later.
    ///
    /// # Errors
    /// A [`Refusal`] where it is an alias of an image, and cannot be had with what else is asked for.
    pub fn resolve(&self, submission: &mut Submission) -> Result<(), Refusal> {
        let Some(named) = submission.runtime.as_deref() else {
            return Ok(());
        };
        match self.alias(named)? {
            None => {}
            Some(Alias::Runtime(runtime)) => submission.runtime = Some(runtime.to_string()),
            Some(Alias::Image(image)) => {
                if let Some(other) = submission.image.as_ref().filter(|other| *other != image) {
                    return Err(Refusal(format!(
                        "the runtime `{named}` stands for the image `{image}` on this grid, and the job names the image `{other}`: leave one of them out"
                    )));
                }
                submission.image = Some(image.clone());
                // The image does not say what runs a script in it; the script's name does.
                submission.runtime = submission.command.first().and_then(|script| self.told_by(script));
            }
        }
        Ok(())
    }

    fn told_by(&self, script: &str) -> Option<String> {
        let extension = Path::new(script).extension()?.to_str()?;
        let ours = self.of_extension(extension).map(Token::as_str);
        ours.or_else(|| runtime::of_extension(extension)).map(ToOwned::to_owned)
    }
}

impl Event for RuntimesEvent {
    fn kind(&self) -> &'static str {
        match self {
            Self::Set(_) => "runtimes.set.v1",
        }
    }

    fn decode(kind: &str, raw: &RawValue) -> Result<Self, DecodeError> {
        match kind {
            "runtimes.set.v1" => Ok(Self::Set(data(kind, raw)?)),
            _ => Err(DecodeError::UnknownType { kind: kind.to_owned() }),
        }
    }
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runtime(runtime) => runtime.fmt(f),
            Self::Image(image) => write!(f, "{IMAGE}{image}"),
        }
    }
}

impl FromStr for Alias {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text.strip_prefix(IMAGE) {
            Some(image) if crate::spec::submission::is_image(image) => Ok(Self::Image(image.to_owned())),
            Some(_) => Err(ParseError {
                text: text.to_owned(),
                expected: "an image (`image:NAME:TAG`, as `docker run` takes it)",
            }),
            None => text.parse().map(Self::Runtime),
        }
    }
}

impl Serialize for Alias {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Alias {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Alias {
    fn schema_name() -> Cow<'static, str> {
        "Alias".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> RuntimesSet {
        serde_json::from_str(
            r#"{"runtimes":{"racket":{"interpreter":["racket"],"extensions":["rkt"]}},
                "aliases":{"py311":"python:3.11","science":"image:lab/science:2"}}"#,
        )
        .expect("a table")
    }

    fn resolved(runtime: &str, command: &str, image: Option<&str>) -> Result<(Option<String>, Option<String>), Refusal> {
        let mut submission = Submission {
            command: vec![command.to_owned()],
            runtime: Some(runtime.to_owned()),
            image: image.map(ToOwned::to_owned),
            ..Submission::default()
        };
        table().resolve(&mut submission)?;
        Ok((submission.runtime, submission.image))
    }

    #[test]
    fn a_job_is_stored_with_what_its_alias_means() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(resolved("py311", "a.py", None), Ok((text("python:3.11"), None)));
        assert_eq!(resolved("science", "a.py", None), Ok((text("python"), text("lab/science:2"))));
        assert_eq!(resolved("science", "a.rkt", None), Ok((text("racket"), text("lab/science:2"))));
        assert_eq!(resolved("science", "tool", None), Ok((None, text("lab/science:2"))));
        assert_eq!(resolved("racket", "tool", None), Ok((text("racket"), None)));
        assert_eq!(resolved("no such", "a.py", None), Ok((text("no such"), None)), "others refuse that");
    }

    #[test]
    fn what_an_alias_cannot_be_had_with_is_refused() {
        let refused = |runtime, image| resolved(runtime, "a.py", image).expect_err("refused").0;
        assert!(refused("py311:3", None).contains("takes no version"));
        assert!(refused("science", Some("other")).contains("leave one of them out"));
        assert!("image:".parse::<Alias>().is_err() && "image:a b".parse::<Alias>().is_err());
    }
}
