//! Rings as text for `NOTIFY`: the sender's name, then a word a ring.
//!
//! `4f2c… p e srv_… inst_…`: pool, events, a server, an instance; `*` is everything. A sender's name alone
//! says that it lives. A coordinator that does not know a word looks at everything.

use super::{Heard, Ring, outbox::Waiting};

/// PostgreSQL takes less than 8000 bytes.
const MAX_BYTES: usize = 7_900;

const POOL: &str = "p";
const EVENTS: &str = "e";
const IMAGES: &str = "i";
const EVERYTHING: &str = "*";

/// The texts that tell what waits: as few as hold it.
pub(super) fn write(sender: &str, waiting: &Waiting) -> Vec<String> {
    let Waiting::Rings(rings) = waiting else {
        return vec![format!("{sender} {EVERYTHING}")];
    };
    let mut texts = vec![sender.to_owned()];
    for ring in rings {
        let word = word(*ring);
        let full = texts
            .last()
            .is_none_or(|text| text.len() + 1 + word.len() > MAX_BYTES);
        if full {
            texts.push(sender.to_owned());
        }
        if let Some(text) = texts.last_mut() {
            text.push(' ');
            text.push_str(&word);
        }
    }
    texts
}

/// What another process says; nothing when it was this one.
pub(super) fn read(own: &str, text: &str) -> Vec<Heard> {
    let mut words = text.split(' ');
    if words.next() == Some(own) {
        return Vec::new();
    }
    words.map(heard).collect()
}

fn word(ring: Ring) -> String {
    match ring {
        Ring::Server(id) => id.to_string(),
        Ring::Instance(id) => id.to_string(),
        Ring::Pool => POOL.to_owned(),
        Ring::Events => EVENTS.to_owned(),
        Ring::Images => IMAGES.to_owned(),
    }
}

fn heard(word: &str) -> Heard {
    let ring = match word {
        POOL => Some(Ring::Pool),
        EVENTS => Some(Ring::Events),
        IMAGES => Some(Ring::Images),
        id => id
            .parse()
            .map(Ring::Server)
            .or_else(|_| id.parse().map(Ring::Instance))
            .ok(),
    };
    ring.map_or(Heard::Missed, Heard::Ring)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use tidepool_shared::id::{InstanceId, ServerId};
    use uuid::Uuid;

    use super::*;

    fn rings() -> HashSet<Ring> {
        let uuid = Uuid::from_u128(7);
        HashSet::from([
            Ring::Server(ServerId::new(uuid)),
            Ring::Instance(InstanceId::new(uuid)),
            Ring::Pool,
            Ring::Events,
            Ring::Images,
        ])
    }

    #[test]
    fn every_ring_is_read_as_it_was_written() {
        let texts = write("me", &Waiting::Rings(rings()));
        let heard: HashSet<_> = texts
            .iter()
            .flat_map(|text| read("you", text))
            .filter_map(|heard| match heard {
                Heard::Ring(ring) => Some(ring),
                Heard::Missed | Heard::Closed => None,
            })
            .collect();
        assert_eq!((texts.len(), heard), (1, rings()));
    }

    #[test]
    fn ones_own_rings_are_not_heard_again() {
        for text in write("me", &Waiting::Rings(rings())) {
            assert_eq!(read("me", &text), []);
        }
    }

    #[test]
    fn what_is_not_understood_is_a_look_at_everything() {
        assert_eq!(
            read("me", "you p newer-than-us"),
            [Heard::Ring(Ring::Pool), Heard::Missed]
        );
        assert_eq!(read("me", "you *"), [Heard::Missed]);
        assert_eq!(read("me", "you"), []);
    }

    #[test]
    fn many_rings_make_several_texts_none_too_long() {
        let many = (0..1000).map(|number| Ring::Server(ServerId::new(Uuid::from_u128(number))));
        let texts = write("me", &Waiting::Rings(many.collect()));
        assert!(texts.len() > 1);
        assert!(texts.iter().all(|text| text.len() <= MAX_BYTES));
        let heard: usize = texts.iter().map(|text| read("you", text).len()).sum();
        assert_eq!(heard, 1000);
    }
}
