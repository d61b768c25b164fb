//! Benches: what they measure, how a figure is printed.
//!
//! One JSON line a figure on standard output: `{"bench","name","value","unit","budget","within",
//! "commit","machine"}`. Progress goes to standard error. Budgets are those of the design, section 10.

use std::{io::Write as _, process::Command};

use anyhow::{Context as _, ensure};
use serde_json::json;

pub mod claim;
pub mod first_reply;
pub mod image;
pub mod links;
pub mod pool;
pub mod proxy;
pub mod reload;
mod resources;
pub mod routes;
pub mod store;

/// A measured figure.
#[derive(Debug, Clone)]
pub struct Figure {
    pub bench: &'static str,
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
    /// At most this, or at least this for what there should be much of, if the design sets a budget.
    pub budget: Option<f64>,
}

impl Figure {
    /// Prints the figure as one JSON line.
    pub fn print(&self) -> std::io::Result<()> {
        self.print_if(|value, budget| value <= budget)
    }

    /// The same for a figure of which there should be much.
    pub fn print_at_least(&self) -> std::io::Result<()> {
        self.print_if(|value, budget| value >= budget)
    }

    fn print_if(&self, within: impl Fn(f64, f64) -> bool) -> std::io::Result<()> {
        let line = json!({
            "bench": self.bench,
            "name": self.name,
            "value": (self.value * 1000.0).round() / 1000.0,
            "unit": self.unit,
            "budget": self.budget,
            "within": self.budget.map(|budget| within(self.value, budget)),
            "commit": commit(),
            "machine": machine(),
        });
        writeln!(std::io::stdout().lock(), "{line}")
    }
}

/// Many measurements of one thing.
#[derive(Debug, Clone, Default)]
pub struct Sample(Vec<f64>);

impl Sample {
    pub fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value that this share (0 to 1) of the measurements does not exceed, by nearest rank.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let count = f64::from(u32::try_from(sorted.len()).ok()?);
        let rank = (1..=sorted.len())
            .find(|rank| f64::from(u32::try_from(*rank).unwrap_or(u32::MAX)) >= share * count)?;
        sorted.get(rank - 1).copied()
    }

    /// Prints p50 and p99 as `<name>_p50_<unit>` and `<name>_p99_<unit>`. A figure that was promised and
    /// cannot be given is a failure: nothing printed would read like nothing wrong.
    pub fn print(
        &self,
        bench: &'static str,
        name: &str,
        unit: &'static str,
        budgets: [Option<f64>; 2],
    ) -> anyhow::Result<()> {
        for figure in self.figures(bench, name, unit, budgets)? {
            figure.print()?;
        }
        Ok(())
    }

    fn figures(
        &self,
        bench: &'static str,
        name: &str,
        unit: &'static str,
        budgets: [Option<f64>; 2],
    ) -> anyhow::Result<Vec<Figure>> {
        [("p50", 0.5), ("p99", 0.99)]
            .into_iter()
            .zip(budgets)
            .map(|((label, share), budget)| {
                let name = format!("{name}_{label}_{unit}");
                let value = self
                    .quantile(share)
                    .with_context(|| format!("nothing was measured for `{name}`"))?;
                Ok(Figure {
                    bench,
                    name,
                    value,
                    unit,
                    budget,
                })
            })
            .collect()
    }
}

/// Memory that one real gateway is given room for, in KiB.
const REAL_GATEWAY_KIB: u64 = 1_900_000;

/// How many real gateways the memory that is free now has room for, at most `wanted`; none is a failure.
pub(crate) fn real_gateways_that_fit(wanted: u32) -> anyhow::Result<u32> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let available: u64 = text
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemAvailable:")?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .context("read MemAvailable")?;
    let fitting = u32::try_from(available / REAL_GATEWAY_KIB).unwrap_or(wanted);
    ensure!(
        fitting > 0,
        "{available} KiB of memory are free, and one real gateway takes {REAL_GATEWAY_KIB}"
    );
    Ok(fitting.min(wanted))
}

fn commit() -> String {
    let output = Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .output();
    output
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned())
}

fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{cores} x {}", model.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let sample = Sample((1..=100).map(f64::from).collect());
        assert_eq!(sample.quantile(0.5), Some(50.0));
        assert_eq!(sample.quantile(0.99), Some(99.0));
        assert_eq!(Sample::default().quantile(0.5), None);
    }

    #[test]
    fn a_figure_that_was_not_measured_is_a_failure() {
        let figures = |sample: Sample| sample.figures("b", "n", "ms", [None, None]);
        assert_eq!(figures(Sample(vec![1.0])).unwrap().len(), 2);
        let failed = figures(Sample::default()).unwrap_err().to_string();
        assert!(failed.contains("n_p50_ms"), "{failed}");
    }
}
