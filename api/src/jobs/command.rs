//! Commands of users for a job: decided on its current state, and appended by the log's writer.

use std::collections::HashSet;

use bus::{
    ids::JobId,
    job::{Command, Job, Rejection, decide},
    log::{read, writer::Outcome},
};
use model::Kind;
use serde::Deserialize;

use super::inputs::check_inputs;
use crate::{app::App, error::ApiError, http::extract::json_or_nothing, jobs::watch::unknown};

/// The longest reason, in bytes: it becomes a part of the event.
const MAX_REASON_BYTES: usize = 4_096;

/// How a command ended.
pub(crate) enum CommandOutcome {
    /// Its event is in the log: the job after it.
    Appended(Job),
    /// It changes nothing: the job as it is, and why.
    Rejected(Job, Rejection),
}

/// Decides on a command, and appends its event. A job is requeued only while all its inputs are in the store.
pub(crate) async fn apply_command(app: &App, id: JobId, command: &Command) -> Result<CommandOutcome, ApiError> {
    if matches!(command, Command::Requeue { .. }) {
        let job = read::job(&app.bus.js, id).await?.ok_or_else(|| unknown(id))?;
        if decide(Some(&job), command.clone()).is_ok()
            && let Some(missing) = check_inputs(&app.files, [&job.spec], &HashSet::new()).await?.first_of(&job.spec)
        {
            return Err(missing);
        }
    }
    match Box::pin(app.writer.write::<Job>(&id, command)).await? {
        Outcome::Appended(Some(job), _) => Ok(CommandOutcome::Appended(job)),
        Outcome::Rejected(Some(job), _, rejection) => Ok(CommandOutcome::Rejected(job, rejection)),
        Outcome::Appended(None, _) | Outcome::Rejected(None, ..) => Err(unknown(id)),
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct ReasonBody {
    reason: Option<String>,
}

/// Reads the reason from a body that is `{"reason":…}` or empty.
pub(crate) fn reason(body: &[u8]) -> Result<Option<String>, ApiError> {
    let ReasonBody { reason } = json_or_nothing(body)?;
    check_reason(reason.as_deref())?;
    Ok(reason)
}

/// Checks that a reason is short enough for an event.
pub(crate) fn check_reason(reason: Option<&str>) -> Result<(), ApiError> {
    if reason.is_some_and(|reason| reason.len() > MAX_REASON_BYTES) {
        let detail = format!("the reason is longer than {MAX_REASON_BYTES} bytes; shorten it");
        return Err(ApiError::new(Kind::Refused, detail));
    }
    Ok(())
}
