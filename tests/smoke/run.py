#!/usr/bin/env python3
"""Asks a real small model through the real tidepool-proxy, and compares the ledger with what the model counted.

    run.py PROXY NODE_MODULES MODEL.gguf

Exit status 0 and `smoke: ok`, or 1 and `smoke: FAILED: why`.
"""

import contextlib
import ctypes
import json
import pathlib
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
MIGRATIONS = HERE.parent.parent / "coordinator/migrations/sqlite"
# Seconds: of everything, of one answer's next bytes, and of what should take none.
WHOLE, READ, SHORT = 300, 60, 20
PR_SET_PDEATHSIG = 1

INSTANCE = "inst_00000000000000000000000002"
SERVER = "srv_00000000000000000000000001"
MODEL = "smollm2-135m"
LIBC = ctypes.CDLL(None)
# A proxy of the environment's has no business between here and 127.0.0.1.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Failed(Exception):
    pass


def say(line):
    print(f"smoke: {line}", flush=True)


@contextlib.contextmanager
def step(what):
    """Tells every few seconds that it still goes on."""
    say(f"{what} ...")
    started, done = time.monotonic(), threading.Event()

    def tell():
        while not done.wait(2):
            say(f"{what}: {time.monotonic() - started:.0f} s")

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()


def lay_out(database, port):
    """What the proxy reads, as a coordinator would have left it."""
    connection = sqlite3.connect(database)
    for migration in sorted(MIGRATIONS.glob("*.sql")):
        connection.executescript(migration.read_text())
    connection.execute(
        """INSERT INTO instances (id, name, tier, status, health, reasons, url, hosts, generation, observed,
               restarts, config, edge_proof, warm, timings, created_at)
           VALUES (?, 'a', 'basic', 'running', 'healthy', '[]', '', '[]', 1, 1, 0, '{}', '', 1, '{}', 0)""",
        [INSTANCE],
    )
    connection.execute(
        """INSERT INTO servers (id, name, tier, state, health, reasons, created_at, state_since)
           VALUES (?, 's', 'basic', 'claimed', 'healthy', '[]', 0, 0)""",
        [SERVER],
    )
    connection.execute("INSERT INTO trust VALUES ('127.0.0.1', ?, ?)", [SERVER, INSTANCE])
    connection.execute(
        "INSERT INTO providers VALUES ('small', 'compatible', ?, NULL, 0, 0)", [f"http://127.0.0.1:{port}"]
    )
    targets = [{"provider": "small", "model": MODEL, "weight": 1}]
    connection.execute("INSERT INTO model_aliases VALUES ('basic', 'default', ?, 0)", [json.dumps(targets)])
    connection.commit()
    connection.close()


def stop(child):
    """Politely first: the proxy then writes what is left for the ledger."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(SHORT)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def start(stack, log, *command, stdout=subprocess.DEVNULL):
    """A program that ends with this one, even if this one is killed."""
    child = subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stack.enter_context(log.open("wb")),
        text=True,
        preexec_fn=lambda: LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
    )
    stack.callback(stop, child)
    return child


def told(child, what):
    """The model server's next line."""
    line = child.stdout.readline()
    if not line:
        raise Failed(f"the model server ended instead of telling {what}")
    return json.loads(line)


def listening(proxy, log):
    deadline = time.monotonic() + SHORT
    while time.monotonic() < deadline and proxy.poll() is None:
        for line in log.read_text().splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                return json.loads(line)["fields"]["address"]
        time.sleep(0.05)
    raise Failed("the proxy did not come up")


def ask(address, question, **more):
    body = {"model": "default", "messages": [{"role": "user", "content": question}], **more}
    request = urllib.request.Request(
        f"http://{address}/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json", "authorization": "Bearer x"},
    )
    try:
        return DIRECT.open(request, timeout=READ)
    except urllib.error.HTTPError as error:
        raise Failed(f"the proxy answered {error.code}: {error.read(2000)!r}") from error


