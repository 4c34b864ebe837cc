//! Keeps secrets out of what a command prints: `***` stands for each, wherever a read happened to cut it.

use std::collections::{BTreeSet, VecDeque};

use bus::{grid::secrets::MIN_BYTES, output::frame::Stream};
use bytes::{Buf as _, Bytes, BytesMut};

use self::words::{START, State, Words};

mod words;

/// What stands for a secret, and for secrets that overlap.
const INSTEAD: &[u8] = b"***";

/// Replaces secrets in two streams, and holds back what may be the beginning of one. Each byte is looked at once, whatever the secrets
/// are and however the stream is cut: what a job chooses must not take the runner's time.
#[derive(Debug)]
pub(crate) struct Mask {
    words: Words,
    stdout: Flow,
    stderr: Flow,
}

/// How far a stream was looked at. Places count from its beginning, in bytes.
#[derive(Debug, Default)]
struct Flow {
    at: State,
    /// How much came.
    come: u64,
    /// What is held back: the last of what came.
    held: BytesMut,
    /// Where secrets are in what is held back, in order; none overlaps another.
    hidden: VecDeque<(u64, u64)>,
    /// Up to where something stands instead already.
    replaced: u64,
}

impl Mask {
    /// A mask for these values, and for each line of one that has several: programs print them line by line. Takes up to a microsecond
    /// and 64 bytes of memory for each byte of them.
    pub(crate) fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let words: BTreeSet<&str> = values.into_iter().flat_map(words).collect();
        Self {
            words: Words::new(words.into_iter().map(str::as_bytes)),
            stdout: Flow::default(),
            stderr: Flow::default(),
        }
    }

    /// What may be shown of a stream, now that these bytes came.
    pub(crate) fn feed(&mut self, stream: Stream, bytes: &[u8]) -> Bytes {
        let (words, flow) = self.flow(stream);
        for &byte in bytes {
            flow.at = words.step(flow.at, byte);
            flow.come += 1;
            let length = words.ends(flow.at) as u64;
            if length > 0 {
                flow.hide(flow.come - length);
            }
        }
        flow.held.extend_from_slice(bytes);
        flow.release(flow.come - words.open(flow.at) as u64)
    }

    /// What was held back of a stream that has ended.
    pub(crate) fn rest(&mut self, stream: Stream) -> Bytes {
        let (_, flow) = self.flow(stream);
        flow.at = START;
        flow.release(flow.come)
    }

    /// How many bytes are held back of a stream, for which nothing was shown.
    pub(crate) fn held(&self, stream: Stream) -> usize {
        let flow = match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        };
        let replaced = usize::try_from(flow.replaced.saturating_sub(flow.begin())).unwrap_or(usize::MAX);
        flow.held.len().saturating_sub(replaced)
    }

    const fn flow(&mut self, stream: Stream) -> (&Words, &mut Flow) {
        match stream {
            Stream::Stdout => (&self.words, &mut self.stdout),
            Stream::Stderr => (&self.words, &mut self.stderr),
        }
    }
}

impl Flow {
    /// Where what is held back begins.
    fn begin(&self) -> u64 {
        self.come - self.held.len() as u64
    }

    /// A secret begins there, and ends with what came last.
    fn hide(&mut self, mut from: u64) {
        while let Some(&(start, end)) = self.hidden.back()
            && end > from
        {
            from = from.min(start);
            self.hidden.pop_back();
        }
        self.hidden.push_back((from, self.come));
    }

    /// What is to be shown up to there, where no secret begins that is not known.
    fn release(&mut self, until: u64) -> Bytes {
        let mut shown = BytesMut::new();
        while let Some(&(start, end)) = self.hidden.front()
            && start < until
        {
            self.show(&mut shown, start);
            if start >= self.replaced {
                shown.extend_from_slice(INSTEAD);
            }
            self.replaced = end;
            self.hidden.pop_front();
        }
        self.show(&mut shown, until);
        shown.freeze()
    }

    /// Shows what stands before a place and for which nothing stands instead; all that is before it is held back no longer.
    fn show(&mut self, shown: &mut BytesMut, until: u64) {
        let held = |from: u64, to: u64| usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
        let behind = held(self.begin(), until);
        let replaced = held(self.begin(), self.replaced).min(behind);
        self.held.advance(replaced);
        shown.extend_from_slice(&self.held.split_to(behind - replaced));
    }
}

