//! `tidepool costs`.

use super::{
    CommandFailed,
    client::Client,
    output::{Output, table},
};
use crate::api::costs::CostsView;

pub(super) async fn show(client: &Client, output: &mut Output) -> Result<(), CommandFailed> {
    let costs: CostsView = client.get("/v1/costs").await?;
    output.show(&costs, lines)
}

fn lines(costs: &CostsView) -> Vec<String> {
    let Some(currency) = &costs.currency else {
        return vec!["this cloud charges nothing".to_owned()];
    };
    let header = ["POOL", "CLAIMED", "A MONTH", "IDLE", "A MONTH", "UNPRICED"];
    let rows = costs.pools.iter().map(|pool| {
        vec![
            format!("{}/{}", pool.tier, pool.region),
            pool.claimed_servers.to_string(),
            money(pool.claimed_monthly_micros, currency),
            pool.idle_servers.to_string(),
            money(pool.idle_monthly_micros, currency),
            pool.unpriced_servers.to_string(),
        ]
    });
    let rows: Vec<_> = std::iter::once(header.map(str::to_owned).to_vec())
        .chain(rows)
        .collect();
    table(&rows)
}

/// Millionths, rounded to hundredths.
fn money(micros: u64, currency: &str) -> String {
    let cents = micros.saturating_add(5_000) / 10_000;
    format!("{}.{:02} {currency}", cents / 100, cents % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_rounded_to_hundredths() {
        assert_eq!(money(5_994_999, "EUR"), "5.99 EUR");
        assert_eq!(money(5_995_000, "EUR"), "6.00 EUR");
        assert_eq!(money(0, "EUR"), "0.00 EUR");
    }
}
