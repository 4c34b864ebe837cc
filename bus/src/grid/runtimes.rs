//! The runtimes and aliases of a deployment: the content of its `runtimes.toml`, as the log stores it.

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

/// The events of the deployment's runtimes. On `rgrid.evt.sys.runtimes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum RuntimesEvent {
    /// The deployment's runtimes and aliases were replaced.
    Set(RuntimesSet),
}

/// `runtimes.set.v1`: all runtimes and aliases. Earlier ones are no longer valid.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct RuntimesSet {
    /// Runtimes that are not built in, and changed definitions of built-in runtimes, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub runtimes: BTreeMap<Token, RuntimeDefinition>,
    /// Aliases of runtimes and images. When a job is accepted, its alias is replaced.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub aliases: BTreeMap<Token, Alias>,
}

/// The definition of a runtime. For a built-in runtime, an empty field keeps the built-in value.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct RuntimeDefinition {
    /// The interpreter, and its own arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interpreter: Vec<String>,
    /// The runtime's images. The first one that the worker has is used; if it has none of them, the last one is pulled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// The file extensions of the runtime's scripts, without the dot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<String>,
}

/// The target of an alias: a runtime (`python:3.11`), or an image (`image:lab/science:2`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alias {
    /// A runtime, optionally with a version.
    Runtime(RuntimeRef),
    /// An image, by its name.
    Image(String),
}

/// The prefix of an image in an alias and in a user's `--runtime`.
pub const IMAGE: &str = "image:";

impl RuntimesSet {
    /// The deployment's runtime for scripts with this extension.
    #[must_use]
    pub fn of_extension(&self, extension: &str) -> Option<&Token> {
        let runs = |meaning: &RuntimeDefinition| meaning.extensions.iter().any(|known| known.eq_ignore_ascii_case(extension));
        self.runtimes.iter().find(|(_, meaning)| runs(meaning)).map(|(name, _)| name)
    }

    /// The target of `text`, if it is an alias.
    ///
    /// # Errors
    /// A [`Refusal`] if `text` is an alias with a version. An alias has a fixed version.
    pub fn alias(&self, text: &str) -> Result<Option<&Alias>, Refusal> {
        let Ok(RuntimeRef { name, version }) = text.parse() else {
            return Ok(None);
        };
        match (self.aliases.get(&name), version) {
            (Some(alias), None) => Ok(Some(alias)),
            (Some(alias), Some(_)) => Err(Refusal(format!(
                "`{name}` is an alias of {alias} on this grid, and takes no version; write `{name}`, or the runtime and version that you want"
            ))),
            (None, _) => Ok(None),
        }
    }

    /// Replaces an alias in a submission by its target, so that the job stays the same when the alias changes later.
    ///
    /// # Errors
    /// A [`Refusal`] if the alias cannot be used, or conflicts with the submission's image.
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
                        "the runtime `{named}` is an alias of the image `{image}` on this grid, but the job names the image `{other}`; leave one of them out"
                    )));
                }
                submission.image = Some(image.clone());
                // The image does not determine the runtime, but the script's extension does.
                submission.runtime = submission.command.first().and_then(|script| self.runtime_of(script));
            }
        }
        Ok(())
    }

    fn runtime_of(&self, script: &str) -> Option<String> {
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
                expected: "an image (`image:NAME:TAG`, as for `docker run`)",
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
    fn a_job_is_stored_with_the_target_of_its_alias() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(resolved("py311", "a.py", None), Ok((text("python:3.11"), None)));
        assert_eq!(resolved("science", "a.py", None), Ok((text("python"), text("lab/science:2"))));
        assert_eq!(resolved("science", "a.rkt", None), Ok((text("racket"), text("lab/science:2"))));
        assert_eq!(resolved("science", "tool", None), Ok((None, text("lab/science:2"))));
        assert_eq!(resolved("racket", "tool", None), Ok((text("racket"), None)));
        assert_eq!(
            resolved("no such", "a.py", None),
            Ok((text("no such"), None)),
            "other checks refuse that"
        );
    }

    #[test]
    fn an_alias_that_conflicts_with_the_submission_is_refused() {
        let refused = |runtime, image| resolved(runtime, "a.py", image).expect_err("refused").0;
        assert!(refused("py311:3", None).contains("takes no version"));
        assert!(refused("science", Some("other")).contains("leave one of them out"));
        assert!("image:".parse::<Alias>().is_err() && "image:a b".parse::<Alias>().is_err());
    }
}
