//! JSON Schemas, subjects and streams as Markdown.

use std::fmt::Write as _;

use serde_json::Value;

/// The definitions of the streams.
const STREAMS: [&str; 8] = [
    include_str!("../../../../nats/streams/RGRID_EVENTS.json"),
    include_str!("../../../../nats/streams/RGRID_INBOX.json"),
    include_str!("../../../../nats/streams/RGRID_REFUSED.json"),
    include_str!("../../../../nats/streams/RGRID_UNDELIVERABLE.json"),
    include_str!("../../../../nats/streams/RGRID_LOGS.json"),
    include_str!("../../../../nats/streams/RGRID_PRESENCE.json"),
    include_str!("../../../../nats/streams/RGRID_HEARTBEATS.json"),
    include_str!("../../../../nats/streams/RGRID_EQUIPMENT.json"),
];

/// Subjects as [`bus::subjects`] spells them.
const SUBJECTS: [(&str, &str); 13] = [
    ("rgrid.submit.<namespace>.<queue>", "submissions by any service: publish here"),
    ("rgrid.refused.<namespace>", "refused submissions, with the reason"),
    (
        "rgrid.undeliverable.<stream>.<sequence>",
        "messages that cannot be delivered, with the reason",
    ),
    (
        "rgrid.fact.<namespace>.job.<job>.>",
        "a job's events, after they are stored: subscribe here, or to `rgrid.fact.>` for all events",
    ),
    (
        "rgrid.evt.<namespace>.job.<job>.ready.<queue>.<class>",
        "in the log: events that make a job ready; the class is priority and size, for example `normal-s`; only the API and the watcher publish here",
    ),
    (
        "rgrid.evt.<namespace>.job.<job>.by.<actor>",
        "in the log: every other event of a job; the actor is `api`, `watcher` or `w-<worker>`",
    ),
    (
        "rgrid.evt.<namespace>.batch.<batch>",
        "in the log: events of a batch; `rgrid.fact.<namespace>.batch.<batch>` after they are stored",
    ),
    (
        "rgrid.evt.sys.worker.<worker>",
        "in the log: events of a worker; `rgrid.fact.sys.worker.<worker>` after they are stored",
    ),
    ("rgrid.evt.sys.runtimes", "in the log: the runtimes and aliases of the deployment"),
    (
        "rgrid.evt.sys.image.<name>",
        "in the log: events of an image that the grid stores; a `.` in the name is written as `=`",
    ),
    ("rgrid.log.<namespace>.<job>.<attempt>", "the output of an attempt, as frames"),
    ("rgrid.hb.<worker>", "a worker's heartbeats"),
    ("rgrid.equipment.<worker>", "a worker's inventory"),
];

/// The rows of the table of subjects.
pub(super) fn subjects() -> String {
    SUBJECTS.map(|(subject, what)| format!("| `{subject}` | {what} |")).join("\n")
}

/// The table of streams.
pub(super) fn streams() -> anyhow::Result<String> {
    let mut text = "| stream | subjects | keeps | content |\n|---|---|---|---|\n".to_owned();
    for definition in STREAMS {
        let stream: Value = serde_json::from_str(definition)?;
        let subjects = match (stream["subjects"].as_array(), stream["sources"][0]["name"].as_str()) {
            (Some(subjects), _) => subjects
                .iter()
                .filter_map(Value::as_str)
                .map(|subject| format!("`{subject}`"))
                .collect::<Vec<_>>()
                .join(", "),
            (None, Some(source)) => format!("the subjects of `{source}`"),
            (None, None) => String::new(),
        };
        let word = |name: &str| stream[name].as_str().unwrap_or_default().to_owned();
        let _ = writeln!(
            text,
            "| `{}` | {subjects} | {} | {} |",
            word("name"),
            keeps(&stream),
            word("description")
        );
    }
    Ok(text.trim_end().to_owned())
}

fn keeps(stream: &Value) -> String {
    let mut parts = Vec::new();
    if let Some(age) = stream["max_age"].as_u64().filter(|age| *age > 0) {
        parts.push(format!("{} h", age / 3_600_000_000_000));
    }
    if let Some(bytes) = stream["max_bytes"].as_u64() {
        parts.push(format!("{} MiB", bytes >> 20));
    }
    let full = if stream["discard"] == "new" {
        "then refuses"
    } else {
        "then removes the oldest"
    };
    format!("{}, {full}", parts.join(", "))
}

/// A type's description and its body.
pub(super) fn described(schema: &Value) -> String {
    match schema["description"].as_str() {
        Some(text) => format!("{}\n\n{}", prose(text), body(schema)),
        None => body(schema),
    }
}

