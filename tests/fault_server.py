"""An OpenAI-compatible endpoint on loopback that fails in the ways real ones do, as a plan says.

    with fault_server([Fault.BUSY, Fault.RESET, None], reply=pair_from_schema) as server:
        ...  # the first call is refused, the second's connection is reset, from the third on all is well
        server.url, server.asked, server.faults

A plan is a sequence, followed in the order in which requests arrive and well after its end, or a function of the
request's number (from 0) and body, which gives a fault or None. A function of the body alone makes a fault stick
to a call however often it is tried again; one of the number makes it pass.
"""

import enum
import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.stub_endpoint import Reply, pair_from_schema


class Fault(enum.Enum):
    """One way to fail."""

    BUSY = "429 without Retry-After"
    BUSY_FOR_A_SECOND = "429 with Retry-After: 1"
    ERROR = "500 with an error in JSON"
    HANG = "nothing, until the client or the server goes"
    RESET = "the connection is reset in place of a reply"
    TRUNCATED = "half of the body that Content-Length promises, then the end"
    BROKEN_BODY = "200 with a body that is not JSON"
    BROKEN_CONTENT = "200 with a completion whose text is not JSON"
    WRONG_CONTENT = "200 with a completion whose JSON does not follow the schema"
    CUT_OFF = "200 with half a completion and finish_reason length"
    PAGE = "200 with an HTML page"
    PAGE_502 = "502 with an HTML page"
    DRIP = "200 with a byte of a good reply every 50 ms"
    DRIP_STOPS = "200 with half of a good reply, and then nothing more"


Plan = Sequence[Fault | None] | Callable[[int, dict[str, Any]], Fault | None]

PAGE = "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"


class FaultServer:
    """What the endpoint was asked, in the order of arrival, and which faults it gave."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[dict[str, Any]] = []
        self.faults: Counter[Fault | None] = Counter()
        self.most_at_once = 0


@contextmanager
def fault_server(
    plan: Plan = (), *, reply: Reply = pair_from_schema, delay: float = 0.0, model: str = "stub", port: int = 0
) -> Iterator[FaultServer]:
    """Serve one model; each good completion takes `delay` seconds."""
    lock = threading.Lock()
    closing = threading.Event()
    at_once = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # noqa: N802
            if self.path == "/v1/models":
                self._json(200, {"object": "list", "data": [{"id": model}]})
            else:
                self._json(404, {"error": {"message": "Not Found"}})

        def do_POST(self) -> None:  # noqa: N802
            nonlocal at_once
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(server.asked)
                server.asked.append(body)
                fault = plan(number, body) if callable(plan) else plan[number] if number < len(plan) else None
                server.faults[fault] += 1
                at_once += 1
                server.most_at_once = max(server.most_at_once, at_once)
            try:
                self._answer(fault, body)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True
            finally:
                with lock:
                    at_once -= 1

        def _answer(self, fault: Fault | None, body: dict[str, Any]) -> None:
            match fault:
                case Fault.BUSY:
                    self._json(429, {"error": {"message": "Rate limit reached"}})
                case Fault.BUSY_FOR_A_SECOND:
                    self._json(429, {"error": {"message": "Rate limit reached"}}, {"Retry-After": "1"})
                case Fault.ERROR:
                    self._json(500, {"error": {"message": "EngineCore encountered an issue"}})
                case Fault.HANG:
                    self._until_gone()
                case Fault.RESET:
                    # SO_LINGER with 0 seconds: closing sends a reset in place of an orderly end.
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.connection.close()
                    self.close_connection = True
                case Fault.BROKEN_BODY:
                    self._send(200, b'{"choices": [{"message": ', "application/json")
                case Fault.PAGE:
                    self._send(200, PAGE.encode(), "text/html")
                case Fault.PAGE_502:
                    self._send(502, PAGE.encode(), "text/html")
                case Fault.TRUNCATED | Fault.DRIP | Fault.DRIP_STOPS:
                    self._in_parts(fault, self._completion(reply(body)))
                case Fault.BROKEN_CONTENT:
                    self._send(200, self._completion("Sure! Here is the pair: {question"), "application/json")
                case Fault.WRONG_CONTENT:
                    self._send(200, self._completion('{"colour": "blue"}'), "application/json")
                case Fault.CUT_OFF:
                    text = reply(body)
                    self._send(200, self._completion(text[: len(text) // 2], "length"), "application/json")
                case None:
                    time.sleep(delay)
                    self._send(200, self._completion(reply(body)), "application/json")

        def _completion(self, text: str, finish_reason: str = "stop") -> bytes:
            choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
            usage = {"prompt_tokens": 10, "completion_tokens": 5}
            return json.dumps({"choices": [choice], "usage": usage}).encode()

        def _in_parts(self, fault: Fault, data: bytes) -> None:
            self._head(200, len(data), "application/json", {})
            self.close_connection = True
            if fault is Fault.DRIP:
                for place in range(len(data)):
                    self.wfile.write(data[place : place + 1])
                    self.wfile.flush()
                    if closing.wait(0.05):
                        return
                return
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            if fault is Fault.DRIP_STOPS:
                self._until_gone()

        def _until_gone(self) -> None:
            self.close_connection = True
            self.connection.settimeout(0.1)
            while not closing.is_set():
                try:
                    if not self.connection.recv(1):
                        return
                except TimeoutError:
                    continue
                except OSError:
                    return

        def _json(self, status: int, value: dict[str, Any], headers: dict[str, str] | None = None) -> None:
            self._send(status, json.dumps(value).encode(), "application/json", headers)

        def _send(self, status: int, data: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
            self._head(status, len(data), kind, headers or {})
            self.wfile.write(data)

        def _head(self, status: int, length: int, kind: str, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"Content-Type": kind, "Content-Length": str(length), **headers}.items():
                self.send_header(name, value)
            self.end_headers()

        def finish(self) -> None:
            try:
                super().finish()
            except (OSError, ValueError):  # the client went first, or we reset the connection
                self.close_connection = True

        def log_message(self, *args: object) -> None:
            """Stay quiet."""

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 1024

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that went away is nothing to report here."""

    listener = Quiet(("127.0.0.1", port), Handler)
    server = FaultServer(f"http://127.0.0.1:{listener.server_address[1]}/v1")
    thread = threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        closing.set()
        listener.shutdown()
        listener.server_close()
        thread.join()
