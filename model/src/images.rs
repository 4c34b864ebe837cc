//! Images that the grid stores.

use bus::grid::image::{ImageName, ImagePushed};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// All images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Images {
    /// By name.
    pub images: Vec<ImageView>,
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageView {
    /// Its name.
    pub name: ImageName,
    /// What was pushed.
    #[serde(flatten)]
    pub pushed: ImagePushed,
    /// When.
    pub at: DateTime<Utc>,
}
