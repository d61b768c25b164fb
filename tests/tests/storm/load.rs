//! Clients that ask without a pause, and do not always wait for the end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt as _;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tidepool_tests::fake_provider::LONG_TEXT;
use tokio::{task::JoinSet, time::sleep};

/// Kinds of providers, and what each serves.
pub(crate) const MODELS: [(&str, &str); 3] = [
    ("openai", "gpt-4o-mini"),
    ("anthropic", "claude-haiku-4-5"),
    ("gemini", "gemini-2.5-flash"),
];

/// As long as what OpenClaw sends, so that an estimate of the prompt is one of most of the tokens.
const PROMPT_BYTES: usize = 48 * 1024;
/// Before a request that was not taken is followed by the next.
const PAUSE: Duration = Duration::from_millis(50);

/// What clients saw.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) answered: usize,
    pub(crate) refused: usize,
    pub(crate) left: usize,
    /// The proxy was away, or went away.
    pub(crate) cut: usize,
}

pub(crate) struct Load {
    clients: JoinSet<Told>,
    left: Arc<AtomicUsize>,
}

impl Load {
    pub(crate) fn start(url: &str, requests: usize, clients: usize, seed: u64) -> Self {
        let left = Arc::new(AtomicUsize::new(requests));
        let mut set = JoinSet::new();
        for number in 0..clients {
            let rng = StdRng::seed_from_u64(seed * 1000 + u64::try_from(number).unwrap());
            set.spawn(client(url.to_owned(), Arc::clone(&left), rng));
        }
        Self { clients: set, left }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }

    pub(crate) async fn end(self) -> Told {
        let all = self.clients.join_all().await;
        all.into_iter().fold(Told::default(), |sum, told| Told {
            answered: sum.answered + told.answered,
            refused: sum.refused + told.refused,
            left: sum.left + told.left,
            cut: sum.cut + told.cut,
        })
    }
}

async fn client(url: String, left: Arc<AtomicUsize>, mut rng: StdRng) -> Told {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut told = Told::default();
    let take = |left: usize| left.checked_sub(1);
    while left
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
        .is_ok()
    {
        let (path, body, leaves) = request(&mut rng);
        let request = client.post(format!("{url}{path}")).json(&body);
        let Ok(response) = request.send().await else {
            told.cut += 1;
            sleep(PAUSE).await;
            continue;
        };
        if !response.status().is_success() {
            told.refused += 1;
            continue;
        }
        let mut stream = response.bytes_stream();
        if leaves {
            for _ in 0..rng.random_range(1..6) {
                drop(stream.next().await);
            }
            told.left += 1;
            continue;
        }
        let mut whole = true;
        while let Some(chunk) = stream.next().await {
            whole &= chunk.is_ok();
        }
        if whole {
            told.answered += 1;
        } else {
            told.cut += 1;
        }
    }
    told
}

/// A path, a body, and whether the client leaves.
fn request(rng: &mut StdRng) -> (&'static str, Value, bool) {
    let words = match rng.random_range(0..20) {
        0 => "fail 500",
        1 => "fail 429",
        2 => "fail 400",
        3 => "break off",
        4 => "stumble",
        5..=7 => "never end",
        8..=9 => "slowly",
        _ => "speak",
    };
    let leaves = words == "never end";
    let stream = leaves || rng.random_bool(0.7);
    let filler = LONG_TEXT.repeat(PROMPT_BYTES / LONG_TEXT.len());
    let said = |text: &str| json!([{"role": "user", "content": text}]);
    let text = format!("{filler} {words}");
    let (path, body) = match rng.random_range(0..4) {
        0 => (
            "/v1/messages",
            json!({"model": MODELS[1].1, "max_tokens": 500, "stream": stream, "messages": said(&text)}),
        ),
        1 => (
            if stream {
                "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
            } else {
                "/v1beta/models/gemini-2.5-flash:generateContent"
            },
            json!({"contents": [{"role": "user", "parts": [{"text": text}]}]}),
        ),
        2 => (
            "/v1/responses",
            json!({"model": MODELS[0].1, "stream": stream, "input": said(&text)}),
        ),
        _ => (
            "/v1/chat/completions",
            json!({"model": MODELS[0].1, "stream": stream, "messages": said(&text)}),
        ),
    };
    (path, body, leaves)
}
