//! An eye on the work consumers: work that waits while nobody asks for it.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use bus::{
    ids::Queue,
    spec::Class,
    stream::{EVENTS, connect::Bus, setup::work_consumer_name},
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
                    Ok(info) => note(&mut unattended, &name, &info),
                    Err(error) => debug!("cannot look at consumer {name}: {error}"),
                }
            }
        }
    }
}

fn note(unattended: &mut HashMap<String, u32>, name: &str, info: &Info) {
    if info.num_pending == 0 || info.num_waiting > 0 {
        if unattended.remove(name).is_some_and(|looks| looks >= LOOKS) {
            info!("{name}: work is asked for again, or none waits");
        }
        return;
    }
    let looks = unattended.entry(name.to_owned()).or_default();
    *looks = looks.saturating_add(1);
    if *looks == LOOKS {
        info!(
            "{name}: {} jobs wait and no worker asks for one; its workers are busy, or too small",
            info.num_pending
        );
    }
}
