//! A small network of its own: a bridge on this machine, and for each runner a namespace that hangs on it by a cable.
//!
//! Names carry the pid of the program that made them, so that what a killed run left is known, and removed by the next.

use std::{
    fs, io,
    net::TcpListener,
    path::Path,
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, bail, ensure};

/// What names of ours begin with. A link's name has 15 characters at most.
const PREFIX: &str = "rgc";
/// Where `ip netns` keeps its names.
const NAMESPACES: &str = "/run/netns";

/// A bridge, and cables on it; removed with this handle.
#[derive(Debug)]
pub struct Net {
    name: String,
    /// The third byte of its addresses: 10.231.<subnet>.x.
    subnet: u8,
    cables: Vec<u8>,
}

impl Net {
    /// Makes a network with cables of the numbers from 1, or says in one line why this machine does not let us.
    pub fn make(cables: u8) -> Result<Self, String> {
        if std::env::var_os("CHAOS_NET").is_some_and(|net| net == "off") {
            return Err("CHAOS_NET=off".to_owned());
        }
        if !rustix::process::geteuid().is_root() {
            return Err("network namespaces need root".to_owned());
        }
        sweep();
        let plugged = Self::try_make().and_then(|mut net| {
            (1..=cables).try_for_each(|number| net.plug(number))?;
            net.probe(cables)?;
            Ok(net)
        });
        plugged.map_err(|error| format!("no network namespaces here: {error:#}"))
    }

    /// Whether packets get through: a firewall may think otherwise.
    fn probe(&self, number: u8) -> Result<()> {
        let listener = TcpListener::bind((self.host(), 0))?;
        let connect = format!("exec 3<>/dev/tcp/{}/{}", self.host(), listener.local_addr()?.port());
        let line = self.inside(number);
        let mut command = Command::new(&line[0]);
        let output = command.args(&line[1..]).args(["timeout", "3", "bash", "-c", &connect]).output()?;
        ensure!(
            output.status.success(),
            "a namespace does not reach this machine; does a firewall forbid it?"
        );
        Ok(())
    }

    fn try_make() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        ensure!(number < 10, "ten networks of one process are enough");
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        // Whoever comes first has the subnet; the address of the bridge says whose it is.
        for subnet in 1..=250 {
            if addresses()?.contains(&format!("10.231.{subnet}.")) {
                continue;
            }
            ip(&["link", "add", &name, "type", "bridge"])?;
            let net = Self {
                name,
                subnet,
                cables: Vec::new(),
            };
            ip(&["address", "add", &format!("{}/24", net.address(1)), "dev", &net.name])?;
            ip(&["link", "set", &net.name, "up"])?;
            return Ok(net);
        }
        bail!("every subnet of 10.231.0.0/16 is taken")
    }

    fn address(&self, host: u8) -> String {
        format!("10.231.{}.{host}", self.subnet)
    }

    /// This machine's address on it.
    #[must_use]
    pub fn host(&self) -> String {
        self.address(1)
    }

    fn namespace(&self, number: u8) -> String {
        format!("{}-{number}", self.name)
    }

    /// The end of a cable at the bridge, and that in the namespace.
    fn ends(&self, number: u8) -> (String, String) {
        (format!("{}a{number}", self.name), format!("{}b{number}", self.name))
    }

    /// Makes a namespace, and the cable to it.
    fn plug(&mut self, number: u8) -> Result<()> {
        let (namespace, (outer, inner)) = (self.namespace(number), self.ends(number));
        ensure!(outer.len() <= 15, "`{outer}` is too long for a link's name");
        ip(&["netns", "add", &namespace])?;
        self.cables.push(number);
        ip(&["link", "add", &outer, "type", "veth", "peer", "name", &inner, "netns", &namespace])?;
        ip(&["link", "set", &outer, "master", &self.name, "up"])?;
        let address = format!("{}/24", self.address(100 + number));
        ip(&["-n", &namespace, "address", "add", &address, "dev", &inner])?;
        for link in ["lo", inner.as_str()] {
            ip(&["-n", &namespace, "link", "set", link, "up"])?;
        }
        Ok(())
    }

    /// What a program is to be started by, so that it runs behind the cable of this number. The process stays the same one.
    #[must_use]
    pub fn inside(&self, number: u8) -> Vec<String> {
        let namespace = format!("--net={NAMESPACES}/{}", self.namespace(number));
        vec!["nsenter".to_owned(), namespace, "--".to_owned()]
    }

    /// Cuts a cable. Nobody is told: packets are lost, connections stay.
    pub fn cut(&self, number: u8) -> Result<()> {
        ip(&["link", "set", &self.ends(number).0, "down"])
    }

    /// Mends it.
    pub fn mend(&self, number: u8) -> Result<()> {
        ip(&["link", "set", &self.ends(number).0, "up"])
    }

    /// Makes a cable slow, in both directions; says how, or nothing where this kernel cannot.
    #[must_use]
    pub fn slow(&self, number: u8) -> Option<&'static str> {
        let delay: &[&str] = &["netem", "delay", "300ms", "100ms", "loss", "2%"];
        let narrow: &[&str] = &["tbf", "rate", "64kbit", "burst", "4kb", "latency", "2s"];
        for (how, kind) in [("netem: 300 ms ± 100, 2 % lost", delay), ("tbf: 64 kbit/s", narrow)] {
            if self.queues(number, "replace", kind).is_ok() {
                return Some(how);
            }
        }
        None
    }

    /// Makes it good again.
    pub fn quicken(&self, number: u8) -> Result<()> {
        self.queues(number, "del", &[])
    }

    fn queues(&self, number: u8, verb: &str, kind: &[&str]) -> Result<()> {
        let (namespace, (outer, inner)) = (self.namespace(number), self.ends(number));
        let (outer, inner) = ([verb, "dev", &outer, "root"], [verb, "dev", &inner, "root"]);
        run("tc", &[&["qdisc"], &outer[..], kind].concat())?;
        run("tc", &[&["-n", &namespace, "qdisc"], &inner[..], kind].concat())?;
        Ok(())
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for number in &self.cables {
            // A namespace goes some time after its name; its cable is to go now.
            let _gone = ip(&["link", "delete", &self.ends(*number).0]);
            remove_namespace(&self.namespace(*number));
        }
        let _gone = ip(&["link", "delete", &self.name]);
    }
}

