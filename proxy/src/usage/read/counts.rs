//! Counts as providers tell them, and what they come to.

use crate::{dialect::Dialect, usage::Usage};

/// Counts as they are on the wire.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// All input. With Anthropic, only what is in no other count.
    input: Option<u64>,
    output: Option<u64>,
    total: Option<u64>,
    cache_read: Option<u64>,
    /// DeepSeek's words for what was read from the cache and what was not.
    cache_hit: Option<u64>,
    cache_miss: Option<u64>,
    cache_write: Option<u64>,
    cache_write_5m: Option<u64>,
    cache_write_1h: Option<u64>,
    /// Gemini's count of what its own tools put into the prompt, beside `input`.
    tool_input: Option<u64>,
    /// A part of `output`; with Gemini beside it.
    reasoning: Option<u64>,
    pub(super) web_searches: Option<u64>,
}

impl Counts {
    /// Whether input and output are both told.
    pub(super) fn is_whole(&self, dialect: Dialect) -> bool {
        match dialect {
            Dialect::Chat | Dialect::Responses | Dialect::Messages => {
                self.input.is_some() && self.output.is_some()
            }
            Dialect::Embeddings => self.input.or(self.total).is_some(),
            // A prompt that is refused has no output, and its count is not there.
            Dialect::Gemini => self.input.is_some() && self.output.or(self.total).is_some(),
        }
    }

    /// The usage, and how often a difference was below nothing.
    pub(super) fn usage(&self, dialect: Dialect) -> (Option<Usage>, u32) {
        let counts = match dialect {
            Dialect::Chat | Dialect::Responses | Dialect::Messages | Dialect::Gemini => {
                [self.input, self.cache_hit, self.cache_miss, self.output]
            }
            Dialect::Embeddings => [self.input, self.total, None, None],
        };
        if counts.iter().all(Option::is_none) {
            return (None, 0);
        }
        let mut clamps = Clamps(0);
        let mut usage = match dialect {
            Dialect::Chat | Dialect::Responses => self.openai(&mut clamps),
            Dialect::Embeddings => self.embeddings(&mut clamps),
            Dialect::Messages => self.anthropic(&mut clamps),
            Dialect::Gemini => self.gemini(&mut clamps),
        };
        if usage.reasoning > usage.output {
            usage.reasoning = usage.output;
            clamps.0 += 1;
        }
        (Some(usage), clamps.0)
    }

    /// The count that has this name, in an object of the usage or in the usage itself.
    pub(super) fn field(&mut self, dialect: Dialect, field: &[&str]) -> Option<&mut Option<u64>> {
        match dialect {
            Dialect::Chat | Dialect::Embeddings => self.chat_field(field),
            Dialect::Responses => self.responses_field(field),
            Dialect::Messages => self.messages_field(field),
            Dialect::Gemini => self.gemini_field(field),
        }
    }

    fn chat_field(&mut self, field: &[&str]) -> Option<&mut Option<u64>> {
        Some(match field {
            ["prompt_tokens"] => &mut self.input,
            ["completion_tokens"] => &mut self.output,
            ["total_tokens"] => &mut self.total,
            ["prompt_cache_hit_tokens"] => &mut self.cache_hit,
            ["prompt_tokens_details", "cached_tokens"] => &mut self.cache_read,
            ["prompt_cache_miss_tokens"] => &mut self.cache_miss,
            ["prompt_tokens_details", "cache_write_tokens"] => &mut self.cache_write,
            ["completion_tokens_details", "reasoning_tokens"] => &mut self.reasoning,
            _ => return None,
        })
    }

    fn responses_field(&mut self, field: &[&str]) -> Option<&mut Option<u64>> {
        Some(match field {
            ["input_tokens"] => &mut self.input,
            ["output_tokens"] => &mut self.output,
            ["total_tokens"] => &mut self.total,
            ["input_tokens_details", "cached_tokens"] => &mut self.cache_read,
            ["input_tokens_details", "cache_write_tokens"] => &mut self.cache_write,
            ["output_tokens_details", "reasoning_tokens"] => &mut self.reasoning,
            _ => return None,
        })
    }

