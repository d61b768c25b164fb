//! A host out in the world: it listens where mail, IRC and web servers do, and counts what is thrown at it.
//!
//! Its sockets are of the host's namespace; a thread goes there to open them and ends.

use std::{
    fs::File,
    net::{Ipv4Addr, TcpListener, UdpSocket as StdUdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use nix::sched::{CloneFlags, setns};
use tokio::{net::UdpSocket, task::JoinSet, time::sleep};

use super::{OPEN, SHUT};

/// The host, for as long as this lives.
#[derive(Debug)]
pub struct World {
    pub address: Ipv4Addr,
    /// The kernel answers for them.
    _listeners: Vec<TcpListener>,
    ear: Arc<UdpSocket>,
}

/// A count under way.
pub(super) struct Counting {
    seen: Arc<AtomicU64>,
    /// Ends with this.
    _task: JoinSet<()>,
}

impl World {
    /// Where it counts.
    pub(super) const EAR: u16 = 9999;

    /// Listens in a namespace that has this address.
    pub fn listen(namespace: &str, address: Ipv4Addr) -> anyhow::Result<Self> {
        let file = File::open(format!("/run/netns/{namespace}"))?;
        let open = move || -> anyhow::Result<_> {
            setns(file, CloneFlags::CLONE_NEWNET)?;
            let listeners = OPEN
                .iter()
                .chain(SHUT)
                .map(|port| TcpListener::bind((address, *port)))
                .collect::<Result<Vec<_>, _>>()?;
            let ear = StdUdpSocket::bind((address, Self::EAR))?;
            ear.set_nonblocking(true)?;
            Ok((listeners, ear))
        };
        let opened = std::thread::spawn(open).join();
        let (listeners, ear) = opened
            .ok()
            .context("the thread in the namespace panicked")??;
        Ok(Self {
            address,
            _listeners: listeners,
            ear: Arc::new(UdpSocket::from_std(ear)?),
        })
    }

    /// Counts packets from now on.
    pub(super) fn count(&self) -> Counting {
        let seen = Arc::new(AtomicU64::default());
        let mut task = JoinSet::new();
        let (ear, counter) = (self.ear.clone(), seen.clone());
        task.spawn(async move {
            while ear.recv(&mut [0; 16]).await.is_ok() {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        Counting { seen, _task: task }
    }
}

impl Counting {
    /// How many there were.
    pub(super) async fn end(self) -> anyhow::Result<u64> {
        // The last ones are still on their way.
        sleep(Duration::from_millis(500)).await;
        Ok(self.seen.load(Ordering::Relaxed))
    }
}
