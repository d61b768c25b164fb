//! A stand-in for OpenClaw: what the agent, nginx and the tests see of it, started in milliseconds.
//!
//! The contract suite runs against this and against the real thing; where they differ, this is
//! wrong. Switches, by environment variable or as an argument behind `gateway`: `STUB_VERSION=`
//! (default 2026.9.6), `STUB_BOOT_MS=` (time until `/startupz` is 200), `STUB_DEAF=1` (does not watch
//! its file), `STUB_WEDGE=1` (neither SIGTERM nor a restart ever comes to an end), `STUB_BROKEN=1` (makes
//! the state its version's, and ends), `STUB_HELPER=1` (has started a process in a session of its own, as
//! OpenClaw does for browsers and shells).

use std::process::ExitCode;

use tidepool_tests::stub;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("gateway") => {}
        // As `openclaw config schema`.
        Some("config") if std::env::args().nth(2).as_deref() == Some("schema") => {
            #[expect(clippy::print_stdout, reason = "what it is asked for")]
            {
                print!("{}", include_str!("../../fixtures/stub-schema.json"));
            }
            return ExitCode::SUCCESS;
        }
        Some(stub::HELPER) => loop {
            std::thread::park();
        },
        _ => {
            stub::say("usage: stub-gateway gateway [SWITCH=VALUE]... | config schema");
            return ExitCode::from(64);
        }
    }
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    else {
        return ExitCode::FAILURE;
    };
    ExitCode::from(runtime.block_on(stub::run(stub::Switches::read())))
}
