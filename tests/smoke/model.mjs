// A real small model behind OpenAI's chat completions, on a free port of this machine.
//
//   node model.mjs NODE_MODULES MODEL.gguf
//
// Standard output has JSON lines: first its port, then what each answer took, before the answer ends.

import { createServer } from "node:http";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [modules, path] = process.argv.slice(2);
// The modules are not beside this file, where `import` by name would look.
const { getLlama } = await import(pathToFileURL(join(modules, "node-llama-cpp/dist/index.js")));

const CONTEXT = 1024;
const SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face";
const BODY_MAX = 1 << 20;

const llama = await getLlama({ build: "never", gpu: false, maxThreads: 1, logLevel: "error" });
const model = await llama.loadModel({ modelPath: path });
const context = await model.createContext({ contextSize: CONTEXT, sequences: 1, threads: 1 });
const sequence = context.getSequence();

const tell = (line) => process.stdout.write(JSON.stringify(line) + "\n");

// As the chat template in the model's file has it.
function prompt(messages) {
  if (messages[0]?.role !== "system") messages = [{ role: "system", content: SYSTEM }, ...messages];
  const turns = messages.map(({ role, content }) => `<|im_start|>${role}\n${content}<|im_end|>\n`);
  return model.tokenize(turns.join("") + "<|im_start|>assistant\n", true);
}

async function generate(asked, say, isGone) {
  const tokens = prompt(asked.messages);
  const most = Math.min(asked.max_tokens ?? 64, CONTEXT - tokens.length);
  await sequence.clearHistory();
  const generated = [];
  let text = "";
  for await (const token of most > 0 ? sequence.evaluate(tokens, { temperature: 0 }) : []) {
    generated.push(token);
    const whole = model.detokenize(generated);
    // A character may take more than one token.
    if (!whole.endsWith("\ufffd")) {
      say(whole.slice(text.length));
      text = whole;
    }
    if (generated.length >= most || isGone()) break;
  }
  const usage = {
    prompt_tokens: tokens.length,
    completion_tokens: generated.length,
    total_tokens: tokens.length + generated.length,
  };
  return { text, usage, finish_reason: generated.length >= most ? "length" : "stop" };
}

async function plain(asked, response, head) {
  const { text, usage, finish_reason } = await generate(asked, () => {}, () => response.destroyed);
  tell(usage);
  const choices = [{ index: 0, message: { role: "assistant", content: text }, finish_reason }];
  response.setHeader("content-type", "application/json");
  response.end(JSON.stringify({ ...head, object: "chat.completion", choices, usage }));
}

async function stream(asked, response, head) {
  response.setHeader("content-type", "text/event-stream");
  const isUsageWanted = asked.stream_options?.include_usage === true;
  const send = (delta, finish_reason = null) => {
    const chunk = { ...head, object: "chat.completion.chunk", choices: [{ index: 0, delta, finish_reason }] };
    response.write(`data: ${JSON.stringify(isUsageWanted ? { ...chunk, usage: null } : chunk)}\n\n`);
  };
  send({ role: "assistant", content: "" });
  const { usage, finish_reason } = await generate(asked, (content) => send({ content }), () => response.destroyed);
  tell(usage);
  send({}, finish_reason);
  if (isUsageWanted) {
    const chunk = { ...head, object: "chat.completion.chunk", choices: [], usage };
    response.write(`data: ${JSON.stringify(chunk)}\n\n`);
  }
  response.end("data: [DONE]\n\n");
}

async function answer(request, response) {
  if (request.method !== "POST" || request.url !== "/v1/chat/completions") {
    return response.writeHead(404).end();
  }
  let body = "";
  for await (const piece of request.setEncoding("utf8")) {
    body += piece;
    if (body.length > BODY_MAX) return response.writeHead(413).end();
  }
  const asked = JSON.parse(body);
  const head = { id: `chatcmpl-${Date.now()}`, created: Math.floor(Date.now() / 1000), model: asked.model };
  await (asked.stream ? stream : plain)(asked, response, head);
}

// One after the other: there is one sequence.
let last = Promise.resolve();
const server = createServer((request, response) => {
  last = last
    .then(() => answer(request, response))
    .catch((error) => {
      console.error(error);
      response.headersSent ? response.destroy() : response.writeHead(500).end();
    });
});
server.listen(0, "127.0.0.1", () => tell({ port: server.address().port }));
