//! Which contents are used, and what for: a sorted list, since there may be millions.

use bus::ids::Digest;

/// A shorter list is not sorted while it grows.
const SHORT: usize = 4_096;

/// The uses of a content, as bits.
pub(super) mod kind {
    pub(in crate::storage) const LIVE: u8 = 1;
    pub(in crate::storage) const OUTPUT: u8 = 2;
    pub(in crate::storage) const LOG: u8 = 4;
    pub(in crate::storage) const CACHE: u8 = 8;
    pub(in crate::storage) const ENDED: u8 = 16;
}

/// Contents and their uses.
#[derive(Debug, Default)]
pub(super) struct Used {
    all: Vec<(Digest, u8)>,
    /// How long the list may grow before repetitions are removed.
    limit: usize,
}

impl Used {
    /// Adds uses of a content.
    pub(super) fn note(&mut self, digest: Digest, kinds: u8) {
        if self.all.len() >= self.limit {
            self.order();
            self.limit = SHORT.max(self.all.len() * 2);
        }
        self.all.push((digest, kinds));
    }

    /// Puts it in order, after which it can be request.
    pub(super) fn ordered(mut self) -> Ordered {
        self.order();
        self.all.shrink_to_fit();
        Ordered(self.all)
    }

    fn order(&mut self) {
        self.all.sort_unstable();
        self.all.dedup_by(|later, first| {
            let same = later.0 == first.0;
            if same {
                first.1 |= later.1;
            }
            same
        });
    }
}

/// Sorted, with each content once.
#[derive(Debug)]
pub(super) struct Ordered(Vec<(Digest, u8)>);

impl Ordered {
    /// The uses of a content; `None` if it is unused.
    pub(super) fn get(&self, digest: &Digest) -> Option<u8> {
        let place = self.0.binary_search_by_key(digest, |(digest, _)| *digest).ok()?;
        Some(self.0[place].1)
    }
}

impl IntoIterator for Ordered {
    type Item = (Digest, u8);
    type IntoIter = std::vec::IntoIter<(Digest, u8)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_often_stands_there_once_with_all_that_it_is_for() {
        let content = |n: u32| Digest::of(&n.to_be_bytes());
        let mut used = Used::default();
        for round in 0..5_u8 {
            for n in 0..SHORT as u32 {
                used.note(content(n), 1 << round);
            }
            assert!(used.all.len() <= 2 * SHORT, "{}", used.all.len());
        }
        used.note(content(u32::MAX), 64);
        let used = used.ordered();
        assert_eq!((used.get(&content(7)), used.get(&content(u32::MAX))), (Some(31), Some(64)));
        assert_eq!(used.get(&content(u32::MAX - 1)), None);
        assert_eq!(used.into_iter().count(), SHORT + 1);
    }
}
