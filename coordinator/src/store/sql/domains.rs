//! Customers' own host names, their certificates, and what the certificate authority must be shown.

use async_trait::async_trait;
use serde_json::json;
use sqlx::Row as _;
use tidepool_shared::id::InstanceId;

use super::{
    Connection, Row, SqlStore, during,
    events::{About, Journal},
    instances, orders, rows,
    servers::transition,
    transaction,
};
use crate::{
    ambient::Moment,
    model::{Certificate, CertificateMark, Domain, DomainState, DomainStep, Validity},
    store::{
        CertificateStore, DOMAIN_RESTS, DOMAINS_MAX, DomainRefused, DomainStore, OrdersSpent,
        Stored, Transition, Unserved,
    },
};

/// Open challenges are as many as orders under way; a flood of them would be ours.
const CHALLENGES_MAX: i64 = 1000;

#[async_trait]
impl CertificateStore for SqlStore {
    async fn certificate_marks(
        &self,
        instance: Option<InstanceId>,
    ) -> Stored<Vec<CertificateMark>> {
        let doing = "read which certificates there are";
        let found = sqlx::query(
            "SELECT name, instance_id, issued_at FROM domains
             WHERE state IN ('active', 'expiring') AND issued_at IS NOT NULL
               AND ($1 IS NULL OR instance_id = $1)",
        )
        .bind(rows::as_text(instance))
        .fetch_all(self.readers())
        .await
        .map_err(during(doing))?;
        let marks = found.iter().map(mark);
        marks.collect::<sqlx::Result<_>>().map_err(during(doing))
    }

    async fn certificate(&self, name: &str, instance: InstanceId) -> Stored<Option<Certificate>> {
        sqlx::query(
            "SELECT * FROM domains WHERE name = $1 AND instance_id = $2 AND chain IS NOT NULL",
        )
        .bind(name)
        .bind(instance.to_string())
        .fetch_optional(self.readers())
        .await
        .and_then(|row| row.as_ref().map(certificate).transpose())
        .map_err(during("read a certificate"))
    }

    async fn challenge(&self, token: &str, now: Moment) -> Stored<Option<String>> {
        sqlx::query("SELECT answer FROM acme_challenges WHERE token = $1 AND expires_at > $2")
            .bind(token)
            .bind(now.0)
            .fetch_optional(self.readers())
            .await
            .and_then(|row| row.map(|row| row.try_get("answer")).transpose())
            .map_err(during("read a challenge"))
    }
}

#[async_trait]
impl DomainStore for SqlStore {
    async fn add_domain(
        &self,
        name: &str,
        instance: InstanceId,
        token: &str,
        now: Moment,
    ) -> Result<Domain, DomainRefused> {
        transaction!(self, "add a domain", |tx| {
            add(tx, self.journal(now), name, instance, token, now).await
        })?
    }

    async fn domains_of(&self, instance: InstanceId) -> Stored<Vec<Domain>> {
        let doing = "read an instance's domains";
        let found = sqlx::query("SELECT * FROM domains WHERE instance_id = $1 ORDER BY name")
            .bind(instance.to_string())
            .fetch_all(self.readers())
            .await
            .map_err(during(doing))?;
        let domains = found.iter().map(domain);
        domains.collect::<sqlx::Result<_>>().map_err(during(doing))
    }

    async fn domain(&self, name: &str, instance: InstanceId) -> Stored<Option<Domain>> {
        sqlx::query("SELECT * FROM domains WHERE name = $1 AND instance_id = $2")
            .bind(name)
            .bind(instance.to_string())
            .fetch_optional(self.readers())
            .await
            .and_then(|row| row.as_ref().map(domain).transpose())
            .map_err(during("read a domain"))
    }

    async fn domain_holder(&self, name: &str) -> Stored<Option<Domain>> {
        sqlx::query(
            "SELECT * FROM domains
             WHERE name = $1 AND state IN ('issuing', 'active', 'expiring')",
        )
        .bind(name)
        .fetch_optional(self.readers())
        .await
        .and_then(|row| row.as_ref().map(domain).transpose())
        .map_err(during("read who holds a domain"))
    }

