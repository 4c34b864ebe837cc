//! Finds what async-nats cannot handle in a message, and makes the replacement. Pure.
//!
//! nats-server passes headers and subjects on as they were sent. If they are malformed, async-nats 0.51 (the newest release) closes its
//! connection at every delivery. A lone carriage return in a header value makes it panic, and the client cannot be used any more (nats.rs
//! pull request 1612).

use std::{fmt, str};

use memchr::memchr_iter;

/// The header of a replacement for a message that cannot be delivered. Its value is the reason.
pub const UNDELIVERABLE: &str = "Rgrid-Undeliverable";

/// The first line of a header.
const VERSION: &str = "NATS/1.0";
/// The prefix of the headers that the server itself reads and adds. A replacement keeps them, because they carry its sequence and link.
const SERVER_HEADERS: &str = "Nats-";
/// The header that the server adds to a stored message that was requested.
const STREAM: &str = "Nats-Stream";
/// The prefix of the reply subjects with which stored messages are acknowledged.
const ACK: &str = "$JS.ACK.";

/// Why a message cannot be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log) enum Defect {
    /// The subject or the reply subject is malformed.
    Subject,
    /// The header is not UTF-8.
    NotText,
    /// The header does not begin with its version.
    Version,
    /// The header has a status, which only the server's own answers have.
    Status,
    /// A header line has no colon.
    Line,
    /// A header name has an invalid character.
    Name,
    /// A header value contains a carriage return.
    CarriageReturn,
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Subject => "its subject is not UTF-8, or contains white space",
            Self::NotText => "its header is not UTF-8",
            Self::Version => "its header does not begin with NATS/1.0",
            Self::Status => "its header has a status, which only answers of the server may have",
            Self::Line => "a line of its header has no colon",
            Self::Name => "the name of one of its headers does not consist of visible ASCII characters",
            Self::CarriageReturn => "a value of its header contains a carriage return",
        })
    }
}

/// The line that announces a message, parsed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Announced<'a> {
    pub(super) subject: &'a [u8],
    pub(super) subscription: &'a [u8],
    pub(super) reply: Option<&'a [u8]>,
    /// The length of the header in bytes; 0 without a header.
    pub(super) header: usize,
    /// The length of header and payload in bytes.
    pub(super) total: usize,
}

impl<'a> Announced<'a> {
    /// Reads `MSG <subject> <subscription> [reply] <bytes>` or `HMSG <subject> <subscription> [reply] <header bytes> <bytes>`, without
    /// the line's end; `None` for any other line.
    pub(super) fn read(line: &'a [u8]) -> Option<Self> {
        let (with_header, rest) = match line.strip_prefix(b"MSG ") {
            Some(rest) => (false, rest),
            None => (true, line.strip_prefix(b"HMSG ")?),
        };
        let mut words = rest.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        let (subject, subscription, third, fourth) = (words.next()?, words.next()?, words.next()?, words.next());
        let (reply, header, total) = match (with_header, fourth, words.next()) {
            (false, None, None) => (None, 0, number(third)?),
            (false, Some(total), None) => (Some(third), 0, number(total)?),
            (true, Some(total), None) => (None, number(third)?, number(total)?),
            (true, Some(header), Some(total)) => (Some(third), number(header)?, number(total)?),
            (true, None, _) | (false, _, Some(_)) => return None,
        };
        (words.next().is_none() && header <= total).then_some(Self {
            subject,
            subscription,
            reply,
            header,
            total,
        })
    }
}

fn number(word: &[u8]) -> Option<usize> {
    // Far more than a server sends (64 MiB at most), and far less than would overflow.
    str::from_utf8(word).ok()?.parse().ok().filter(|number| *number <= 1 << 30)
}

/// The defect of a message, if it has one.
pub(super) fn defect(announced: &Announced<'_>, header: &[u8], has_header: bool) -> Option<Defect> {
    if !is_subject(announced.subject) || announced.reply.is_some_and(|reply| !is_subject(reply)) {
        return Some(Defect::Subject);
    }
    if !has_header {
        return None;
    }
    let stored = announced.reply.is_some_and(|reply| reply.starts_with(ACK.as_bytes()));
    of_header(header, stored)
}

/// Whether async-nats reads this as one word. Almost every subject is plain ASCII.
fn is_subject(bytes: &[u8]) -> bool {
    bytes.iter().all(u8::is_ascii_graphic)
        || str::from_utf8(bytes).is_ok_and(|text| !text.chars().any(|character| character.is_whitespace() || character.is_control()))
}

