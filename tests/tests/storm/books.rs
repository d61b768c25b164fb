//! The ledger against the provider's own count.

use std::collections::BTreeMap;

use sqlx::FromRow;
use tidepool_tests::fake_provider::{Ending, Served, Tokens};

#[derive(Debug, Clone, FromRow)]
pub(crate) struct Row {
    id: String,
    dialect: String,
    input: i64,
    cache_read: i64,
    cache_write_5m: i64,
    cache_write_1h: i64,
    output: i64,
    reasoning: i64,
    cost_microcents: Option<i64>,
    status: i32,
    pub(crate) outcome: String,
    pub(crate) estimated: bool,
}

impl Row {
    pub(crate) fn tokens(&self) -> Tokens {
        let count = |number: i64| u64::try_from(number).unwrap();
        Tokens {
            input: count(self.input),
            cache_read: count(self.cache_read),
            cache_write_5m: count(self.cache_write_5m),
            cache_write_1h: count(self.cache_write_1h),
            output: count(self.output),
            reasoning: count(self.reasoning),
        }
    }
}

pub(crate) struct Books {
    pub(crate) served: Vec<Served>,
    pub(crate) rows: Vec<Row>,
}

/// Of an answer that nobody limited to less; see the load.
const LIKELY_OUTPUT: u64 = 500;

/// A dialect, a status and counts. No two answers that have counts have the same.
type Count = (String, i32, Tokens);

impl Books {
    /// Row for row: what was told to its end is exact, and what was cut is one row, an estimate.
    pub(crate) fn agree(&self) {
        assert_eq!(self.served.len(), self.rows.len(), "a row for each attempt");
        assert_eq!(sums(self.exact()), sums(self.whole()));
        let cut = |ending: &[Ending]| {
            let cut = self
                .served
                .iter()
                .filter(|one| ending.contains(&one.ending));
            cut.map(|one| all(one.tokens)).collect::<Vec<_>>()
        };
        let guessed = |outcome: &str| {
            let rows = self
                .rows
                .iter()
                .filter(|row| row.estimated && row.outcome == outcome);
            rows.map(|row| all(row.tokens())).collect::<Vec<_>>()
        };
        for (ending, outcome) in [
            (&[Ending::ClientLeft][..], "client_left"),
            (&[Ending::BrokeOff, Ending::Stumbled], "upstream_broke"),
        ] {
            let (counted, guessed) = (cut(ending), guessed(outcome));
            assert_eq!(counted.len(), guessed.len(), "{outcome}");
            let (counted, guessed): (u64, u64) = (counted.iter().sum(), guessed.iter().sum());
            let apart = counted.abs_diff(guessed) * 100;
            assert!(apart <= counted * 15, "{outcome}: {counted} and {guessed}");
        }
    }

    /// Of each killed proxy at most so many attempts have a row that says so, which may never have reached
    /// the provider; everything else is as it was counted. What was under way is charged with a likely answer, so
    /// that killing the proxy makes none free.
    pub(crate) fn agree_but_for_what_died(&self, at_most: usize) {
        let (exact, whole) = (sums(self.exact()), sums(self.whole()));
        for (count, rows) in &exact {
            let served = whole.get(count).copied().unwrap_or_default();
            assert!(*rows <= served, "{rows} rows, {served} served: {count:?}");
        }
        let died: Vec<_> = self
            .rows
            .iter()
            .filter(|row| row.outcome == "proxy_died")
            .collect();
        for row in &died {
            let counted = row.tokens();
            assert!(
                counted.prompt() > 0 && counted.output >= LIKELY_OUTPUT,
                "{row:?}"
            );
            assert!(row.cost_microcents > Some(0), "{row:?}");
        }
        let sum = |all: &mut dyn Iterator<Item = Tokens>| {
            all.fold((0, 0), |(prompt, output), one| {
                (prompt + one.prompt(), output + one.output)
            })
        };
        let counted = sum(&mut self.served.iter().map(|one| one.tokens));
        let written = sum(&mut self.rows.iter().map(Row::tokens));
        assert!(
            written.0 * 100 >= counted.0 * 85,
            "{counted:?}, {written:?}"
        );
        assert!(
            written.1 * 100 >= counted.1 * 85,
            "{counted:?}, {written:?}"
        );
        let died = died.len();
        assert!(
            died <= at_most,
            "{died} rows of {at_most} that may have died"
        );
        assert!(
            self.rows.len() >= self.served.len(),
            "an attempt without a row"
        );
        assert!(
            self.rows.len() <= self.served.len() + died,
            "a row without an attempt"
        );
        let mut ids: Vec<_> = self.rows.iter().map(|row| &row.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), self.rows.len());
    }

    /// Each row once, in the transaction that wrote it.
    pub(crate) fn was_charged(&self, spent: i64) {
        let sum: i64 = self.rows.iter().filter_map(|row| row.cost_microcents).sum();
        assert_eq!(spent, sum);
        assert!(sum > 0);
    }

    fn exact(&self) -> impl Iterator<Item = Count> {
        let exact = self.rows.iter().filter(|row| !row.estimated);
        exact.map(|row| (row.dialect.clone(), row.status, row.tokens()))
    }

    fn whole(&self) -> impl Iterator<Item = Count> {
        let whole = self
            .served
            .iter()
            .filter(|one| matches!(one.ending, Ending::Whole | Ending::Refused));
        whole.map(|one| (one.dialect.word().to_owned(), one.status.into(), one.tokens))
    }
}

fn all(tokens: Tokens) -> u64 {
    tokens.prompt() + tokens.output
}

fn sums(counts: impl Iterator<Item = Count>) -> BTreeMap<Count, usize> {
    let mut sums = BTreeMap::new();
    for count in counts {
        *sums.entry(count).or_default() += 1;
    }
    sums
}
