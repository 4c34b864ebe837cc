//! The one reader for text files of the user's: bounded, UTF-8 or UTF-16, and an error that says where a file is not text.
//!
//! A byte order mark decides: UTF-8 with or without one, UTF-16 (little or big endian) with one. Anything else is not guessed,
//! since a wrong guess would change what is declared.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// The byte order marks: of UTF-8, and of UTF-16 in little and in big endian.
const UTF_8: &[u8] = b"\xef\xbb\xbf";
const UTF_16_LE: &[u8] = b"\xff\xfe";
const UTF_16_BE: &[u8] = b"\xfe\xff";

/// Why a file cannot be read as text.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The file cannot be read.
    #[error("cannot read {}: {}", path.display(), cause(source))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is longer than its kind may be.
    #[error("cannot read {}: it is longer than {most} bytes, the most for a file of its kind", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The bound, in bytes.
        most: u64,
    },
    /// The file is not text.
    #[error("cannot read {}: {wrong}", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// Where, and why.
        wrong: NotText,
    },
}

/// Where bytes are not text, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is not text ({what} at byte {byte}); save the file as UTF-8")]
pub(crate) struct NotText {
    /// The line, from 1.
    line: usize,
    /// The byte's place in the file, from 0.
    byte: usize,
    what: &'static str,
}

/// Reads a text file of at most `most` bytes. The byte order mark is left out; everything else is kept, also `\r\n`.
///
/// # Errors
/// If the file cannot be read, is longer, or is not text.
pub(crate) fn read(path: &Path, most: u64) -> Result<String, Error> {
    let unreadable = |source| Error::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    read_from(file, path, most)
}

/// Reads text from what is open already; `path` is what messages call it.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_from(from: impl Read, path: &Path, most: u64) -> Result<String, Error> {
    let mut bytes = Vec::new();
    let read = from.take(most.saturating_add(1)).read_to_end(&mut bytes);
    let length = read.map_err(|source| Error::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    if length as u64 > most {
        return Err(Error::TooLong {
            path: path.to_owned(),
            most,
        });
    }
    decode(bytes).map_err(|wrong| Error::NotText {
        path: path.to_owned(),
        wrong,
    })
}

/// The text that bytes are. Text holds no zero: what does is UTF-16 without a mark, UTF-32, or no text at all.
///
/// # Errors
/// If they are not text.
pub(crate) fn decode(bytes: Vec<u8>) -> Result<String, NotText> {
    if let Some((units, is_big)) = utf_16(&bytes) {
        return decode_utf_16(units, is_big);
    }
    let skipped = if bytes.starts_with(UTF_8) { UTF_8.len() } else { 0 };
    let wrong = |bytes: &[u8], at: usize, what| {
        let line = 1 + bytes[..at].iter().filter(|byte| **byte == b'\n').count();
        NotText { line, byte: at, what }
    };
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        return Err(wrong(
            &bytes,
            at,
            "a zero byte, as in UTF-16 without a byte order mark or in a binary file,",
        ));
    }
    match String::from_utf8(bytes) {
        Ok(mut text) => {
            text.drain(..skipped);
            Ok(text)
        }
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            Err(wrong(error.as_bytes(), at, "bytes that are not UTF-8"))
        }
    }
}

/// The text that bytes are most likely, with `\u{fffd}` for what is none. Byte order marks are honoured.
pub(crate) fn lossy(bytes: &[u8]) -> String {
    match utf_16(bytes) {
        Some((units, is_big)) => {
            let units = code_units(units, is_big);
            char::decode_utf16(units)
                .map(|decoded| decoded.unwrap_or(char::REPLACEMENT_CHARACTER))
                .collect()
        }
        None => String::from_utf8_lossy(bytes.strip_prefix(UTF_8).unwrap_or(bytes)).into_owned(),
    }
}

/// What follows the byte order mark of UTF-16, and whether that is big-endian.
fn utf_16(bytes: &[u8]) -> Option<(&[u8], bool)> {
    let little = bytes.strip_prefix(UTF_16_LE).map(|units| (units, false));
    little.or_else(|| bytes.strip_prefix(UTF_16_BE).map(|units| (units, true)))
}