    fn messages_field(&mut self, field: &[&str]) -> Option<&mut Option<u64>> {
        Some(match field {
            ["input_tokens"] => &mut self.input,
            ["output_tokens"] => &mut self.output,
            ["cache_read_input_tokens"] => &mut self.cache_read,
            ["cache_creation_input_tokens"] => &mut self.cache_write,
            ["cache_creation", "ephemeral_5m_input_tokens"] => &mut self.cache_write_5m,
            ["cache_creation", "ephemeral_1h_input_tokens"] => &mut self.cache_write_1h,
            ["output_tokens_details", "thinking_tokens"] => &mut self.reasoning,
            ["server_tool_use", "web_search_requests"] => &mut self.web_searches,
            _ => return None,
        })
    }

    fn gemini_field(&mut self, field: &[&str]) -> Option<&mut Option<u64>> {
        Some(match field {
            ["promptTokenCount"] => &mut self.input,
            ["candidatesTokenCount"] => &mut self.output,
            ["totalTokenCount"] => &mut self.total,
            ["cachedContentTokenCount"] => &mut self.cache_read,
            ["toolUsePromptTokenCount"] => &mut self.tool_input,
            ["thoughtsTokenCount"] => &mut self.reasoning,
            _ => return None,
        })
    }

    /// The input has all in it, with DeepSeek as hits and misses. The output has all in it, except that xAI
    /// may leave reasoning out, and then the total tells.
    fn openai(&self, clamps: &mut Clamps) -> Usage {
        let hits_and_misses = self
            .cache_hit
            .unwrap_or(0)
            .saturating_add(self.cache_miss.unwrap_or(0));
        let all = self.input.unwrap_or(hits_and_misses);
        let cache_read = match (self.cache_hit.max(self.cache_read), self.cache_miss) {
            (Some(read), _) => read,
            (None, Some(miss)) => clamps.minus(all, miss),
            (None, None) => 0,
        };
        let cache_write_5m = self.cache_write.unwrap_or(0);
        let output = self.output.unwrap_or(0);
        let besides_input = match (self.input, self.total) {
            (Some(_), Some(total)) => total.saturating_sub(all),
            (None, _) | (_, None) => 0,
        };
        Usage {
            input: clamps.minus(all, cache_read.saturating_add(cache_write_5m)),
            cache_read,
            cache_write_5m,
            cache_write_1h: 0,
            output: output.max(besides_input),
            reasoning: self.reasoning.unwrap_or(0),
        }
    }

    /// Nothing is generated, and some tell only a total.
    fn embeddings(&self, clamps: &mut Clamps) -> Usage {
        let all = self.input.or(self.total).unwrap_or(0);
        let cache_read = self.cache_read.unwrap_or(0);
        Usage {
            input: clamps.minus(all, cache_read),
            cache_read,
            ..Usage::default()
        }
    }

    /// Disjoint as it comes. What was written to the cache is told in all and by how long it is kept; only
    /// the first object of a stream has the latter, so what was written later counts as the default.
    fn anthropic(&self, clamps: &mut Clamps) -> Usage {
        let cache_write_1h = self.cache_write_1h.unwrap_or(0);
        let split_5m = self.cache_write_5m.unwrap_or(0);
        let split = split_5m.saturating_add(cache_write_1h);
        let more = clamps.minus(self.cache_write.unwrap_or(split), split);
        Usage {
            input: self.input.unwrap_or(0),
            cache_read: self.cache_read.unwrap_or(0),
            cache_write_5m: split_5m.saturating_add(more),
            cache_write_1h,
            output: self.output.unwrap_or(0),
            reasoning: self.reasoning.unwrap_or(0),
        }
    }

    fn gemini(&self, clamps: &mut Clamps) -> Usage {
        let all = self
            .input
            .unwrap_or(0)
            .saturating_add(self.tool_input.unwrap_or(0));
        let cache_read = self.cache_read.unwrap_or(0);
        let reasoning = self.reasoning.unwrap_or(0);
        Usage {
            input: clamps.minus(all, cache_read),
            cache_read,
            output: self.output.unwrap_or(0).saturating_add(reasoning),
            reasoning,
            ..Usage::default()
        }
    }
}

/// How often a difference was less than nothing, and nothing was taken instead.
struct Clamps(u32);

impl Clamps {
    fn minus(&mut self, all: u64, part: u64) -> u64 {
        self.0 += u32::from(part > all);
        all.saturating_sub(part)
    }
}
