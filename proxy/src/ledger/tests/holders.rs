//! Two proxies at once, one budget.

use sqlx::PgConnection;

use super::{postgres::database, *};
use crate::{
    budget::NotReserved,
    directory::{Customer, Standing},
    limits::Limits,
};

const BUDGET: u64 = 2_000_000;
const ESTIMATE: u64 = 1000;
/// What a request may really cost, at most.
const COST_MAX: u64 = 1500;
/// Requests that each proxy has under way.
const AT_ONCE: u64 = 8;
const HOLDERS: [&str; 2] = ["one", "other"];

fn customer() -> Customer {
    Customer {
        instance: attempt("").instance.unwrap(),
        tier: "basic".into(),
        limits: Limits {
            day_microcents: Some(BUDGET),
            ..Limits::default()
        },
        standing: Standing::Good,
    }
}

/// Asks until there is nothing left; how often that was.
async fn spend(ledger: Ledger, budgets: Arc<Budgets>) -> u64 {
    let mut served = 0;
    loop {
        let reservation = match budgets.reserve(&customer(), ESTIMATE).await {
            Ok(reservation) => reservation.expect("there is a budget"),
            Err(NotReserved::Spent(_)) => return served,
            Err(NotReserved::Unknown) => panic!("the store is there"),
        };
        let attempt = Attempt {
            estimate_cost_microcents: Some(ESTIMATE),
            holder: Some(budgets.holder().to_owned()),
            at: now(),
            ..attempt("spend")
        };
        let entry = ledger.begin(attempt).unwrap();
        sleep(Duration::from_millis(rand::random_range(0..4))).await;
        let cost = rand::random_range(COST_MAX / 3..=COST_MAX);
        reservation.settle(cost);
        entry.finish(Ending {
            cost_microcents: Some(cost),
            ..completed()
        });
        served += 1;
    }
}

#[expect(clippy::disallowed_methods, reason = "a budget is of this day")]
fn now() -> SystemTime {
    SystemTime::now()
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_two_proxies_overspend_a_budget_by_what_is_under_way_at_most() {
    let Some(url) = database().await else {
        return;
    };
    let database = DatabaseUrl::Postgres(url.clone());
    let places = HOLDERS.map(|_| Place::new());
    let cancel = CancellationToken::new();
    let mut writers = JoinSet::new();
    let mut clients = JoinSet::new();
    for (holder, place) in HOLDERS.iter().zip(&places) {
        let budgets = Arc::new(Budgets::of(&database, holder).unwrap());
        let ledger = Ledger::open(&place.journal(), &database, Arc::clone(&budgets));
        let (ledger, writer) = ledger.unwrap();
        writers.spawn(writer.run(cancel.clone()));
        for _ in 0..AT_ONCE {
            let served = spend(ledger.clone(), Arc::clone(&budgets));
            clients.spawn(async move { (*holder, served.await) });
        }
    }
    let mut served = [0; 2];
    for (holder, count) in clients.join_all().await {
        served[usize::from(holder == HOLDERS[1])] += count;
    }
    cancel.cancel();
    writers.join_all().await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let spent: i64 =
        sqlx::query_scalar("SELECT microcents FROM spending WHERE length(period) = 10")
            .fetch_one(&mut connection)
            .await
            .unwrap();
    let spent = u64::try_from(spent).unwrap();
    let most = BUDGET + 2 * AT_ONCE * COST_MAX;
    assert!(spent <= most, "{spent} of {BUDGET}");
    assert!(spent >= BUDGET * 9 / 10, "{spent} of {BUDGET}");
    assert!(served.iter().all(|count| *count > 0), "{served:?}");
}
