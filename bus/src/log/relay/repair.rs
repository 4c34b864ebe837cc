//! What of a message async-nats cannot take, and what is handed to it instead. Pure.
//!
//! nats-server passes headers and subjects on as they were sent. async-nats 0.51 (the newest release) closes its connection
//! where they are not as it expects, at every delivery anew, and a lone carriage return in a header value makes it panic, after
//! which the client is dead for good (nats.rs pull request 1612).

use std::{fmt, str};

use memchr::memchr_iter;

/// The header of a message that stands for one which could not be delivered; its value says why not.
pub const UNDELIVERABLE: &str = "Rgrid-Undeliverable";

/// The line that a header begins with.
const VERSION: &str = "NATS/1.0";
/// The headers that the server itself reads and adds begin so, and are kept: they say where a message stands.
const KEPT: &str = "Nats-";
/// The header that the server adds to a stored message which was asked for.
const STREAM: &str = "Nats-Stream";
/// How replies begin that a stored message is acknowledged with.
const ACK: &str = "$JS.ACK.";

/// Why a message cannot be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log) enum Defect {
    /// The subject, or the reply subject.
    Subject,
    /// The header is not UTF-8.
    NotText,
    /// The header does not begin with its version.
    Version,
    /// The header carries a status, which only the server's own answers have.
    Status,
    /// A header line without a colon.
    Line,
    /// A header name with a character that none may have.
    Name,
    /// A carriage return within a header value.
    CarriageReturn,
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Subject => "its subject is not UTF-8, or holds white space",
            Self::NotText => "its header is not UTF-8",
            Self::Version => "its header does not begin with NATS/1.0",
            Self::Status => "its header carries a status, as only answers of the server do",
            Self::Line => "a line of its header has no colon",
            Self::Name => "the name of one of its headers is not of visible ASCII characters",
            Self::CarriageReturn => "a value of its header holds a carriage return",
        })
    }
}

/// The line that announces a message, taken apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Announced<'a> {
    pub(super) subject: &'a [u8],
    pub(super) subscription: &'a [u8],
    pub(super) reply: Option<&'a [u8]>,
    /// The bytes of the header, without a header 0.
    pub(super) header: usize,
    /// The bytes of header and payload.
    pub(super) total: usize,
}

impl<'a> Announced<'a> {
    /// Reads `MSG <subject> <subscription> [reply] <bytes>` or `HMSG <subject> <subscription> [reply] <header bytes> <bytes>`,
    /// without its end; nothing where it is neither.
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
    // Far above what a server sends (64 MiB at most), and far below what could overflow.
    str::from_utf8(word).ok()?.parse().ok().filter(|number| *number <= 1 << 30)
}

/// What is wrong with a message, if anything is.
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

/// Whether async-nats reads this as one word; almost always it is plain ASCII.
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
    // A line that begins with white space goes on with the value above it; above the first one there is none.
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

/// The message that is delivered instead: with the same subject where that can be read, the headers that say where it stands, the
/// reason, and no payload, so that nobody takes it for what it is not.
pub(super) fn replacement(announced: &Announced<'_>, header: &[u8], defect: Defect) -> Vec<u8> {
    let mut block = format!("{VERSION}\r\n{UNDELIVERABLE}: {defect}\r\n");
    for (name, value) in kept(header) {
        block.push_str(&format!("{name}: {value}\r\n"));
    }
    block.push_str("\r\n");
    let reply = announced.reply.map_or_else(String::new, |reply| format!("{} ", readable(reply)));
    let (subject, subscription) = (readable(announced.subject), String::from_utf8_lossy(announced.subscription));
    let length = block.len();
    format!("HMSG {subject} {subscription} {reply}{length} {length}\r\n{block}\r\n").into_bytes()
}

/// The server's own headers, with what is unfit in a value replaced.
pub(super) fn kept(header: &[u8]) -> impl Iterator<Item = (String, String)> {
    let ends = memchr_iter(b'\n', header).chain([header.len()]);
    let mut start = 0;
    ends.filter_map(move |end| {
        let line = &header[start.min(end)..end];
        start = end + 1;
        let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line));
        let (name, value) = line.split_once(':')?;
        let fits = name.starts_with(KEPT) && name.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| (name.to_owned(), value.trim().replace(char::is_control, "\u{fffd}")))
    })
}

/// Bytes as a word that async-nats reads: what it would not is replaced.
pub(super) fn readable(bytes: &[u8]) -> String {
    let unfit = |character: char| character.is_whitespace() || character.is_control();
    String::from_utf8_lossy(bytes).replace(unfit, "\u{fffd}")
}

/// A line that is no message, as text: async-nats closes the connection where it is not.
pub(super) fn line(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.starts_with(b"-ERR") && bytes.len() < b"-ERR ".len() {
        return Some(b"-ERR ''".to_vec());
    }
    str::from_utf8(bytes)
        .is_err()
        .then(|| String::from_utf8_lossy(bytes).into_owned().into_bytes())
}

/// Where a stored message stands: its stream and its sequence, by its acknowledgement's subject or by the headers that the server
/// added.
pub(super) fn place(announced: &Announced<'_>, header: &[u8]) -> Option<(String, u64)> {
    let by_reply = || {
        let reply = str::from_utf8(announced.reply?).ok()?;
        let words: Vec<&str> = reply.strip_prefix(ACK)?.split('.').collect();
        // <stream>.<consumer>.<delivered>.<sequence>.…, and where there is more, a domain and an account's hash before it.
        let at = if words.len() > 7 { 2 } else { 0 };
        Some(((*words.get(at)?).to_owned(), words.get(at + 3)?.parse().ok()?))
    };
    by_reply().or_else(|| {
        let found = |wanted: &str| kept(header).filter(|(name, _)| *name == wanted).last().map(|(_, value)| value);
        Some((found(STREAM)?, found("Nats-Sequence")?.parse().ok()?))
    })
}
