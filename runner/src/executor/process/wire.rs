//! What the runner and its spawn helper say to one another: one packet, one message.
//!
//! Written by hand because it is on the way of every job and both ends are always the same program: a few lengths and bytes.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
};

/// The largest request that travels in a packet; the body of a larger one comes as a file (a kernel packet holds about 200 KB).
pub(super) const INLINE_MAX: usize = 32 * 1024;

/// Room for every packet: an inline body and the head before it.
pub(super) const PACKET_MAX: usize = INLINE_MAX + 64;

/// What to start, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command {
    /// The program: a path, relative to `directory` if it is not absolute.
    pub(super) program: OsString,
    /// `argv[0]` and the arguments.
    pub(super) argv: Vec<OsString>,
    /// The whole environment.
    pub(super) env: Vec<(OsString, OsString)>,
    /// The current directory.
    pub(super) directory: OsString,
    /// The file that it reads as standard input; empty: none.
    pub(super) stdin: OsString,
    /// The user that it runs as, and its group; 0: the helper's own.
    pub(super) user: u32,
}

/// What the runner asks of the helper.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Start a command; its output pipes travel with the packet.
    Spawn {
        /// What this command is called from now on.
        id: u64,
        /// Whether to tell its process id.
        tell_pid: bool,
        /// The command; absent: in the file that travels with the packet.
        command: Option<Command>,
    },
    /// Send a signal to a command's group.
    Signal {
        /// The command.
        id: u64,
        /// The signal's number.
        signal: i32,
    },
}

/// What the helper tells the runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    /// A command runs; told only if asked.
    Started {
        /// The command.
        id: u64,
        /// Its process id, and its group's.
        pid: i32,
    },
    /// A command could not be started.
    Failed {
        /// The command.
        id: u64,
        /// Why, as an `errno`.
        errno: i32,
    },
    /// A command ended, and everything it left behind is gone.
    Ended {
        /// The command.
        id: u64,
        /// How, as `wait` tells it.
        status: i32,
        /// User and system time, in microseconds.
        cpu_micros: u64,
        /// The largest resident memory, in bytes.
        memory_bytes: u64,
    },
}

const SPAWN: u8 = 1;
const SPAWN_FROM_FILE: u8 = 2;
const SIGNAL: u8 = 3;
const STARTED: u8 = 4;
const FAILED: u8 = 5;
const ENDED: u8 = 6;

impl Command {
    /// Appends the command's bytes.
    pub(super) fn encode(&self, to: &mut Vec<u8>) {
        put(to, &self.program);
        put(to, &self.directory);
        put(to, &self.stdin);
        to.extend_from_slice(&self.user.to_ne_bytes());
        put_len(to, self.argv.len());
        self.argv.iter().for_each(|arg| put(to, arg));
        put_len(to, self.env.len());
        for (name, value) in &self.env {
            put(to, name);
            put(to, value);
        }
    }

    /// Reads what [`Self::encode`] wrote; `None` if it is something else.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = Reader(bytes);
        let program = from.text()?;
        let directory = from.text()?;
        let stdin = from.text()?;
        let user = from.array().map(u32::from_ne_bytes)?;
        let argv = (0..from.len()?).map(|_| from.text()).collect::<Option<_>>()?;
        let env = (0..from.len()?)
            .map(|_| Some((from.text()?, from.text()?)))
            .collect::<Option<_>>()?;
        from.0.is_empty().then_some(Self {
            program,
            argv,
            env,
            directory,
            stdin,
            user,
        })
    }
}

/// The packet that asks to start a command: its head, and the body if that is small enough to travel along.
pub(super) fn spawn_packet(id: u64, tell_pid: bool, body: &[u8]) -> Vec<u8> {
    let inline = body.len() <= INLINE_MAX;
    let mut packet = Vec::with_capacity(16 + if inline { body.len() } else { 0 });
    packet.push(if inline { SPAWN } else { SPAWN_FROM_FILE });
    packet.extend_from_slice(&id.to_ne_bytes());
    packet.push(u8::from(tell_pid));
    if inline {
        packet.extend_from_slice(body);
    }
    packet
}

/// The packet that asks to send a signal.
pub(super) fn signal_packet(id: u64, signal: i32) -> [u8; 13] {
    let mut packet = [SIGNAL; 13];
    packet[1..9].copy_from_slice(&id.to_ne_bytes());
    packet[9..].copy_from_slice(&signal.to_ne_bytes());
    packet
}

