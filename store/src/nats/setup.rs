//! The configuration of a bucket's stream.

use async_nats::jetstream::stream::{Config, DiscardPolicy};
use bus::ids::Token;

use super::error::Error;

/// The stream of a bucket that does not exist yet.
pub(super) fn config(name: &Token, replicas: usize) -> Config {
    Config {
        name: format!("OBJ_{name}"),
        description: Some("rgrid: files by content".to_owned()),
        subjects: vec![format!("$O.{name}.C.>"), format!("$O.{name}.M.>")],
        discard: DiscardPolicy::New,
        allow_rollup: true,
        allow_direct: true,
        num_replicas: replicas,
        ..Config::default()
    }
}

/// Checks the settings that reading and writing files depend on. More replicas than configured are allowed.
pub(super) fn check(wanted: &Config, found: &Config) -> Result<(), Error> {
    let unfit = |field, found: String, needed: String| {
        Err(Error::Unfit {
            stream: wanted.name.clone(),
            field,
            found,
            needed,
        })
    };
    let forbidden = [("sealed", found.sealed), ("deny_purge", found.deny_purge), ("no_ack", found.no_ack)];
    let required = [("allow_rollup_hdrs", found.allow_rollup), ("allow_direct", found.allow_direct)];
    if let Some((field, _)) = forbidden.iter().find(|(_, set)| *set) {
        return unfit(field, "true".to_owned(), "false".to_owned());
    }
    if let Some((field, _)) = required.iter().find(|(_, set)| !*set) {
        return unfit(field, "false".to_owned(), "true".to_owned());
    }
    if !wanted.subjects.iter().all(|subject| found.subjects.contains(subject)) {
        return unfit("subjects", format!("{:?}", found.subjects), format!("{:?}", wanted.subjects));
    }
    if found.discard != DiscardPolicy::New {
        return unfit(
            "discard",
            "old".to_owned(),
            "new (otherwise the oldest chunks are dropped when it is full)".to_owned(),
        );
    }
    if !found.max_age.is_zero() {
        return unfit(
            "max_age",
            format!("{:?}", found.max_age),
            "0 (files do not expire one chunk at a time)".to_owned(),
        );
    }
    if found.num_replicas < wanted.num_replicas {
        return unfit(
            "num_replicas",
            found.num_replicas.to_string(),
            format!("at least {}", wanted.num_replicas),
        );
    }
    Ok(())
}
