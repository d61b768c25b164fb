//! The forms in which models are asked and answer.

/// A form of requests and answers, named for who made it; others speak it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `POST /v1/chat/completions`: OpenAI, and almost everybody else.
    Chat,
    /// `POST /v1/responses`: OpenAI's later one, whose events have types.
    Responses,
    /// `POST /v1/embeddings`: OpenAI's. Never a stream.
    Embeddings,
    /// `POST /v1/messages`: Anthropic.
    Messages,
    /// `POST /v1beta/models/{model}:generateContent`: Google. A stream is `:streamGenerateContent`, of
    /// events with `?alt=sse` and else one JSON array.
    Gemini,
}
