"""OpenAI's own client for Python: chat completions, responses, embeddings, models."""

import json

import openai

from checks import *

client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0, timeout=30)
CHAT_TOOL = {
    "type": "function",
    "function": {"name": "get_tide", "description": DESCRIPTION, "parameters": SCHEMA},
}
RESPONSES_TOOL = {
    "type": "function", "name": "get_tide", "description": DESCRIPTION, "parameters": SCHEMA, "strict": False,
}


def user(text):
    return [{"role": "user", "content": text}]


def chat(text, **more):
    return client.chat.completions.create(model=MODEL, messages=user(text), **more)


def responses(text, **more):
    return client.responses.create(model=MODEL, input=text, **more)


def plain():
    answer = chat(ASK)
    return words(answer.choices[0].message.content, answer.usage.prompt_tokens, answer.usage.completion_tokens)


def stream():
    text, usage = "", None
    for chunk in chat(ASK, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
    return words(text, usage.prompt_tokens, usage.completion_tokens)


def bare_stream():
    """Every chunk has a choice if nobody asked for usage."""
    return {"text": "".join(chunk.choices[0].delta.content or "" for chunk in chat(ASK, stream=True))}


def tool(is_stream):
    if is_stream:
        with client.chat.completions.stream(model=MODEL, messages=user(USE), tools=[CHAT_TOOL]) as events:
            for _ in events:
                pass
            message = events.get_final_completion().choices[0].message
    else:
        message = chat(USE, tools=[CHAT_TOOL]).choices[0].message
    call = message.tool_calls[0]
    result = {"role": "tool", "tool_call_id": call.id, "content": RESULT}
    spoken = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{
            "id": call.id, "type": "function",
            "function": {"name": call.function.name, "arguments": call.function.arguments},
        }],
    }
    answer = client.chat.completions.create(
        model=MODEL, messages=[*user(USE), spoken, result], tools=[CHAT_TOOL]
    )
    return {
        "name": call.function.name,
        "arguments": json.loads(call.function.arguments),
        **words(answer.choices[0].message.content, answer.usage.prompt_tokens, answer.usage.completion_tokens),
    }


def responses_plain():
    answer = responses(ASK)
    return words(answer.output_text, answer.usage.input_tokens, answer.usage.output_tokens)


def responses_stream():
    text, last = "", None
    for event in responses(ASK, stream=True, tools=[RESPONSES_TOOL]):
        if event.type == "response.output_text.delta":
            text += event.delta
        last = event
    usage = last.response.usage
    return words(text, usage.input_tokens, usage.output_tokens)


def responses_tool():
    with client.responses.stream(model=MODEL, input=USE, tools=[RESPONSES_TOOL]) as events:
        for _ in events:
            pass
        call = events.get_final_response().output[0]
    items = [
        *user(USE),
        {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments},
        {"type": "function_call_output", "call_id": call.call_id, "output": RESULT},
    ]
    answer = client.responses.create(model=MODEL, input=items, tools=[RESPONSES_TOOL])
    return {
        "name": call.name,
        "arguments": json.loads(call.arguments),
        **words(answer.output_text, answer.usage.input_tokens, answer.usage.output_tokens),
    }


def embeddings():
    answer = client.embeddings.create(model=MODEL, input=["high", "low"])
    return {"vectors": [one.embedding for one in answer.data], "input": answer.usage.prompt_tokens, "output": 0}


check("plain", plain)
check("stream", stream)
check("bare stream", bare_stream)
check("tool", lambda: tool(is_stream=False))
check("tool stream", lambda: tool(is_stream=True))
check("responses plain", responses_plain)
check("responses stream", responses_stream)
check("responses tool", responses_tool)
check("embeddings", embeddings)
check("models", lambda: {"models": [model.id for model in client.models.list()]})
for status in REFUSALS:
    check(f"refused {status}", lambda: words(chat(f"fail {status}"), 0, 0))
check("broken", lambda: drained(chat("break off", stream=True)))
check("responses broken", lambda: drained(responses("break off", stream=True)))
check("stumbled", lambda: drained(chat("stumble", stream=True)))
check("responses stumbled", lambda: drained(responses("stumble", stream=True)))
check("left", lambda: taken(chat("never end", stream=True)))
check("responses left", lambda: taken(responses("never end", stream=True)))
