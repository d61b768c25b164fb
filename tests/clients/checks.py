"""What all clients are asked to do, and how they tell what came of it: one line of JSON a check."""

import json
import os

URL = os.environ["LLM_URL"]
KEY = os.environ["LLM_KEY"]
MODEL = os.environ["LLM_MODEL"]

ASK = "When is the tide high?"
ARGUMENTS = {"place": "Cuxhaven", "usage": {"input_tokens": 1}}
USE = "Please use get_tide " + json.dumps(ARGUMENTS)
# A property called `usage`, to confuse whoever looks for usage by its name.
SCHEMA = {
    "type": "object",
    "properties": {
        "place": {"type": "string"},
        "usage": {"type": "object", "properties": {"input_tokens": {"type": "integer"}}},
    },
    "required": ["place"],
}
DESCRIPTION = "Tells the next high tide."
RESULT = "14:20"
REFUSALS = [400, 401, 429, 500]
# Pieces before a client leaves.
ENOUGH = 5


def check(name, run):
    try:
        found = run()
    except Exception as error:  # its type is what is checked
        status = getattr(error, "status_code", None) or getattr(error, "code", None)
        found = {
            "error": type(error).__name__,
            "status": status if isinstance(status, int) else None,
            "message": str(error)[:300],
        }
    print(json.dumps({"check": name, **found}), flush=True)


def words(text, prompt, output):
    return {"text": text, "input": prompt, "output": output}


def taken(stream):
    """Takes a few pieces, then leaves."""
    for number, _ in enumerate(stream):
        if number >= ENOUGH:
            break
    stream.close()
    return {"pieces": number}


def drained(stream):
    """Takes all of a stream that must not come to a good end."""
    pieces = 0
    for piece in stream:
        if getattr(piece, "type", None) == "error":
            # An event of the dialect, which OpenAI's client passes on as it is.
            raise RuntimeError(piece.message)
        pieces += 1
    return {"pieces": pieces}
