//! Requests in memory: so much for one server, and so much in all.
//!
//! Taken as the bytes arrive, so that who sends slowly, or nothing, keeps nobody out; and held as long as a
//! request may have to be sent again. A server's own bound comes first, or one server's requests would
//! hold all there is; and small requests, which most are, have a part for themselves, or a few servers would by
//! agreement.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use tidepool_shared::id::ServerId;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::refusal::Refusal;

/// Images in a conversation make requests large.
const BODY_MAX_BYTES: usize = 20 * 1024 * 1024;
/// For a whole request to arrive.
const BODY_DEADLINE: Duration = Duration::from_mins(1);
/// Of all requests at the same time.
const ALL_KIB: usize = 640 * 1024;
/// Of these for one server.
const OF_ONE_KIB: usize = 80 * 1024;
/// The same for what first comes of a request, up to [`SMALL_MAX_KIB`].
const ALL_SMALL_KIB: usize = 64 * 1024;
const SMALL_OF_ONE_KIB: usize = 1024;
const SMALL_MAX_KIB: usize = 256;
/// For memory that others hold.
const PATIENCE: Duration = Duration::from_secs(10);
/// Servers remembered before those are forgotten that hold and want nothing.
const REMEMBERED: usize = 1024;
const KIB: usize = 1024;

/// The memory there is.
#[derive(Debug)]
pub(crate) struct Bodies {
    all: Part,
    each: Mutex<HashMap<ServerId, Part>>,
}

/// What may be taken of it, for requests of any size and for small ones.
#[derive(Debug, Clone)]
struct Part {
    any: Arc<Semaphore>,
    small: Arc<Semaphore>,
}

impl Part {
    fn of_kib(any: usize, small: usize) -> Self {
        Self {
            any: Arc::new(Semaphore::new(any)),
            small: Arc::new(Semaphore::new(small)),
        }
    }

    /// Somebody holds some of it, or waits for it.
    fn is_wanted(&self) -> bool {
        Arc::strong_count(&self.any) > 1 || Arc::strong_count(&self.small) > 1
    }
}

/// A whole request, and its memory, which is given back by dropping it.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) bytes: Bytes,
    _room: Vec<Room>,
}

/// Memory of one server and of all.
#[derive(Debug)]
struct Room {
    _own: OwnedSemaphorePermit,
    _shared: OwnedSemaphorePermit,
}

impl Default for Bodies {
    fn default() -> Self {
        Self {
            all: Part::of_kib(ALL_KIB, ALL_SMALL_KIB),
            each: Mutex::default(),
        }
    }
}

impl Bodies {
    /// Reads a request of this server, within bounds of size, time and memory.
    pub(crate) async fn read(&self, server: ServerId, body: Body) -> Result<Whole, Refusal> {
        timeout(BODY_DEADLINE, self.read_all(server, body))
            .await
            .unwrap_or(Err(Refusal::TooSlow))
    }

