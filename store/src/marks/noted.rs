//! The result of the last survey of the store, for requests that do not need the current state.

use bus::subjects;
use serde::{Serialize, de::DeserializeOwned};

use super::{Marks, failed, last, write};
use crate::Error;

impl Marks {
    /// Saves the result of a survey. If two are saved at once, one of them is kept.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn note_survey<T: Serialize>(&self, found: &T) -> Result<(), Error> {
        let before = last(&self.js, &self.stream, subjects::SURVEY).await?;
        let json = serde_json::to_vec(found).map_err(|error| failed("serialize the survey", error))?;
        let expected = before.map_or(0, |(_, sequence, _)| sequence);
        write(&self.js, subjects::SURVEY.to_owned(), json.into(), expected).await.map(drop)
    }

    /// The last result; `None` if there is none, or another version of rgrid wrote it in another format.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn last_survey<T: DeserializeOwned>(&self) -> Result<Option<T>, Error> {
        let noted = last(&self.js, &self.stream, subjects::SURVEY).await?;
        Ok(noted.and_then(|(payload, _, _)| serde_json::from_slice(&payload).ok()))
    }
}