def plain(address):
    with step("asks for a whole answer"), ask(address, "What makes the tide?", max_tokens=48) as response:
        answer = json.load(response)
    say(f"the model: {answer['choices'][0]['message']['content']}")
    return answer["choices"][0]["message"]["content"], answer["usage"]


def stream(address):
    """Does not ask for usage: the proxy has to, for its ledger, and must keep it to itself."""
    say("asks for a stream ...")
    print("smoke: the model: ", end="", flush=True)
    text, is_done = "", False
    with ask(address, "Name three animals that live in a tide pool.", max_tokens=32, stream=True) as response:
        for line in response:
            data = line.decode().strip().removeprefix("data: ")
            if data == "[DONE]":
                is_done = True
            elif data:
                chunk = json.loads(data)
                if "error" in chunk or chunk.get("usage") or not chunk["choices"]:
                    print()
                    raise Failed(f"not for this client: {data}")
                piece = chunk["choices"][0]["delta"].get("content") or ""
                print(piece, end="", flush=True)
                text += piece
    print(flush=True)
    if not is_done:
        raise Failed("the stream ended without [DONE]")
    return text


def rows(database):
    connection = sqlite3.connect(database, timeout=SHORT)
    connection.row_factory = sqlite3.Row
    with contextlib.closing(connection):
        return [dict(row) for row in connection.execute("SELECT * FROM usage_records ORDER BY ordinal")]


def compare(found, counted):
    if len(found) != len(counted):
        raise Failed(f"{len(found)} rows in the ledger, not {len(counted)}: {found}")
    for row, usage in zip(found, counted):
        wanted = {
            "instance_id": INSTANCE, "server_id": SERVER, "provider": "small", "model": MODEL,
            "asked_model": "default", "dialect": "chat", "status": 200, "estimated": 0,
            "input": usage["prompt_tokens"], "output": usage["completion_tokens"],
            "cache_read": 0, "cache_write_5m": 0, "cache_write_1h": 0, "reasoning": 0,
        }  # fmt: skip
        wrong = {name: row[name] for name, value in wanted.items() if row[name] != value}
        if wrong:
            raise Failed(f"the ledger has {wrong}, the model server {usage}")
        say(f"the ledger and the model server: {row['input']} tokens in, {row['output']} out")


def smoke(proxy_program, modules, model, directory, stack):
    server = start(stack, directory / "model.log", "node", HERE / "model.mjs", modules, model, stdout=subprocess.PIPE)
    with step("loads the model"):
        port = told(server, "its port")["port"]
    database, log = directory / "tidepool.db", directory / "proxy.log"
    lay_out(database, port)
    proxy = start(
        stack, log, proxy_program, "--listen", "127.0.0.1:0",
        "--database", f"sqlite:{database}", "--journal", directory / "journal",
    )  # fmt: skip
    with step("starts the proxy"):
        address = listening(proxy, log)
    text, usage = plain(address)
    counted = [told(server, "what it counted")]
    if usage != counted[0]:
        raise Failed(f"the client was told {usage}, the model server counted {counted[0]}")
    streamed = stream(address)
    counted.append(told(server, "what it counted"))
    if not text.strip() or not streamed.strip():
        raise Failed("the model said nothing")
    with step("stops the proxy, which then has written every row"):
        stop(proxy)
    if proxy.returncode != 0:
        raise Failed(f"the proxy ended with {proxy.returncode}")
    compare(rows(database), counted)


def interrupted(number, _frame):
    signal.alarm(0)
    late = f"not done after {WHOLE} s"
    raise Failed(late if number == signal.SIGALRM else f"stopped by {signal.Signals(number).name}")


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, interrupted)
    signal.alarm(WHOLE)
    with tempfile.TemporaryDirectory(prefix="tidepool-smoke-") as name:
        directory = pathlib.Path(name)
        try:
            with contextlib.ExitStack() as stack:
                smoke(*sys.argv[1:], directory, stack)
        except Exception as error:  # whatever it is, it is told last
            for log in sorted(directory.glob("*.log")):
                print(f"--- the end of {log.name}", log.read_text(errors="replace")[-3000:], sep="\n")
            why = error if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
            say(f"FAILED: {why}")
            return 1
    say("ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
