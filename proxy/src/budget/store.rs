//! Grants in the store: what is left of a budget, divided among the proxies that ask for a part.

use std::time::{Duration, SystemTime};

use sqlx::{Connection as _, FromRow, PgConnection, SqliteConnection};
use tidepool_shared::{database_url::DatabaseUrl, id::InstanceId};

use super::{Budget, day_of, month_of};
use crate::{
    database::{Connection, Link, microseconds, number},
    limits::Limits,
};

/// How long a grant may be used without asking again.
pub(super) const GOOD_FOR: Duration = Duration::from_mins(4);
/// For how long it is reserved: longer, for whoever asked has another clock and waited for the answer.
const RESERVED_FOR: Duration = Duration::from_mins(5);

/// Grants to one instance are made one after the other. The clock is the server's: proxies have others.
const LOCK_POSTGRES: &str = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT) \
     FROM pg_advisory_xact_lock(hashtextextended('tidepool spending ' || $1, 0))";
const LEFT: &str = "SELECT \
     coalesce((SELECT microcents FROM spending WHERE instance_id = $1 AND period = $2), 0) AS day, \
     coalesce((SELECT microcents FROM spending WHERE instance_id = $1 AND period = $3), 0) AS month, \
     CAST(coalesce((SELECT sum(microcents) FROM spending_grants \
         WHERE instance_id = $1 AND holder <> $4 AND expires_at > $5), 0) AS BIGINT) AS others";
const GRANT: &str = "INSERT INTO spending_grants (instance_id, holder, microcents, expires_at) \
     VALUES ($1, $2, $3, $4) ON CONFLICT (instance_id, holder) \
     DO UPDATE SET microcents = excluded.microcents, expires_at = excluded.expires_at";

/// What is asked for.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) instance: InstanceId,
    pub(super) limits: Limits,
    /// In all, what is held already included.
    pub(super) microcents: u64,
}

/// What there is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Granted {
    pub(super) microcents: u64,
    /// Of which budget less is left.
    pub(super) tightest: Budget,
}

#[derive(Debug, Clone, Copy, FromRow)]
struct Left {
    day: i64,
    month: i64,
    others: i64,
}

/// The way to the grants.
#[derive(Debug)]
pub(super) struct Grants(Link);

impl Grants {
    pub(super) fn of(database: &DatabaseUrl) -> sqlx::Result<Self> {
        Link::of(database, "budgets").map(Self)
    }

    /// Replaces the holder's grant by one that is as large as is asked for, or as is left.
    pub(super) async fn grant(
        &mut self,
        wanted: &Wanted,
        holder: &str,
        now: SystemTime,
    ) -> sqlx::Result<Granted> {
        let mut connection = self.0.take().await?;
        let granted = match &mut connection {
            Connection::Sqlite(connection) => sqlite(connection, wanted, holder, now).await?,
            Connection::Postgres(connection) => postgres(connection, wanted, holder, now).await?,
        };
        self.0.give_back(connection);
        Ok(granted)
    }
}

/// The statements are the same in both databases; the types of their drivers are not.
macro_rules! grant {
    ($tx:ident, $wanted:ident, $holder:ident, $now:ident, $clock:ident) => {{
        let instance = $wanted.instance.to_string();
        let left: Left = sqlx::query_as(LEFT)
            .bind(&instance)
            .bind(day_of($now))
            .bind(month_of($now))
            .bind($holder)
            .bind($clock)
            .fetch_one(&mut *$tx)
            .await?;
        let granted = $wanted.of(left);
        sqlx::query(GRANT)
            .bind(&instance)
            .bind($holder)
            .bind(number(granted.microcents))
            .bind($clock.saturating_add(reserved_for()))
            .execute(&mut *$tx)
            .await?;
        granted
    }};
}

async fn sqlite(
    connection: &mut SqliteConnection,
    wanted: &Wanted,
    holder: &str,
    now: SystemTime,
) -> sqlx::Result<Granted> {
    let clock = microseconds(now);
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    let granted = grant!(tx, wanted, holder, now, clock);
    tx.commit().await?;
    Ok(granted)
}

async fn postgres(
    connection: &mut PgConnection,
    wanted: &Wanted,
    holder: &str,
    now: SystemTime,
) -> sqlx::Result<Granted> {
    let mut tx = connection.begin().await?;
    let clock: i64 = sqlx::query_scalar(LOCK_POSTGRES)
        .bind(wanted.instance.to_string())
        .fetch_one(&mut *tx)
        .await?;
    let granted = grant!(tx, wanted, holder, now, clock);
    tx.commit().await?;
    Ok(granted)
}

impl Wanted {
    fn of(&self, left: Left) -> Granted {
        let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
        let room = |limit: Option<u64>, spent: i64| {
            limit.map_or(u64::MAX, |limit| {
                limit
                    .saturating_sub(unsigned(spent))
                    .saturating_sub(unsigned(left.others))
            })
        };
        let day = room(self.limits.day_microcents, left.day);
        let month = room(self.limits.month_microcents, left.month);
        Granted {
            microcents: self.microcents.min(day).min(month),
            tightest: if day <= month {
                Budget::Day
            } else {
                Budget::Month
            },
        }
    }
}

fn reserved_for() -> i64 {
    i64::try_from(RESERVED_FOR.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_hold_is_not_left() {
        let wanted = Wanted {
            instance: "inst_00000000000000000000000001".parse().unwrap(),
            limits: Limits {
                day_microcents: Some(100),
                month_microcents: Some(1000),
                ..Limits::default()
            },
            microcents: 50,
        };
        let of = |day, month, others| {
            let granted = wanted.of(Left { day, month, others });
            (granted.microcents, granted.tightest)
        };
        assert_eq!(of(0, 0, 0), (50, Budget::Day));
        assert_eq!(of(30, 30, 40), (30, Budget::Day));
        assert_eq!(of(200, 200, 0), (0, Budget::Day));
        assert_eq!(of(0, 990, 0), (10, Budget::Month));
    }
}
