"""Anthropic's own client for Python."""

import anthropic

from checks import *

client = anthropic.Anthropic(base_url=URL, api_key=KEY, max_retries=0, timeout=30)
TOOL = {"name": "get_tide", "description": DESCRIPTION, "input_schema": SCHEMA}


def asked(text, **more):
    return {"model": MODEL, "max_tokens": 100, "messages": [{"role": "user", "content": text}], **more}


def told(text, usage):
    prompt = usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens
    return words(text, prompt, usage.output_tokens)


def plain():
    answer = client.messages.create(**asked(ASK))
    return told(answer.content[0].text, answer.usage)


def stream():
    with client.messages.stream(**asked(ASK)) as events:
        text = "".join(events.text_stream)
        return told(text, events.get_final_message().usage)


def tool():
    with client.messages.stream(**asked(USE, tools=[TOOL])) as events:
        first = events.get_final_message()
    call = first.content[0]
    again = asked(USE, tools=[TOOL])
    again["messages"] += [
        {"role": "assistant", "content": [block.model_dump() for block in first.content]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": RESULT}]},
    ]
    answer = client.messages.create(**again)
    return {"name": call.name, "arguments": call.input, **told(answer.content[0].text, answer.usage)}


def count():
    counted = client.messages.count_tokens(model=MODEL, messages=[{"role": "user", "content": ASK}])
    return {"counted": counted.input_tokens}


check("plain", plain)
check("stream", stream)
check("tool", tool)
check("count", count)
check("models", lambda: {"models": [model.id for model in client.models.list()]})
for status in REFUSALS:
    check(f"refused {status}", lambda: client.messages.create(**asked(f"fail {status}")))
check("broken", lambda: drained(client.messages.create(**asked("break off", stream=True))))
check("stumbled", lambda: drained(client.messages.create(**asked("stumble", stream=True))))
check("left", lambda: taken(client.messages.create(**asked("never end", stream=True))))
