// OpenAI's own client for Node: chat completions, responses, embeddings, models.

import OpenAI from "openai";
import { ASK, DESCRIPTION, KEY, MODEL, REFUSALS, RESULT, SCHEMA, URL, USE, check, drained, taken, words } from "./checks.mjs";

const client = new OpenAI({ baseURL: `${URL}/v1`, apiKey: KEY, maxRetries: 0, timeout: 30_000 });
const chatTool = { type: "function", function: { name: "get_tide", description: DESCRIPTION, parameters: SCHEMA } };
const responsesTool = { type: "function", name: "get_tide", description: DESCRIPTION, parameters: SCHEMA, strict: false };
const user = (content) => ({ role: "user", content });
const chat = (text, more = {}) => client.chat.completions.create({ model: MODEL, messages: [user(text)], ...more });
const responses = (input, more = {}) => client.responses.create({ model: MODEL, input, ...more });
const told = (text, usage) =>
  words(text, usage.prompt_tokens ?? usage.input_tokens, usage.completion_tokens ?? usage.output_tokens);

await check("plain", async () => {
  const answer = await chat(ASK);
  return told(answer.choices[0].message.content, answer.usage);
});
await check("stream", async () => {
  let text = "", usage;
  for await (const chunk of await chat(ASK, { stream: true, stream_options: { include_usage: true } })) {
    usage = chunk.usage ?? usage;
    text += chunk.choices[0]?.delta.content ?? "";
  }
  return told(text, usage);
});
await check("bare stream", async () => {
  let text = "";
  // Every chunk has a choice if nobody asked for usage.
  for await (const chunk of await chat(ASK, { stream: true })) text += chunk.choices[0].delta.content ?? "";
  return { text };
});
await check("tool", async () => {
  const events = client.chat.completions.stream({ model: MODEL, messages: [user(USE)], tools: [chatTool] });
  const { message } = (await events.finalChatCompletion()).choices[0];
  const call = message.tool_calls[0];
  const messages = [user(USE), message, { role: "tool", tool_call_id: call.id, content: RESULT }];
  const answer = await client.chat.completions.create({ model: MODEL, messages, tools: [chatTool] });
  return {
    name: call.function.name,
    arguments: JSON.parse(call.function.arguments),
    ...told(answer.choices[0].message.content, answer.usage),
  };
});
await check("responses plain", async () => {
  const answer = await responses(ASK);
  return told(answer.output_text, answer.usage);
});
await check("responses stream", async () => {
  let text = "", last;
  for await (const event of await responses(ASK, { stream: true, tools: [responsesTool] })) {
    if (event.type === "response.output_text.delta") text += event.delta;
    last = event;
  }
  return told(text, last.response.usage);
});
await check("responses tool", async () => {
  const events = client.responses.stream({ model: MODEL, input: USE, tools: [responsesTool] });
  const [call] = (await events.finalResponse()).output;
  const input = [
    user(USE),
    { type: "function_call", call_id: call.call_id, name: call.name, arguments: call.arguments },
    { type: "function_call_output", call_id: call.call_id, output: RESULT },
  ];
  const answer = await responses(input, { tools: [responsesTool] });
  return { name: call.name, arguments: JSON.parse(call.arguments), ...told(answer.output_text, answer.usage) };
});
await check("embeddings", async () => {
  const answer = await client.embeddings.create({ model: MODEL, input: ["high", "low"] });
  return { vectors: answer.data.map((one) => [...one.embedding]), input: answer.usage.prompt_tokens, output: 0 };
});
await check("models", async () => ({ models: (await client.models.list()).data.map((model) => model.id) }));
for (const status of REFUSALS) await check(`refused ${status}`, () => chat(`fail ${status}`));
await check("broken", async () => drained(await chat("break off", { stream: true })));
await check("responses broken", async () => drained(await responses("break off", { stream: true })));
await check("stumbled", async () => drained(await chat("stumble", { stream: true })));
await check("responses stumbled", async () => drained(await responses("stumble", { stream: true })));
await check("left", async () => taken(await chat("never end", { stream: true })));
await check("responses left", async () => taken(await responses("never end", { stream: true })));