impl Request {
    /// Reads a packet; `None` if it is none of ours.
    pub(super) fn decode(packet: &[u8]) -> Option<Self> {
        let mut from = Reader(packet);
        let tag = from.byte()?;
        let id = from.u64()?;
        match tag {
            SPAWN => Some(Self::Spawn {
                id,
                tell_pid: from.byte()? != 0,
                command: Some(Command::decode(from.0)?),
            }),
            SPAWN_FROM_FILE => Some(Self::Spawn {
                id,
                tell_pid: from.byte()? != 0,
                command: None,
            }),
            SIGNAL => Some(Self::Signal { id, signal: from.i32()? }),
            _ => None,
        }
    }
}

impl Report {
    /// The report's packet, always of one size.
    pub(super) fn encode(&self) -> [u8; 29] {
        let (tag, id, number, cpu, memory) = match *self {
            Self::Started { id, pid } => (STARTED, id, pid, 0, 0),
            Self::Failed { id, errno } => (FAILED, id, errno, 0, 0),
            Self::Ended {
                id,
                status,
                cpu_micros,
                memory_bytes,
            } => (ENDED, id, status, cpu_micros, memory_bytes),
        };
        let mut packet = [tag; 29];
        packet[1..9].copy_from_slice(&id.to_ne_bytes());
        packet[9..13].copy_from_slice(&number.to_ne_bytes());
        packet[13..21].copy_from_slice(&cpu.to_ne_bytes());
        packet[21..].copy_from_slice(&memory.to_ne_bytes());
        packet
    }

    /// Reads a packet; `None` if it is none of ours.
    pub(super) fn decode(packet: &[u8]) -> Option<Self> {
        let mut from = Reader(packet);
        let tag = from.byte()?;
        let id = from.u64()?;
        let number = from.i32()?;
        match tag {
            STARTED => Some(Self::Started { id, pid: number }),
            FAILED => Some(Self::Failed { id, errno: number }),
            ENDED => Some(Self::Ended {
                id,
                status: number,
                cpu_micros: from.u64()?,
                memory_bytes: from.u64()?,
            }),
            _ => None,
        }
    }
}

fn put_len(to: &mut Vec<u8>, len: usize) {
    // A command line is bounded by the kernel at a few MiB, far below 4 GiB.
    to.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_ne_bytes());
}

fn put(to: &mut Vec<u8>, text: &OsStr) {
    put_len(to, text.len());
    to.extend_from_slice(text.as_bytes());
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_ne_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_ne_bytes)
    }

    fn len(&mut self) -> Option<usize> {
        self.array().map(u32::from_ne_bytes).map(|len| len as usize)
    }

    fn text(&mut self) -> Option<OsString> {
        let len = self.len()?;
        let (text, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(OsString::from_vec(text.to_vec()))
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        Command {
            program: "/usr/bin/python3".into(),
            argv: vec!["python3".into(), "a b.py".into(), OsString::from_vec(vec![0xff, 0xfe])],
            env: vec![("PATH".into(), "/bin".into()), ("EMPTY".into(), "".into())],
            directory: "/work".into(),
            stdin: "/stdin".into(),
            user: 2_100_000_000,
        }
    }

    #[test]
    fn a_spawn_request_reads_back_as_it_was_written() {
        let mut body = Vec::new();
        command().encode(&mut body);
        let packet = spawn_packet(7, true, &body);
        let expected = Request::Spawn {
            id: 7,
            tell_pid: true,
            command: Some(command()),
        };
        assert_eq!(Request::decode(&packet), Some(expected));
    }

    #[test]
    fn a_large_body_stays_out_of_the_packet() {
        let packet = spawn_packet(7, false, &vec![0; INLINE_MAX + 1]);
        assert!(packet.len() <= PACKET_MAX);
        assert!(matches!(Request::decode(&packet), Some(Request::Spawn { command: None, .. })));
    }

    #[test]
    fn a_signal_reads_back_as_it_was_written() {
        assert_eq!(Request::decode(&signal_packet(9, 15)), Some(Request::Signal { id: 9, signal: 15 }));
    }

    #[test]
    fn reports_read_back_as_they_were_written() {
        for report in [
            Report::Started { id: 1, pid: 99 },
            Report::Failed { id: 2, errno: 2 },
            Report::Ended {
                id: u64::MAX,
                status: -1,
                cpu_micros: 12,
                memory_bytes: 1 << 40,
            },
        ] {
            assert_eq!(Report::decode(&report.encode()), Some(report));
        }
    }

    #[test]
    fn a_cut_packet_is_refused() {
        let mut body = Vec::new();
        command().encode(&mut body);
        let packet = spawn_packet(7, true, &body);
        for len in 0..packet.len() {
            assert_eq!(Request::decode(&packet[..len]), None, "cut at {len}");
        }
    }
}
