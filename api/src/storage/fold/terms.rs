//! What many jobs have in common, kept once.

use std::collections::HashMap;

use bus::{ids::BatchId, spec::JobSpec};
use serde::{Deserialize, Serialize};

/// The batch of a job, and how long its outputs are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Term {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) batch: Option<BatchId>,
    /// How long its outputs are kept, in milliseconds, if the job says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) keep_outputs_ms: Option<u64>,
}

impl Term {
    pub(super) fn of(spec: &JobSpec) -> Self {
        Self {
            batch: spec.batch.as_ref().map(|member| member.batch),
            keep_outputs_ms: spec.keep_outputs_ms,
        }
    }
}

/// Each term once, known by its number.
#[derive(Debug)]
pub(super) struct Terms {
    all: Vec<Term>,
    numbers: HashMap<Term, u32>,
}

impl Default for Terms {
    fn default() -> Self {
        let mut terms = Self {
            all: Vec::new(),
            numbers: HashMap::new(),
        };
        terms.number(Term::default());
        terms
    }
}

impl Terms {
    /// The term of a job without a batch that does not say how long its outputs are kept.
    pub(super) const NONE: u32 = 0;

    pub(super) fn number(&mut self, term: Term) -> u32 {
        *self.numbers.entry(term).or_insert_with(|| {
            self.all.push(term);
            // As many jobs fit no memory.
            u32::try_from(self.all.len() - 1).unwrap_or(Self::NONE)
        })
    }

    pub(super) fn get(&self, number: u32) -> Term {
        usize::try_from(number)
            .ok()
            .and_then(|number| self.all.get(number))
            .copied()
            .unwrap_or_default()
    }

    pub(super) fn all(&self) -> &[Term] {
        &self.all
    }
}