fn words(value: &str) -> impl Iterator<Item = &str> {
    let lines = value.lines().map(str::trim).filter(|line| line.len() >= MIN_BYTES);
    std::iter::once(value.trim_end_matches(['\r', '\n']))
        .filter(|value| !value.is_empty())
        .chain(lines)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRETS: [&str; 4] = ["abcd", "abcdefgh", "bcbcx", "-----BEGIN\nline one\nline two\n-----END\n"];

    fn masked(mut pieces: impl Iterator<Item = Vec<u8>>) -> String {
        let mut mask = Mask::new(SECRETS);
        let mut all = Vec::new();
        pieces
            .by_ref()
            .for_each(|piece| all.extend_from_slice(&mask.feed(Stream::Stdout, &piece)));
        all.extend_from_slice(&mask.rest(Stream::Stdout));
        String::from_utf8(all).expect("text")
    }

    #[test]
    fn secrets_are_replaced_wherever_they_are_cut() {
        let cases = [
            ("nothing", "nothing"),
            ("xabcdx", "x***x"),
            ("abcdefgh", "***"),
            ("abcdef", "***ef"),
            ("ab", "ab"),
            ("-----BEGIN\nline one\nline two\n-----END\n", "***\n"),
            ("x\nline one\ny", "x\n***\ny"),
            ("bcbcbcx abcd", "bc*** ***"),
        ];
        for (text, expected) in cases {
            for size in 1..=text.len() {
                let pieces = text.as_bytes().chunks(size).map(<[u8]>::to_vec);
                assert_eq!(masked(pieces), expected, "{text} in pieces of {size}");
            }
        }
    }

    #[test]
    fn what_begins_no_secret_is_shown_at_once() {
        let mut mask = Mask::new(["secret"]);
        assert_eq!(mask.feed(Stream::Stderr, b"progress 50 % s").as_ref(), b"progress 50 % ");
        assert_eq!((mask.held(Stream::Stderr), mask.held(Stream::Stdout)), (1, 0));
        assert_eq!(mask.feed(Stream::Stderr, b"o").as_ref(), b"so");
    }

    /// As the definition says: every byte of every occurrence is hidden, and one mark stands for those that overlap.
    fn naively(text: &[u8]) -> Vec<u8> {
        let mut places = Vec::new();
        for word in SECRETS.into_iter().flat_map(words) {
            let begins = (0..text.len()).filter(|&at| text[at..].starts_with(word.as_bytes()));
            places.extend(begins.map(|at| (at, at + word.len())));
        }
        places.sort_unstable();
        let (mut shown, mut done) = (Vec::new(), 0);
        for (start, end) in places {
            if start >= done {
                shown.extend_from_slice(&text[done..start]);
                shown.extend_from_slice(INSTEAD);
            }
            done = done.max(end);
        }
        shown.extend_from_slice(&text[done..]);
        shown
    }

    /// How long a mask takes for so much, in small pieces.
    fn took(secrets: &[String], text: &[u8], piece: usize) -> std::time::Duration {
        let begun = std::time::Instant::now();
        let mut mask = Mask::new(secrets.iter().map(String::as_str));
        let shown: usize = text.chunks(piece).map(|piece| mask.feed(Stream::Stdout, piece).len()).sum();
        assert!(shown <= text.len());
        begun.elapsed()
    }

    #[test]
    fn no_secret_and_no_output_takes_more_than_a_moment_for_each_byte() {
        let (one, lines) = ("a".repeat(64 << 10), |range: std::ops::Range<usize>| -> String {
            range.map(|length| "a".repeat(length) + "\n").collect()
        });
        let growing = lines(4..350);
        let many: Vec<String> = (0..8).map(|more| format!("{}{}", "a".repeat(60 << 10), "b".repeat(more))).collect();
        let text = [vec![b'a'; 100_000], b"b".to_vec(), vec![b'a'; 100_000]].concat();
        let cases = [("one letter", vec![one]), ("growing lines", vec![growing]), ("many of them", many)];
        for (what, secrets) in &cases {
            for piece in [1, 4096] {
                // A debug build needs some 100 ns a byte; what goes over the held part again needs minutes.
                let took = took(secrets, &text, piece);
                assert!(took.as_secs() < 4, "{what} in pieces of {piece}: {took:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn every_occurrence_is_hidden_whole(text in "[abcdehx]{0,40}") {
            let shown = masked(std::iter::once(text.clone().into_bytes()));
            prop_assert_eq!(shown.as_bytes(), naively(text.as_bytes()));
        }

        #[test]
        fn cuts_change_nothing_and_no_secret_stays(text in "[abcdx]{0,40}", cuts in proptest::collection::vec(1_usize..6, 1..40)) {
            let whole = masked(std::iter::once(text.clone().into_bytes()));
            let mut rest = text.into_bytes();
            let mut sizes = cuts.into_iter().cycle();
            let pieces = std::iter::from_fn(|| {
                let size = sizes.next()?.min(rest.len());
                (size > 0).then(|| rest.drain(..size).collect::<Vec<u8>>())
            });
            let cut = masked(pieces);
            prop_assert!(!SECRETS.iter().any(|secret| cut.contains(secret)), "{cut}");
            prop_assert_eq!(cut, whole);
        }
    }
}
