//! Lists: filtered by their owners, sorted and cut into pages here.

use serde_json::{Map, Value, json};

use super::{
    call::{Call, Outcome, Reply},
    refusal::Refusal,
    settings::Settings,
};

/// The page of `rows` that the call asks for, sorted as it asks by one of `sortable`.
pub(super) fn answer(
    name: &str,
    mut rows: Vec<Value>,
    sortable: &[&str],
    settings: &Settings,
    call: &Call,
) -> Outcome {
    // The last key first: sorting is stable.
    let orders: Vec<_> = call.all("sort").collect();
    for order in orders.iter().rev() {
        sort(&mut rows, order, sortable)?;
    }
    let page = number(call, "page", 1)?;
    let per_page = number(call, "per_page", settings.per_page)?.min(settings.max_per_page.max(1));
    let total = rows.len();
    let last = total.div_ceil(per_page).max(1);
    let shown: Vec<_> = rows
        .into_iter()
        .skip((page - 1).saturating_mul(per_page))
        .take(per_page)
        .collect();
    let mut body = Map::new();
    body.insert(name.to_owned(), Value::Array(shown));
    body.insert(
        "meta".to_owned(),
        json!({ "pagination": {
            "page": page,
            "per_page": per_page,
            "previous_page": (page > 1).then(|| page - 1),
            "next_page": (page < last).then(|| page + 1),
            "last_page": last,
            "total_entries": total,
        } }),
    );
    Ok(Reply::ok(Value::Object(body)))
}

fn number(call: &Call, name: &str, default: usize) -> Result<usize, Refusal> {
    match call.query(name).map(str::parse) {
        None => Ok(default.max(1)),
        Some(Ok(number)) if number > 0 => Ok(number),
        Some(_) => Err(Refusal::field(name, "must be a number from 1")),
    }
}

fn sort(rows: &mut [Value], order: &str, sortable: &[&str]) -> Result<(), Refusal> {
    let (field, direction) = order.split_once(':').unwrap_or((order, "asc"));
    if !sortable.contains(&field) || !matches!(direction, "asc" | "desc") {
        return Err(Refusal::field("sort", "is not a field to sort by"));
    }
    rows.sort_by(|a, b| {
        let ordering = compare(a.get(field), b.get(field));
        if direction == "desc" {
            ordering.reverse()
        } else {
            ordering
        }
    });
    Ok(())
}

fn compare(a: Option<&Value>, b: Option<&Value>) -> std::cmp::Ordering {
    match (a, b) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => a.as_u64().cmp(&b.as_u64()),
        (Some(Value::String(a)), Some(Value::String(b))) => a.cmp(b),
        // Only snapshots have no name, and none of them has one.
        _ => std::cmp::Ordering::Equal,
    }
}
