//! What users ask of a job: decided on as it stands, however many others write of it meanwhile.

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

/// The longest reason, in bytes: it stands in the event.
const MAX_REASON_BYTES: usize = 4_096;

/// What came of a command.
pub(crate) enum Said {
    /// It is in the log; the job as it is now.
    Done(Job),
    /// It changes nothing; the job as it stands, and why.
    Nothing(Job, Rejection),
}

/// Decides on a job as it stands, and appends what that comes to. What is to run again must have its inputs still.
pub(crate) async fn say(app: &App, id: JobId, command: &Command) -> Result<Said, ApiError> {
    if matches!(command, Command::Requeue { .. }) {
        let job = read::job(&app.bus.js, id).await?.ok_or_else(|| unknown(id))?;
        if decide(Some(&job), command.clone()).is_ok()
            && let Some(missing) = check_inputs(&app.files, [&job.spec], &HashSet::new()).await?.first_of(&job.spec)
        {
            return Err(missing);
        }
    }
    match Box::pin(app.writer.write::<Job>(&id, command)).await? {
        Outcome::Appended(Some(job), _) => Ok(Said::Done(job)),
        Outcome::Rejected(Some(job), _, rejection) => Ok(Said::Nothing(job, rejection)),
        Outcome::Appended(None, _) | Outcome::Rejected(None, ..) => Err(unknown(id)),
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Asked {
    reason: Option<String>,
}

/// The reason in a request that holds `{"reason":…}`, or nothing.
pub(crate) fn reason(body: &[u8]) -> Result<Option<String>, ApiError> {
    let asked: Asked = json_or_nothing(body)?;
    check_reason(asked.reason.as_deref())?;
    Ok(asked.reason)
}

/// A reason that can stand in an event.
pub(crate) fn check_reason(reason: Option<&str>) -> Result<(), ApiError> {
    if reason.is_some_and(|reason| reason.len() > MAX_REASON_BYTES) {
        let detail = format!("the reason may have {MAX_REASON_BYTES} bytes; make it shorter");
        return Err(ApiError::new(Kind::Refused, detail));
    }
    Ok(())
}
