//! What becomes of what stands here where an output belongs.

/// What stands where an output belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum There {
    /// Nothing.
    Nothing,
    /// What the job left, already.
    Same,
    /// What was sent to the job.
    Sent,
    /// What an earlier job left at this path, unmodified since.
    Ours,
    /// Anything else: it is the user's, and was not sent as it is now.
    Foreign,
}

/// On whose word outputs are saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// As the script itself would have left them here.
    AsRun {
        /// Whether the job did not succeed.
        failed: bool,
    },
    /// The user said that what is here is to be replaced.
    Overwrite,
    /// What is here is left alone.
    Careful,
}

/// What is to be done with an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Nothing: it is there.
    Leave,
    /// It takes its place.
    Place,
    /// It takes its place, and what is there is kept elsewhere.
    Keep,
    /// It is saved beside what is there.
    Beside,
    /// It is not saved.
    Refuse,
}

/// What to do. Nothing that was not sent is ever lost: not by a job that failed, and by one that succeeded only to where it is found again.
pub(crate) const fn decide(there: There, manner: Manner) -> Act {
    match (there, manner) {
        (There::Same, _) => Act::Leave,
        (There::Nothing, _) | (There::Foreign, Manner::Overwrite) => Act::Place,
        (There::Sent | There::Ours, Manner::AsRun { .. } | Manner::Overwrite) => Act::Place,
        (There::Foreign, Manner::AsRun { failed: false }) => Act::Keep,
        (There::Foreign, Manner::AsRun { failed: true }) => Act::Beside,
        (There::Sent | There::Ours | There::Foreign, Manner::Careful) => Act::Refuse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_sent_is_never_lost() {
        let manners = [
            Manner::AsRun { failed: false },
            Manner::AsRun { failed: true },
            Manner::Overwrite,
            Manner::Careful,
        ];
        let table = [
            (There::Nothing, [Act::Place, Act::Place, Act::Place, Act::Place]),
            (There::Same, [Act::Leave, Act::Leave, Act::Leave, Act::Leave]),
            (There::Sent, [Act::Place, Act::Place, Act::Place, Act::Refuse]),
            (There::Ours, [Act::Place, Act::Place, Act::Place, Act::Refuse]),
            (There::Foreign, [Act::Keep, Act::Beside, Act::Place, Act::Refuse]),
        ];
        for (there, acts) in table {
            assert_eq!(manners.map(|manner| decide(there, manner)), acts, "{there:?}");
        }
    }
}
