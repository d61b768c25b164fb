//! Whether the ledger has what the provider counted, row for row.

use sqlx::FromRow;
use tidepool_tests::fake_provider::{Dialect, Ending, Served, Tokens};

use crate::client::Client;

#[derive(Debug, Clone, FromRow)]
pub(crate) struct Row {
    provider: String,
    model: String,
    asked_model: String,
    dialect: String,
    input: i64,
    cache_read: i64,
    cache_write_5m: i64,
    cache_write_1h: i64,
    output: i64,
    reasoning: i64,
    cost_microcents: Option<i64>,
    status: i64,
    outcome: String,
    estimated: bool,
}

impl Row {
    fn tokens(&self) -> Tokens {
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

pub(crate) fn agrees(client: &Client, served: &[Served], rows: &[Row]) {
    assert_eq!(served.len(), rows.len(), "{served:?}\n{rows:?}");
    for row in rows {
        let names = (
            row.provider.as_str(),
            row.model.as_str(),
            row.asked_model.as_str(),
        );
        assert_eq!(names, ("fake", client.model, client.model));
        if client.kind == "compatible" && row.status == 200 {
            assert_eq!(
                row.cost_microcents, None,
                "nobody knows what it takes: {row:?}"
            );
        } else {
            is_priced(row);
        }
    }
    let (ended, cut): (Vec<_>, Vec<_>) = served
        .iter()
        .partition(|one| matches!(one.ending, Ending::Whole | Ending::Refused));
    let (estimated, exact): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.estimated);

    let counted = |one: &&Served| {
        (
            one.dialect.word().to_owned(),
            i64::from(one.status),
            one.tokens,
        )
    };
    let written = |row: &&Row| (row.dialect.clone(), row.status, row.tokens());
    assert_eq!(
        sorted(ended.iter().map(counted)),
        sorted(exact.iter().map(written))
    );

    let cut_short = |one: &&Served| {
        let outcome = if one.ending == Ending::ClientLeft {
            "client_left"
        } else {
            "upstream_broke"
        };
        (one.dialect.word().to_owned(), outcome.to_owned())
    };
    let guessed = |row: &&Row| (row.dialect.clone(), row.outcome.clone());
    assert_eq!(
        sorted(cut.iter().map(cut_short)),
        sorted(estimated.iter().map(guessed))
    );
    for row in estimated {
        was_read_and_said(row, &cut);
    }
}

/// An estimate has something of both; what was told at the head of a stream is no guess.
fn was_read_and_said(row: &Row, cut: &[&Served]) {
    let tokens = row.tokens();
    assert!(tokens.prompt() > 0 && tokens.output > 0, "{row:?}");
    if [Dialect::Messages, Dialect::Gemini]
        .iter()
        .any(|dialect| dialect.word() == row.dialect)
    {
        let input = |tokens: Tokens| Tokens {
            output: 0,
            reasoning: 0,
            ..tokens
        };
        let is_it = |one: &&&Served| input(one.tokens) == input(tokens);
        assert!(
            cut.iter().any(|one| is_it(&one)),
            "{row:?} is none of {cut:?}"
        );
    }
}

/// In picodollars, of gpt-4o-mini: what it costs is on OpenAI's price list.
fn is_priced(row: &Row) {
    let cost = row.cost_microcents.expect("a model with a price");
    let is_nothing = row.tokens() == Tokens::default();
    assert_eq!(cost == 0, is_nothing, "{row:?}");
    if row.model == "gpt-4o-mini" && row.dialect == "chat" {
        let pico = 150_000 * row.input + 75_000 * row.cache_read + 600_000 * row.output;
        assert_eq!(cost, (pico + 5000) / 10_000, "{row:?}");
    }
}

fn sorted<T: Ord>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut all: Vec<_> = all.collect();
    all.sort_unstable();
    all
}
