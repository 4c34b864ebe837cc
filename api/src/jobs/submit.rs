//! `POST /v1/jobs`: one submission or an array of them. No submission needs Postgres, and the appends of an array are under way together.

use std::{
    collections::{HashMap, HashSet},
    pin::pin,
};

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use bus::{
    ids::{Digest, JobId, Namespace},
    job::{Command, Job, JobEvent, Rejection, decide},
    log::{
        append::{self, Pending},
        read,
    },
    spec::{
        JobSpec,
        submission::{Accepted, Submission},
    },
};
use bytes::Bytes;
use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, FuturesOrdered},
};
use model::{Kind, Submitted, SubmittedMany, SubmittedOne, WorkerView};
use serde_json::value::RawValue;
use store::Files;

use super::{chosen_id, dependencies::check_dependencies, inputs::check_inputs, reuse};
use crate::{
    admission::admit,
    app::{App, Shared},
    error::ApiError,
    http::extract::{self, Query, WholeBody, header as text_of, json},
    jobs::advice,
    secrets::check_secrets,
};

/// The most jobs in one request.
const MAX_JOBS: usize = 10_000;
/// Appends of one request that are under way at the same time.
const APPENDS_IN_FLIGHT: usize = 1_024;
/// Inline files that are stored at the same time.
const PUTS_IN_FLIGHT: usize = 8;
/// How many times, and with what pause, a job that exists is read: a replica may lag behind.
const READS: (u32, std::time::Duration) = (40, std::time::Duration::from_millis(50));

