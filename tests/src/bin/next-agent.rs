//! The agent as its next release would be: the same program under another version.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidepool_agent::program::main("99.0.0")
}
