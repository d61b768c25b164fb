//! `tidepool-agent`: one server's agent.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidepool_agent::program::main(env!("CARGO_PKG_VERSION"))
}
