//! Where the values that matter are, for each dialect.

use crate::dialect::Dialect;

/// The place of a value in an event or a body, as far as it leads to something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A Gemini stream without `alt=sse`: a list of what else are events.
    Events,
    /// The whole of an event or of a body.
    Event,
    // Chat.
    Choices,
    Choice,
    /// A `delta`, or a `message` that is whole.
    Message,
    ToolCalls,
    ToolCall,
    Function,
    Groq,
    // Responses.
    Response,
    Output,
    Item,
    // Messages.
    /// What is told of a message at its start.
    Head,
    Delta,
    // Gemini.
    Candidates,
    Candidate,
    Content,
    /// What is told of a prompt that was refused.
    Feedback,
    /// Generated text: a string, or a list of [`Place::Part`].
    Prose,
    Part,
    /// An object of usage.
    Usage,
    /// A string that is copied.
    Name(Name),
    /// Generation has ended unless this is null or an empty string.
    Finish,
    /// Something went wrong if this is an object or a string, and not an empty one.
    Error,
    /// Nothing here or below matters.
    Elsewhere,
}

/// A string that matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::usage) enum Name {
    /// The model that answered.
    Model,
    /// The price list that applies, as granted.
    ServiceTier,
    /// What kind of event it is.
    Type,
}

/// What a value has to be for the walk to enter it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Object,
    /// A list, of such elements.
    List(Place),
    /// Generated text, or a list.
    TextOrList(Place),
    /// Never entered.
    Leaf,
}

impl Place {
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Event
            | Self::Choice
            | Self::Message
            | Self::ToolCall
            | Self::Function
            | Self::Groq
            | Self::Response
            | Self::Item
            | Self::Head
            | Self::Delta
            | Self::Candidate
            | Self::Content
            | Self::Feedback
            | Self::Part => Kind::Object,
            Self::Events => Kind::List(Self::Event),
            Self::Choices => Kind::List(Self::Choice),
            Self::ToolCalls => Kind::List(Self::ToolCall),
            Self::Output => Kind::List(Self::Item),
            Self::Candidates => Kind::List(Self::Candidate),
            Self::Prose => Kind::TextOrList(Self::Part),
            Self::Usage | Self::Name(_) | Self::Finish | Self::Error | Self::Elsewhere => {
                Kind::Leaf
            }
        }
    }

    /// What the next value is behind a bracket or a comma. `None` in an object, where a key comes first.
    pub(super) fn element(self) -> Option<Self> {
        match self.kind() {
            Kind::List(element) | Kind::TextOrList(element) => Some(element),
            Kind::Object | Kind::Leaf => None,
        }
    }

    /// What the value of `key` in this object is.
    pub(super) fn member(self, dialect: Dialect, key: &[u8]) -> Self {
        match (self, key) {
            (Self::Event, _) => Self::of_event(dialect, key),
            (Self::Response, b"service_tier") => Self::Name(Name::ServiceTier),
            (Self::Response | Self::Head, b"model") => Self::Name(Name::Model),
            (Self::Response | Self::Head | Self::Groq, b"usage") => Self::Usage,
            (Self::Response | Self::Groq, b"error") => Self::Error,
            (Self::Choice, b"finish_reason")
            | (Self::Delta, b"stop_reason")
            | (Self::Candidate, b"finishReason")
            | (Self::Feedback, b"blockReason") => Self::Finish,
            (Self::Choice, b"delta" | b"message") => Self::Message,
            (Self::Message, b"tool_calls") => Self::ToolCalls,
            (Self::Message, b"function_call") | (Self::ToolCall, b"function") => Self::Function,
            (Self::Candidate, b"content") => Self::Content,
            (Self::Message, b"content" | b"reasoning_content" | b"reasoning" | b"refusal")
            | (Self::Function, b"arguments")
            | (Self::Item, b"content" | b"arguments")
            | (Self::Delta, b"text" | b"thinking" | b"partial_json")
            | (Self::Content, b"parts")
            | (Self::Part, b"text" | b"thinking") => Self::Prose,
            _ => Self::Elsewhere,
        }
    }

    /// At the end of a Responses stream all text comes once more, in `response`, and is not counted.
    fn of_event(dialect: Dialect, key: &[u8]) -> Self {
        use Dialect::{Chat, Embeddings, Gemini, Messages, Responses};
        match (dialect, key) {
            (_, b"error") => Self::Error,
            (Chat | Embeddings | Messages | Responses, b"usage") | (Gemini, b"usageMetadata") => {
                Self::Usage
            }
            (Chat | Embeddings | Messages | Responses, b"model") | (Gemini, b"modelVersion") => {
                Self::Name(Name::Model)
            }
            (Chat | Responses, b"service_tier") => Self::Name(Name::ServiceTier),
            (Messages | Responses, b"type") => Self::Name(Name::Type),
            (Chat, b"choices") => Self::Choices,
            (Chat, b"x_groq") => Self::Groq,
            (Responses, b"response") => Self::Response,
            (Responses, b"output") => Self::Output,
            (Messages, b"message") => Self::Head,
            (Messages, b"delta") => Self::Delta,
            (Messages, b"stop_reason") => Self::Finish,
            (Gemini, b"candidates") => Self::Candidates,
            (Gemini, b"promptFeedback") => Self::Feedback,
            (Messages, b"content") | (Responses, b"delta") => Self::Prose,
            _ => Self::Elsewhere,
        }
    }
}
