//! Deciding on a job as it stands, and saying what is decided, however many others speak meanwhile.

use std::collections::HashSet;

use bus::{
    envelope::{Actor, Envelope},
    ids::JobId,
    job::{Command, Job, JobEvent, Recorded, Rejection, decide},
    stream::{
        append::{self, Append},
        room::begins_an_attempt,
    },
};

use serde::Deserialize;

use super::inputs::check_inputs;
use crate::{
    app::App,
    error::{Kind, Problem},
    extract::json_or_nothing,
    fill::admit,
    load,
    watch::unknown,
};

/// How often another writer may come before.
const TRIES: usize = 10;
/// The longest reason, in bytes: it stands in the event.
const MAX_REASON_BYTES: usize = 4_096;

/// What came of a command.
pub(crate) enum Said {
    /// It is in the log; the job as it is now.
    Done(Job),
    /// It changes nothing; the job as it stands, and why.
    Nothing(Job, Rejection),
}

/// Loads the job, decides, appends; again where others were quicker.
pub(crate) async fn say(app: &App, id: JobId, command: &Command) -> Result<Said, Problem> {
    let mut conflict = None;
    for _ in 0..TRIES {
        let loaded = load::job(&app.bus.js, id).await?.ok_or_else(|| unknown(id))?;
        let (job, first) = (loaded.job, loaded.first);
        let event = match decide(Some(&job), command.clone()) {
            Ok(event) => event,
            Err(rejection) => return Ok(Said::Nothing(job, rejection)),
        };
        if matches!(command, Command::Requeue { .. })
            && let Some(missing) = check_inputs(&app.files, [&job.spec], &HashSet::new()).await?.first_of(&job.spec)
        {
            return Err(missing);
        }
        let mut envelope = Envelope::new(Actor::Api, event);
        envelope.correlation_id = Some(first);
        let append = Append::job(&job.namespace, id, job.sequence, &envelope);
        let _room = if begins_an_attempt(&envelope.event) {
            Some(admit(&app.fill, 0, append.weight()).await?)
        } else {
            None
        };
        match app.log.append(append).await {
            Ok(sequence) => {
                let recorded = Recorded {
                    namespace: job.namespace.clone(),
                    job: id,
                    speaker: (!matches!(envelope.event, JobEvent::Requeued(_))).then_some(Actor::Api),
                    sequence,
                    envelope,
                };
                return Job::evolve(Some(job), &recorded).map(Said::Done).ok_or_else(|| unknown(id));
            }
            Err(error @ append::Error::Conflict { .. }) => conflict = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    Err(conflict.map_or_else(|| unknown(id), Problem::from))
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Asked {
    reason: Option<String>,
}

/// The reason in a request that holds `{"reason":…}`, or nothing.
pub(crate) fn reason(body: &[u8]) -> Result<Option<String>, Problem> {
    let asked: Asked = json_or_nothing(body)?;
    check_reason(asked.reason.as_deref())?;
    Ok(asked.reason)
}

/// A reason that can stand in an event.
pub(crate) fn check_reason(reason: Option<&str>) -> Result<(), Problem> {
    if reason.is_some_and(|reason| reason.len() > MAX_REASON_BYTES) {
        let detail = format!("the reason may have {MAX_REASON_BYTES} bytes; make it shorter");
        return Err(Problem::new(Kind::Refused, detail));
    }
    Ok(())
}
