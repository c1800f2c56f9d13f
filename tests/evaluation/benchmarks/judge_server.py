"""A local HTTP model or judge of OpenAI's form that replies as a test tells it: in turn, or by what is asked."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GOOD = '{"verdict": "yes", "score": 4}'


class JudgeServer:
    """`script` holds what comes next: text, or a dict of `status`, `headers`, `body`, `sleep`; then `answer` for ever.

    `answer` is given the messages of a request, for requests come in any order; without it, GOOD.
    """

    def __init__(self, script: list[Any], answer: Callable[[list[Any]], Any] | None = None) -> None:
        self.script, self.requests, self.times, self.keys = list(script), [], [], []
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    outer.requests.append(body)
                    outer.times.append(time.monotonic())
                    outer.keys.append(self.headers.get("Authorization"))
                    step = outer.script.pop(0) if outer.script else answer(body["messages"]) if answer else GOOD
                if isinstance(step, str):
                    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": step}}
                    step = {"body": json.dumps({"id": "1", "object": "chat.completion", "choices": [choice]})}
                time.sleep(step.get("sleep", 0))
                content = step.get("body", "{}").encode()
                try:
                    self.send_response(step.get("status", 200))
                    for name, value in {"Content-Type": "application/json", **step.get("headers", {})}.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:
                    pass  # who asked has stopped waiting

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


@contextmanager
def judge_server(*script: Any, answer: Callable[[list[Any]], Any] | None = None) -> Iterator[JudgeServer]:
    made = JudgeServer(list(script), answer)
    thread = threading.Thread(target=made.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()
        thread.join()
