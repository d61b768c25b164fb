//! The bytes of every frame of every released capability. A change that alters them, or that no longer
//! reads them, breaks agents that are out there. `WRITE_GOLDEN=1` writes the files of a new capability;
//! those of a released one are never written again.

#![expect(clippy::unwrap_used, reason = "helpers of a test")]

use std::{fmt::Debug, fs, path::PathBuf};

use tidepool_shared::{
    frame::{Frame, HEADER_LEN, Header, Message},
    message::{
        AgentOutcome, ArtefactFollows, Desired, Door, Ending, Enrol, FetchArtefact, GatewayStats,
        Health, Held, Hello, HostStats, Issued, LogLines, LogRequest, OpenClawState, Phase, Ping,
        Pong, Refused, Rejected, Renew, Report, Stats, Step, Unsupported, Verdict, WantedAgent,
        Welcome,
    },
};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/1/{name}.hex"))
}

fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn from_hex(text: &str) -> Vec<u8> {
    let text = text.trim();
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// Three things: the message encodes to the file, the file reads as the message, and so does the file with
/// a field that this build has never heard of.
fn is_golden<M: Message + PartialEq + Debug>(name: &str, message: &M) {
    let encoded = Frame::of(message).encode().unwrap();
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        fs::write(path(name), format!("{}\n", to_hex(&encoded))).unwrap();
    }
    let golden = from_hex(&fs::read_to_string(path(name)).unwrap());
    assert_eq!(
        to_hex(&encoded),
        to_hex(&golden),
        "{name} is encoded otherwise"
    );

    let (header, body) = golden.split_first_chunk::<HEADER_LEN>().unwrap();
    let header = Header::decode(*header).unwrap();
    assert_eq!(header.body_len, body.len());
    let kind = header.kind;
    let read = |body: &[u8]| -> M {
        let body = body.to_vec();
        Frame { kind, body }.message().unwrap()
    };
    assert_eq!(&read(body), message, "{name} is read otherwise");

    let mut newer = body.to_vec();
    assert!(
        (0xa0..0xb7).contains(&newer[0]),
        "{name} is not a small map"
    );
    newer[0] += 1;
    newer.extend_from_slice(&[0x18, 0x63, 0x65, b'l', b'a', b't', b'e', b'r']);
    assert_eq!(
        &read(&newer),
        message,
        "{name} is not read from a newer peer"
    );
}

const SERVER: &str = "srv_01k9zzzzzzzzzzzzzzzzzzzzzz";
const INSTANCE: &str = "inst_01k9zzzzzzzzzzzzzzzzzzzzzz";

#[test]
fn the_handshake_is_golden() {
    let hello = Hello {
        capability: 1,
        minimum: 1,
        server: SERVER.into(),
        boot: 0x0123_4567_89ab_cdef,
        agent_version: "0.1.0".into(),
        openclaw_version: "2026.9.6".into(),
        held: None,
        last_epoch: 0,
    };
    is_golden("hello_first", &hello);
    let held = Some(Held {
        instance: INSTANCE.into(),
        generation: 3,
        digest: [0xab; 32],
    });
    let last_epoch = 41;
    is_golden(
        "hello_again",
        &Hello {
            held,
            last_epoch,
            ..hello
        },
    );
    let welcome = Welcome {
        epoch: 42,
        time_us: 1_795_000_000_000_000,
        ping_interval_ms: 10_000,
        reconnect_spread_ms: 20_000,
        minimum: 1,
        current_generation: 3,
    };
    is_golden("welcome", &welcome);
}

#[test]
fn documents_and_verdicts_are_golden() {
    let desired = Desired {
        epoch: 42,
        instance: INSTANCE.into(),
        generation: 4,
        digest: [0xcd; 32],
        bytes: b"{\"generation\":4}".to_vec(),
    };
    is_golden("desired", &desired);
    let refused = None;
    is_golden(
        "verdict_accepted",
        &Verdict {
            generation: 4,
            refused,
        },
    );
    let refused = Some("older than held".into());
    is_golden(
        "verdict_refused",
        &Verdict {
            generation: 2,
            refused,
        },
    );
}

