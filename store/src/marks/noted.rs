//! What was found when the store was looked at last, for those who ask and need not know it to the moment.

use bus::subjects;
use serde::{Serialize, de::DeserializeOwned};

use super::{Marks, failed, last, write};
use crate::Error;

impl Marks {
    /// Notes what was found. Of two who do so at once one is enough.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn note_survey<T: Serialize>(&self, found: &T) -> Result<(), Error> {
        let before = last(&self.js, &self.stream, subjects::SURVEY).await?;
        let json = serde_json::to_vec(found).map_err(|error| failed("write what was found", error))?;
        let expected = before.map_or(0, |(_, sequence, _)| sequence);
        write(&self.js, subjects::SURVEY.to_owned(), json.into(), expected).await.map(drop)
    }

    /// What was found last; nothing where nobody has looked, or another version of rgrid did, whose words cannot be read.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn last_survey<T: DeserializeOwned>(&self) -> Result<Option<T>, Error> {
        let noted = last(&self.js, &self.stream, subjects::SURVEY).await?;
        Ok(noted.and_then(|(payload, _, _)| serde_json::from_slice(&payload).ok()))
    }
}
