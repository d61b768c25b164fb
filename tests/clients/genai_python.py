"""Google's own client for Python."""

from google import genai
from google.genai import types

from checks import *

client = genai.Client(api_key=KEY, http_options={"base_url": URL, "timeout": 30_000})
TOOL = types.Tool(function_declarations=[
    types.FunctionDeclaration(name="get_tide", description=DESCRIPTION, parameters_json_schema=SCHEMA)
])
WITH_TOOL = types.GenerateContentConfig(
    tools=[TOOL], automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True)
)


def told(text, usage):
    prompt = usage.prompt_token_count + (usage.tool_use_prompt_token_count or 0)
    return words(text, prompt, usage.candidates_token_count + (usage.thoughts_token_count or 0))


def plain():
    answer = client.models.generate_content(model=MODEL, contents=ASK)
    return told(answer.text, answer.usage_metadata)


def stream():
    text, usage = "", None
    for chunk in client.models.generate_content_stream(model=MODEL, contents=ASK):
        text += chunk.text or ""
        usage = chunk.usage_metadata
    return told(text, usage)


def tool():
    chunks = list(client.models.generate_content_stream(model=MODEL, contents=USE, config=WITH_TOOL))
    [call] = [call for chunk in chunks for call in chunk.function_calls or []]
    contents = [
        types.Content(role="user", parts=[types.Part(text=USE)]),
        types.Content(role="model", parts=[types.Part(function_call=call)]),
        types.Content(
            role="user",
            parts=[types.Part.from_function_response(name=call.name, response={"result": RESULT})],
        ),
    ]
    answer = client.models.generate_content(model=MODEL, contents=contents, config=WITH_TOOL)
    return {"name": call.name, "arguments": call.args, **told(answer.text, answer.usage_metadata)}


def streamed(text):
    return client.models.generate_content_stream(model=MODEL, contents=text)


check("plain", plain)
check("stream", stream)
check("tool", tool)
check("count", lambda: {"counted": client.models.count_tokens(model=MODEL, contents=ASK).total_tokens})
check("models", lambda: {"models": [model.name for model in client.models.list()]})
for status in REFUSALS:
    check(
        f"refused {status}",
        lambda: client.models.generate_content(model=MODEL, contents=f"fail {status}"),
    )
check("broken", lambda: drained(streamed("break off")))
check("stumbled", lambda: drained(streamed("stumble")))
check("left", lambda: taken(streamed("never end")))