fn of_header(header: &[u8], mut stored: bool) -> Option<Defect> {
    let Ok(text) = str::from_utf8(header) else {
        return Some(Defect::NotText);
    };
    let mut lines = text.lines();
    let Some(status) = lines.next().and_then(|line| line.strip_prefix(VERSION)).map(str::trim) else {
        return Some(Defect::Version);
    };
    // A line that begins with white space continues the value above it. The first line has no value above it.
    let mut above = false;
    for line in lines {
        if line.is_empty() {
            above = false;
            continue;
        }
        let goes_on = above && line.starts_with(char::is_whitespace);
        let value = if goes_on {
            line
        } else {
            let Some((name, value)) = line.split_once(':') else {
                return Some(Defect::Line);
            };
            if !name.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Some(Defect::Name);
            }
            stored |= name == STREAM;
            above = true;
            value
        };
        if value.contains('\r') {
            return Some(Defect::CarriageReturn);
        }
    }
    let code = status.split_once(' ').map_or(status, |(code, _)| code.trim());
    let well_formed = code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit()) && !code.starts_with('0');
    (!code.is_empty() && (stored || !well_formed)).then_some(Defect::Status)
}

/// The message that is delivered instead. It has the same subject (if that can be read), the headers that the server added, the reason,
/// and no payload, so that it cannot be mistaken for the original.
pub(super) fn replacement(announced: &Announced<'_>, header: &[u8], defect: Defect) -> Vec<u8> {
    let mut block = format!("{VERSION}\r\n{UNDELIVERABLE}: {defect}\r\n");
    for (name, value) in server_headers(header) {
        block.push_str(&format!("{name}: {value}\r\n"));
    }
    block.push_str("\r\n");
    let reply = announced.reply.map_or_else(String::new, |reply| format!("{} ", readable(reply)));
    let (subject, subscription) = (readable(announced.subject), String::from_utf8_lossy(announced.subscription));
    let length = block.len();
    format!("HMSG {subject} {subscription} {reply}{length} {length}\r\n{block}\r\n").into_bytes()
}

/// The server's own headers, with invalid characters in values replaced.
pub(super) fn server_headers(header: &[u8]) -> impl Iterator<Item = (String, String)> {
    let ends = memchr_iter(b'\n', header).chain([header.len()]);
    let mut start = 0;
    ends.filter_map(move |end| {
        let line = &header[start.min(end)..end];
        start = end + 1;
        let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line));
        let (name, value) = line.split_once(':')?;
        let fits = name.starts_with(SERVER_HEADERS) && name.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| (name.to_owned(), value.trim().replace(char::is_control, "\u{fffd}")))
    })
}

/// The bytes as a word that async-nats can read, with invalid characters replaced.
pub(super) fn readable(bytes: &[u8]) -> String {
    let unfit = |character: char| character.is_whitespace() || character.is_control();
    String::from_utf8_lossy(bytes).replace(unfit, "\u{fffd}")
}

/// A line that does not announce a message, as text that async-nats can read. It would close the connection otherwise.
pub(super) fn line(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.starts_with(b"-ERR") && bytes.len() < b"-ERR ".len() {
        return Some(b"-ERR ''".to_vec());
    }
    str::from_utf8(bytes)
        .is_err()
        .then(|| String::from_utf8_lossy(bytes).into_owned().into_bytes())
}

/// The stream and the sequence of a stored message, from its acknowledgement's subject or from the headers that the server added.
pub(super) fn place(announced: &Announced<'_>, header: &[u8]) -> Option<(String, u64)> {
    let by_reply = || {
        let reply = str::from_utf8(announced.reply?).ok()?;
        let words: Vec<&str> = reply.strip_prefix(ACK)?.split('.').collect();
        // <stream>.<consumer>.<delivered>.<sequence>.…, and if there are more tokens, a domain and an account's hash before them.
        let at = if words.len() > 7 { 2 } else { 0 };
        Some(((*words.get(at)?).to_owned(), words.get(at + 3)?.parse().ok()?))
    };
    by_reply().or_else(|| {
        let found = |wanted: &str| {
            server_headers(header)
                .filter(|(name, _)| *name == wanted)
                .last()
                .map(|(_, value)| value)
        };
        Some((found(STREAM)?, found("Nats-Sequence")?.parse().ok()?))
    })
}
