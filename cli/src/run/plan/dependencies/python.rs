//! The versions of Python that a script needs (`requires-python`).

pub(crate) use bus::spec::pep440::Specifiers;

/// Whether versions of Python are said as PEP 440 says them.
///
/// # Errors
/// In the second half of a sentence, what cannot be read.
pub(crate) fn check(text: &str) -> Result<(), String> {
    let read = text.parse::<Specifiers>();
    read.map(drop).map_err(|wrong| format!("requires Python `{text}`: {wrong}"))
}
