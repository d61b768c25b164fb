//! Which document to send: pure, from what the agent holds and what the store wants.

use tidepool_shared::{
    document::{Digest, SealedDocument},
    message::Held,
};

/// What to do about a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The agent holds it, or has it on the way.
    Nothing,
    Send,
    /// Something that must never be; the word for the audit log.
    Alarm(&'static str),
}

/// Decides. `held` is the newest that the agent is known to hold *or to have been sent in this session*: a
/// document that was refused is not sent again on the same link.
pub(super) fn step(held: Option<&Held>, wanted: &SealedDocument) -> Step {
    let Some(held) = held else {
        return Step::Send;
    };
    if held.instance != wanted.instance.to_string() {
        // A server serves one customer in its life.
        return Step::Alarm("document_of_another_instance");
    }
    match wanted.generation.0.cmp(&held.generation) {
        std::cmp::Ordering::Greater => Step::Send,
        std::cmp::Ordering::Equal if wanted.digest == Digest(held.digest) => Step::Nothing,
        std::cmp::Ordering::Equal => Step::Alarm("document_altered"),
        // The store went back in time, as after a restore from an old backup.
        std::cmp::Ordering::Less => Step::Alarm("document_older_than_held"),
    }
}

/// What an agent holds once it has taken this document.
pub(super) fn holding(document: &SealedDocument) -> Held {
    Held {
        instance: document.instance.to_string(),
        generation: document.generation.0,
        digest: document.digest.0,
    }
}

#[cfg(test)]
mod tests {
    use tidepool_shared::document::Generation;

    use super::*;

    fn document(instance: u8, generation: u64, bytes: &[u8]) -> SealedDocument {
        SealedDocument {
            instance: format!("inst_{instance:026}").parse().unwrap(),
            generation: Generation(generation),
            digest: Digest::of(bytes),
            bytes: bytes.to_vec(),
        }
    }

    fn step_from(held: &SealedDocument, wanted: &SealedDocument) -> Step {
        step(Some(&holding(held)), wanted)
    }

    #[test]
    fn an_agent_with_nothing_gets_the_document() {
        assert_eq!(step(None, &document(1, 1, b"a")), Step::Send);
    }

    #[test]
    fn a_newer_generation_is_sent_and_the_same_is_not() {
        let held = document(1, 2, b"a");
        assert_eq!(step_from(&held, &document(1, 3, b"a")), Step::Send);
        assert_eq!(step_from(&held, &held), Step::Nothing);
    }

    #[test]
    fn what_must_never_be_is_an_alarm_and_not_sent() {
        let held = document(1, 2, b"a");
        let alarm = |wanted| matches!(step_from(&held, &wanted), Step::Alarm(_));
        assert!(alarm(document(1, 2, b"b")));
        assert!(alarm(document(1, 1, b"a")));
        assert!(alarm(document(2, 9, b"a")));
    }
}
