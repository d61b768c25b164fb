// Vercel's AI SDK with four of its providers; LLM_PROVIDER says which.

import { createAnthropic } from "@ai-sdk/anthropic";
import { createGoogleGenerativeAI } from "@ai-sdk/google";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";
import { ASK, DESCRIPTION, KEY, MODEL, REFUSALS, RESULT, SCHEMA, URL, USE, check, drained, words } from "./checks.mjs";

const providers = {
  openai: () => createOpenAI({ baseURL: `${URL}/v1`, apiKey: KEY }),
  compatible: () => createOpenAICompatible({ name: "fake", baseURL: `${URL}/v1`, apiKey: KEY, includeUsage: true }),
  anthropic: () => createAnthropic({ baseURL: `${URL}/v1`, apiKey: KEY }),
  google: () => createGoogleGenerativeAI({ baseURL: `${URL}/v1beta`, apiKey: KEY }),
};
const model = providers[process.env.LLM_PROVIDER]()(MODEL);
const asked = (prompt, more = {}) => ({ model, prompt, maxRetries: 0, maxOutputTokens: 100, ...more });
// What Google's own tools put into a prompt is not in the sum that this client makes.
const told = (text, usage) =>
  words(text, usage.inputTokens + (usage.raw?.toolUsePromptTokenCount ?? 0), usage.outputTokens);
const ignore = () => {};

// The parts of a stream; an error is a part, too.
async function* parts(prompt, more = {}) {
  const result = streamText(asked(prompt, { onError: ignore, ...more }));
  for await (const part of result.fullStream) {
    if (part.type === "error") throw part.error;
    yield part;
  }
}

await check("plain", async () => {
  const answer = await generateText(asked(ASK));
  return told(answer.text, answer.usage);
});
await check("stream", async () => {
  const result = streamText(asked(ASK));
  let text = "";
  for await (const part of result.textStream) text += part;
  return told(text, await result.usage);
});
await check("tool", async () => {
  let called;
  const run = async (input) => {
    called = input;
    return RESULT;
  };
  const tools = { get_tide: tool({ description: DESCRIPTION, inputSchema: jsonSchema(SCHEMA), execute: run }) };
  const result = streamText(asked(USE, { tools, stopWhen: stepCountIs(3) }));
  const steps = await result.steps;
  const last = steps.at(-1);
  return { name: steps[0].toolCalls[0].toolName, arguments: called, ...told(last.text, last.usage) };
});
for (const status of REFUSALS) await check(`refused ${status}`, () => generateText(asked(`fail ${status}`)));
await check("broken", () => drained(parts("break off")));
await check("stumbled", () => drained(parts("stumble")));
await check("left", async () => {
  const leave = new AbortController();
  let pieces = 0;
  for await (const part of parts("never end", { abortSignal: leave.signal })) {
    if (part.type === "text-delta" && ++pieces >= 5) break;
  }
  leave.abort();
  return { pieces };
});
