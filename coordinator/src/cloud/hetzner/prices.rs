//! What servers cost and where they can be ordered.
//!
//! Prices are read, never compiled in: they change, and differ by the account's currency. They say
//! nothing about availability, since retired types keep theirs; that is read from the type's locations,
//! and is a hint even there.

use super::{
    HetznerCloud,
    api::Twice,
    call::Call,
    trouble::Trouble,
    wire::{LocalPrice, PriceTable, Pricing, ServerType, TypeLocation},
};
use crate::{
    ambient::Moment,
    cloud::{Micros, Offer, Orderable, Placement, Price, PriceList},
};

impl HetznerCloud {
    pub(super) async fn read_prices(&self) -> Result<PriceList, Trouble> {
        let call = Call::get("pricing");
        let mut answer = self.api.call(&call, Twice::IsHarmless).await?;
        let pricing: Pricing = answer.part("pricing")?;
        let types: Vec<ServerType> = self.api.list(&[]).await?;
        price_list(pricing, &types, self.clock.now())
    }
}

fn price_list(pricing: Pricing, types: &[ServerType], now: Moment) -> Result<PriceList, Trouble> {
    let table = |tables: &[PriceTable], is_it: &dyn Fn(&PriceTable) -> bool, location: &str| {
        let found = tables.iter().find(|table| is_it(table));
        price_in(found, location)
    };
    let mut offers = Vec::new();
    for server_type in types {
        for location in &server_type.locations {
            let is_type = |table: &PriceTable| table.name == server_type.name;
            let is_v4 = |table: &PriceTable| table.kind == "ipv4";
            offers.push(Offer {
                placement: Placement {
                    server_type: server_type.name.clone(),
                    location: location.name.clone(),
                },
                orderable: orderable(location, now),
                price: table(&pricing.server_types, &is_type, &location.name)?,
                address: table(&pricing.primary_ips, &is_v4, &location.name)?,
            });
        }
    }
    Ok(PriceList {
        currency: pricing.currency,
        offers,
    })
}

fn price_in(table: Option<&PriceTable>, location: &str) -> Result<Option<Price>, Trouble> {
    table
        .and_then(|table| table.prices.iter().find(|price| price.location == location))
        .map(price)
        .transpose()
}

fn price(local: &LocalPrice) -> Result<Price, Trouble> {
    let amount = |text: &str| Micros::parse(text).ok_or_else(|| Trouble::BadMoney(text.to_owned()));
    Ok(Price {
        hourly: amount(&local.price_hourly.net)?,
        monthly: amount(&local.price_monthly.net)?,
    })
}

fn orderable(location: &TypeLocation, now: Moment) -> Orderable {
    match &location.deprecation {
        Some(deprecation) if deprecation.unavailable_after <= now => Orderable::Retired,
        _ if location.available => Orderable::Yes,
        _ => Orderable::SoldOut,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn catalogue() -> PriceList {
        let text = include_str!("../../../../tests/data/hetzner/catalog-2026-09-29.json");
        let catalogue: Value = serde_json::from_str(text).unwrap();
        let types: Vec<ServerType> =
            serde_json::from_value(catalogue["server_types"].clone()).unwrap();
        let mut pricing = catalogue["pricing"].clone();
        pricing["server_types"] = catalogue["server_types"].clone();
        // 2026-09-29T12:00:00Z
        let now = Moment(1_790_683_200_000_000);
        price_list(serde_json::from_value(pricing).unwrap(), &types, now).unwrap()
    }

    fn offer<'a>(list: &'a PriceList, server_type: &str, location: &str) -> &'a Offer {
        list.offers
            .iter()
            .find(|offer| {
                offer.placement.server_type == server_type && offer.placement.location == location
            })
            .unwrap()
    }

    #[test]
    fn what_can_be_ordered_is_told_by_locations_and_not_by_prices() {
        let list = catalogue();
        assert_eq!(list.currency, "EUR");
        let retired = offer(&list, "cpx11", "fsn1");
        assert_eq!(retired.orderable, Orderable::Retired);
        assert_eq!(retired.price.unwrap().monthly, Micros(5_490_000));
        assert_eq!(offer(&list, "cx23", "fsn1").orderable, Orderable::SoldOut);
        let good = offer(&list, "cpx22", "nbg1");
        assert_eq!(good.orderable, Orderable::Yes);
        assert_eq!(good.price.unwrap().monthly, Micros(19_490_000));
        assert_eq!(good.address.unwrap().hourly, Micros(800));
    }
}
