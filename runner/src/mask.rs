//! Keeps secrets out of what a command prints: `***` stands for each, wherever a read happened to cut it.

use std::collections::BTreeSet;

use aho_corasick::{AhoCorasick, BuildError, MatchKind};
use bus::{frame::Stream, secrets::MIN_BYTES};
use bytes::Bytes;

/// What stands for a secret.
const INSTEAD: &[u8] = b"***";

/// Replaces secrets in two streams, and holds back what may be the beginning of one.
#[derive(Debug)]
pub(crate) struct Mask {
    finder: AhoCorasick,
    longest: usize,
    words: Vec<Vec<u8>>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Mask {
    /// A mask for these values, and for each line of one that has several: programs print them line by line.
    ///
    /// # Errors
    /// If they are too much to search for.
    pub(crate) fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Result<Self, BuildError> {
        let words: BTreeSet<&str> = values.into_iter().flat_map(words).collect();
        let words: Vec<Vec<u8>> = words.into_iter().map(|word| word.as_bytes().to_vec()).collect();
        let finder = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&words)?;
        Ok(Self {
            finder,
            longest: words.iter().map(Vec::len).max().unwrap_or(0),
            words,
            stdout: Vec::new(),
            stderr: Vec::new(),
        })
    }

    /// What may be shown of a stream, now that these bytes came.
    pub(crate) fn feed(&mut self, stream: Stream, bytes: &[u8]) -> Bytes {
        let mut all = std::mem::take(self.held_of(stream));
        all.extend_from_slice(bytes);
        let begins = self.begins(&all);
        let (shown, from) = self.replace(&all, begins);
        *self.held_of(stream) = all.split_off(from);
        shown
    }

    /// What was held back of a stream that has ended.
    pub(crate) fn rest(&mut self, stream: Stream) -> Bytes {
        let all = std::mem::take(self.held_of(stream));
        self.replace(&all, all.len()).0
    }

    /// How many bytes are held back of a stream.
    pub(crate) const fn held(&self, stream: Stream) -> usize {
        match stream {
            Stream::Stdout => self.stdout.len(),
            Stream::Stderr => self.stderr.len(),
        }
    }

    const fn held_of(&mut self, stream: Stream) -> &mut Vec<u8> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// Replaces every secret that begins before `end`, and says up to where that is done.
    fn replace(&self, all: &[u8], end: usize) -> (Bytes, usize) {
        let (mut shown, mut done) = (Vec::with_capacity(end), 0);
        for found in self.finder.find_iter(all).take_while(|found| found.start() < end) {
            shown.extend_from_slice(&all[done..found.start()]);
            shown.extend_from_slice(INSTEAD);
            done = found.end();
        }
        let end = end.max(done);
        shown.extend_from_slice(&all[done..end]);
        (shown.into(), end)
    }

    /// Where something begins at the end that may become a secret with what is still to come.
    fn begins(&self, all: &[u8]) -> usize {
        let from = all.len().saturating_sub(self.longest.saturating_sub(1));
        let may_go_on = |at: &usize| {
            let tail = &all[*at..];
            self.words.iter().any(|word| word.len() > tail.len() && word.starts_with(tail))
        };
        (from..all.len()).find(may_go_on).unwrap_or(all.len())
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
        let mut mask = Mask::new(SECRETS).expect("a mask");
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
        let mut mask = Mask::new(["secret"]).expect("a mask");
        assert_eq!(mask.feed(Stream::Stderr, b"progress 50 % s").as_ref(), b"progress 50 % ");
        assert_eq!((mask.held(Stream::Stderr), mask.held(Stream::Stdout)), (1, 0));
        assert_eq!(mask.feed(Stream::Stderr, b"o").as_ref(), b"so");
    }

    proptest! {
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
