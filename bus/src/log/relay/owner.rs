//! The owner of a connection over the loopback interface. The relay is only for this user, and must not give other users access to NATS.

use std::net::SocketAddr;

use tokio::net::TcpStream;

/// Whether the connection from `peer` belongs to the user that runs this process. If the system does not tell, the answer is yes.
pub(super) async fn is_ours(taken: &TcpStream, peer: SocketAddr) -> bool {
    #[cfg(target_os = "linux")]
    {
        let ours = rustix::process::geteuid().as_raw();
        if let Ok(own) = taken.local_addr()
            && let Ok(user) = linux::owner(peer, own)
        {
            return user == ours;
        }
        // This table lists every connection of the machine, which takes milliseconds if there are thousands.
        let Ok(table) = tokio::fs::read_to_string("/proc/net/tcp").await else {
            return true;
        };
        owner(&table, peer) == Some(ours)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _unused = (taken, peer);
        true
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{io, net::SocketAddr};

    use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
    use netlink_packet_sock_diag::{
        SockDiagMessage,
        constants::{AF_INET, IPPROTO_TCP},
        inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
    };
    use netlink_sys::{Socket, SocketAddr as Netlink, protocols::NETLINK_SOCK_DIAG};

    /// The user whose socket is connected from one of these addresses to the other. The kernel looks up this socket only
    /// (`sock_diag(7)`), however many there are, and answers at once, so nothing has to wait.
    ///
    /// # Errors
    /// If there is no such socket, or the kernel cannot be asked.
    pub(super) fn owner(from: SocketAddr, to: SocketAddr) -> io::Result<u32> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST;
        let socket_id = SocketId {
            source_port: from.port(),
            source_address: from.ip(),
            destination_port: to.port(),
            destination_address: to.ip(),
            interface_id: 0,
            // INET_DIAG_NOCOOKIE: any.
            cookie: [0xff; 8],
        };
        let request = InetRequest {
            family: AF_INET,
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::empty(),
            states: StateFlags::all(),
            socket_id,
        };
        let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.bind_auto()?;
        socket.connect(&Netlink::new(0, 0))?;
        socket.set_non_blocking(true)?;
        socket.send(&bytes, 0)?;
        let (answer, _) = socket.recv_from_full()?;
        let answer = NetlinkMessage::<SockDiagMessage>::deserialize(&answer).map_err(io::Error::other)?;
        match answer.payload {
            NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => Ok(response.header.uid),
            NetlinkPayload::Error(error) => Err(error.to_io()),
            other => Err(io::Error::other(format!("the kernel answered {other:?}"))),
        }
    }
}

/// The user whose socket has this address, from the kernel's table of sockets (`proc_pid_net(5)`). The address is the second word of a
/// line, in hexadecimal, with its bytes in the machine's order. The user is the eighth word.
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

    #[cfg(target_os = "linux")]
    #[test]
    fn the_kernel_names_the_owner() -> anyhow::Result<()> {
        use std::net::{TcpListener, TcpStream};

        let listener = TcpListener::bind("127.0.0.1:0")?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        let (from, to) = (client.local_addr()?, listener.local_addr()?);
        assert_eq!(linux::owner(from, to)?, rustix::process::geteuid().as_raw());
        assert!(linux::owner("127.0.0.1:1".parse()?, to).is_err(), "there is no such socket");
        let table = std::fs::read_to_string("/proc/net/tcp")?;
        assert_eq!(owner(&table, from), Some(linux::owner(from, to)?), "both say the same");
        Ok(())
    }

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
