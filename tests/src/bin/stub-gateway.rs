//! A stand-in for OpenClaw: what the agent, nginx and the tests see of it, started in milliseconds.
//!
//! The contract suite runs against this and against the real thing; where they differ, this is
//! wrong. Switches, by environment variable: `STUB_VERSION` (default 2026.9.6), `STUB_BOOT_MS` (time
//! until `/startupz` is 200), `STUB_DEAF=1` (does not watch its file), `STUB_WEDGE=1` (neither SIGTERM
//! nor a restart ever comes to an end).

use std::process::ExitCode;

use tidepool_tests::stub;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some("gateway") {
        stub::say("usage: stub-gateway gateway [run]");
        return ExitCode::from(64);
    }
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    else {
        return ExitCode::FAILURE;
    };
    ExitCode::from(runtime.block_on(stub::run(stub::Switches::read())))
}
