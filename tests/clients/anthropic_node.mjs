// Anthropic's own client for Node.

import Anthropic from "@anthropic-ai/sdk";
import { ASK, DESCRIPTION, KEY, MODEL, REFUSALS, RESULT, SCHEMA, URL, USE, check, drained, taken, words } from "./checks.mjs";

const client = new Anthropic({ baseURL: URL, apiKey: KEY, maxRetries: 0, timeout: 30_000 });
const tools = [{ name: "get_tide", description: DESCRIPTION, input_schema: SCHEMA }];
const asked = (text, more = {}) => ({
  model: MODEL,
  max_tokens: 100,
  messages: [{ role: "user", content: text }],
  ...more,
});
const told = (text, usage) =>
  words(
    text,
    usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens,
    usage.output_tokens,
  );

await check("plain", async () => {
  const answer = await client.messages.create(asked(ASK));
  return told(answer.content[0].text, answer.usage);
});
await check("stream", async () => {
  const events = client.messages.stream(asked(ASK));
  const message = await events.finalMessage();
  return told(await events.finalText(), message.usage);
});
await check("tool", async () => {
  const first = await client.messages.stream(asked(USE, { tools })).finalMessage();
  const call = first.content[0];
  const messages = [
    { role: "user", content: USE },
    { role: "assistant", content: first.content },
    { role: "user", content: [{ type: "tool_result", tool_use_id: call.id, content: RESULT }] },
  ];
  const answer = await client.messages.create(asked(USE, { tools, messages }));
  return { name: call.name, arguments: call.input, ...told(answer.content[0].text, answer.usage) };
});
await check("count", async () => {
  const counted = await client.messages.countTokens({ model: MODEL, messages: asked(ASK).messages });
  return { counted: counted.input_tokens };
});
await check("models", async () => {
  const models = [];
  for await (const model of client.models.list()) models.push(model.id);
  return { models };
});
for (const status of REFUSALS) {
  await check(`refused ${status}`, () => client.messages.create(asked(`fail ${status}`)));
}
await check("broken", async () => drained(await client.messages.create(asked("break off", { stream: true }))));
await check("stumbled", async () => drained(await client.messages.create(asked("stumble", { stream: true }))));
await check("left", async () => taken(await client.messages.create(asked("never end", { stream: true }))));
