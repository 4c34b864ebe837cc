//! An attempt's secrets: fetched sealed when it starts, and opened here.

use std::time::Duration;

use async_nats::jetstream;
use bus::{
    grid::secrets::{self, Key},
    ids::{Namespace, Token, WorkerId},
    job::Job,
    log,
};
use tracing::warn;

use crate::{errors::chain, secrets::Values};

/// How often a failed read of a secret is tried, and the pause between.
const TRIES: u32 = 60;
const PAUSE: Duration = Duration::from_millis(500);
/// The most bytes of an attempt's secrets together: all of its output is searched for them. Linux allows a plain process 2 MiB of
/// variables and arguments.
const MAX_TOTAL: usize = 512 << 10;

/// Why an attempt does not get its secrets, with the text that the user reads.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("worker {0} has no key for secrets; start its runner with --secrets-key-file, or let the job run without --secret")]
    NoKey(WorkerId),
    #[error("the secret `{name}` does not exist in namespace {namespace} any more; set it with `rgrid secret set {name}`")]
    Absent { name: Token, namespace: Namespace },
    #[error("the secret `{name}` cannot be opened: {why}")]
    Closed { name: Token, why: secrets::Error },
    #[error("the job's secrets are longer than {} KiB together; let it read the largest from where they are kept", MAX_TOTAL >> 10)]
    TooLong,
    #[error("the secret `{name}` cannot be read: {why}")]
    Away { name: Token, why: String },
}

/// The values of a job's secrets.
///
/// # Errors
/// If a secret does not exist or cannot be decrypted. A server that does not answer is tried for half a minute.
pub(crate) async fn fetch(js: &jetstream::Context, worker: &WorkerId, key: Option<&Key>, job: &Job) -> Result<Values, Error> {
    let mut values = Values::default();
    for (variable, name) in &job.spec.secrets {
        let key = key.ok_or_else(|| Error::NoKey(worker.clone()))?;
        let (name, namespace) = (name.clone(), &job.namespace);
        let mut tries = 0;
        let sealed = loop {
            tries += 1;
            match log::secrets::get(js, namespace, &name).await {
                Ok(sealed) => break sealed,
                Err(error) if tries < TRIES => {
                    warn!(job.id = %job.id, "job {} waits for its secret `{name}`: {}", job.id, chain(&error));
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => {
                    let why = chain(&error);
                    return Err(Error::Away { name, why });
                }
            }
        };
        let Some(sealed) = sealed else {
            let namespace = namespace.clone();
            return Err(Error::Absent { name, namespace });
        };
        match secrets::open(key, namespace, &name, &sealed.sealed) {
            Ok(value) => values.insert(variable.clone(), value),
            Err(why) => return Err(Error::Closed { name, why }),
        };
        if values.len_bytes() > MAX_TOTAL {
            return Err(Error::TooLong);
        }
    }
    Ok(values)
}
