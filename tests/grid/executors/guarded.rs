//! What a container may reach, what it finds there, and what the daemon is told of it. These tests need root, `ip`, iptables, a Docker
//! daemon and the image `rgrid/python:3`, and fail without.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use runner::executor::{Docker, Executor as _, Launch, RuntimeTable, docker::Config};
use serde_json::{Value, json};

use super::{Place, eventually, finish, line, run};

/// The image of these tests.
const IMAGE: &str = "rgrid/python:3";
/// Says what comes of connecting to each of its arguments.
const CONNECT: &str = "import socket, sys\n\
    for place in sys.argv[1:]:\n    host, port = place.split(':')\n    try: socket.create_connection((host, int(port)), 5); print('reached')\n    \
    except OSError as error: print(type(error).__name__)\n";

async fn docker() -> Result<Docker> {
    let config = Config::new("tests".parse()?, RuntimeTable::default().into());
    Docker::connect(config).await.context("these tests need Docker")
}

fn launch(place: &Place, command: &[&str]) -> Launch {
    Launch {
        image: Some(IMAGE.to_owned()),
        ..place.launch(command)
    }
}

/// What a program says, if it does what it is told.
fn said(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {arguments:?}: {stderr}");
    Ok(String::from_utf8(output.stdout)?)
}

/// A service at a link-local address in a network namespace of its own, over a link of its own.
///
/// Nothing has to be cleaned up: the server dies with the test, however that ends, the namespace with the server, the link with the
/// namespace. A link that stayed would take the packets of the next test.
struct Service {
    server: Child,
    /// The address of this machine on the link.
    near: Ipv4Addr,
    /// The server's address.
    beyond: Ipv4Addr,
}

impl Service {
    fn start() -> Result<Self> {
        let [.., high, low] = std::process::id().to_be_bytes();
        // A link has four addresses; those of 169.254.64.0 to 169.254.127.255 are none that means something.
        let address = |host| Ipv4Addr::new(169, 254, 64 | (high & 0x3f), (low & 0xfc) | host);
        let server = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--net", "python3", "-m", "http.server", "8080"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let service = Self {
            server,
            near: address(1),
            beyond: address(2),
        };
        let pid = service.server.id().to_string();
        let link = format!("rgm{pid}");
        service.in_a_namespace()?;
        let (near, beyond) = (format!("{}/30", service.near), format!("{}/30", service.beyond));
        let run = |words: &str| said("sh", &["-ec", words]);
        run(&format!(
            "ip link add {link} type veth peer name out netns {pid}; ip address add {near} dev {link}; ip link set {link} up"
        ))?;
        let inside = format!("nsenter --target {pid} --net ip");
        run(&format!("{inside} address add {beyond} dev out; {inside} link set out up"))?;
        Ok(service)
    }

    /// Waits until the server has left this process's network namespace.
    fn in_a_namespace(&self) -> Result<()> {
        let space = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net"));
        let (pid, start) = (self.server.id().to_string(), Instant::now());
        while space(&pid).context("the server ended")? == space("self")? {
            ensure!(start.elapsed() < super::PATIENCE, "the server has no namespace of its own");
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ended = self.server.kill().and_then(|()| self.server.wait());
    }
}

#[tokio::test]
async fn a_job_reaches_no_metadata_service_and_other_containers_do() -> Result<()> {
    let (docker, place, service) = (docker().await?, Place::new()?, Service::start()?);
    assert_eq!(docker.metadata_open(), None);
    let address = SocketAddr::from((service.beyond, 8080));
    eventually("the service is there", || {
        TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
    })
    .await?;
    let listener = TcpListener::bind((service.near, 0))?;
    let (beyond, here) = (address.to_string(), listener.local_addr()?.to_string());
    let others = ["run", "--rm", IMAGE, "python3", "-c", CONNECT, &beyond, &here];
    assert_eq!(said("docker", &others)?, "reached\nreached\n");

    let probe = [
        "python3",
        "-c",
        CONNECT,
        &beyond,
        &here,
        "169.254.169.254:80",
        "169.254.170.2:80",
        "100.100.100.200:80",
    ];
    let refused = "ConnectionRefusedError\n".repeat(5);
    assert_eq!(run(&docker, launch(&place, &probe)).await?.stdout, refused);

    // Whoever clears the packet filter: the rules come back.
    let cleared = |hook: &str| -> Result<()> {
        let rules = said("iptables", &["-w", "-S", hook])?;
        let ours = rules.lines().find(|rule| rule.ends_with("-j RGRID-METADATA")).context("a rule")?;
        let script = format!("iptables -w {}", ours.replacen("-A", "-D", 1));
        said("sh", &["-c", &script]).map(drop)
    };
    cleared("INPUT")?;
    docker.keep_guarded().await;
    assert_eq!(run(&docker, launch(&place, &probe)).await?.stdout, refused);
    drop(listener);
    ensure!(docker.close(Duration::from_secs(30)).await, "a container was not removed");
    Ok(())
}

