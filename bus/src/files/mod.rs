//! Files by content.
