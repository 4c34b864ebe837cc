//! A wire to a server that can be cut: a relay that counts what passes, and breaks where a test says so.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// How long bytes may take on a busy machine before they count as not coming.
const SOON: Duration = Duration::from_secs(60);

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the server.
    There,
    /// From it.
    Back,
}

#[derive(Debug, Default)]
struct State {
    passed: [watch::Sender<u64>; 2],
    /// The byte each way, over all connections, from which on nothing passes until the wire is let go.
    holds: [watch::Sender<Option<u64>>; 2],
    /// Where connections are cut, by the bytes that have passed each way, over all connections; and whether both ends are.
    cuts: [Mutex<Vec<(u64, Cut)>>; 2],
    /// Beginnings of requests whose answers are lost, and how many were.
    unanswered: Mutex<Vec<String>>,
    lost: watch::Sender<u64>,
}

/// Which ends of a connection are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Both, as where the wire is.
    Both,
    /// The client's: the server's hangs in the air, and nobody tells it.
    Near,
}

/// A relay on a port of its own, which ends with this handle.
#[derive(Debug)]
pub struct Wire {
    address: SocketAddr,
    state: Arc<State>,
    _relays: JoinSet<()>,
}

impl Wire {
    /// A wire to the server at this address (`host:port`).
    pub async fn to(server: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, state) = (listener.local_addr()?, Arc::<State>::default());
        let (shared, server) = (Arc::clone(&state), server.to_owned());
        let relays = JoinSet::from_iter([async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let (state, server) = (Arc::clone(&shared), server.clone());
                connections.spawn(async move {
                    // A server that is away refuses, and so do we.
                    if let Ok(far) = TcpStream::connect(server).await {
                        relay(near, far, &state).await;
                    }
                });
            }
        }]);
        Ok(Self {
            address,
            state,
            _relays: relays,
        })
    }

    /// Its near end, as a URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Cuts the connection over which the byte of this number goes, counted over all connections.
    pub fn cut_at(&self, way: Way, byte: u64, cut: Cut) {
        self.state.cuts[way as usize].lock().push((byte, cut));
    }

    /// Loses the answer to the next request that begins so (`POST /v1/jobs?`): the server carries it out and answers, and the
    /// connection is cut before the client has a byte of that.
    pub fn lose_answer_to(&self, request: &str) {
        self.state.unanswered.lock().push(request.to_owned());
    }

    /// How many answers were lost.
    #[must_use]
    pub fn lost(&self) -> u64 {
        *self.state.lost.borrow()
    }

    /// Holds back the byte of this number and all behind it, counted over all connections, until [`Wire::let_go`].
    pub fn hold_at(&self, way: Way, byte: u64) {
        self.state.holds[way as usize].send_replace(Some(byte));
    }

    /// Lets what was held pass.
    pub fn let_go(&self, way: Way) {
        self.state.holds[way as usize].send_replace(None);
    }

    /// How many bytes have come to it.
    #[must_use]
    pub fn passed(&self, way: Way) -> u64 {
        *self.state.passed[way as usize].borrow()
    }

    /// Waits until so many have.
    pub async fn reaches(&self, way: Way, bytes: u64) -> Result<()> {
        let mut passed = self.state.passed[way as usize].subscribe();
        let reached = tokio::time::timeout(SOON, passed.wait_for(|passed| *passed >= bytes)).await;
        reached.with_context(|| format!("no {bytes} bytes came within {SOON:?}"))??;
        Ok(())
    }
}

/// One connection over the wire.
#[derive(Clone, Copy)]
struct Connection<'a> {
    state: &'a State,
    cut: &'a CancellationToken,
    /// Whether the next answer on it is lost.
    loses: &'a AtomicBool,
}

impl Connection<'_> {
    /// Takes in what passes; says whether the connection is to be cut instead.
    fn loses(&self, way: Way, bytes: &[u8]) -> bool {
        match way {
            Way::There => {
                let mut unanswered = self.state.unanswered.lock();
                if let Some(place) = unanswered.iter().position(|request| bytes.starts_with(request.as_bytes())) {
                    unanswered.remove(place);
                    self.loses.store(true, Ordering::SeqCst);
                }
                false
            }
            Way::Back => {
                let loses = !bytes.is_empty() && self.loses.load(Ordering::SeqCst);
                if loses {
                    self.state.lost.send_modify(|lost| *lost += 1);
                }
                loses
            }
        }
    }
}

/// Relays until both ways have ended, or the wire is cut. Held here, the server's end stays where only the client's is cut.
async fn relay(near: TcpStream, far: TcpStream, state: &State) {
    let (cut, loses) = (CancellationToken::new(), AtomicBool::new(false));
    let on = Connection {
        state,
        cut: &cut,
        loses: &loses,
    };
    let ((mut near_in, mut near_out), (mut far_in, mut far_out)) = (near.into_split(), far.into_split());
    let (there, _) = tokio::join!(
        pass(Way::There, &mut near_in, &mut far_out, on),
        pass(Way::Back, &mut far_in, &mut near_out, on),
    );
    if there == Some(Cut::Near) {
        drop((near_in, near_out));
        std::future::pending::<()>().await;
    }
}

/// Passes on what comes one way, until its end, or until the wire is cut.
async fn pass(way: Way, from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf, on: Connection<'_>) -> Option<Cut> {
    let Connection { state, cut, .. } = on;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read.unwrap_or(0),
            () = cut.cancelled() => return None,
        };
        state.passed[way as usize].send_modify(|passed| *passed += read as u64);
        let passed = *state.passed[way as usize].borrow();
        let due = {
            let mut cuts = state.cuts[way as usize].lock();
            let due = cuts.iter().find(|(at, _)| *at <= passed).map(|(_, cut)| *cut);
            cuts.retain(|(at, _)| *at > passed);
            due
        };
        let due = due.or_else(|| on.loses(way, &buffer[..read]).then_some(Cut::Both));
        if due.is_some() {
            cut.cancel();
            return due;
        }
        let mut holds = state.holds[way as usize].subscribe();
        let held = holds.wait_for(|hold| hold.is_none_or(|at| passed < at));
        tokio::select! {
            _ = held => {}
            () = cut.cancelled() => return None,
        }
        let written = tokio::select! {
            written = to.write_all(&buffer[..read]) => written,
            () = cut.cancelled() => return None,
        };
        if read == 0 || written.is_err() {
            // Nothing more will come; the other way may go on.
            let _closed = to.shutdown().await;
            return None;
        }
    }
}
