//! Requests from the coordinator, each on a stream of its own, so that bulk never delays control.
//!
//! The one kind there is asks for the end of the gateway's log.

use std::time::Duration;

use quinn::{RecvStream, SendStream};
use tidepool_shared::{
    frame::{Kind, MAX_BULK_BODY},
    message::{LogLines, LogRequest, Refused, Unsupported},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::wire::{self, FrameReader, WireError};
use crate::desk::Request;

/// How long a request may take to arrive and to be answered by the desk.
const DEADLINE: Duration = Duration::from_secs(10);

/// The most lines that are given, whatever is asked for.
const MAX_LINES: u32 = 5000;

/// Bytes that a line's framing may take at most.
const LINE_OVERHEAD: usize = 5;

/// Room for the frame's own framing.
const BODY_OVERHEAD: usize = 64;

/// Answers one request.
pub(super) async fn answer(
    mut send: SendStream,
    recv: RecvStream,
    desk: mpsc::Sender<Request>,
) -> Result<(), WireError> {
    let frame = timeout(DEADLINE, FrameReader::new(recv).answer())
        .await
        .map_err(|_| WireError::Stalled)??;
    if frame.kind == Kind::LOG_REQUEST {
        let LogRequest { lines } = frame.message()?;
        if let Some(lines) = ask(&desk, lines.min(MAX_LINES)).await {
            wire::write(&mut send, &fitting(lines)).await?;
        } else {
            let refused = Refused {
                reason: "agent is busy".into(),
                retry: true,
            };
            wire::write(&mut send, &refused).await?;
        }
    } else {
        let kind = frame.kind.0;
        wire::write(&mut send, &Unsupported { kind }).await?;
    }
    // A stream that is finished already was finished by us: nothing is lost.
    drop(send.finish());
    Ok(())
}

async fn ask(desk: &mpsc::Sender<Request>, lines: u32) -> Option<Vec<String>> {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        desk.send(Request::Logs { lines, reply }).await.ok()?;
        answer.await.ok()
    };
    timeout(DEADLINE, asked).await.ok().flatten()
}

/// The newest lines that fit a frame.
fn fitting(mut lines: Vec<String>) -> LogLines {
    let mut room = MAX_BULK_BODY - BODY_OVERHEAD;
    let kept = lines
        .iter()
        .rev()
        .take_while(|line| {
            let fits = line.len().checked_add(LINE_OVERHEAD);
            match fits.and_then(|needed| room.checked_sub(needed)) {
                Some(left) => {
                    room = left;
                    true
                }
                None => false,
            }
        })
        .count();
    drop(lines.drain(..lines.len() - kept));
    LogLines { lines }
}

#[cfg(test)]
mod tests {
    use tidepool_shared::frame::Frame;

    use super::*;

    #[test]
    fn the_newest_lines_are_kept_when_not_all_fit() {
        let lines: Vec<String> = (0..300_000)
            .map(|number| format!("line {number}"))
            .collect();
        let fitting = fitting(lines);
        assert_eq!(fitting.lines.last().unwrap(), "line 299999");
        assert!(fitting.lines.len() < 300_000);
        assert!(Frame::of(&fitting).encode().is_ok());
    }

    #[test]
    fn a_line_that_fills_a_frame_is_left_out() {
        let fitting = fitting(vec!["x".repeat(MAX_BULK_BODY)]);
        assert!(fitting.lines.is_empty());
    }
}
