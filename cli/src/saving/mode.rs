//! Which permission bits an output gets here.

use client::NewMode;
use model::ArtifactView;

/// The permission bits of an output, where a file of these stands (nothing: none does), and the job was given one of those. A mode that
/// the job did not touch is not touched here.
pub(crate) fn new_mode(file: &ArtifactView, existing: Option<u32>, given: Option<u32>) -> NewMode {
    let usual = if file.executable { 0o755 } else { 0o644 };
    let made = file.mode.map_or(usual, |mode| mode & 0o777);
    match (existing, given) {
        (Some(existing), Some(given)) if given == made => NewMode::Exactly(existing),
        (_, _) if file.mode.is_some() => NewMode::Exactly(made),
        (Some(_), Some(_)) => NewMode::Exactly(made),
        (Some(existing), None) => NewMode::Exactly(existing | if file.executable { 0o111 } else { 0 }),
        (None, _) => NewMode::AsMade {
            executable: file.executable,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_that_the_job_changed_is_changed_here_and_no_other() {
        let file = |executable, mode| ArtifactView {
            path: "a".parse().expect("a path"),
            sha256: bus::ids::Digest::of(b""),
            size: 0,
            executable,
            mode,
        };
        let cases = [
            (file(false, Some(0o600)), Some(0o644), Some(0o644), NewMode::Exactly(0o600)),
            (file(false, None), Some(0o755), Some(0o755), NewMode::Exactly(0o644)),
            (file(true, None), Some(0o755), Some(0o755), NewMode::Exactly(0o755)),
            (file(true, None), Some(0o644), Some(0o644), NewMode::Exactly(0o755)),
            // Root's own, which went along with more.
            (file(false, Some(0o600)), Some(0o400), Some(0o600), NewMode::Exactly(0o400)),
            // What is here was not given as it is.
            (file(true, None), Some(0o640), None, NewMode::Exactly(0o751)),
            (file(false, None), Some(0o600), None, NewMode::Exactly(0o600)),
            (file(true, None), None, Some(0o644), NewMode::AsMade { executable: true }),
        ];
        for (file, existing, given, expected) in cases {
            assert_eq!(new_mode(&file, existing, given), expected, "{file:?} {existing:?} {given:?}");
        }
    }
}
