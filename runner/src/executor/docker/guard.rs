//! What containers may not reach of the network: the cloud's metadata service, which gives the machine's own credentials to every process that asks.
//!
//! The runner marks its containers by the beginning of their hardware address, which they have no capability to change, and has the
//! machine's packet filter reject what those send there. Nobody else's containers on the same bridge are touched, no container is
//! started any later, and the rules outlive the runner. A network of rgrid's own would do as well, but its embedded DNS server costs 70 ms a
//! start (Docker 20.10); an `--add-host` entry would hide a name, and no address.

use std::{
    path::Path,
    process::Stdio,
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bollard::{models::SystemInfo, query_parameters::InspectNetworkOptions};
use parking_lot::Mutex;
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};
use tracing::{info, warn};

/// How our containers' hardware addresses begin: of those that are nobody's (local, unicast), and not Docker's `02:42`.
const PREFIX: [u8; 3] = [0x02, 0x72, 0x67];
/// The chain of rules.
const CHAIN: &str = "RGRID-METADATA";
/// How long the packet filter may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Docker's own network, in which containers are that ask for no other.
pub(super) const NETWORK: &str = "bridge";

/// Addresses that are rejected, whatever the port but 53: a cloud's resolver may stand there too. Link-local ones (Amazon, Google, Azure,
/// `DigitalOcean`, `OpenStack`, Hetzner), this machine's own loopback, which Docker without its proxy lets in, Alibaba's, Oracle's.
const REJECTED: [&str; 4] = ["169.254.0.0/16", "127.0.0.0/8", "100.100.100.200/32", "192.0.0.192/32"];
/// Azure's other service, and its ports; the same address is its resolver.
const AZURE: (&str, [u16; 2]) = ("168.63.129.16/32", [80, 32526]);
/// The same of IPv6: Amazon's, Google's, `OpenStack`'s.
const REJECTED_V6: [&str; 3] = ["fd00:ec2::/32", "fd20:ce::/32", "fe80::a9fe:a9fe/128"];

/// Keeps this daemon's containers from the metadata service.
#[derive(Debug)]
pub(super) struct Guard {
    /// The bridge that containers of [`NETWORK`] are on, and whether it has IPv6; or why they cannot be kept from anything.
    bridge: Result<(String, bool), String>,
    /// The rest of the next address.
    next: AtomicU32,
    /// Whether the rules stood when that was last looked at, and why not.
    standing: Mutex<Option<Result<(), String>>>,
}

impl Guard {
    /// A guard for the containers of a daemon.
    pub(super) async fn of(client: &bollard::Docker, info: &SystemInfo, socket: Option<&str>, network: Option<&str>) -> Self {
        let random = uuid::Uuid::now_v7().as_u128();
        Self {
            bridge: match network {
                Some(network) => Err(format!("they are in the network `{network}`")),
                None => bridge(client, info, socket).await,
            },
            next: AtomicU32::new(u32::try_from(random & 0xff_ffff).unwrap_or_default()),
            standing: Mutex::default(),
        }
    }

    /// A hardware address for a container, by which it is known; no other container of this runner has it.
    pub(super) fn address(&self) -> Option<String> {
        self.bridge.as_ref().ok()?;
        let [_, a, b, c] = self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let [x, y, z] = PREFIX;
        Some(format!("{x:02x}:{y:02x}:{z:02x}:{a:02x}:{b:02x}:{c:02x}"))
    }

    /// Why containers may reach the metadata service, if they may.
    pub(super) fn open(&self) -> Option<String> {
        self.standing.lock().clone()?.err()
    }

    /// Sets the rules where they do not stand, whatever cleared them. What changes is in the log.
    pub(super) async fn keep(&self) {
        let stood = self.standing.lock().clone();
        let stands = match &self.bridge {
            Ok((bridge, has_v6)) => set_all(bridge, *has_v6, stood != Some(Ok(()))).await,
            Err(why) => Err(why.clone()),
        };
        match &stands {
            Err(why) if stood.as_ref() != Some(&stands) => {
                warn!("containers here may reach the cloud's metadata service (169.254.169.254), because {why}");
            }
            Ok(()) if stood.is_some_and(|stood| stood.is_err()) => {
                info!("containers here cannot reach the cloud's metadata service (169.254.169.254) any more");
            }
            _ => {}
        }
        *self.standing.lock() = Some(stands);
    }
}

/// The bridge of a daemon on this very machine, and whether it has IPv6.
async fn bridge(client: &bollard::Docker, info: &SystemInfo, socket: Option<&str>) -> Result<(String, bool), String> {
    const NAME: &str = "com.docker.network.bridge.name";
    if socket.is_none() {
        return Err("Docker is reached over the network, and its machine's packet filter is not ours".to_owned());
    }
    if info.security_options.iter().flatten().any(|option| option.contains("rootless")) {
        return Err("Docker runs without root, and its packet filter is out of reach".to_owned());
    }
    if !rustix::process::geteuid().is_root() {
        return Err("only root may change the machine's packet filter, and this runner is another user".to_owned());
    }
    let network = client.inspect_network(NETWORK, None::<InspectNetworkOptions>).await;
    let network = network.map_err(|error| format!("Docker does not describe its network `{NETWORK}`: {error}"))?;
    let bridge = network
        .options
        .unwrap_or_default()
        .remove(NAME)
        .unwrap_or_else(|| "docker0".to_owned());
    if bridge.contains('/') || !Path::new("/sys/class/net").join(&bridge).exists() {
        return Err(format!("Docker's bridge {bridge} is not on this machine"));
    }
    Ok((bridge, network.enable_ipv6 == Some(true)))
}

