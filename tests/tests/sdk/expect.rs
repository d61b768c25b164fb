//! What a client must have seen.

use serde_json::{Value, json};
use tidepool_tests::fake_provider::{Ending, Served, TEXT};

use crate::client::Client;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    Straight,
    Proxy,
}

/// How a client's errors are called.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Errors {
    /// By the status.
    Named,
    ClientOrServer,
    Only(&'static str),
}

impl Errors {
    fn of(self, status: u64) -> &'static str {
        match (self, status) {
            (Self::Only(name), _) => name,
            (Self::ClientOrServer, ..500) => "ClientError",
            (Self::ClientOrServer, _) => "ServerError",
            (Self::Named, 400) => "BadRequestError",
            (Self::Named, 401) => "AuthenticationError",
            (Self::Named, 429) => "RateLimitError",
            (Self::Named, _) => "InternalServerError",
        }
    }
}

/// Every check was made, and each found what it should.
pub(crate) fn all(client: &Client, route: Route, told: &[Value], served: &[Served]) {
    let mut made: Vec<_> = told
        .iter()
        .map(|line| line["check"].as_str().unwrap())
        .collect();
    let mut wanted = client.checks();
    made.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(made, wanted);
    for line in told {
        one(client, route, line, served);
    }
    let unknown: Vec<_> = served
        .iter()
        .filter(|one| one.key != served[0].key)
        .collect();
    assert!(unknown.is_empty(), "another key: {unknown:?}");
    for ending in [Ending::ClientLeft, Ending::BrokeOff, Ending::Stumbled] {
        assert!(served.iter().any(|one| one.ending == ending), "{ending:?}");
    }
}

fn one(client: &Client, route: Route, line: &Value, served: &[Served]) {
    let name = line["check"].as_str().unwrap();
    let refused = name.strip_prefix("refused ");
    if refused.is_none() && !name.ends_with("broken") && !name.ends_with("stumbled") {
        assert_eq!(line["error"], Value::Null, "{route:?}: {line}");
    }
    match name {
        "plain" | "stream" | "responses plain" | "responses stream" => {
            assert_eq!(line["text"], TEXT, "{route:?}: {line}");
            was_counted(line, served);
        }
        "bare stream" => assert_eq!(line["text"], TEXT, "{line}"),
        "tool" | "tool stream" | "responses tool" => {
            assert_eq!(line["name"], "get_tide", "{line}");
            let arguments = json!({"place": "Cuxhaven", "usage": {"input_tokens": 1}});
            assert_eq!(line["arguments"], arguments, "{line}");
            assert_eq!(line["text"], TEXT, "{line}");
            was_counted(line, served);
        }
        "embeddings" => {
            let vector = json!([0.25, -0.5, 0.75]);
            assert_eq!(line["vectors"], json!([vector, vector]), "{line}");
            was_counted(line, served);
        }
        "models" => {
            let models = line["models"].as_array().unwrap();
            let is_it = |name: &Value| name.as_str().unwrap().ends_with(client.model);
            assert!(models.iter().any(is_it), "{line}");
        }
        "count" => assert!(line["counted"].as_u64().unwrap() > 0, "{line}"),
        "left" | "responses left" => assert!(line["pieces"].as_u64().unwrap() >= 5, "{line}"),
        "broken" | "responses broken" | "stumbled" | "responses stumbled" => {
            assert!(
                line["error"].is_string(),
                "it looked whole, {route:?}: {line}"
            );
        }
        _ => {
            let status = refused.unwrap().parse().unwrap();
            // That the provider refuses the operator's key is no business of a customer's.
            let status = if (route, status) == (Route::Proxy, 401) {
                502
            } else {
                status
            };
            assert_eq!(line["error"], client.errors.of(status), "{route:?}: {line}");
            assert_eq!(line["status"], status, "{route:?}: {line}");
        }
    }
}

/// What the client read as usage is what was counted for one request; no two have the same counts.
fn was_counted(line: &Value, served: &[Served]) {
    let told = (line["input"].as_u64(), line["output"].as_u64());
    let is_it = |one: &&Served| told == (Some(one.tokens.prompt()), Some(one.tokens.output));
    assert!(
        served.iter().any(|one| is_it(&one)),
        "{line} is none of {served:?}"
    );
}
