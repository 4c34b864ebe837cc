//! Limits memory where no control group can: by looking, ten times a second.
//!
//! Not by `RLIMIT_AS`: that limits what is reserved, not what is used, and Node and numpy reserve gigabytes.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rustix::process::Signal;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::task::TaskTracker;

use super::{
    ending::Ending,
    link::Link,
    proc::{self, Stat},
};

const PERIOD: Duration = Duration::from_millis(100);

/// Watches the memory of commands, and kills those that use too much.
#[derive(Clone, Default)]
pub(super) struct Sampler {
    watched: Arc<Mutex<HashMap<u64, Watched>>>,
}

#[derive(Clone)]
struct Watched {
    pid: i32,
    limit: u64,
    link: Arc<Link>,
    over: Arc<AtomicBool>,
}

impl Sampler {
    /// Watches a command until its end. The flag says whether it was killed for the memory it used.
    pub(super) fn watch(&self, id: u64, limit: u64, link: Arc<Link>, ending: Arc<Ending>, tasks: &TaskTracker) -> Arc<AtomicBool> {
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let (sampler, rounds) = (self.clone(), tasks.clone());
        tasks.spawn(async move {
            let Some(pid) = ending.pid().await else { return };
            let first = {
                let mut watched = sampler.watched.lock();
                watched.insert(id, Watched { pid, limit, link, over });
                watched.len() == 1
            };
            if first {
                rounds.spawn(sampler.clone().run());
            }
            ending.wait().await;
            sampler.watched.lock().remove(&id);
        });
        told
    }

    /// Looks at all watched commands at once, until there are none.
    async fn run(self) {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let watched = self.watched.lock().clone();
            if watched.is_empty() {
                return;
            }
            let Ok(over) = tokio::task::spawn_blocking(move || too_large(watched)).await else {
                return;
            };
            for (id, watched) in over {
                watched.over.store(true, Ordering::Release);
                watched.link.signal(id, Signal::KILL.as_raw()).await;
            }
        }
    }
}

/// Those that use more than they may.
fn too_large(watched: HashMap<u64, Watched>) -> Vec<(u64, Watched)> {
    let processes: HashMap<i32, Stat> = proc::pids().filter_map(Stat::of).map(|stat| (stat.pid, stat)).collect();
    watched
        .into_iter()
        .filter(|(id, watched)| {
            let family = family(*id, watched.pid, &processes);
            let resident: u64 = family
                .iter()
                .map(|stat| stat.resident_pages * rustix::param::page_size() as u64)
                .sum();
            // Pages that processes share count once in the exact sum only, which costs more to get.
            resident > watched.limit && family.iter().map(proportional).sum::<u64>() > watched.limit
        })
        .collect()
}

/// The processes of a command: its group, its descendants, and those that left both but kept its mark.
fn family(id: u64, leader: i32, processes: &HashMap<i32, Stat>) -> Vec<Stat> {
    let helper = processes.get(&leader).map(|stat| stat.parent);
    let is_root = |stat: &Stat| {
        stat.pid == leader
            || stat.group == leader
            || Some(stat.parent) == helper && proc::mark_of(stat.pid).is_some_and(|mark| mark.id == id)
    };
    let descends = |stat: &&Stat| {
        let mut at = Some(*stat);
        // Bounded, because parents may have changed while the list was read.
        for _ in 0..processes.len() {
            match at {
                Some(stat) if is_root(stat) => return true,
                Some(stat) => at = processes.get(&stat.parent),
                None => return false,
            }
        }
        false
    };
    processes.values().filter(descends).copied().collect()
}

/// A process's share of the memory it uses, in bytes.
fn proportional(stat: &Stat) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", stat.pid)).unwrap_or_default();
    let kib = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map_or(0, |kib| kib * 1024)
}