    async fn read_all(&self, server: ServerId, body: Body) -> Result<Whole, Refusal> {
        let mut chunks = body.into_data_stream();
        let mut room = Vec::new();
        let mut room_kib = 0;
        let mut first = Bytes::new();
        let mut whole = BytesMut::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| Refusal::Cut)?;
            let bytes = first.len() + whole.len() + chunk.len();
            if bytes > BODY_MAX_BYTES {
                return Err(Refusal::TooLarge);
            }
            // Twice what it needs each time: whoever sends in small pieces asks seldom.
            if bytes > room_kib * KIB {
                let more = bytes
                    .div_ceil(KIB)
                    .max(2 * room_kib)
                    .min(BODY_MAX_BYTES / KIB)
                    - room_kib;
                room.push(self.room(server, more).await?);
                room_kib += more;
            }
            // Most requests come in one piece, which is not copied.
            if first.is_empty() && whole.is_empty() {
                first = chunk;
            } else {
                if whole.is_empty() {
                    whole.reserve(2 * bytes);
                    whole.extend_from_slice(&std::mem::take(&mut first));
                }
                whole.extend_from_slice(&chunk);
            }
        }
        Ok(Whole {
            bytes: if whole.is_empty() {
                first
            } else {
                whole.freeze()
            },
            _room: room,
        })
    }

    async fn room(&self, server: ServerId, kib: usize) -> Result<Room, Refusal> {
        let own = self.own(server);
        let is_small = kib <= SMALL_MAX_KIB;
        let kib = u32::try_from(kib).unwrap_or(u32::MAX);
        let small = |part: &Part| Arc::clone(&part.small).try_acquire_many_owned(kib);
        if is_small && let (Ok(own), Ok(shared)) = (small(&own), small(&self.all)) {
            return Ok(Room {
                _own: own,
                _shared: shared,
            });
        }
        let room = async {
            Some(Room {
                _own: own.any.acquire_many_owned(kib).await.ok()?,
                _shared: Arc::clone(&self.all.any)
                    .acquire_many_owned(kib)
                    .await
                    .ok()?,
            })
        };
        let room = timeout(PATIENCE, room).await;
        room.ok().flatten().ok_or(Refusal::Busy)
    }

    fn own(&self, server: ServerId) -> Part {
        let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        if each.len() >= REMEMBERED {
            each.retain(|_, own| own.is_wanted());
        }
        each.entry(server)
            .or_insert_with(|| Part::of_kib(OF_ONE_KIB, SMALL_OF_ONE_KIB))
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;

    use super::*;

    fn server(number: u128) -> ServerId {
        ServerId::new(uuid::Uuid::from_u128(number))
    }

    fn in_pieces(bytes: usize, of: usize) -> Body {
        let piece = Bytes::from(vec![b'x'; of]);
        let pieces = (0..bytes / of).map(move |_| Ok::<_, Infallible>(piece.clone()));
        Body::from_stream(stream::iter(pieces))
    }

    #[tokio::test]
    async fn a_body_is_whole_in_whatever_pieces_it_comes() {
        let bodies = Bodies::default();
        for piece in [1, 7, 4096, 100_000] {
            let whole = bodies.read(server(1), in_pieces(700_000, piece)).await;
            let expected = 700_000 / piece * piece;
            assert_eq!(whole.unwrap().bytes.len(), expected, "{piece}");
        }
        let whole = bodies.read(server(1), Body::empty()).await.unwrap();
        assert!(whole.bytes.is_empty());
        let large = bodies
            .read(server(1), in_pieces(BODY_MAX_BYTES + 4096, 4096))
            .await;
        assert_eq!(large.unwrap_err(), Refusal::TooLarge);
        let left = [&bodies.all.any, &bodies.all.small].map(|part| part.available_permits());
        assert_eq!(left, [ALL_KIB, ALL_SMALL_KIB], "all is given back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_that_hold_all_there_is_keep_out_no_small_request() {
        let bodies = Bodies::default();
        let mut held = Vec::new();
        for number in 0..8 {
            for _ in 0..4 {
                let body = in_pieces(BODY_MAX_BYTES, BODY_MAX_BYTES);
                held.push(bodies.read(server(number), body).await.unwrap());
            }
            // Nor with small ones: what is over is of the other kind, of which there is none.
            for _ in 0..SMALL_OF_ONE_KIB / SMALL_MAX_KIB {
                let body = in_pieces(SMALL_MAX_KIB * KIB, SMALL_MAX_KIB * KIB);
                held.push(bodies.read(server(number), body).await.unwrap());
            }
            let more = bodies.read(server(number), in_pieces(10, 10)).await;
            assert_eq!(more.unwrap_err(), Refusal::Busy);
        }
        let small = bodies.read(server(9), in_pieces(66_000, 66_000)).await;
        assert!(small.is_ok());
        let large = bodies
            .read(server(9), in_pieces(1_000_000, 1_000_000))
            .await;
        assert_eq!(large.unwrap_err(), Refusal::Busy);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_holds_its_share_waits_and_others_do_not() {
        let bodies = Bodies::default();
        let mut held = Vec::new();
        for _ in 0..4 {
            let body = in_pieces(BODY_MAX_BYTES, BODY_MAX_BYTES);
            held.push(bodies.read(server(1), body).await.unwrap());
        }
        let body = || in_pieces(1_000_000, 1_000_000);
        let one_more = bodies.read(server(1), body()).await;
        assert_eq!(one_more.unwrap_err(), Refusal::Busy);
        assert!(bodies.read(server(2), body()).await.is_ok());
        held.pop();
        assert!(bodies.read(server(1), body()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_nothing_is_given_up_and_holds_nothing() {
        let bodies = Bodies::default();
        let silent = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        assert_eq!(
            bodies.read(server(1), silent).await.unwrap_err(),
            Refusal::TooSlow
        );
    }
}
