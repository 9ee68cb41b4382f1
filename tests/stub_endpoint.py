"""A small OpenAI-compatible endpoint on loopback, for what a healthy engine does not show: junk, delay, a kill."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[[dict[str, Any]], str]


def pair_from_schema(body: dict[str, Any]) -> str:
    """Answer a `qa` call with a pair about the first sentence on offer."""
    sentence = body["response_format"]["json_schema"]["schema"]["properties"]["evidence"]["enum"][0]
    words = sentence.rstrip(".").split()
    return json.dumps(
        {"evidence": sentence, "question": f"What does {' '.join(words[:3])} do?", "answer": " ".join(words[3:])}
    )


class Stub:
    """What the endpoint was asked, and where it is."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.bodies: list[dict[str, Any]] = []


@contextmanager
def stub_endpoint(reply: Reply = pair_from_schema, *, delay: float = 0.0) -> Iterator[Stub]:
    """Serve one model called "stub"; each completion takes `delay` seconds."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # noqa: N802
            self._send({"object": "list", "data": [{"id": "stub"}]})

        def do_POST(self) -> None:  # noqa: N802
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            stub.bodies.append(body)
            time.sleep(delay)
            message = {"role": "assistant", "content": reply(body)}
            usage = {"prompt_tokens": 10, "completion_tokens": 5}
            self._send({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})

        def _send(self, value: dict[str, Any]) -> None:
            data = json.dumps(value).encode()
            try:
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, *args: object) -> None:
            """Stay quiet."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 512

        def handle_error(self, request: object, client_address: object) -> None:
            """Stay quiet: a client that is killed resets its connections."""

    server = Server(("127.0.0.1", 0), Handler)
    stub = Stub(f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
