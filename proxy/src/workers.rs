//! Threads that serve, each with a runtime of its own.
//!
//! A connection, the provider's answer to it and what is between them stay on one thread: on a runtime that
//! moves tasks among its threads each event of a stream would wake up several.

use std::{io, thread};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// The threads. They end when this is dropped.
#[derive(Debug)]
pub struct Workers {
    handles: Vec<Handle>,
    threads: Vec<thread::JoinHandle<()>>,
    end: CancellationToken,
}

impl Workers {
    /// One for each core.
    pub fn start() -> io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, usize::from);
        let end = CancellationToken::new();
        let mut workers = Self {
            handles: Vec::with_capacity(count),
            threads: Vec::with_capacity(count),
            end: end.clone(),
        };
        for number in 0..count {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            workers.handles.push(runtime.handle().clone());
            let end = end.clone();
            let thread = thread::Builder::new().name(format!("serve-{number}"));
            workers
                .threads
                .push(thread.spawn(move || runtime.block_on(end.cancelled()))?);
        }
        Ok(workers)
    }

    pub fn handles(&self) -> &[Handle] {
        &self.handles
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.end.cancel();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that serves has panicked");
            }
        }
    }
}
