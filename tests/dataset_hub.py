"""A hub on this machine that serves one dataset: what huggingface_hub asks to read its files."""

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.conftest import CHECKOUT


@contextmanager
def dataset_hub(repo: str, files: Mapping[str, bytes], commit: str) -> Iterator[str]:
    """Serve the files of a dataset (in its folder or in one below) while the block runs; its value is the address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            pass

        def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            api, resolve = f"/api/datasets/{repo}/", f"/datasets/{repo}/resolve/"
            if path.startswith(api + "revision/"):
                listed = [{"rfilename": name} for name in files]
                self.json({"id": repo, "private": False, "sha": commit, "siblings": listed, "tags": []})
            elif path.startswith(api + "tree/"):
                folder = path.removeprefix(f"{api}tree/").partition("/")[2]
                there = [
                    {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for name, data in files.items()
                    if name.rpartition("/")[0] == folder
                ]
                self.json([*there, *([] if folder else [{"type": "directory", "path": "data", "oid": "0" * 40}])])
            elif path.startswith(resolve) and (data := files.get(path.removeprefix(resolve).partition("/")[2])):
                self.answer(data, ETag=f'"{hashlib.sha1(data).hexdigest()}"', X_Repo_Commit=commit)
            elif path.startswith(resolve):
                self.answer(b"", 404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            else:
                self.answer(b"", 404, X_Error_Code="RepoNotFound")

        def json(self, value: object) -> None:
            self.answer(json.dumps(value).encode(), Content_Type="application/json")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def hub_environment(address: str, home: Path) -> dict[str, str]:
    """Return the environment of a process that knows this hub alone and keeps its cache under `home`."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING_"))} | {
        "PYTHONPATH": str(CHECKOUT),
        "HF_ENDPOINT": address,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HOME": str(home / "hf"),
    }