    async fn due_domains(&self, now: Moment, limit: u32) -> Stored<Vec<Domain>> {
        let doing = "look for domains to look at";
        let found = sqlx::query(
            "SELECT domain.* FROM domains AS domain
             JOIN instances AS instance ON instance.id = domain.instance_id
                    AND instance.status NOT IN ('deleted', 'purged')
             WHERE domain.next_check_at <= $1
             ORDER BY domain.next_check_at, domain.name LIMIT $2",
        )
        .bind(now.0)
        .bind(i64::from(limit))
        .fetch_all(self.readers())
        .await
        .map_err(during(doing))?;
        let domains = found.iter().map(domain);
        domains.collect::<sqlx::Result<_>>().map_err(during(doing))
    }

    async fn move_domain(&self, step: &DomainStep, now: Moment) -> Stored<Transition> {
        transaction!(self, "move a domain on", |tx| {
            step_on(tx, self.journal(now), step, now).await
        })
    }

    async fn check_domain(
        &self,
        name: &str,
        instance: InstanceId,
        now: Moment,
    ) -> Stored<Transition> {
        transaction!(self, "have a domain looked at", |tx| {
            sqlx::query(
                "UPDATE domains SET
                        next_check_at = CASE WHEN attempts = 0 OR state IN ('pending_dns', 'failed')
                                             THEN $3 ELSE next_check_at END,
                        attempts = CASE WHEN state IN ('pending_dns', 'failed') THEN 0 ELSE attempts END,
                        state_since = CASE WHEN state = 'failed' THEN $3 ELSE state_since END,
                        state = CASE WHEN state = 'failed' THEN 'pending_dns' ELSE state END
                 WHERE name = $1 AND instance_id = $2 AND (state <> 'failed' OR state_since <= $4)",
            )
            .bind(name)
            .bind(instance.to_string())
            .bind(now.0)
            .bind(now.minus(DOMAIN_RESTS).0)
            .execute(&mut *tx)
            .await
            .map(|result| transition(&result))
        })
    }

    async fn begin_order(
        &self,
        instance: InstanceId,
        now: Moment,
    ) -> Stored<Result<(), OrdersSpent>> {
        transaction!(self, "note an order of a certificate", |tx| {
            orders::begin(tx, instance, now).await
        })
    }

    async fn put_certificate(
        &self,
        new: &Certificate,
        next_check_at: Moment,
    ) -> Stored<Transition> {
        transaction!(self, "keep a certificate", |tx| {
            sqlx::query(
                "UPDATE domains SET chain = $3, sealed_key = $4, issued_at = $5, expires_at = $6,
                        next_check_at = $7, attempts = 0
                 WHERE name = $1 AND instance_id = $2
                   AND state IN ('issuing', 'active', 'expiring')",
            )
            .bind(&new.name)
            .bind(new.instance.to_string())
            .bind(&new.chain)
            .bind(&new.sealed_key)
            .bind(new.validity.issued_at.0)
            .bind(new.validity.expires_at.0)
            .bind(next_check_at.0)
            .execute(&mut *tx)
            .await
            .map(|result| transition(&result))
        })
    }

    async fn remove_domain(
        &self,
        name: &str,
        instance: InstanceId,
        now: Moment,
    ) -> Stored<Transition> {
        transaction!(self, "remove a domain", |tx| {
            let mut journal = self.journal(now);
            let removed = sqlx::query("DELETE FROM domains WHERE name = $1 AND instance_id = $2")
                .bind(name)
                .bind(instance.to_string())
                .execute(&mut *tx)
                .await?;
            if removed.rows_affected() > 0 {
                let data = json!({ "domain": name });
                journal.note("domain.removed", About::Instance(instance), &data);
                journal.write(tx).await?;
            }
            Ok(transition(&removed))
        })
    }

