//! Doing harm, and mending it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    fault::{Fault, Harm, Part, Planned},
    now,
    rig::Rig,
};

/// What was done until now.
#[derive(Debug, Default)]
pub struct Harms {
    /// The faults, each mended.
    pub faults: Vec<Fault>,
    /// What could not be done here, and why; said once for each kind.
    pub skipped: Vec<String>,
}

impl Harms {
    fn skip(&mut self, why: String) {
        if !self.skipped.contains(&why) {
            eprintln!("chaos: {why}");
            self.skipped.push(why);
        }
    }

    /// Harms a part; nothing where that cannot be done here. The fault counts from the moment before.
    pub async fn harm(&mut self, rig: &mut Rig, harm: Harm, part: Part) -> Result<Option<Fault>> {
        let harm = self.possible(rig, harm, part);
        let mut from = now();
        let done = match (harm, part) {
            (Harm::Kill, _) => rig.kill(part),
            (Harm::Freeze, _) => rig.signal(part, Signal::STOP),
            (Harm::Restart, _) => rig.stop(part).await,
            (Harm::Cut, Part::Runner(number)) => rig.net.as_ref().context("a cable")?.cut(number),
            (Harm::Slow, Part::Runner(number)) => {
                let how = rig.net.as_ref().and_then(|net| net.slow(number));
                if how.is_none() {
                    self.skip("slow links are left out: neither netem nor tbf, or no cable at all".to_owned());
                    return Ok(None);
                }
                // By tc, several processes; from the moment that it is slow.
                from = now();
                Ok(())
            }
            (Harm::Cut | Harm::Slow, _) => return Ok(None),
        };
        done.with_context(|| format!("{harm} of {part}"))?;
        Ok(Some(Fault {
            harm,
            part,
            from,
            to: from,
        }))
    }

    /// Where there is no cable to cut, the runner is frozen instead.
    fn possible(&mut self, rig: &Rig, harm: Harm, _part: Part) -> Harm {
        match (harm, &rig.no_net) {
            (Harm::Cut, Some(why)) => {
                self.skip(format!("cables are not cut, runners are stopped with SIGSTOP instead: {why}"));
                Harm::Freeze
            }
            _ => harm,
        }
    }

    /// Mends what was done, and notes it.
    pub async fn mend(&mut self, rig: &mut Rig, fault: Fault) -> Result<()> {
        let part = fault.part;
        let done = match (fault.harm, part) {
            (Harm::Kill | Harm::Restart, _) => rig.again(part).await,
            (Harm::Freeze, _) => rig.signal(part, Signal::CONT),
            (Harm::Cut, Part::Runner(number)) => rig.net.as_ref().context("a cable")?.mend(number),
            (Harm::Slow, Part::Runner(number)) => rig.net.as_ref().context("a cable")?.quicken(number),
            (Harm::Cut | Harm::Slow, _) => Ok(()),
        };
        done.with_context(|| format!("mending the {} of {part}", fault.harm))?;
        self.faults.push(Fault { to: now(), ..fault });
        Ok(())
    }

    /// Carries out a schedule. Told to stop, it mends what it broke.
    pub async fn carry_out(&mut self, rig: &mut Rig, schedule: &[Planned], stop: &CancellationToken) -> Result<()> {
        let begun = Instant::now();
        let mut left = schedule.iter().copied().collect::<std::collections::VecDeque<_>>();
        let mut broken: Vec<(Duration, Fault)> = Vec::new();
        loop {
            let next_harm = left.front().map(|planned| planned.at).filter(|_| !stop.is_cancelled());
            let next_mend = broken.iter().map(|(end, _)| *end).min();
            let (at, mends) = match (next_harm, next_mend) {
                (None, None) => return Ok(()),
                (Some(harm), None) => (harm, false),
                (None, Some(mend)) => (mend, true),
                (Some(harm), Some(mend)) => (harm.min(mend), mend <= harm),
            };
            tokio::select! {
                () = sleep_until(begun + at) => {}
                () = stop.cancelled(), if !mends => continue,
            }
            if mends {
                let index = broken.iter().position(|(end, _)| *end == at).unwrap_or_default();
                let (_, fault) = broken.swap_remove(index);
                self.mend(rig, fault).await?;
            } else if let Some(planned) = left.pop_front() {
                eprintln!(
                    "chaos: {:>5.1} s: {} of {}, for {:.1} s",
                    at.as_secs_f32(),
                    planned.harm,
                    planned.part,
                    planned.lasts.as_secs_f32()
                );
                let fault = self.harm(rig, planned.harm, planned.part).await?;
                broken.extend(fault.map(|fault| (planned.at + planned.lasts, fault)));
            }
        }
    }
}
