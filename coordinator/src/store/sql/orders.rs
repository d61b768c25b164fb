//! Orders at the certificate authority, which counts them for our account: whoever removes a domain and adds it
//! again must not use up everybody's.

use sqlx::Row as _;
use tidepool_shared::id::InstanceId;

use super::{Connection, instances, rows};
use crate::{
    ambient::Moment,
    store::{ORDERS_OF_ALL, ORDERS_OF_INSTANCE, OrderLimit, OrdersSpent},
};

/// Notes an order, if there may be another one. The instance is held, so that its orders are counted one after
/// the other; of all together there may be a few more, as many as are ordered at the same time.
pub(super) async fn begin(
    tx: &mut Connection,
    instance: InstanceId,
    now: Moment,
) -> sqlx::Result<Result<(), OrdersSpent>> {
    instances::hold(&mut *tx, instance).await?;
    for (whose, limit) in [(Some(instance), ORDERS_OF_INSTANCE), (None, ORDERS_OF_ALL)] {
        if let Some(until) = spent(&mut *tx, whose, limit, now).await? {
            return Ok(Err(OrdersSpent { limit, until }));
        }
    }
    sqlx::query("INSERT INTO certificate_orders (instance_id, ordered_at) VALUES ($1, $2)")
        .bind(instance.to_string())
        .bind(now.0)
        .execute(tx)
        .await?;
    Ok(Ok(()))
}

/// Until when there may be no other: the oldest one counts no more then.
async fn spent(
    tx: &mut Connection,
    whose: Option<InstanceId>,
    limit: OrderLimit,
    now: Moment,
) -> sqlx::Result<Option<Moment>> {
    let row = sqlx::query(
        "SELECT count(*) AS ordered, min(ordered_at) AS oldest FROM certificate_orders
         WHERE ordered_at > $1 AND ($2 IS NULL OR instance_id = $2)",
    )
    .bind(now.minus(limit.within).0)
    .bind(rows::as_text(whose))
    .fetch_one(tx)
    .await?;
    let oldest: Option<i64> = row.try_get("oldest")?;
    let is_spent = rows::number::<u32>(&row, "ordered")? >= limit.orders;
    Ok(oldest
        .filter(|_| is_spent)
        .map(|oldest| Moment(oldest).plus(limit.within)))
}