#[test]
fn reports_are_golden() {
    let report = Report {
        epoch: 42,
        phase: Phase::Claimed,
        served_generation: 4,
        observed_generation: 3,
        health: Health::Degraded,
        reasons: vec!["model is slow".into()],
        steps: vec![Step {
            name: "nginx".into(),
            ms: 12,
        }],
        rejected: Some(Rejected {
            generation: 4,
            reason: "no such key".into(),
        }),
        gateway_starts: 2,
        openclaw: None,
    };
    is_golden("report", &report);
    let openclaw = Some(OpenClawState {
        version: "2026.9.6".into(),
        settled: 3,
        failed: Some("it did not start".into()),
    });
    is_golden(
        "report_openclaw",
        &Report {
            openclaw,
            ..report.clone()
        },
    );
    let phases = [
        Phase::Starting,
        Phase::WarmingUp,
        Phase::Warm,
        Phase::Claimed,
        Phase::Failed,
    ];
    for (number, phase) in phases.into_iter().enumerate() {
        is_golden(
            &format!("report_phase_{number}"),
            &Report {
                phase,
                ..report.clone()
            },
        );
    }
    let healths = [Health::Unknown, Health::Ok, Health::Degraded, Health::Down];
    for (number, health) in healths.into_iter().enumerate() {
        is_golden(
            &format!("report_health_{number}"),
            &Report {
                health,
                ..report.clone()
            },
        );
    }
}

#[test]
fn stats_are_golden() {
    let host = HostStats {
        cpus: 2,
        cpu_millicores: Some(150),
        memory_bytes: 4 << 30,
        memory_available_bytes: 2 << 30,
        rest_memory_bytes: Some(140 << 20),
        agent_memory_bytes: 14 << 20,
        disk_bytes: 40 << 30,
        disk_free_bytes: 30 << 30,
    };
    let gateway = Some(GatewayStats {
        cpu_millicores: Some(20),
        memory_bytes: 800 << 20,
        memory_limit_bytes: Some(3 << 30),
        pids: 30,
    });
    let stats = Stats {
        epoch: 42,
        gateway,
        host,
    };
    is_golden("stats", &stats);
    let gateway = None;
    is_golden("stats_without_gateway", &Stats { gateway, ..stats });
}

#[test]
fn pings_and_unknown_kinds_are_golden() {
    is_golden("ping", &Ping { sequence: 7 });
    is_golden(
        "pong",
        &Pong {
            sequence: 7,
            generation: 4,
        },
    );
    is_golden("unsupported", &Unsupported { kind: 999 });
}

#[test]
fn certificates_are_golden() {
    let enrol = Enrol {
        capability: 1,
        server: SERVER.into(),
        token: "00".repeat(32),
        csr: vec![0x30, 0x03, 1, 2, 3],
        manifest: "{}".into(),
    };
    is_golden("enrol", &enrol);
    is_golden(
        "renew",
        &Renew {
            csr: vec![0x30, 0x03, 1, 2, 3],
        },
    );
    is_golden(
        "door",
        &Door {
            csr: vec![0x30, 0x03, 1, 2, 3],
        },
    );
    let chain = vec![vec![0x30, 1].into(), vec![0x30, 2].into()];
    is_golden("issued", &Issued { chain });
    is_golden(
        "refused",
        &Refused {
            reason: "not ready".into(),
            retry: true,
        },
    );
}

#[test]
fn logs_are_golden() {
    is_golden("log_request", &LogRequest { lines: 200 });
    let lines = vec!["one".into(), "two ü".into()];
    is_golden("log_lines", &LogLines { lines });
}

#[test]
fn artefacts_are_golden() {
    let wanted = WantedAgent {
        epoch: 9,
        rollout: 3,
        signed: "{}".into(),
        trial_s: 90,
    };
    is_golden("wanted_agent", &wanted);
    let endings = [Ending::Kept, Ending::Refused, Ending::RolledBack];
    for (number, ending) in endings.into_iter().enumerate() {
        let outcome = AgentOutcome {
            rollout: 3,
            ending,
            reason: (ending != Ending::Kept).then(|| "no".into()),
        };
        is_golden(&format!("agent_outcome_{number}"), &outcome);
    }
    is_golden(
        "fetch_artefact",
        &FetchArtefact {
            sha256: [0xab; 32],
            offset: 65_536,
        },
    );
    is_golden("artefact_follows", &ArtefactFollows { size: 15_000_000 });
}
