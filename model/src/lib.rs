//! What the API says on the wire, as types. No I/O.

mod answers;
mod attempt;
mod batch;
mod doctor;
mod event_log;
mod files;
mod grid;
mod history;
mod images;
mod job;
mod log;
mod problem;
mod runtimes;
mod secrets;
mod storage;
mod words;

pub use self::{
    answers::{CancelledMany, JobList, NotCancelled, NotRequeued, RequeuedMany, Submitted, SubmittedMany, SubmittedOne},
    attempt::{AttemptOutcome, AttemptView, LostAttempt},
    batch::{BatchAnswer, BatchList, BatchState, BatchSubmission, BatchView, Earlier, MemberSubmission, MemberView, Members},
    doctor::{Diagnosis, Finding, Severity, Summary},
    event_log::{EventLogView, Growth, NewBound, Takes, WindowView},
    files::{ArtifactView, Artifacts, Hashes, Missing, SignedUpload, UPLOAD_OFFSET},
    grid::{Cordon, Health, Projection, Running, WorkerState, WorkerStatus, WorkerView, Workers},
    history::{History, HistoryEvent},
    images::{ImageView, Images},
    job::JobView,
    log::{LogAttempt, LogGap, LogPiece},
    problem::{Kind, PROBLEM_MEDIA_TYPE, Problem},
    runtimes::{Runtimes, RuntimesOfWorker, RuntimesOfWorkers},
    secrets::{PublicKey, SecretView, Secrets, SetSecret},
    storage::{Amount, BatchUse, GcReport, HeldBy, JobUse, RemovalSchedule, RetentionView, StorageView, Uses},
    words::{INTERRUPTED, RETURNED, describe, describe_expiry, describe_loss, message_of},
};
