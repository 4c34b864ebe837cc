//! Arbitrary events, and that they are read from the log as they were written.

use chrono::{DateTime, Utc};
use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
};

use crate::{
    batch::BatchMember,
    envelope::{Actor, Envelope},
    ids::{Attempt, Digest, EventId, JobId, SessionId, Token},
    job::{
        CancelRequested, Cancelled, Claimed, Died, Expired, Finished, JobEvent, LossCause, ManifestRef, Outcome, Released, Requeued,
        Rescheduled, Returned, Started, Submitted, Usage,
    },
    log::read::{Fact, decode},
    spec::{
        ExecutorKind, InputFile, JobSpec, Origin, OriginKind, Priority, RelPath, Resources,
        dependencies::{Dependencies, Kind},
        policy::{Clock, Dependency, DependsOn, Retry, Start},
        runtime::RuntimeRef,
        tree::{Content, TreeRef},
    },
    subjects,
};

fn uuid() -> impl Strategy<Value = uuid::Uuid> {
    any::<u128>().prop_map(uuid::Uuid::from_u128)
}

fn session() -> impl Strategy<Value = SessionId> {
    uuid().prop_map(SessionId::from)
}

fn attempt() -> impl Strategy<Value = Attempt> {
    any::<u32>().prop_map(Attempt)
}

fn token() -> impl Strategy<Value = Token> {
    "[A-Za-z0-9_-]{1,64}".prop_map(|text| text.parse().expect("a token"))
}

fn actor() -> impl Strategy<Value = Actor> {
    prop_oneof![Just(Actor::Api), Just(Actor::Watcher), token().prop_map(Actor::Worker)]
}

fn executor() -> impl Strategy<Value = ExecutorKind> {
    prop_oneof![Just(ExecutorKind::Docker), Just(ExecutorKind::Process), Just(ExecutorKind::Noop)]
}

fn runtime() -> impl Strategy<Value = RuntimeRef> {
    (token(), option::of("[A-Za-z0-9._-]{1,32}")).prop_map(|(name, version)| RuntimeRef { name, version })
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 8]>().prop_map(|bytes| Digest::of(&bytes))
}

fn input() -> impl Strategy<Value = InputFile> {
    let part = "[^/\\x00]{1,20}".prop_filter("a name", |part| part != "." && part != "..");
    let path = vec(part, 1..4).prop_map(|parts| parts.join("/").parse::<RelPath>().expect("a path"));
    let mode = option::of(0..=0o777_u32);
    (path, digest(), any::<u64>(), any::<bool>(), mode).prop_map(|(path, sha256, size, executable, mode)| InputFile {
        modified_ms: mode.map(i64::from),
        path,
        sha256,
        size,
        executable,
        mode,
    })
}

fn resources() -> impl Strategy<Value = Resources> {
    let sizes = (option::of(any::<u64>()), option::of(any::<u64>()));
    (any::<u32>(), sizes, any::<bool>()).prop_map(|(cpu_milli, (memory_bytes, shm_bytes), cpu_limit)| Resources {
        cpu_milli,
        memory_bytes,
        cpu_limit,
        shm_bytes,
    })
}

fn time() -> impl Strategy<Value = DateTime<Utc>> {
    // To the microsecond, over four thousand years.
    (0..126_230_400_000_000_000_i64).prop_map(|us| DateTime::<Utc>::from_timestamp_micros(us).expect("in range"))
}

fn clock() -> impl Strategy<Value = Clock> {
    prop_oneof![Just(Clock::Attempt), Just(Clock::Queue), Just(Clock::Total)]
}

fn retry() -> impl Strategy<Value = Retry> {
    (any::<u32>(), vec(any::<i32>(), 0..3), any::<u64>(), any::<u64>()).prop_map(|(max, on, backoff_ms, max_backoff_ms)| Retry {
        max,
        on,
        backoff_ms,
        max_backoff_ms,
    })
}

fn start() -> impl Strategy<Value = Start> {
    let on = prop_oneof![Just(DependsOn::Succeeded), Just(DependsOn::Ended)];
    let dependency = (uuid().prop_map(JobId::from), on).prop_map(|(job, on)| Dependency { job, on });
    (any::<Option<u64>>(), option::of(time()), vec(dependency, 0..3), any::<bool>()).prop_map(|(delay_ms, at, after, window)| Start {
        delay_ms,
        at,
        after,
        window,
    })
}

fn member() -> impl Strategy<Value = BatchMember> {
    (uuid(), any::<u32>(), any::<String>(), option::of(uuid())).prop_map(|(batch, index, item, of)| BatchMember {
        batch: batch.into(),
        index,
        item,
        of: of.map(JobId::from),
    })
}