/// What a type consists of: a table of its fields, its variants, or a line.
pub(super) fn body(schema: &Value) -> String {
    if let Some(variants) = schema["oneOf"].as_array() {
        return variants_of(variants);
    }
    if schema["properties"].as_object().is_some() {
        return fields(schema);
    }
    let mut line = type_of(schema);
    if let Some(pattern) = schema["pattern"].as_str() {
        let _ = write!(line, ", of the form `{}`", pattern.replace('|', "\\|"));
    }
    format!("{line}\n")
}

fn variants_of(variants: &[Value]) -> String {
    let mut text = String::new();
    for variant in variants {
        let says = variant["description"].as_str().map(prose).unwrap_or_default();
        if let Some(names) = variant["enum"].as_array() {
            let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            let _ = writeln!(text, "- {}: {says}", names.join(", "));
        } else if let Some(name) = variant["const"].as_str() {
            let _ = writeln!(text, "- `\"{name}\"`: {says}");
        } else if let Some((tag, name)) = tag_of(variant) {
            let _ = writeln!(text, "- `{{\"{tag}\": \"{name}\"{}}}`: {says}", others(variant, tag));
        }
    }
    text
}

/// The field that tells a variant, and what it holds.
fn tag_of(variant: &Value) -> Option<(&str, &str)> {
    variant["properties"]
        .as_object()?
        .iter()
        .find_map(|(name, field)| Some((name.as_str(), field["const"].as_str()?)))
}

/// The other fields of a variant, with their types.
fn others(variant: &Value, tag: &str) -> String {
    let fields = variant["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| *name != tag);
    fields
        .map(|(name, field)| {
            let says = field["description"]
                .as_str()
                .map(|text| format!(" ({})", prose(text).trim_end_matches('.')))
                .unwrap_or_default();
            format!(", \"{name}\": {}{says}", plain(&type_of(field)))
        })
        .collect()
}

fn fields(schema: &Value) -> String {
    let mut text = "| field | type | meaning |\n|---|---|---|\n".to_owned();
    let required: Vec<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let optional = if required.contains(&name.as_str()) { "" } else { ", optional" };
        let says = field["description"].as_str().map(prose).unwrap_or_default();
        let default = field
            .get("default")
            .filter(|value| is_telling(value))
            .map(|value| format!(" Default: `{value}`."))
            .unwrap_or_default();
        let _ = writeln!(text, "| `{name}` | {}{optional} | {says}{default} |", type_of(field));
    }
    text
}

/// A default that a reader would not guess.
fn is_telling(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Bool(true) => true,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => fields.values().any(is_telling),
    }
}

fn type_of(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return format!("[{name}](#{})", name.to_lowercase());
    }
    if let Some(several) = schema["anyOf"].as_array().or(schema["oneOf"].as_array()) {
        let names: Vec<String> = several.iter().filter(|one| one["type"] != "null").map(type_of).collect();
        return names.join(" or ");
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null"),
        other => other.as_str(),
    };
    match kind {
        Some("array") if schema["prefixItems"].is_array() => {
            let items: Vec<String> = schema["prefixItems"].as_array().into_iter().flatten().map(type_of).collect();
            format!("[{}]", items.join(", "))
        }
        Some("array") => format!("list of {}", type_of(&schema["items"])),
        Some("object") if schema["additionalProperties"].is_object() => format!("map to {}", type_of(&schema["additionalProperties"])),
        Some("string") => match schema["format"].as_str() {
            Some("date-time") => "time (RFC 3339)".to_owned(),
            Some("uuid") => "UUID".to_owned(),
            _ => "text".to_owned(),
        },
        Some("boolean") => "true or false".to_owned(),
        Some(other) => other.to_owned(),
        None => "any".to_owned(),
    }
}

/// A type without its link, for code.
fn plain(text: &str) -> String {
    text.split_once("](")
        .map_or_else(|| text.to_owned(), |(name, _)| name.trim_start_matches('[').to_owned())
}

/// Rust's doc comments: one line, links to items as code.
fn prose(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line
        .replace("[`crate::output::frame`]", "[Logs](#logs)")
        .replace("[`crate::output::manifest::Manifest`]", "[Manifest](#manifest)")
        .replace("[`crate::job::Outcome::exit_code`]", "[Outcome](#outcome)")
        .replace("[`crate::spec::policy::MAX_LOSSES`]", &bus::spec::policy::MAX_LOSSES.to_string());
    line.replace('|', "\\|")
}
