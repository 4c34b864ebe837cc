//! Whether two jobs are the same computation, so that one job's result can be reused for the other.

use sha2::{Digest as _, Sha256};

use crate::{
    ids::{Digest, Namespace, default_token},
    spec::{ExecutorKind, JobSpec, Priority, Resources},
};

/// The version of this key's format. Another version makes other keys.
const FORM: &str = "rgrid-reuse-1";

/// The reuse key of a job in its namespace: jobs with the same key have the same result, as far as a script's result depends only on its
/// inputs.
///
/// The key leaves out where, when, how often and under which limits the job runs, and its name. Everything else is part of the key,
/// including fields that later versions add: a key that differs needlessly costs one run, a key that is equal by mistake would return a
/// wrong result. `None` for a job with secrets, whose values are not in the spec, and for a job that runs nothing.
#[must_use]
pub fn key(namespace: &Namespace, spec: &JobSpec) -> Option<Digest> {
    if !spec.secrets.is_empty() || spec.executor == Some(ExecutorKind::Noop) {
        return None;
    }
    let mut relevant = JobSpec {
        name: None,
        keep_outputs_ms: None,
        resources: Resources::default(),
        timeout_ms: None,
        queue_timeout_ms: None,
        total_timeout_ms: None,
        grace_ms: None,
        retry: None,
        max_losses: None,
        start: None,
        queue: default_token(),
        priority: Priority::default(),
        labels: std::collections::BTreeMap::new(),
        batch: None,
        origin: None,
        key: None,
        ..spec.clone()
    };
    // The same content is the same input, whatever its age.
    relevant.inputs.iter_mut().for_each(|input| input.modified_ms = None);
    relevant.inputs.sort_by(|a, b| a.path.cmp(&b.path));
    let json = serde_json::to_vec(&relevant).ok()?;
    let parts = [FORM.as_bytes(), namespace.as_str().as_bytes(), &json];
    let hasher = parts
        .into_iter()
        .fold(Sha256::new(), |hasher, part| hasher.chain_update(part).chain_update([0]));
    Some(Digest::finish(hasher))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::spec::InputFile;

    fn input(path: &str, content: &str) -> InputFile {
        InputFile {
            path: path.parse().expect("a path"),
            sha256: Digest::of(content.as_bytes()),
            size: content.len() as u64,
            executable: false,
            mode: None,
            modified_ms: None,
        }
    }

    fn job() -> JobSpec {
        JobSpec {
            runtime: Some("python".parse().expect("a token")),
            inputs: vec![input("s.py", "1"), input("a.csv", "2")],
            ..JobSpec::new(vec!["s.py".to_owned(), "a.csv".to_owned()])
        }
    }

    #[test]
    fn only_what_a_result_depends_on_is_part_of_the_key() {
        let pair = || BTreeMap::from([("A".to_owned(), "b".to_owned())]);
        let of = |change: &dyn Fn(&mut JobSpec)| {
            let mut spec = job();
            change(&mut spec);
            key(&default_token(), &spec)
        };
        let same = of(&|_| ());
        assert!(same.is_some());
        assert_eq!(of(&|spec| spec.inputs.reverse()), same);
        assert_eq!(of(&|spec| spec.inputs[0].modified_ms = Some(7)), same);
        assert_eq!(of(&|spec| spec.labels = pair()), same);
        assert_eq!(of(&|spec| spec.name = Some("x".to_owned())), same);
        assert_eq!(of(&|spec| spec.keep_outputs_ms = Some(1)), same);
        assert_eq!(of(&|spec| (spec.timeout_ms, spec.priority) = (Some(1), Priority::High)), same);
        assert_eq!(
            of(&|spec| (spec.key, spec.resources.cpu_limit) = (Some("k".to_owned()), true)),
            same
        );
        let others = [
            of(&|spec| spec.env = pair()),
            of(&|spec| spec.command.push("x".to_owned())),
            of(&|spec| spec.inputs[0].sha256 = Digest::of(b"3")),
            of(&|spec| spec.inputs[0].executable = true),
            of(&|spec| spec.inputs[0].mode = Some(0o600)),
            of(&|spec| spec.image = Some("python:3".to_owned())),
            of(&|spec| spec.runtime = None),
            of(&|spec| spec.executor = Some(ExecutorKind::Docker)),
            key(&"other".parse().expect("a token"), &job()),
        ];
        for (place, other) in others.iter().enumerate() {
            assert!(other.is_some() && *other != same && !others[..place].contains(other), "{place}");
        }
        assert_eq!(of(&|spec| spec.secrets = BTreeMap::from([("T".to_owned(), default_token())])), None);
        assert_eq!(of(&|spec| spec.executor = Some(ExecutorKind::Noop)), None);
    }
}