    async fn unserved_domains(&self) -> Stored<Vec<Unserved>> {
        let doing = "compare domains with documents";
        let found = sqlx::query(
            "SELECT instance.id, instance.domains, domain.name
             FROM instances AS instance
             LEFT JOIN domains AS domain ON domain.instance_id = instance.id
                    AND domain.state IN ('issuing', 'active', 'expiring')
             WHERE instance.status = 'running' AND instance.id IN
                 (SELECT instance_id FROM domains WHERE state IN ('issuing', 'active', 'expiring')
                  UNION SELECT id FROM instances WHERE domains <> '[]')
             ORDER BY instance.id, domain.name",
        )
        .fetch_all(self.readers())
        .await
        .map_err(during(doing))?;
        unserved(&found).map_err(during(doing))
    }

    async fn put_challenge(
        &self,
        token: &str,
        answer: &str,
        expires: Moment,
    ) -> Stored<Transition> {
        transaction!(self, "keep a challenge", |tx| {
            sqlx::query(
                "INSERT INTO acme_challenges (token, answer, expires_at) SELECT $1, $2, $3
                 WHERE (SELECT count(*) FROM acme_challenges) < $4
                 ON CONFLICT (token) DO UPDATE
                 SET answer = excluded.answer, expires_at = excluded.expires_at",
            )
            .bind(token)
            .bind(answer)
            .bind(expires.0)
            .bind(CHALLENGES_MAX)
            .execute(&mut *tx)
            .await
            .map(|result| transition(&result))
        })
    }

    async fn acme_account(&self, directory: &str) -> Stored<Option<Vec<u8>>> {
        sqlx::query("SELECT sealed FROM acme_accounts WHERE directory = $1")
            .bind(directory)
            .fetch_optional(self.readers())
            .await
            .and_then(|row| row.map(|row| row.try_get("sealed")).transpose())
            .map_err(during("read the account at the certificate authority"))
    }

    async fn put_acme_account(&self, directory: &str, sealed: &[u8]) -> Stored<()> {
        transaction!(
            self,
            "keep the account at the certificate authority",
            |tx| {
                sqlx::query(
                    "INSERT INTO acme_accounts (directory, sealed) VALUES ($1, $2)
                 ON CONFLICT (directory) DO UPDATE SET sealed = excluded.sealed",
                )
                .bind(directory)
                .bind(sealed)
                .execute(&mut *tx)
                .await
            }
        )
        .map(drop)
    }
}

async fn add(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    name: &str,
    instance: InstanceId,
    token: &str,
    now: Moment,
) -> sqlx::Result<Result<Domain, DomainRefused>> {
    // Held, so that two at once are counted one after the other.
    if !instances::hold(&mut *tx, instance).await? {
        return Ok(Err(DomainRefused::NotFound));
    }
    let row = sqlx::query("SELECT count(*) AS kept FROM domains WHERE instance_id = $1")
        .bind(instance.to_string())
        .fetch_one(&mut *tx)
        .await?;
    if rows::number::<u32>(&row, "kept")? >= DOMAINS_MAX {
        return Ok(Err(DomainRefused::TooMany));
    }
    let row = sqlx::query(
        "INSERT INTO domains (name, instance_id, token, state, created_at, state_since, next_check_at)
         SELECT $1, id, $3, $4, $5, $5, $5 FROM instances
         WHERE id = $2 AND status NOT IN ('deleted', 'purged')
           AND NOT EXISTS (SELECT 1 FROM routes WHERE host = $1)
         ON CONFLICT DO NOTHING RETURNING *",
    )
    .bind(name)
    .bind(instance.to_string())
    .bind(token)
    .bind(DomainState::PendingDns.word())
    .bind(now.0)
    .fetch_optional(&mut *tx)
    .await?;
    let Some(row) = row else {
        return Ok(Err(DomainRefused::Taken));
    };
    let data = json!({ "domain": name });
    journal.note("domain.added", About::Instance(instance), &data);
    journal.write(tx).await?;
    domain(&row).map(Ok)
}