/// `POST /v1/jobs`
pub(crate) async fn submit(
    State(app): State<Shared>,
    query: Query,
    headers: HeaderMap,
    WholeBody(body): WholeBody,
) -> Result<Response, ApiError> {
    let (mut namespace, mut reuse) = (bus::ids::default_token(), false);
    query.each(|name, value| {
        match name {
            "namespace" => namespace = extract::namespace(&value)?,
            "reuse" => reuse = extract::flag("reuse", &value)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let key = text_of(&headers, "idempotency-key")?;
    let is_array = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    if !is_array {
        return Box::pin(submit_one(&app, namespace, key, reuse, &body)).await;
    }
    if reuse {
        return Err(ApiError::malformed(
            "`reuse` is not allowed with an array of jobs; submit the jobs one by one, or leave out `reuse`",
        ));
    }
    if key.is_some() {
        return Err(ApiError::malformed(
            "the header `Idempotency-Key` is not allowed with an array of jobs; give each job a `key` instead",
        ));
    }
    let raw: Vec<&RawValue> = json("the array of jobs", &body)?;
    if raw.is_empty() || raw.len() > MAX_JOBS {
        let detail = format!(
            "an array may hold 1 to {MAX_JOBS} jobs, and this one holds {}; send several arrays",
            raw.len()
        );
        return Err(ApiError::new(if raw.is_empty() { Kind::Malformed } else { Kind::TooLarge }, detail));
    }
    let _room = admit(&app.admission, raw.len() as u64, body.len() as u64).await?;
    let accepted = accept_all(&app, &namespace, &raw).await?;
    let live = app.advice.live();
    let new = |(id, spec)| NewJob::new(namespace.clone(), id, spec);
    let accepted = accepted.into_iter().map(|job| job.map(new)).collect();
    let jobs = Box::pin(submit_all(&app, accepted, live.as_deref())).await;
    Ok(Json(SubmittedMany { jobs }).into_response())
}

/// Appends the submissions of jobs in their order, many of them under way at the same time.
pub(crate) async fn submit_all(app: &App, accepted: Vec<Result<NewJob, ApiError>>, live: Option<&[WorkerView]>) -> Vec<SubmittedOne> {
    let mut answers = Vec::with_capacity(accepted.len());
    let mut under_way = FuturesOrdered::new();
    for job in accepted {
        let sending = async {
            match job {
                Ok(job) => job.send(app, live).await,
                Err(problem) => Err(problem),
            }
        };
        let mut sending = pin!(sending);
        // The events are sent one after the other, so that they are stored in their order. Meanwhile the earlier appends are polled:
        // each takes up room in the connection's window of unacknowledged publishes, and this one may be waiting for such room.
        let sent = loop {
            tokio::select! {
                biased;
                sent = &mut sending => break sent,
                Some(answer) = under_way.next() => answers.push(answer),
            }
        };
        under_way.push_back(async move {
            let stored = match sent {
                Ok(sent) => sent.stored(app).await,
                Err(problem) => Err(problem),
            };
            stored.map_or_else(|problem| SubmittedOne::Refused { problem: problem.0 }, SubmittedOne::Job)
        });
        if under_way.len() >= APPENDS_IN_FLIGHT {
            answers.extend(under_way.next().await);
        }
    }
    while let Some(answer) = under_way.next().await {
        answers.push(answer);
    }
    answers
}

async fn submit_one(app: &App, namespace: Namespace, key: Option<&str>, reuse: bool, body: &[u8]) -> Result<Response, ApiError> {
    let mut submission: Submission = json("the job", body)?;
    match (&submission.key, key) {
        (Some(inside), Some(header)) if inside != header => {
            let detail = "the header `Idempotency-Key` and the job's `key` differ; send only one of them, or the same value in both";
            return Err(ApiError::malformed(detail));
        }
        (None, Some(header)) => submission.key = Some(header.to_owned()),
        (_, _) => {}
    }
    app.resolve(&mut submission)?;
    let accepted = submission.accept()?;
    if let Some(id) = accepted.id
        && let Some(submitted) = Box::pin(chosen_id::first_answer(app, &namespace, id, &accepted.spec)).await?
    {
        return Ok(answer(submitted));
    }
    let _room = admit(&app.admission, 1, body.len() as u64).await?;
    let inline = store_inline(&app.files, &accepted.to_store).await?;
    if let Some(missing) = check_inputs(&app.files, [&accepted.spec], &inline).await?.first_of(&accepted.spec) {
        return Err(missing);
    }
    check_references(app, &namespace, &accepted.spec).await?;
    if reuse && let Some(job) = Box::pin(reuse::earlier(app, &namespace, &accepted.spec)).await? {
        let submitted = Submitted {
            id: job.id,
            sequence: job.sequence,
            namespace,
            existed: true,
            reused: true,
            warning: None,
        };
        return Ok((StatusCode::OK, Json(submitted)).into_response());
    }
    let submitted = NewJob::new(namespace, accepted.id, accepted.spec).submit(app).await?;
    Ok(answer(submitted))
}

/// The answer to a single submission: 201 for a new job, 200 for one that exists.
fn answer(submitted: Submitted) -> Response {
    let status = if submitted.existed { StatusCode::OK } else { StatusCode::CREATED };
    let location = format!("/v1/jobs/{}", submitted.id);
    (status, [(header::LOCATION, location)], Json(submitted)).into_response()
}

/// The id that the client chose for a job of an array, and the job.
type ChosenIdAndSpec = (Option<JobId>, JobSpec);

/// Parses and checks every job of an array, stores their inline files, and checks that what they refer to exists.
async fn accept_all(app: &App, namespace: &Namespace, raw: &[&RawValue]) -> Result<Vec<Result<ChosenIdAndSpec, ApiError>>, ApiError> {
    let mut accepted: Vec<Result<Accepted, ApiError>> = Vec::with_capacity(raw.len());
    for (place, one) in raw.iter().enumerate() {
        let submission: Result<Submission, _> = json(&format!("job {place} of the array"), one.get().as_bytes());
        accepted.push(submission.and_then(|mut submission| {
            app.resolve(&mut submission)?;
            Ok(submission.accept()?)
        }));
        if place % 256 == 255 {
            // Let other requests make progress.
            tokio::task::yield_now().await;
        }
    }
    let files: Vec<Bytes> = accepted.iter().flatten().flat_map(|job| job.to_store.iter().cloned()).collect();
    let inline = store_inline(&app.files, &files).await?;
    let missing = check_inputs(&app.files, accepted.iter().flatten().map(|job| &job.spec), &inline).await?;
    let absent_jobs = check_dependencies(app, namespace, accepted.iter().flatten().map(|job| &job.spec)).await?;
    let absent_secrets = check_secrets(app, namespace, accepted.iter().flatten().map(|job| &job.spec)).await?;
    let mut conflicts: HashMap<usize, ApiError> = {
        let chosen = accepted.iter().enumerate().filter_map(|(place, job)| {
            let job = job.as_ref().ok()?;
            Some((place, job.id?, &job.spec))
        });
        let chosen: Vec<_> = chosen.collect();
        chosen_id::conflicts(app, namespace, &chosen).await?.into_iter().collect()
    };
    // Later jobs of the array may depend on earlier ones that have a key or an id.
    let mut earlier = HashSet::new();
    let checked = accepted.into_iter().enumerate().map(|(place, job)| {
        let Accepted { id, spec, .. } = job?;
        if let Some(problem) = conflicts.remove(&place) {
            return Err(problem);
        }
        if let Some(problem) = missing
            .first_of(&spec)
            .or_else(|| absent_secrets.first_of(&spec))
            .or_else(|| absent_jobs.first_of(&spec, &earlier))
        {
            return Err(problem);
        }
        earlier.extend(id.or_else(|| spec.key.as_deref().map(|key| JobId::of_key(namespace, key))));
        Ok((id, spec))
    });
    Ok(checked.collect())
}

/// Refuses a single job that refers to a secret or a job that does not exist.
pub(crate) async fn check_references(app: &App, namespace: &Namespace, spec: &JobSpec) -> Result<(), ApiError> {
    if !spec.secrets.is_empty()
        && let Some(problem) = check_secrets(app, namespace, [spec]).await?.first_of(spec)
    {
        return Err(problem);
    }
    if spec.start.is_none() {
        return Ok(());
    }
    let absent = check_dependencies(app, namespace, [spec]).await?;
    absent.first_of(spec, &HashSet::new()).map_or(Ok(()), Err)
}

/// Stores the inline files of submissions, each content once, and returns their digests.
pub(crate) async fn store_inline(files: &Files, contents: &[Bytes]) -> Result<HashSet<Digest>, ApiError> {
    let mut seen = HashSet::new();
    let mut new = contents.to_vec();
    new.retain(|content| seen.insert(content.clone()));
    stream::iter(new)
        .map(|content| files.put_bytes(content))
        .buffer_unordered(PUTS_IN_FLIGHT)
        .try_collect()
        .await
        .map_err(|error| ApiError::unavailable("cannot store the inline files of the job", &error))
}

/// A job that is to be appended to the log.
#[derive(Debug)]
pub(crate) struct NewJob {
    namespace: Namespace,
    id: JobId,
    spec: JobSpec,
}

impl NewJob {
    /// A job with the id that the client chose, or that its key leads to, or else with a new one.
    pub(crate) fn new(namespace: Namespace, chosen: Option<JobId>, spec: JobSpec) -> Self {
        let of_key = || spec.key.as_deref().map(|key| JobId::of_key(&namespace, key));
        let id = chosen.or_else(of_key).unwrap_or_else(JobId::new);
        Self { namespace, id, spec }
    }

    /// A job whose id is derived from this key, which is not a key that the user gave.
    pub(crate) fn with_derived_key(namespace: Namespace, spec: JobSpec, key: &str) -> Self {
        let id = JobId::of_key(&namespace, key);
        Self { namespace, id, spec }
    }

    /// A member of a batch.
    pub(crate) const fn member(namespace: Namespace, id: JobId, spec: JobSpec) -> Self {
        Self { namespace, id, spec }
    }

    /// Appends the job's submission, unless the job exists.
    pub(crate) async fn submit(self, app: &App) -> Result<Submitted, ApiError> {
        let live = app.advice.live();
        self.send(app, live.as_deref()).await?.stored(app).await
    }

    /// Sends the job's submission to the log. Submissions that are sent one after the other are stored in that order.
    async fn send(self, app: &App, live: Option<&[WorkerView]>) -> Result<PendingSubmission, ApiError> {
        let warning = live.and_then(|live| advice::warning(&self.spec, live));
        let command = Command::Submit { spec: Box::new(self.spec) };
        let created = app.writer.create::<Job>(&self.namespace, &self.id, command).await;
        let (envelope, pending) = created.map_err(|rejection| ApiError::new(Kind::Internal, rejection.to_string()))?;
        Ok(PendingSubmission {
            namespace: self.namespace,
            id: self.id,
            event: envelope.event,
            warning,
            pending,
        })
    }
}

/// A submission that the log has not acknowledged yet.
struct PendingSubmission {
    namespace: Namespace,
    id: JobId,
    event: JobEvent,
    warning: Option<String>,
    pending: Pending,
}

impl PendingSubmission {
    /// Waits until the submission is stored, or the job turns out to exist.
    async fn stored(self, app: &App) -> Result<Submitted, ApiError> {
        let (sequence, existed) = match self.pending.stored().await {
            Ok(sequence) => (sequence, false),
            Err(append::Error::Conflict { .. }) => (Box::pin(sequence_of_existing(app, self.id, self.event)).await?, true),
            Err(error) => return Err(error.into()),
        };
        Ok(Submitted {
            id: self.id,
            sequence,
            namespace: self.namespace,
            existed,
            reused: false,
            warning: self.warning,
        })
    }
}

/// The sequence of the earlier submission of the same job.
///
/// # Errors
/// If the earlier submission was not the same.
async fn sequence_of_existing(app: &App, id: JobId, event: JobEvent) -> Result<u64, ApiError> {
    let JobEvent::Submitted(submitted) = event else {
        return Err(ApiError::new(Kind::Internal, "the event of a submission is not `job.submitted`"));
    };
    let spec = submitted.spec;
    for _ in 0..READS.0 {
        let Some(job) = read::job(&app.bus.js, id).await? else {
            tokio::time::sleep(READS.1).await;
            continue;
        };
        return match decide(Some(&job), Command::Submit { spec: Box::new(spec) }) {
            Err(Rejection::Exists) => {
                let entries = read::everything(&app.bus.js, id).await?;
                Ok(entries.first().map_or(job.sequence, |first| first.sequence))
            }
            Err(Rejection::KeyConflict) if id.is_chosen() => Err(chosen_id::id_conflict(id)),
            Err(rejection) => Err(ApiError::new(Kind::Conflict, format!("job {id}: {rejection}"))),
            Ok(_) => Err(ApiError::new(Kind::Internal, format!("job {id} was submitted twice"))),
        };
    }
    Err(ApiError::new(
        Kind::Conflict,
        format!("the first event of job {id} in the log is not its submission"),
    ))
}
