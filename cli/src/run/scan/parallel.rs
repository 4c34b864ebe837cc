//! The same work on many things, on all CPUs.

use std::{num::NonZero, thread};

/// For fewer things, a thread costs more than it saves.
const FEWEST: usize = 64;
/// More threads than this wait for one disk.
const MOST_THREADS: usize = 8;

/// What a function makes of each of these, in their order.
pub(crate) fn map<T: Sync, R: Send>(things: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    if things.len() < FEWEST {
        return things.iter().map(work).collect();
    }
    // The system is asked at each call, which takes as long as a few files.
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS);
    let work = &work;
    thread::scope(|scope| {
        let parts = things.chunks(things.len().div_ceil(threads));
        let running: Vec<_> = parts
            .map(|part| scope.spawn(move || part.iter().map(work).collect::<Vec<R>>()))
            .collect();
        let done = running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        done.flatten().collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_stays_however_many_there_are() {
        for count in [0, 1, FEWEST - 1, FEWEST, 1_001] {
            let things: Vec<usize> = (0..count).collect();
            assert_eq!(
                map(&things, |thing| thing * 2),
                (0..count).map(|thing| thing * 2).collect::<Vec<_>>()
            );
        }
    }
}
