//! The demo model: friendly, short, the same answer to the same words, and open about what it is.

use std::fmt::Write as _;

use axum::response::Response;

use crate::{
    answer::{self, Answer},
    directory::Caller,
    prompt::ChatRequest,
    refusal::Refusal,
};

/// The name under which the model is listed. Any other name gets the same model.
pub const MODEL: &str = "managed-large";

/// What a pool server's warm-up turn gets.
const WARM_UP: &str = "Ready.";
/// Enough of the words to see that they arrived.
const ECHO_MAX_CHARS: usize = 160;

/// Answers a chat request.
pub(crate) fn answer(caller: &Caller, body: &[u8]) -> Result<Response, Refusal> {
    let request: ChatRequest = serde_json::from_slice(body).map_err(|_| Refusal::Unreadable)?;
    let answer = Answer::new(&request, reply(caller, &request));
    Ok(match (request.wants_stream(), request.wants_usage()) {
        (true, true) => answer.streamed(answer::Usage::Wanted),
        (true, false) => answer.streamed(answer::Usage::Unwanted),
        (false, _) => answer.whole(),
    })
}

/// The model's whole answer.
fn reply(caller: &Caller, request: &ChatRequest) -> String {
    if caller.customer.is_none() {
        return WARM_UP.to_owned();
    }
    let mut text = "Hello! I am Tidepool's demo model: your agent works, but no language model is \
                    connected yet."
        .to_owned();
    if let Some(words) = request.last_words() {
        write!(text, " You said: “{}”.", excerpt(&words)).expect("writing to a string cannot fail");
    }
    text.push_str(" Configure a model provider, and I will make room for a clever one.");
    text
}

/// One line, of bounded length.
fn excerpt(words: &str) -> String {
    let line = words.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut excerpt: String = line.chars().take(ECHO_MAX_CHARS).collect();
    if excerpt.len() < line.len() {
        excerpt.push('…');
    }
    excerpt
}

#[cfg(test)]
mod tests {
    use tidepool_shared::id::{InstanceId, ServerId};

    use super::*;
    use crate::directory::Customer;

    fn caller(instance: Option<u128>) -> Caller {
        Caller {
            server: "srv_00000000000000000000000001"
                .parse::<ServerId>()
                .unwrap(),
            customer: instance.map(|_| Customer {
                instance: "inst_00000000000000000000000001"
                    .parse::<InstanceId>()
                    .unwrap(),
                tier: "free".into(),
                limits: crate::limits::Limits::default(),
                standing: crate::directory::Standing::Good,
            }),
        }
    }

    fn asking(words: &str) -> ChatRequest {
        serde_json::from_value(
            serde_json::json!({"messages": [{"role": "user", "content": words}]}),
        )
        .unwrap()
    }

    #[test]
    fn it_says_that_it_is_a_demo_and_what_it_heard() {
        let reply = reply(&caller(Some(1)), &asking("How are  you?"));
        assert!(reply.contains("demo model") && reply.contains("“How are you?”"));
    }

    #[test]
    fn a_long_text_is_echoed_in_part() {
        let reply = reply(&caller(Some(1)), &asking(&"ä".repeat(100_000)));
        assert!(reply.len() < 1000 && reply.contains("ä…"));
    }

    #[test]
    fn a_warm_up_turn_gets_the_same_word_whatever_it_says() {
        assert_eq!(reply(&caller(None), &asking("secret words")), WARM_UP);
    }
}
