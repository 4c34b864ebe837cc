//! Logs when the jobs of a work queue wait and no worker asks for them.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use bus::{
    ids::Queue,
    log::{EVENTS, connect::Bus, setup::work_consumer_name},
    spec::Class,
};
use serde::Deserialize;
use serde_json::json;
use tokio::{sync::watch, time::MissedTickBehavior};
use tracing::{debug, info};

/// How often every work queue of the served queues is checked.
const PERIOD: Duration = Duration::from_secs(10);
/// How many checks in a row: at a single one, a busy runner may not have asked yet.
const LOOKS: u32 = 2;

#[derive(Deserialize, Default)]
struct Info {
    #[serde(default)]
    num_pending: u64,
    #[serde(default)]
    num_waiting: u64,
}

/// Checks until it is aborted. It only logs: if every worker is busy, that looks the same as a runner that does not ask.
pub(crate) async fn watch(bus: Bus, queues: watch::Receiver<BTreeSet<Queue>>) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut unattended = HashMap::<String, u32>::new();
    loop {
        ticks.tick().await;
        let served = queues.borrow().clone();
        for queue in &served {
            for class in Class::ALL {
                let name = work_consumer_name(queue, class);
                let subject = format!("CONSUMER.INFO.{EVENTS}.{name}");
                match bus.js.request::<_, _, Info>(subject, &json!({})).await {
                    Ok(info) => {
                        if let Some(words) = note(&mut unattended, &name, &info) {
                            info!("{name}: {words}");
                        }
                    }
                    Err(error) => debug!("cannot look at consumer {name}: {error}"),
                }
            }
        }
    }
}

/// Counts the checks in which no worker asked for a queue's work, and returns a message when that begins or ends.
fn note(unattended: &mut HashMap<String, u32>, name: &str, info: &Info) -> Option<String> {
    if info.num_pending == 0 || info.num_waiting > 0 {
        let looks = unattended.remove(name)?;
        return (looks >= LOOKS).then(|| "workers ask for jobs again, or no job waits".to_owned());
    }
    let looks = unattended.entry(name.to_owned()).or_default();
    *looks = looks.saturating_add(1);
    let jobs = info.num_pending;
    (*looks == LOOKS).then(|| format!("{jobs} jobs wait and no worker asks for one; its workers are busy, or too small"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_logs_once_when_work_is_unattended_and_once_when_it_is_not() {
        let mut unattended = HashMap::new();
        let mut look = |num_pending, num_waiting| note(&mut unattended, "work", &Info { num_pending, num_waiting }).is_some();
        assert!(!look(0, 0) && !look(3, 1), "all is well");
        assert!(!look(3, 0) && !look(3, 1), "one check is not enough");
        assert_eq!([look(3, 0), look(3, 0), look(4, 0), look(5, 0)], [false, true, false, false]);
        assert_eq!([look(5, 2), look(0, 0), look(0, 2)], [true, false, false]);
    }
}