fn origin() -> impl Strategy<Value = Origin> {
    let kind = prop_oneof![Just(OriginKind::Rerun), Just(OriginKind::Retry)];
    (uuid().prop_map(JobId::from), kind).prop_map(|(job, kind)| Origin { job, kind })
}

fn dependencies() -> impl Strategy<Value = Dependencies> {
    let kind = prop_oneof![Just(Kind::Pip), Just(Kind::Npm)];
    (kind, any::<String>(), any::<u32>(), option::of(any::<String>()), vec(input(), 0..3)).prop_map(
        |(kind, declared_in, packages, python, files)| Dependencies {
            kind,
            declared_in,
            packages,
            python,
            files,
        },
    )
}

fn spec() -> impl Strategy<Value = JobSpec> {
    let text = || option::of(any::<String>());
    let map = || btree_map(any::<String>(), any::<String>(), 0..3);
    let priority = prop_oneof![Just(Priority::High), Just(Priority::Normal), Just(Priority::Low)];
    let names = (
        text(),
        vec(any::<String>(), 1..4),
        option::of(runtime()),
        text(),
        option::of(executor()),
    );
    let secrets = btree_map(any::<String>(), token(), 0..3);
    let content = || (digest(), any::<u64>()).prop_map(|(sha256, size)| Content { sha256, size });
    let tree = (content(), any::<[u64; 2]>()).prop_map(|(list, [files, bytes])| TreeRef {
        sha256: list.sha256,
        size: list.size,
        files,
        bytes,
    });
    let outputs = option::of(vec(any::<String>(), 0..3));
    let inputs = (vec(input(), 0..3), option::of(tree), option::of(content()), outputs);
    let inputs = (inputs, option::of(dependencies()));
    let files = (inputs, map(), resources(), option::of(any::<u64>()), secrets);
    let clocks = any::<(Option<u64>, Option<u64>, Option<u64>, Option<u32>)>();
    let policies = (clocks, option::of(retry()), option::of(start()));
    let lane = (token(), priority, map(), text(), option::of(member()), option::of(origin()));
    (names, files, lane, policies).prop_map(|(names, files, lane, (clocks, retry, start))| JobSpec {
        queue_timeout_ms: clocks.0,
        total_timeout_ms: clocks.1,
        grace_ms: clocks.2,
        max_losses: clocks.3,
        retry,
        start,
        name: names.0,
        command: names.1,
        runtime: names.2,
        image: names.3,
        executor: names.4,
        inputs: files.0.0.0,
        tree: files.0.0.1,
        stdin: files.0.0.2,
        dir: files
            .0
            .0
            .3
            .as_ref()
            .filter(|outputs| outputs.len() == 1)
            .map(|_| "app/src".parse().expect("a path")),
        keep_outputs_ms: files.0.0.3.as_ref().map(|outputs| outputs.len() as u64 + 1),
        outputs: files.0.0.3,
        dependencies: files.0.1,
        env: files.1,
        resources: files.2,
        timeout_ms: files.3,
        secrets: files.4,
        origin: lane.5,
        queue: lane.0,
        priority: lane.1,
        labels: lane.2,
        key: lane.3,
        batch: lane.4,
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Succeeded),
        any::<i32>().prop_map(|exit_code| Outcome::Failed { exit_code }),
        any::<i32>().prop_map(|signal| Outcome::Signalled { signal }),
        (any::<u64>(), clock()).prop_map(|(limit_ms, clock)| Outcome::TimedOut { limit_ms, clock }),
        any::<Option<u64>>().prop_map(|limit_bytes| Outcome::OutOfMemory { limit_bytes }),
        Just(Outcome::Cancelled),
        (any::<String>(), any::<bool>()).prop_map(|(message, not_found)| Outcome::Error { message, not_found }),
    ]
}

fn cause() -> impl Strategy<Value = LossCause> {
    (token(), 0..4).prop_map(|(worker, kind)| match kind {
        0 => LossCause::WorkerLost { worker },
        1 => LossCause::SessionEnded { worker, orderly: false },
        2 => LossCause::SessionEnded { worker, orderly: true },
        _ => LossCause::Orphaned { worker },
    })
}

fn manifest() -> impl Strategy<Value = ManifestRef> {
    (digest(), any::<[u64; 7]>()).prop_map(
        |(sha256, [files, links, bytes, stdout_bytes, stderr_bytes, deleted, notes])| ManifestRef {
            sha256,
            files,
            links,
            bytes,
            stdout_bytes,
            stderr_bytes,
            deleted,
            notes,
        },
    )
}

