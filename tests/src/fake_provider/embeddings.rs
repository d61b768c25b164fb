//! OpenAI's embeddings, as numbers or as the base64 of their bytes.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::reply::Reply;

const VECTOR: [f32; 3] = [0.25, -0.5, 0.75];

pub(super) fn whole(reply: &Reply, body: &Value) -> Value {
    let inputs = body["input"].as_array().map_or(1, Vec::len);
    let bytes: Vec<u8> = VECTOR
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect();
    let embedding = if body["encoding_format"] == "base64" {
        json!(BASE64_STANDARD.encode(bytes))
    } else {
        json!(VECTOR)
    };
    let one = |index| json!({"object": "embedding", "index": index, "embedding": embedding});
    let data: Vec<_> = (0..inputs).map(one).collect();
    let prompt = reply.tokens.prompt();
    json!({
        "object": "list", "data": data, "model": reply.model,
        "usage": {"prompt_tokens": prompt, "total_tokens": prompt},
    })
}
