//! `tidepool image verify`: asks for a trial and follows it. The trial does not need the command: it goes on, and
//! its server is removed, whatever becomes of who asked.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::super::{
    CommandFailed,
    client::{Client, segment},
    output::{Output, printable, table},
};
use crate::{
    api::images::{FigureView, VerificationView},
    model::VerificationState,
};

const POLL: Duration = Duration::from_millis(500);

pub(super) async fn run(
    image: &str,
    client: &Client,
    output: &mut Output,
) -> Result<(), CommandFailed> {
    let began = Instant::now();
    let path = format!("/v1/images/{}/verify", segment(image));
    let mut trial: VerificationView = client.post(&path, &serde_json::json!({})).await?;
    let path = format!("/v1/verifications/{}", segment(&trial.id));
    let mut told = String::new();
    while trial.finished_at.is_none() {
        if told != trial.stage {
            told.clone_from(&trial.stage);
            let line = format!("{:>5} s  {told}", began.elapsed().as_secs());
            // Progress is for whoever watches; there may be nobody.
            drop(writeln!(io::stderr().lock(), "{}", printable(&line)));
        }
        sleep(POLL).await;
        trial = client.get(&path).await?;
    }
    output.show(&trial, lines)?;
    match trial.state {
        VerificationState::Passed => Ok(()),
        VerificationState::Wanted | VerificationState::Running | VerificationState::Refused => {
            Err(CommandFailed::NotGoodEnough)
        }
    }
}

fn lines(trial: &VerificationView) -> Vec<String> {
    let mut rows = vec![
        ["FIGURE", "MEASURED", "PROMOTED", "AT MOST"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(trial.figures.iter().map(row));
    let mut lines = table(&rows);
    if !trial.figures.is_empty() {
        lines.push(match &trial.compared_with {
            Some(image) => format!("compared with {image}"),
            None => "the promoted image was never verified: nothing to compare with".to_owned(),
        });
    }
    lines.extend(
        trial
            .problems
            .iter()
            .map(|problem| format!("refused: {problem}")),
    );
    lines.push(format!(
        "{} {}; its server is removed",
        trial.image,
        trial.state.word()
    ));
    lines
}

fn row(figure: &FigureView) -> Vec<String> {
    let value = |value: Option<u64>| {
        value.map_or_else(
            || "-".to_owned(),
            |value| format!("{value} {}", figure.unit),
        )
    };
    vec![
        figure.name.clone(),
        value(Some(figure.measured)),
        value(figure.promoted),
        value(figure.limit),
    ]
}
