// Google's own client for Node.

import { GoogleGenAI } from "@google/genai";
import { ASK, DESCRIPTION, KEY, MODEL, REFUSALS, RESULT, SCHEMA, URL, USE, check, drained, taken, words } from "./checks.mjs";

const client = new GoogleGenAI({ apiKey: KEY, httpOptions: { baseUrl: URL } });
const config = {
  tools: [{ functionDeclarations: [{ name: "get_tide", description: DESCRIPTION, parametersJsonSchema: SCHEMA }] }],
};
const told = (text, usage) =>
  words(
    text,
    usage.promptTokenCount + (usage.toolUsePromptTokenCount ?? 0),
    usage.candidatesTokenCount + (usage.thoughtsTokenCount ?? 0),
  );
const streamed = (contents, more = {}) => client.models.generateContentStream({ model: MODEL, contents, ...more });

await check("plain", async () => {
  const answer = await client.models.generateContent({ model: MODEL, contents: ASK });
  return told(answer.text, answer.usageMetadata);
});
await check("stream", async () => {
  let text = "", usage;
  for await (const chunk of await streamed(ASK)) {
    text += chunk.text ?? "";
    usage = chunk.usageMetadata;
  }
  return told(text, usage);
});
await check("tool", async () => {
  let call;
  for await (const chunk of await streamed(USE, { config })) call = chunk.functionCalls?.[0] ?? call;
  const contents = [
    { role: "user", parts: [{ text: USE }] },
    { role: "model", parts: [{ functionCall: call }] },
    { role: "user", parts: [{ functionResponse: { name: call.name, response: { result: RESULT } } }] },
  ];
  const answer = await client.models.generateContent({ model: MODEL, contents, config });
  return { name: call.name, arguments: call.args, ...told(answer.text, answer.usageMetadata) };
});
await check("count", async () => {
  const counted = await client.models.countTokens({ model: MODEL, contents: ASK });
  return { counted: counted.totalTokens };
});
await check("models", async () => {
  const models = [];
  for await (const model of await client.models.list()) models.push(model.name);
  return { models };
});
for (const status of REFUSALS) {
  await check(`refused ${status}`, () => client.models.generateContent({ model: MODEL, contents: `fail ${status}` }));
}
await check("broken", async () => drained(await streamed("break off")));
await check("stumbled", async () => drained(await streamed("stumble")));
await check("left", async () => {
  const leave = new AbortController();
  const found = await taken(await streamed("never end", { config: { abortSignal: leave.signal } }));
  leave.abort();
  return found;
});
