//! Why a submission is refused.

use serde::{Deserialize, Serialize};

/// Why a submission is refused: a sentence that says what is wrong and what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{0}")]
pub struct Refusal(pub String);