/// Removes what runs left whose program is gone.
pub fn sweep() {
    let namespaces = fs::read_dir(NAMESPACES).into_iter().flatten().flatten();
    for name in namespaces.filter_map(|entry| entry.file_name().into_string().ok()) {
        if is_left_over(&name) {
            remove_namespace(&name);
        }
    }
    let links = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    for name in links.filter_map(|entry| entry.file_name().into_string().ok()) {
        if is_left_over(&name) {
            let _gone = ip(&["link", "delete", &name]);
        }
    }
}

fn is_left_over(name: &str) -> bool {
    is_orphan(name, PREFIX)
}

/// Whether a name begins so, goes on with a pid and a dash, and that process is gone.
pub(super) fn is_orphan(name: &str, prefix: &str) -> bool {
    let owner = name.strip_prefix(prefix).and_then(|rest| rest.split('-').next());
    owner
        .and_then(|pid| pid.parse::<u32>().ok())
        .is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

/// Ends what still runs in a namespace of ours, and removes it; its cable goes with it.
fn remove_namespace(name: &str) {
    if let Ok(pids) = run("ip", &["netns", "pids", name]) {
        for pid in pids
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok().and_then(rustix::process::Pid::from_raw))
        {
            let _ended = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    let _gone = ip(&["netns", "delete", name]);
}

fn addresses() -> Result<String> {
    run("ip", &["-4", "-o", "address"])
}

fn ip(arguments: &[&str]) -> Result<()> {
    run("ip", arguments).map(drop)
}

fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let Output { status, stdout, stderr } = match Command::new(program).args(arguments).output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!("there is no `{program}`; install iproute2"),
        output => output.with_context(|| format!("failed to run {program}"))?,
    };
    let said = String::from_utf8_lossy(&stderr);
    ensure!(status.success(), "{program} {}: {}", arguments.join(" "), said.trim());
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_living_run_has_is_not_left_over() {
        let own = std::process::id();
        assert!(!is_left_over(&format!("{PREFIX}{own}-0")));
        assert!(!is_left_over(&format!("{PREFIX}{own}-0a1")));
        assert!(is_left_over(&format!("{PREFIX}4194999-0-1")), "there can be no such pid");
        for foreign in ["eth0", "docker0", "rgcx-1", "rgc"] {
            assert!(!is_left_over(foreign), "{foreign}");
        }
    }
}
