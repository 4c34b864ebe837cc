//! Builds a submission from the options.

use std::collections::BTreeMap;

use bus::spec::{Resources, submission::Submission};

use super::{
    RunArgs,
    args::{policy::Policies, resolved::Resolved},
};
use crate::values::{ByteSize, Cpus, Pair, Span};

/// The variables of the script's first line, overridden by those that the user sets.
pub(crate) fn with_shebang_env(own: BTreeMap<String, String>, args: &RunArgs) -> BTreeMap<String, String> {
    let Resolved { env, secrets, .. } = &args.resolved;
    let own = own.into_iter().filter(|(name, _)| !secrets.contains_key(name));
    own.chain(env.clone()).collect()
}

/// The part of the submission that the options determine: everything except the command.
pub(crate) fn submission(args: &RunArgs, policies: &Policies) -> Submission {
    let pairs = |pairs: &[Pair]| pairs.iter().map(|pair| (pair.key.clone(), pair.value.clone())).collect();
    Submission {
        image: args.named_image().map(str::to_owned),
        executor: args.executor.map(Into::into),
        name: args.name.clone(),
        outputs: args.files.outputs(),
        keep_outputs_ms: args.files.keep_outputs.map(Span::millis),
        env: args.resolved.env.clone(),
        secrets: args.resolved.secrets.clone(),
        resources: resources(args.cpu, args.memory, args.shm),
        timeout_ms: policies.timeout_ms,
        queue_timeout_ms: policies.queue_timeout_ms,
        total_timeout_ms: policies.total_timeout_ms,
        grace_ms: policies.grace_ms,
        retry: policies.retry.clone(),
        max_losses: policies.max_losses,
        start: policies.start.clone(),
        queue: args.queue.clone(),
        priority: args.priority.into(),
        labels: pairs(&args.label),
        key: args.idempotency_key.clone(),
        ..Submission::default()
    }
}

fn resources(cpu: Option<Cpus>, memory: Option<ByteSize>, shm: Option<ByteSize>) -> Option<Resources> {
    if cpu.is_none() && memory.is_none() && shm.is_none() {
        return None;
    }
    let default = Resources::default();
    Some(Resources {
        cpu_milli: cpu.map_or(default.cpu_milli, |cpus| cpus.0),
        memory_bytes: memory.map(|size| size.0),
        cpu_limit: cpu.is_some(),
        shm_bytes: shm.map(|size| size.0),
    })
}
