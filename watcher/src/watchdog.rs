//! An eye on the work consumers: work that waits while nobody asks for it.

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

/// How often every work consumer of the served queues is looked at.
const PERIOD: Duration = Duration::from_secs(10);
/// Two looks in a row; in one, a busy runner may just not have asked yet.
const LOOKS: u32 = 2;

#[derive(Deserialize, Default)]
struct Info {
    #[serde(default)]
    num_pending: u64,
    #[serde(default)]
    num_waiting: u64,
}

/// Looks for as long as it lives. Every worker busy looks the same as a runner that forgot to ask, so it only says what is.
pub(crate) async fn look(bus: Bus, queues: watch::Receiver<BTreeSet<Queue>>) {
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

/// Counts the looks at a consumer whose work nobody asks for, and has words where that begins or ends.
fn note(unattended: &mut HashMap<String, u32>, name: &str, info: &Info) -> Option<String> {
    if info.num_pending == 0 || info.num_waiting > 0 {
        let looks = unattended.remove(name)?;
        return (looks >= LOOKS).then(|| "work is asked for again, or none waits".to_owned());
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
    fn it_speaks_once_when_work_is_left_and_once_when_it_is_taken() {
        let mut unattended = HashMap::new();
        let mut look = |num_pending, num_waiting| note(&mut unattended, "work", &Info { num_pending, num_waiting }).is_some();
        assert!(!look(0, 0) && !look(3, 1), "all is well");
        assert!(!look(3, 0) && !look(3, 1), "one look is no look");
        assert_eq!([look(3, 0), look(3, 0), look(4, 0), look(5, 0)], [false, true, false, false]);
        assert_eq!([look(5, 2), look(0, 0), look(0, 2)], [true, false, false]);
    }
}
