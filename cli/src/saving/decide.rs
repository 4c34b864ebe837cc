//! Decides what happens to an existing file at the path of an output. Pure: no I/O.

/// What exists at the path of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// Nothing.
    Nothing,
    /// The output's content.
    Same,
    /// The file that was sent to the job, unmodified.
    SentInputs,
    /// The output of an earlier job, unmodified since.
    Ours,
    /// Anything else: a file of the user, which was not sent with this content.
    Foreign,
}

/// The rules by which outputs are saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SaveMode {
    /// As the script itself would have written them here.
    AsRun {
        /// Whether the job did not succeed.
        failed: bool,
    },
    /// Existing files are replaced (`--overwrite`).
    Overwrite,
    /// Existing files are kept.
    Careful,
}

/// What to do with an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SaveAction {
    /// Nothing: the path has this content.
    Leave,
    /// Write it to its path.
    Place,
    /// Back up the existing file, and write it to its path.
    Keep,
    /// Save it next to the existing file.
    Beside,
    /// Do not save it.
    Refuse,
}

/// Decides what to do. A local file that was not sent is never lost: a failed job does not replace it, and a successful job moves it to the
/// backup directory.
pub(crate) const fn decide(there: Existing, mode: SaveMode) -> SaveAction {
    match (there, mode) {
        (Existing::Same, _) => SaveAction::Leave,
        (Existing::Nothing, _) | (Existing::Foreign, SaveMode::Overwrite) => SaveAction::Place,
        (Existing::SentInputs | Existing::Ours, SaveMode::AsRun { .. } | SaveMode::Overwrite) => SaveAction::Place,
        (Existing::Foreign, SaveMode::AsRun { failed: false }) => SaveAction::Keep,
        (Existing::Foreign, SaveMode::AsRun { failed: true }) => SaveAction::Beside,
        (Existing::SentInputs | Existing::Ours | Existing::Foreign, SaveMode::Careful) => SaveAction::Refuse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_sent_is_never_lost() {
        let manners = [
            SaveMode::AsRun { failed: false },
            SaveMode::AsRun { failed: true },
            SaveMode::Overwrite,
            SaveMode::Careful,
        ];
        let table = [
            (
                Existing::Nothing,
                [SaveAction::Place, SaveAction::Place, SaveAction::Place, SaveAction::Place],
            ),
            (
                Existing::Same,
                [SaveAction::Leave, SaveAction::Leave, SaveAction::Leave, SaveAction::Leave],
            ),
            (
                Existing::SentInputs,
                [SaveAction::Place, SaveAction::Place, SaveAction::Place, SaveAction::Refuse],
            ),
            (
                Existing::Ours,
                [SaveAction::Place, SaveAction::Place, SaveAction::Place, SaveAction::Refuse],
            ),
            (
                Existing::Foreign,
                [SaveAction::Keep, SaveAction::Beside, SaveAction::Place, SaveAction::Refuse],
            ),
        ];
        for (there, acts) in table {
            assert_eq!(manners.map(|mode| decide(there, mode)), acts, "{there:?}");
        }
    }
}
