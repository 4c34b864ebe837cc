//! Whose a connection over the loopback interface is: the relay is for this process, and no way to NATS for other users.

use std::net::SocketAddr;

/// Whether a connection from `peer` is of the user that this process runs as. Where the system does not tell, it is taken to be.
pub(super) async fn is_ours(peer: SocketAddr) -> bool {
    #[cfg(target_os = "linux")]
    {
        let Ok(table) = tokio::fs::read_to_string("/proc/net/tcp").await else {
            return true;
        };
        owner(&table, peer) == Some(rustix::process::geteuid().as_raw())
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _unused = peer;
        true
    }
}

/// The user whose socket has this address, by the kernel's table of them (`proc_pid_net(5)`): the address in hexadecimal, its bytes
/// as the machine orders them, is the second word of a line, and the user is the eighth.
#[cfg(any(target_os = "linux", test))]
fn owner(table: &str, peer: SocketAddr) -> Option<u32> {
    let SocketAddr::V4(peer) = peer else { return None };
    let address = format!("{:08X}:{:04X}", u32::from_ne_bytes(peer.ip().octets()), peer.port());
    table.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.nth(1)? == address).then(|| words.nth(5)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_names_the_owner() -> anyhow::Result<()> {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0\n\
             1: 0100007F:C350 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 2 1 0 20 4 30 10 -1\n";
        if cfg!(target_endian = "little") {
            assert_eq!(owner(table, "127.0.0.1:50000".parse()?), Some(1000));
            assert_eq!(owner(table, "127.0.0.1:8080".parse()?), Some(0));
            assert_eq!(owner(table, "127.0.0.1:1".parse()?), None);
        }
        Ok(())
    }
}
