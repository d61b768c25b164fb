//! How many frames an agent may send: a ceiling far over what a sound one needs, so that a mad one cannot
//! keep the store busy.

use std::time::Duration;

use tokio::time::Instant;

const FRAMES: u32 = 300;
const WINDOW: Duration = Duration::from_secs(10);

/// What is left of the present window.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    window_since: Option<Instant>,
    taken: u32,
}

impl Allowance {
    /// Takes one frame's worth; `false` when there is none left.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let fresh = self
            .window_since
            .is_none_or(|since| now.duration_since(since) >= WINDOW);
        if fresh {
            self.window_since = Some(now);
            self.taken = 0;
        }
        self.taken = self.taken.saturating_add(1);
        self.taken <= FRAMES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_frame_too_many_is_refused_until_the_window_is_over() {
        let start = Instant::now();
        let mut allowance = Allowance::default();
        assert!((0..FRAMES).all(|_| allowance.take(start)));
        assert!(!allowance.take(start));
        assert!(allowance.take(start + WINDOW));
    }
}