async fn set_all(bridge: &str, has_v6: bool, is_new: bool) -> Result<(), String> {
    set("iptables", &rules(), bridge, is_new).await?;
    if has_v6 {
        set("ip6tables", &rules_v6(), bridge, is_new).await?;
    }
    Ok(())
}

/// Has what our containers send pass the chain, wherever it goes: beyond this machine, or to this machine itself.
async fn set(program: &str, rules: &str, bridge: &str, is_new: bool) -> Result<(), String> {
    let mut stands = !is_new;
    // Docker keeps its hands off `DOCKER-USER`. Without its rules, there is none.
    for hooks in [&["DOCKER-USER", "FORWARD"][..], &["INPUT"]] {
        stands = stands && stands_in(program, hooks, bridge).await;
    }
    if stands {
        return Ok(());
    }
    let restore = format!("{program}-restore");
    // All of it or nothing; of other chains nothing.
    filter(&restore, &["--noflush"], rules).await?;
    for hooks in [&["DOCKER-USER", "FORWARD"][..], &["INPUT"]] {
        if !stands_in(program, hooks, bridge).await {
            insert(program, hooks, bridge).await?;
        }
    }
    Ok(())
}

async fn stands_in(program: &str, hooks: &[&str], bridge: &str) -> bool {
    for hook in hooks {
        if filter(program, &jump("-C", hook, bridge), "").await.is_ok() {
            return true;
        }
    }
    false
}

async fn insert(program: &str, hooks: &[&str], bridge: &str) -> Result<(), String> {
    let mut inserted = Ok(());
    for hook in hooks {
        inserted = filter(program, &jump("-I", hook, bridge), "").await;
        if inserted.is_ok() {
            break;
        }
    }
    inserted
}

/// The rule by which what our containers send passes the chain.
fn jump<'a>(verb: &'a str, hook: &'a str, bridge: &'a str) -> Vec<&'a str> {
    vec!["-w", verb, hook, "-i", bridge, "-m", "bpf", "--bytecode", &OURS, "-j", CHAIN]
}

/// Whether a packet comes from one of our containers, for the kernel: three of the six bytes of its source's hardware address, which stand
/// six bytes behind the beginning of the frame (`SKF_LL_OFF`, -0x200000), are [`PREFIX`].
static OURS: LazyLock<String> = LazyLock::new(|| {
    let [x, y, z] = PREFIX;
    let (source, wanted) = ((-0x20_0000_i32 + 6).cast_unsigned(), u32::from_be_bytes([x, y, z, 0]));
    let (load, mask, compare) = (format!("32 0 0 {source}"), "84 0 0 4294967040", format!("21 0 1 {wanted}"));
    format!("5,{load},{mask},{compare},6 0 0 1,6 0 0 0")
});

fn rules() -> String {
    let azure = AZURE
        .1
        .map(|port| format!("-p tcp --dport {port} -m conntrack --ctorigdst {}", AZURE.0));
    chain(REJECTED.map(to).into_iter().chain(azure))
}

fn rules_v6() -> String {
    chain(REJECTED_V6.map(to).into_iter())
}

/// To an address as it was before the machine itself changed it, as agents do that answer for the metadata service.
fn to(address: &str) -> String {
    format!("-m conntrack --ctorigdst {address}")
}

fn chain(rejected: impl Iterator<Item = String>) -> String {
    let names = ["udp", "tcp"].map(|protocol| format!("-A {CHAIN} -p {protocol} --dport 53 -j RETURN\n"));
    let rejected = rejected.map(|what| format!("-A {CHAIN} {what} -j REJECT\n"));
    let rules: String = names.into_iter().chain(rejected).collect();
    format!("*filter\n:{CHAIN} - [0:0]\n{rules}COMMIT\n")
}

/// Runs a program of the packet filter.
async fn filter(program: &str, arguments: &[&str], input: &str) -> Result<(), String> {
    let run = async {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).await?;
        }
        child.wait_with_output().await
    };
    match timeout(PATIENCE, run).await {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let first = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it failed");
            Err(format!("{program} does not set its rules: {first}"))
        }
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => Err(format!("{program} is not installed")),
        Ok(Err(error)) => Err(format!("{program} cannot be run: {error}")),
        Err(_) => Err(format!("{program} does not end")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_reject_metadata_services_and_let_names_be_asked_for() {
        assert_eq!(*OURS, "5,32 0 0 4292870150,84 0 0 4294967040,21 0 1 41051904,6 0 0 1,6 0 0 0");
        let rules = rules();
        let at = |text: &str| rules.find(text).unwrap_or_else(|| panic!("no `{text}` in\n{rules}"));
        let names = at("-A RGRID-METADATA -p udp --dport 53 -j RETURN\n");
        assert!(names < at("-A RGRID-METADATA -m conntrack --ctorigdst 169.254.0.0/16 -j REJECT\n"));
        assert!(rules.starts_with("*filter\n:RGRID-METADATA - [0:0]\n") && rules.ends_with("COMMIT\n"));
        assert!(rules_v6().contains("--ctorigdst fd00:ec2::/32 -j REJECT"));
    }
}
