//! What was used.

use std::{sync::Arc, time::Duration};

use super::{
    Outcome,
    world::{at, count, running},
};
use crate::{
    ambient::Moment,
    model::{Restless, Spent, UsageRecord},
    store::{Store, UsageFixture},
};

const DAY: i64 = 86_400;

fn record(number: u32, instance: &str, payer: &str, cost: Option<u64>) -> UsageRecord {
    UsageRecord {
        id: format!("attempt-{number}"),
        request_id: format!("request-{number}"),
        instance: Some(instance.to_owned()),
        server: "srv_00000000000000000000000001".into(),
        provider: "main".into(),
        model: "gpt-4o-mini".into(),
        asked_model: "default".into(),
        dialect: "chat".into(),
        input_tokens: 60,
        cache_read_tokens: 40,
        cache_write_5m_tokens: 3,
        cache_write_1h_tokens: 2,
        output_tokens: 7,
        reasoning_tokens: 1,
        cost_microcents: cost,
        payer: payer.into(),
        status: 200,
        outcome: "completed".into(),
        estimated: number == 2,
        first_token_ms: None,
        total_ms: 900,
        at: String::new(),
    }
}

fn second(second: i64) -> Moment {
    Moment(second * 1_000_000)
}

pub async fn what_was_used_adds_up_by_day_model_and_payer<S: Store + UsageFixture>(
    store: Arc<S>,
) -> Outcome {
    let id = running(&*store, 1).await?;
    assert_eq!(store.usage(id, second(0), second(DAY)).await?, []);
    for (number, payer, cost, moment) in [
        (1, "managed", Some(100), DAY - 1),
        (2, "managed", None, DAY),
        (3, "managed", Some(20), DAY + 1),
        (4, "own", Some(5), DAY + 2),
    ] {
        let record = record(number, &id.to_string(), payer, cost);
        store.insert_usage(&record, second(moment)).await?;
    }
    let sums = store.usage(id, second(DAY), second(2 * DAY)).await?;
    let read: Vec<_> = sums
        .iter()
        .map(|sum| {
            (
                sum.day,
                sum.payer.as_str(),
                sum.requests,
                sum.cost_microcents,
            )
        })
        .collect();
    assert_eq!(read, [(1, "managed", 2, 20), (1, "own", 1, 5)]);
    let both = &sums[0];
    assert_eq!((both.estimated, both.unpriced), (1, 1));
    assert_eq!(
        (both.input, both.cache_read, both.cache_write, both.output),
        (120, 80, 10, 14)
    );
    assert_eq!(
        store.spent(id, second(DAY)).await?,
        Spent::default(),
        "the proxy adds up"
    );
    Ok(())
}

pub async fn records_are_read_once_each_in_their_order<S: Store + UsageFixture>(
    store: Arc<S>,
) -> Outcome {
    for number in 1..=5 {
        let record = record(
            number,
            "inst_00000000000000000000000001",
            "managed",
            Some(1),
        );
        store.insert_usage(&record, at(10)).await?;
    }
    let mut after = None;
    let mut read = Vec::new();
    // In a database that others use at the same time a row may be held back for a moment.
    for _ in 0..500 {
        let page = store.usage_records(after, 2).await?;
        assert!(page.len() <= 2);
        if let Some((cursor, _)) = page.last() {
            assert!(after < Some(*cursor));
            after = Some(*cursor);
        }
        read.extend(page.into_iter().map(|(_, record)| record.id));
        if read.len() == 5 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(
        read,
        [
            "attempt-1",
            "attempt-2",
            "attempt-3",
            "attempt-4",
            "attempt-5"
        ]
    );
    let cursor = after.map(|cursor| cursor.to_string());
    assert_eq!(cursor.and_then(|text| text.parse().ok()), after);
    assert_eq!(store.usage_records(after, 2).await?, []);
    Ok(())
}

pub async fn an_instance_without_a_rest_is_told_of_once_a_day<S: Store + UsageFixture>(
    store: Arc<S>,
) -> Outcome {
    let pattern = Restless {
        name: "loop",
        window: Duration::from_hours(1),
        longest_pause: Duration::from_mins(2),
    };
    let restless = running(&*store, 1).await?;
    let resting = running(&*store, 2).await?;
    for minute in 0..60 {
        let record = record(minute, &restless.to_string(), "managed", Some(2));
        store
            .insert_usage(&record, second(i64::from(minute) * 60 + 30))
            .await?;
        if minute != 30 && minute != 31 {
            let record = self::record(100 + minute, &resting.to_string(), "managed", None);
            store
                .insert_usage(&record, second(i64::from(minute) * 60 + 30))
                .await?;
        }
    }
    let now = second(3600);
    assert_eq!(store.tell_restless(&pattern, now).await?, [restless]);
    assert_eq!(store.tell_restless(&pattern, now).await?, []);
    assert_eq!(count(&*store, "usage.restless").await?, 1);
    // An hour later it has rested.
    let later = second(3600 + 24 * 3600);
    assert_eq!(store.tell_restless(&pattern, later).await?, []);
    Ok(())
}