#[tokio::test]
async fn names_mean_in_a_job_what_they_mean_to_docker_run() -> Result<()> {
    let (docker, place) = (docker().await?, Place::new()?);
    let host = said("uname", &["-n"])?;
    let script = "import socket, ipaddress\n\
        print(open('/etc/resolv.conf').read())\n\
        print(sorted({info[4][0] for info in socket.getaddrinfo('localhost', 80, type=socket.SOCK_STREAM)}))\n\
        name = socket.gethostname()\n\
        own = ipaddress.ip_address(socket.gethostbyname(name))\n\
        print(name, own in ipaddress.ip_network('127.0.0.0/8'))\n\
        lines = [line.split() for line in open('/etc/hosts')]\n\
        print([line for line in lines if line and line[0] != str(own)])\n";
    let theirs = said(
        "docker",
        &["run", "--rm", "--hostname", host.trim(), IMAGE, "python3", "-c", script],
    )?;
    let ours = run(&docker, launch(&place, &["python3", "-c", script])).await?;
    assert_eq!(ours.stdout, theirs, "{}", ours.stderr);
    assert!(
        theirs.contains("127.0.0.1") && theirs.contains(&format!("{} False", host.trim())),
        "{theirs}"
    );
    ensure!(docker.close(Duration::from_secs(30)).await, "a container was not removed");
    Ok(())
}

/// An image of the test's own; removed in the end.
struct Image(String);

impl Drop for Image {
    fn drop(&mut self) {
        let _gone = said("docker", &["image", "rm", "--force", &self.0]);
    }
}

#[tokio::test]
async fn neither_an_image_nor_the_daemon_s_defaults_give_a_container_more() -> Result<()> {
    let (docker, place) = (docker().await?, Place::new()?);
    let made = said("docker", &["create", IMAGE])?;
    let image = Image(format!("rgrid-tests-{}", uuid::Uuid::now_v7().simple()));
    let changes = [
        "--change",
        "HEALTHCHECK --interval=1s CMD touch /tmp/checked",
        "--change",
        "LABEL rgrid.note=/etc/x rgrid.worker=y",
    ];
    let committed = said("docker", &[&["commit"], &changes[..], &[made.trim(), &image.0]].concat());
    said("docker", &["rm", made.trim()])?;
    committed?;
    let launch = Launch {
        image: Some(image.0.clone()),
        ..place.launch(&["sh", "-c", "echo ready; cat"])
    };
    let job = launch.job;
    let mut running = docker.launch(launch).await?;
    assert_eq!(line(&mut running.stdout).await?, "ready");
    let id = said("docker", &["ps", "-q", "--filter", &format!("label=rgrid.job={job}")])?;
    let all: Value = serde_json::from_str(&said("docker", &["inspect", id.trim()])?)?;
    let (config, host) = (&all[0]["Config"], &all[0]["HostConfig"]);
    assert_eq!(config["Healthcheck"]["Test"], json!(["NONE"]), "{config}");
    assert_eq!(
        (&config["Labels"]["rgrid.note"], &config["Labels"]["rgrid.worker"]),
        (&json!(""), &json!("tests"))
    );
    for (name, value) in [
        ("Privileged", json!(false)),
        ("CapAdd", Value::Null),
        ("CapDrop", json!(["ALL"])),
        ("SecurityOpt", json!(["no-new-privileges"])),
        ("ReadonlyRootfs", json!(true)),
        ("PidsLimit", json!(4096)),
        ("IpcMode", json!("private")),
        ("PidMode", json!("")),
        ("UTSMode", json!("")),
        ("UsernsMode", json!("")),
        ("NetworkMode", json!("bridge")),
        ("PublishAllPorts", json!(false)),
        ("OomScoreAdj", json!(500)),
        ("ExtraHosts", Value::Null),
        ("Devices", Value::Null),
        ("VolumesFrom", Value::Null),
    ] {
        assert_eq!(host[name], value, "{name}");
    }
    assert_eq!(host["RestartPolicy"]["Name"], "no");
    assert_eq!(
        host["LogConfig"],
        json!({ "Type": "local", "Config": { "compress": "false", "max-file": "3", "max-size": "64m" } })
    );
    let masked = host["MaskedPaths"].as_array().context("masked paths")?;
    assert!(masked.contains(&json!("/proc/kcore")) && host["ReadonlyPaths"].as_array().is_some_and(|paths| !paths.is_empty()));
    running.handle.kill().await;
    finish(running).await?;
    ensure!(docker.close(Duration::from_secs(30)).await, "a container was not removed");
    Ok(())
}
