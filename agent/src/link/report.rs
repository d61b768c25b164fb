//! What the agent sees, as a frame that always fits: the coordinator's ceilings are kept here.

use tidepool_shared::message::{OpenClawState, Rejected, Report, Step};

use crate::desk::View;

const MAX_REASONS: usize = 8;
const MAX_STEPS: usize = 16;
const MAX_STEP_NAME: usize = 64;

/// The longest text of a reason, in bytes. All of them together stay well under a frame.
const MAX_TEXT: usize = 512;

/// A report of this view in this session.
pub(super) fn of(view: &View, epoch: u64) -> Report {
    Report {
        epoch,
        phase: view.phase,
        served_generation: view.served.0,
        observed_generation: view.observed.0,
        health: view.health,
        reasons: view
            .reasons
            .iter()
            .take(MAX_REASONS)
            .map(|reason| cut(reason))
            .collect(),
        steps: view
            .steps
            .iter()
            .take(MAX_STEPS)
            .map(|step| Step {
                name: cut_to(&step.name, MAX_STEP_NAME),
                ms: step.ms,
            })
            .collect(),
        rejected: view.rejected.as_ref().map(|rejected| Rejected {
            generation: rejected.generation,
            reason: cut(&rejected.reason),
        }),
        gateway_starts: view.gateway_starts,
        openclaw: Some(OpenClawState {
            version: view.openclaw.version.clone(),
            settled: view.openclaw.settled,
            failed: view.openclaw.failed.as_deref().map(cut),
        }),
    }
}

/// A text, cut to what a frame has room for.
pub(super) fn cut(text: &str) -> String {
    cut_to(text, MAX_TEXT)
}

fn cut_to(text: &str, ceiling: usize) -> String {
    text.get(..text.floor_char_boundary(ceiling))
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use tidepool_shared::frame::Frame;

    use super::*;

    #[test]
    fn the_wordiest_view_fits_a_frame() {
        let text = "ü".repeat(10_000);
        let view = View {
            reasons: vec![text.clone(); 100],
            steps: vec![
                Step {
                    name: text.clone(),
                    ms: u32::MAX
                };
                100
            ],
            rejected: Some(Rejected {
                generation: 1,
                reason: text.clone(),
            }),
            openclaw: OpenClawState {
                failed: Some(text),
                ..OpenClawState::default()
            },
            ..View::default()
        };
        assert!(Frame::of(&of(&view, 1)).encode().is_ok());
    }
}
