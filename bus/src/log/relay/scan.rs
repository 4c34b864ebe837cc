//! Splits what a server sends into messages, and replaces those that async-nats cannot handle. Pure.

use bytes::{Bytes, BytesMut};
use memchr::memmem;

use super::repair::{self, Announced, Defect};

/// The longest line, in bytes. A server's first line names all servers of its cluster.
const LINE_MAX: usize = 1 << 20;

/// The bytes do not follow the NATS protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server's data do not follow the NATS protocol")]
pub(super) struct ProtocolError;

/// A message that was replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::log) struct Replaced {
    /// The message's subject. Bytes that are not UTF-8 are replaced.
    pub(super) subject: String,
    /// The message's stream and sequence, if it is stored.
    pub(super) place: Option<(String, u64)>,
    /// The message's defect.
    pub(super) defect: Defect,
}

/// Scans the bytes that a server sends.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// Remaining bytes of a message that are passed on unchanged.
    pass: usize,
    /// Remaining bytes of a replaced message that are dropped.
    drop: usize,
}

impl Scanner {
    /// Takes the bytes from `input` that can be passed on now, in order: almost always all of them, without a copy. What remains in
    /// `input` is the beginning of a line or of a header.
    pub(super) fn scan(&mut self, input: &mut BytesMut, replaced: &mut Vec<Replaced>) -> Result<Vec<Bytes>, ProtocolError> {
        let mut out = Vec::with_capacity(1);
        // Up to this index, `input` is passed on unchanged.
        let mut at = 0;
        loop {
            if self.drop > 0 {
                debug_assert_eq!(at, 0, "the bytes before are passed on when something is dropped");
                let dropped = self.drop.min(input.len());
                let _dropped = input.split_to(dropped);
                self.drop -= dropped;
            }
            let passed = self.pass.min(input.len() - at);
            (at, self.pass) = (at + passed, self.pass - passed);
            if at == input.len() {
                break;
            }
            let Some(length) = memmem::find(&input[at..], b"\r\n") else {
                if input.len() - at > LINE_MAX {
                    return Err(ProtocolError);
                }
                break;
            };
            let (line, rest) = (&input[at..at + length], &input[at + length + 2..]);
            let Some(announced) = Announced::read(line) else {
                if line.starts_with(b"MSG ") || line.starts_with(b"HMSG ") {
                    return Err(ProtocolError);
                }
                if let Some(readable) = repair::line(line) {
                    pass_on(input, &mut at, &mut out);
                    let _replaced = input.split_to(length + 2);
                    out.push([&readable[..], b"\r\n"].concat().into());
                } else {
                    at += length + 2;
                }
                continue;
            };
            let Some(header) = rest.get(..announced.header) else { break };
            if let Some(defect) = repair::defect(&announced, header, line.starts_with(b"HMSG ")) {
                replaced.push(Replaced {
                    subject: repair::readable(announced.subject),
                    place: repair::place(&announced, header),
                    defect,
                });
                let instead = repair::replacement(&announced, header, defect);
                self.drop = length + 2 + announced.total + 2;
                pass_on(input, &mut at, &mut out);
                out.push(instead.into());
            } else {
                self.pass = length + 2 + announced.total + 2;
            }
        }
        pass_on(input, &mut at, &mut out);
        Ok(out)
    }
}

/// Passes on the bytes before `at`.
fn pass_on(input: &mut BytesMut, at: &mut usize, out: &mut Vec<Bytes>) {
    if *at > 0 {
        out.push(input.split_to(*at).freeze());
        *at = 0;
    }
}
