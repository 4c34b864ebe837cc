//! Loopback ports: the ones asked for, the ones kept from the last time, or any that are free.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::bail;
use rand::Rng as _;

/// Where free ports are looked for: below the range that the kernel takes local ports of outgoing connections from
/// (32768 and up), so that a port is still free when the grid comes up again.
const FREE: std::ops::Range<u16> = 20_000..32_000;

/// A port that is held until the server that will use it starts, so that nothing else takes it meanwhile.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) port: u16,
    listener: Option<TcpListener>,
}

impl Held {
    /// Lets go of it.
    pub(super) fn release(&mut self) {
        self.listener = None;
    }
}

/// Which port a part wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) port: Option<u16>,
    /// Whether the user named it; one that the grid chose for itself may change.
    pub(super) given: bool,
}

/// Takes the port that is wished for, or a free one.
///
/// # Errors
/// If the user named a port and it is in use; `flag` is the option that names it.
pub(super) fn hold(wish: Wish, flag: &str) -> anyhow::Result<Held> {
    match wish.port.map(|port| (port, try_hold(port))) {
        Some((_, Ok(held))) => return Ok(held),
        Some((port, Err(error))) if wish.given => match error.kind() {
            std::io::ErrorKind::AddrInUse => bail!("port {port} is in use; end what listens there, or choose another {flag}"),
            _ => bail!("cannot listen on 127.0.0.1:{port}: {error}; choose another {flag}"),
        },
        Some(_) | None => {}
    }
    let mut random = rand::rng();
    for _ in 0..1_000 {
        if let Ok(held) = try_hold(random.random_range(FREE)) {
            return Ok(held);
        }
    }
    bail!(
        "found no free port on 127.0.0.1 from {} to {}; name one with {flag}",
        FREE.start,
        FREE.end - 1
    )
}

fn try_hold(port: u16) -> std::io::Result<Held> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    Ok(Held {
        port,
        listener: Some(listener),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_port_in_use_is_refused_and_a_kept_one_gives_way() -> anyhow::Result<()> {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = Some(taken.local_addr()?.port());
        let refused = hold(Wish { port, given: true }, "--nats-port").expect_err("it is taken");
        assert!(refused.to_string().contains("is in use"), "{refused}");
        let other = hold(Wish { port, given: false }, "--nats-port")?;
        assert!(FREE.contains(&other.port));
        let again = hold(
            Wish {
                port: Some(other.port),
                given: false,
            },
            "--nats-port",
        )?;
        assert_ne!(again.port, other.port, "a held port is in use");
        let mut other = other;
        other.release();
        assert_eq!(
            hold(
                Wish {
                    port: Some(other.port),
                    given: true
                },
                "--nats-port"
            )?
            .port,
            other.port
        );
        Ok(())
    }
}
