// What all clients are asked to do, and how they tell what came of it: one line of JSON a check.

export const URL = process.env.LLM_URL;
export const KEY = process.env.LLM_KEY;
export const MODEL = process.env.LLM_MODEL;

export const ASK = "When is the tide high?";
export const ARGUMENTS = { place: "Cuxhaven", usage: { input_tokens: 1 } };
export const USE = "Please use get_tide " + JSON.stringify(ARGUMENTS);
// A property called `usage`, to confuse whoever looks for usage by its name.
export const SCHEMA = {
  type: "object",
  properties: {
    place: { type: "string" },
    usage: { type: "object", properties: { input_tokens: { type: "integer" } } },
  },
  required: ["place"],
};
export const DESCRIPTION = "Tells the next high tide.";
export const RESULT = "14:20";
export const REFUSALS = [400, 401, 429, 500];
// Pieces before a client leaves.
const ENOUGH = 5;

export async function check(name, run) {
  let found;
  try {
    found = await run();
  } catch (error) {
    found = {
      // Some name their errors only by the class; some are none.
      error: error?.name && error.name !== "Error" ? error.name : error?.constructor?.name,
      status: error?.status ?? error?.statusCode ?? null,
      message: String(error?.message ?? error).slice(0, 300),
    };
  }
  console.log(JSON.stringify({ check: name, ...found }));
}

export const words = (text, input, output) => ({ text, input, output });

// Takes a few pieces, then leaves.
export async function taken(stream) {
  let pieces = 0;
  for await (const _ of stream) {
    if (++pieces >= ENOUGH) break;
  }
  return { pieces };
}

// Takes all of a stream that must not come to a good end.
export async function drained(stream) {
  let pieces = 0;
  for await (const piece of stream) {
    // An event of the dialect, which OpenAI's client passes on as it is.
    if (piece.type === "error") throw piece;
    pieces++;
  }
  return { pieces };
}