/// A last byte without its half is left out.
fn code_units(bytes: &[u8], is_big: bool) -> impl Iterator<Item = u16> {
    let (pairs, _) = bytes.as_chunks::<2>();
    pairs.iter().map(move |pair| {
        if is_big {
            u16::from_be_bytes(*pair)
        } else {
            u16::from_le_bytes(*pair)
        }
    })
}

fn decode_utf_16(bytes: &[u8], is_big: bool) -> Result<String, NotText> {
    let (mut text, mut line, mut byte) = (String::with_capacity(bytes.len() / 2), 1, UTF_16_LE.len());
    for decoded in char::decode_utf16(code_units(bytes, is_big)) {
        let what = match decoded {
            Ok('\0') => Some("a zero, as in UTF-32 or in a binary file,"),
            Ok(_) => None,
            Err(_) => Some("half of a pair of UTF-16"),
        };
        if let Some(what) = what {
            return Err(NotText { line, byte, what });
        }
        let c = decoded.unwrap_or_default();
        line += usize::from(c == '\n');
        byte += 2 * c.len_utf16();
        text.push(c);
    }
    if bytes.len() % 2 == 1 {
        let what = "half of a code unit of UTF-16";
        return Err(NotText { line, byte, what });
    }
    Ok(text)
}

/// The cause of an error of the operating system, in our words where it is frequent.
fn cause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "permission denied; make it readable".to_owned(),
        io::ErrorKind::NotFound => "there is no such file; correct the path".to_owned(),
        io::ErrorKind::IsADirectory => "it is a directory; name a file".to_owned(),
        _ => error.to_string(),
    }
}

/// A text in every encoding that is read.
#[cfg(test)]
pub(crate) fn in_each_encoding(text: &str) -> [Vec<u8>; 4] {
    let utf_16 = |mark: &[u8], bytes: fn(u16) -> [u8; 2]| mark.iter().copied().chain(text.encode_utf16().flat_map(bytes)).collect();
    [
        text.as_bytes().to_vec(),
        [UTF_8, text.as_bytes()].concat(),
        utf_16(UTF_16_LE, u16::to_le_bytes),
        utf_16(UTF_16_BE, u16::to_be_bytes),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_order_mark_decides_and_is_left_out() {
        let text = "six==1.17 # größer 😀\r\nrich\n";
        for bytes in in_each_encoding(text) {
            assert_eq!(lossy(&bytes), text);
            assert_eq!(decode(bytes).as_deref(), Ok(text));
        }
        assert_eq!(decode(Vec::new()).as_deref(), Ok(""));
        assert_eq!(decode(UTF_8.to_vec()).as_deref(), Ok(""));
    }

    #[test]
    fn what_is_not_text_is_said_with_its_place() {
        let [_, _, mut half, _] = in_each_encoding("a\nb");
        half.push(0x41);
        let [_, _, _, mut lone] = in_each_encoding("ab\n");
        lone.extend([0xd8, 0x00, 0x00, 0x41]);
        let without_mark: Vec<u8> = "six\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let utf_32: Vec<u8> = "\u{feff}six".chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
        let cases = [
            (b"a\nb\xe9c\n".to_vec(), "line 2 is not text (bytes that are not UTF-8 at byte 3)"),
            (
                [UTF_8, b"\n\xff"].concat(),
                "line 2 is not text (bytes that are not UTF-8 at byte 4)",
            ),
            (without_mark, "UTF-16 without a byte order mark or in a binary file, at byte 1"),
            (utf_32, "line 1 is not text (a zero, as in UTF-32"),
            (half, "line 2 is not text (half of a code unit of UTF-16 at byte 8)"),
            (lone, "line 2 is not text (half of a pair of UTF-16 at byte 8)"),
        ];
        for (bytes, expected) in cases {
            lossy(&bytes);
            let error = decode(bytes).expect_err(expected).to_string();
            assert!(error.contains(expected) && error.ends_with("; save the file as UTF-8"), "{error}");
        }
    }

    #[test]
    fn a_file_is_read_whole_or_not_at_all() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("list.txt");
        std::fs::write(&path, "12345")?;
        assert_eq!(read(&path, 5)?, "12345");
        let error = |path: &Path, most| read(path, most).expect_err("unreadable").to_string();
        assert!(error(&path, 4).contains("longer than 4 bytes"));
        assert!(error(&dir.path().join("gone"), 4).contains("there is no such file"));
        assert!(error(dir.path(), 4).contains("it is a directory"));
        Ok(())
    }
}
