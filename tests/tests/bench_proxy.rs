//! The bench of the model proxy runs, and tells every figure that it promises. No time is asserted.

use std::process::Command;

use tidepool_coordinator::store::throwaway::Throwaway;
use tidepool_tests::programs::program;

const NAMES: [&str; 16] = [
    "idle_rss_mib",
    "stream_rss_kib",
    "full_stream_rss_kib",
    "added_plain_p50_ms",
    "added_plain_p99_ms",
    "added_first_event_p50_ms",
    "added_first_event_p99_ms",
    "added_large_p50_ms",
    "added_large_p99_ms",
    "cpu_per_request_us",
    "cpu_per_large_request_us",
    "cpu_per_event_us",
    "cpu_per_copied_event_us",
    "saturated_requests_per_s",
    "saturated_direct_requests_per_s",
    "requests_per_s_core",
];

#[tokio::test]
async fn with_postgres_the_bench_tells_every_figure() {
    let Some(_database) = Throwaway::database().await.unwrap() else {
        return;
    };
    let output = Command::new(program("tidepool-bench").unwrap())
        .args(["proxy", "--quick"])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let names: Vec<_> = lines
        .lines()
        .map(|line| {
            let figure: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(figure["bench"], "proxy");
            assert!(figure["value"].is_number());
            figure["name"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(names, NAMES);
}