fn finished() -> impl Strategy<Value = Finished> {
    let usage = any::<(u64, Option<u64>, Option<u64>)>().prop_map(|(wall_ms, cpu_ms, memory_bytes)| Usage {
        wall_ms,
        cpu_ms,
        memory_bytes,
    });
    let all = (attempt(), session(), outcome(), option::of(manifest()), usage, any::<Option<u64>>());
    all.prop_map(|(attempt, session, outcome, manifest, usage, retry_after_ms)| Finished {
        attempt,
        session,
        outcome,
        manifest,
        usage,
        retry_after_ms,
    })
}

/// Any event of a job.
pub(super) fn event() -> impl Strategy<Value = JobEvent> {
    let reason = || any::<Option<String>>();
    prop_oneof![
        spec().prop_map(|spec| JobEvent::Submitted(Box::new(Submitted { spec }))),
        (attempt(), token(), session()).prop_map(|(attempt, worker, session)| JobEvent::Claimed(Claimed { attempt, worker, session })),
        (attempt(), session(), executor(), any::<Option<String>>()).prop_map(|(attempt, session, executor, environment)| {
            JobEvent::Started(Started {
                attempt,
                session,
                executor,
                environment,
            })
        }),
        finished().prop_map(|finished| JobEvent::Finished(Box::new(finished))),
        (attempt(), session(), any::<bool>()).prop_map(|(attempt, session, interrupted)| JobEvent::Returned(Returned {
            attempt,
            session,
            interrupted
        })),
        (attempt(), cause(), spec(), any::<u32>(), option::of(time())).prop_map(|(attempt, cause, spec, failures, deadline)| {
            JobEvent::Rescheduled(Box::new(Rescheduled {
                attempt,
                cause,
                spec,
                failures,
                deadline,
            }))
        }),
        (attempt(), spec(), any::<u32>(), option::of(time())).prop_map(|(attempt, spec, failures, deadline)| {
            JobEvent::Released(Box::new(Released {
                attempt,
                spec,
                failures,
                deadline,
            }))
        }),
        (attempt(), spec(), reason()).prop_map(|(attempt, spec, reason)| JobEvent::Requeued(Box::new(Requeued { attempt, spec, reason }))),
        (clock(), any::<u64>()).prop_map(|(clock, limit_ms)| JobEvent::Expired(Expired { clock, limit_ms })),
        reason().prop_map(|reason| JobEvent::CancelRequested(CancelRequested { reason })),
        reason().prop_map(|reason| JobEvent::Cancelled(Cancelled { reason })),
        (attempt(), cause()).prop_map(|(attempt, cause)| JobEvent::Died(Died { attempt, cause })),
    ]
}

fn envelope() -> impl Strategy<Value = Envelope<JobEvent>> {
    let id = || uuid().prop_map(EventId::from);
    (id(), time(), actor(), option::of(id()), option::of(id()), event()).prop_map(
        |(id, time, actor, causation_id, correlation_id, event)| Envelope {
            id,
            time,
            actor,
            causation_id,
            correlation_id,
            event,
        },
    )
}

proptest! {
    #[test]
    fn any_event_is_read_from_the_log_as_it_was_written(envelope in envelope(), namespace in token(), job in uuid(), sequence: u64) {
        let job = JobId::from(job);
        let subject = match &envelope.event {
            JobEvent::Submitted(event) => subjects::job_ready(&namespace, job, &event.spec.queue, event.spec.class()),
            JobEvent::Rescheduled(event) => subjects::job_ready(&namespace, job, &event.spec.queue, event.spec.class()),
            _ => subjects::job_by(&namespace, job, &envelope.actor),
        };
        let Ok(Some(Fact::Job(read))) = decode(&subject, sequence, &envelope.to_json()) else {
            return Err(TestCaseError::fail(format!("{subject} does not come back as a job's event")));
        };
        prop_assert_eq!(&read.namespace, &namespace);
        prop_assert_eq!((read.job, read.sequence), (job, sequence));
        prop_assert_eq!(&read.envelope, &envelope);
        prop_assert_eq!(read.envelope.to_json(), envelope.to_json());
    }

    /// Reading any message gives a result or an error, never a panic.
    #[test]
    fn reading_any_message_does_not_panic(subject in "rgrid\\.evt\\.[a-z.*>]{0,40}|.{0,40}", payload: Vec<u8>) {
        let _answer = decode(&subject, 1, &payload);
        let subject = format!("rgrid.evt.ns.job.{}.by.api", JobId::new());
        prop_assert!(decode(&subject, 1, &payload).is_err());
    }
}
