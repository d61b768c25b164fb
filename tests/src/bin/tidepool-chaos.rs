//! `./tidepool chaos`: a run, its verdict, and an exit status that says the same.

use std::process::ExitCode;

use clap::Parser;
use tidepool_tests::chaos::{self, Verdict};

/// Creates, claims, changes and deletes against a cloud that fails in every way, kills coordinators at
/// random, and compares the books afterwards. The last line is the verdict; the exit status is 0 if it is
/// clean and 1 if it is broken.
#[derive(Debug, Parser)]
#[command(name = "tidepool chaos", version)]
struct Arguments {
    #[command(flatten)]
    run: chaos::Options,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let verdict = chaos::run(&arguments.run, &say).await?;
    Ok(match verdict {
        Verdict::Clean => {
            say("verdict: clean");
            ExitCode::SUCCESS
        }
        Verdict::Broken(broken) => {
            say(&format!("verdict: broken: {}", broken.join("; ")));
            ExitCode::FAILURE
        }
    })
}

#[expect(clippy::print_stdout, reason = "what it is for")]
fn say(text: &str) {
    println!("{text}");
}
