//! A fold as text: one line of JSON for each thing, so that neither writing nor reading takes it twice into memory.

use std::{
    borrow::Cow,
    io::{BufRead, Error, ErrorKind, Result, Write},
};

use bus::ids::{Digest, JobId};
use serde::{Deserialize, Serialize};

use super::{Ended, Fold, Left, Live, Terms, terms::Term};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line<'a> {
    /// The events that it is the fold of, and before when the inputs of ended jobs are forgotten; first.
    Head(u64, i64),
    /// A term; the first one has number 0. Before whatever has a term.
    Term(Term),
    Live(JobId, Cow<'a, Live>),
    Ended(Digest, i64, bool),
    /// Manifest, job, bytes of outputs, bytes of log, end, term, whether it was tried again.
    Left(Digest, JobId, u64, u64, i64, u32, bool),
    Named(Cow<'a, str>, Cow<'a, [Digest]>),
    Odd(Digest),
    /// How many lines stand before it; last.
    End(u64),
}

impl Fold {
    /// Writes it; the same fold always as the same text.
    ///
    /// # Errors
    /// It cannot be written there.
    pub(crate) fn write(&self, to: &mut impl Write) -> Result<()> {
        let mut lines = 0;
        let mut put = |line: Line<'_>| {
            serde_json::to_writer(&mut *to, &line)?;
            lines += 1;
            to.write_all(b"\n")
        };
        put(Line::Head(self.events, self.forgotten))?;
        for term in self.terms.all() {
            put(Line::Term(*term))?;
        }
        for (job, live) in sorted(self.live.iter(), |(job, _)| **job) {
            put(Line::Live(*job, Cow::Borrowed(live)))?;
        }
        for (digest, ended) in sorted(self.ended.iter(), |(digest, _)| **digest) {
            put(Line::Ended(*digest, ended.last, ended.tree))?;
        }
        for left in &self.left {
            let (term, again) = (left.term, left.tried_again);
            put(Line::Left(left.manifest, left.job, left.outputs, left.log, left.ended, term, again))?;
        }
        for (subject, digests) in sorted(self.named.iter(), |(subject, _)| subject.as_str()) {
            put(Line::Named(Cow::Borrowed(subject), Cow::Borrowed(digests)))?;
        }
        for digest in sorted(self.odd.iter(), |digest| **digest) {
            put(Line::Odd(*digest))?;
        }
        serde_json::to_writer(&mut *to, &Line::End(lines))?;
        to.write_all(b"\n")
    }

    /// Reads what [`Self::write`] wrote.
    ///
    /// # Errors
    /// It cannot be read, or is not whole.
    pub(crate) fn read(mut from: impl BufRead) -> Result<Self> {
        let damaged = |what: &str| Error::new(ErrorKind::InvalidData, what.to_owned());
        let (mut fold, mut terms, mut lines) = (Self::default(), 0, 0);
        let mut text = Vec::new();
        loop {
            text.clear();
            if from.read_until(b'\n', &mut text)? == 0 {
                return Err(damaged("it ends before its end"));
            }
            let line: Line<'_> = serde_json::from_slice(&text)?;
            if (lines == 0) != matches!(line, Line::Head(..)) {
                return Err(damaged("its head is not where it begins"));
            }
            if let Line::Live(_, live) = &line
                && live.term >= terms
            {
                return Err(damaged("a job has a term that is not there"));
            }
            match line {
                Line::Head(events, forgotten) => (fold.events, fold.forgotten) = (events, forgotten),
                Line::Term(term) => {
                    if fold.terms.number(term) != terms {
                        return Err(damaged("its terms are not in order"));
                    }
                    terms += 1;
                }
                Line::Live(job, live) => drop(fold.live.insert(job, live.into_owned())),
                Line::Ended(digest, last, tree) => drop(fold.ended.insert(digest, Ended { last, tree })),
                Line::Left(_, _, _, _, _, term, _) if term >= terms => return Err(damaged("what was left has a term that is not there")),
                Line::Left(manifest, job, outputs, log, ended, term, tried_again) => fold.left.push(Left {
                    manifest,
                    job,
                    outputs,
                    log,
                    ended,
                    term,
                    tried_again,
                }),
                Line::Named(subject, digests) => drop(fold.named.insert(subject.into_owned(), digests.into_owned().into())),
                Line::Odd(digest) => drop(fold.odd.insert(digest)),
                Line::End(count) if count == lines && terms > Terms::NONE => break,
                Line::End(_) => return Err(damaged("lines are missing")),
            }
            lines += 1;
        }
        if from.read_until(b'\n', &mut text)? > 0 {
            return Err(damaged("it goes on after its end"));
        }
        Ok(fold)
    }
}

fn sorted<T, K: Ord>(all: impl Iterator<Item = T>, key: impl Fn(&T) -> K) -> Vec<T> {
    let mut all: Vec<T> = all.collect();
    all.sort_unstable_by_key(key);
    all
}