/// The statement decides whether the domain is still where it was seen, and whether it is free.
async fn step_on(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    step: &DomainStep,
    now: Moment,
) -> sqlx::Result<Transition> {
    let moved = sqlx::query(
        "UPDATE domains SET state = $4, problem = $5, attempts = $6, failing_since = $7,
                next_check_at = $8,
                state_since = CASE WHEN state = $4 THEN state_since ELSE $9 END
         WHERE name = $1 AND instance_id = $2 AND state = $3
           AND ($4 IN ('pending_dns', 'failed') OR NOT EXISTS
                (SELECT 1 FROM domains AS other
                 WHERE other.name = $1 AND other.instance_id <> $2
                   AND other.state IN ('issuing', 'active', 'expiring')))",
    )
    .bind(&step.name)
    .bind(step.instance.to_string())
    .bind(step.from.word())
    .bind(step.to.word())
    .bind(step.problem.as_deref())
    .bind(i64::from(step.attempts))
    .bind(step.failing_since.map(|at| at.0))
    .bind(step.next_check_at.map(|at| at.0))
    .bind(now.0)
    .execute(&mut *tx)
    .await?;
    if moved.rows_affected() == 0 {
        return Ok(Transition::NotPossible);
    }
    for kind in &step.events {
        let data = json!({ "domain": step.name, "state": step.to, "why": step.problem });
        journal.note(kind, About::Instance(step.instance), &data);
    }
    journal.write(tx).await?;
    Ok(Transition::Done)
}

/// Rows of one instance follow one another.
fn unserved(found: &[Row]) -> sqlx::Result<Vec<Unserved>> {
    let mut all: Vec<(Vec<String>, Unserved)> = Vec::new();
    for row in found {
        let instance: InstanceId = rows::parsed(row, "id")?;
        let name: Option<String> = row.try_get("name")?;
        if all.last().is_none_or(|(_, last)| last.instance != instance) {
            let present: Vec<String> = rows::json(row, "domains")?;
            let wanted = Vec::new();
            all.push((present, Unserved { instance, wanted }));
        }
        if let (Some((_, last)), Some(name)) = (all.last_mut(), name) {
            last.wanted.push(name);
        }
    }
    let differs = |(present, unserved): &(Vec<String>, Unserved)| *present != unserved.wanted;
    let all = all.into_iter().filter(differs);
    Ok(all.map(|(_, unserved)| unserved).collect())
}

fn domain(row: &Row) -> sqlx::Result<Domain> {
    let issued_at = rows::maybe_moment(row, "issued_at")?;
    let expires_at = rows::maybe_moment(row, "expires_at")?;
    Ok(Domain {
        name: row.try_get("name")?,
        instance: rows::parsed(row, "instance_id")?,
        token: row.try_get("token")?,
        state: rows::word(row, "state", DomainState::from_word)?,
        problem: row.try_get("problem")?,
        attempts: rows::number(row, "attempts")?,
        created_at: rows::moment(row, "created_at")?,
        state_since: rows::moment(row, "state_since")?,
        failing_since: rows::maybe_moment(row, "failing_since")?,
        next_check_at: rows::maybe_moment(row, "next_check_at")?,
        certificate: issued_at
            .zip(expires_at)
            .map(|(issued_at, expires_at)| Validity {
                issued_at,
                expires_at,
            }),
    })
}

fn mark(row: &Row) -> sqlx::Result<CertificateMark> {
    Ok(CertificateMark {
        name: row.try_get("name")?,
        instance: rows::parsed(row, "instance_id")?,
        issued_at: rows::moment(row, "issued_at")?,
    })
}

fn certificate(row: &Row) -> sqlx::Result<Certificate> {
    Ok(Certificate {
        name: row.try_get("name")?,
        instance: rows::parsed(row, "instance_id")?,
        chain: row.try_get("chain")?,
        sealed_key: row.try_get("sealed_key")?,
        validity: Validity {
            issued_at: rows::moment(row, "issued_at")?,
            expires_at: rows::moment(row, "expires_at")?,
        },
    })
}
