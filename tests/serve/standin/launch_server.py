"""Stands in for ``sglang.launch_server``: real HTTP, real signals, SGLang's log lines, failures on demand.

``STANDIN`` names what it does, words joined by commas:
``slow`` (each stage takes a while), ``crash`` (ends while loading), ``abrupt`` (so, amid a line), ``hang``
(stays 503), ``silent`` (never opens its port), ``stubborn`` (a child in a session of its own ignores
SIGTERM), ``dies`` (ends soon after it was ready), ``bare`` (a child without its environment ignores SIGTERM),
``ranked`` (a child with a rank's title), ``gibberish`` (answers with nothing), ``cold`` (the first chat takes
long), ``mute`` (chats are never answered), ``short`` (long prompts are refused), ``fragile`` (ends at the
first chat), ``stuck`` (a rank waits for another for ever, before the port is opened).
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODES = set(os.environ.get("STANDIN", "").split(","))
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


def option(name, default=None):
    words = sys.argv[1:]
    return words[words.index(name) + 1] if name in words else default


def log(line):
    print(f"[2026-11-24 02:00:00] {line}", flush=True)


STUCK = """
import threading, time
def all_reduce():
    time.sleep(600)
def forward():
    all_reduce()
forward()
"""


class State:
    ready = False
    chats = 0
    lock = threading.Lock()
    key = None


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def allowed(self):
        if State.key and self.headers.get("Authorization") != f"Bearer {State.key}":
            self.answer(401, {"error": "Unauthorized"})
            return False
        return True

    def do_GET(self):
        if self.path == "/health":
            self.answer(200 if State.ready else 503, {})
        elif self.allowed():
            self.answer(200, {"data": [{"id": option("--served-model-name")}]})

    def do_POST(self):
        if not self.allowed():
            return None
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.misbehave(body)
        message = {"role": "assistant", "content": "Hi there."}
        content = body["messages"][0]["content"]
        if body.get("tools"):
            call = {"name": "get_weather", "arguments": json.dumps({"city": "Paris"})}
            message = {"content": None, "tool_calls": [{"type": "function", "function": call}]}
        elif isinstance(content, list):
            message["content"] = "Red." if content[0]["image_url"]["url"].startswith("data:image/png") else ""
        elif "Think" in content:
            message = {"content": "391", "reasoning_content": "17 times 20 is 340, and 51 more."}
        if "gibberish" in MODES:
            message = {"content": "", "tool_calls": None}
        if "short" in MODES and len(content) > 1000:
            return self.answer(400, {"message": "the prompt is longer than the context"})
        return self.answer(200, {"choices": [{"message": message}]})

    def misbehave(self, body):
        with State.lock:
            State.chats += 1
            first = State.chats == 1
        asked = os.path.join(os.environ["STANDIN_HOME"], "asked.jsonl")  # noqa: PTH118
        with open(asked, "a") as file:  # noqa: PTH123
            file.write(json.dumps(body) + "\n")
        if "cold" in MODES and first:
            time.sleep(1.5)
        if "mute" in MODES:
            time.sleep(600)
        if "fragile" in MODES:
            log("RuntimeError: Could not find nvcc and default cuda_home='/usr/local/cuda' doesn't exist")
            os._exit(3)


def stage(line):
    log(line)
    if "slow" in MODES:
        time.sleep(0.4)


def main():
    if config := option("--config"):
        with open(config) as file:  # noqa: PTH123
            State.key = json.load(file)["api-key"]
        log(f"server_args=ServerArgs(api_key='{State.key}')")
    children = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])]
    if "stubborn" in MODES:
        children.append(subprocess.Popen([sys.executable, "-c", STUBBORN], start_new_session=True))
    if "bare" in MODES:
        children.append(subprocess.Popen([sys.executable, "-c", STUBBORN], env={}))
    if "ranked" in MODES:
        # What setproctitle does: the process's title instead of its command line.
        children.append(subprocess.Popen(["sglang::scheduler_TP0", "600"], executable=shutil.which("sleep")))
    if recorded := os.environ.get("STANDIN_RECORD"):
        # Two nodes write the same record: each a whole one.
        with open(f"{recorded}.{os.getpid()}", "w") as file:  # noqa: PTH123
            json.dump(
                {"argv": sys.argv[1:], "env": dict(os.environ), "pids": [child.pid for child in children]},
                file,
            )
        os.replace(file.name, recorded)  # noqa: PTH105
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    stage("Init torch distributed begin.")
    stage("Load weight begin. avail mem=78.00 GB")
    if "abrupt" in MODES:
        print("Fatal Python error: Bus error", end="", flush=True)
        os._exit(3)
    if "crash" in MODES:
        time.sleep(0.3)
        log("RuntimeError: Not enough memory. Please try to increase --mem-fraction-static. Current value: 0")
        os._exit(3)
    for shard in (1, 2):
        print(
            f"\rLoading safetensors checkpoint shards:  {shard * 50}% Completed | {shard}/2 [00:01<00:01]",
            end="",
        )
    print(flush=True)
    stage("Load weight end. type=Glm4MoeForCausalLM, mem usage=1.00 GB.")
    stage("Capture cuda graph begin. This can take up to several minutes.")
    print(
        "\rCapturing batches (bs=4 avail_mem=1.0 GB):  50%|#####     | 1/2 [00:00<00:00,  2.0it/s]",
        flush=True,
    )
    stage("Capture cuda graph end. Time elapsed: 1.00 s.")
    if "stuck" in MODES:
        subprocess.Popen(["sglang::scheduler_TP0", "-c", STUCK], executable=sys.executable)
    if MODES & {"silent", "stuck"}:
        time.sleep(600)
    server = ThreadingHTTPServer((option("--host"), int(option("--port"))), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    log("INFO:     Application startup complete.")
    if "hang" in MODES:
        time.sleep(600)
    time.sleep(0.7 if "slow" in MODES else 0.1)
    State.ready = True
    log("The server is fired up and ready to roll!")
    if "dies" in MODES:
        time.sleep(1.5)
        log("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB")
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)


if __name__ == "__main__":
    main()
