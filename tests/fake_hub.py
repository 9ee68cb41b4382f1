"""A hub on this machine: the few endpoints that huggingface_hub asks when a dataset or a model is made and committed to.

It keeps real bytes: files sent inline or through LFS, one tree a dataset or model, every commit. It notes each request, and
can refuse one with a status and echo the token in its answer, as a careless proxy might.
"""

import asyncio
import base64
import hashlib
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Hub:
    """What the hub holds: the tree of each dataset or model, all commits, LFS objects by digest, the requests so far."""

    url: str = ""
    trees: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    commits: list[list[str]] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    refuse: dict[str, int] = field(default_factory=dict)
    branches: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)


def _repo(request: web.Request) -> str:
    return f"{request.match_info['owner']}/{request.match_info['name']}"


def _app(hub: Hub) -> web.Application:
    @web.middleware
    async def note(request: web.Request, handler: Handler) -> web.StreamResponse:
        hub.requests.append(f"{request.method} {request.path}")
        given = request.headers.get("Authorization", "")
        if not request.path.startswith("/lfs/"):
            hub.tokens.add(given)
        for part, status in hub.refuse.items():
            if part in request.path:
                return web.json_response(
                    {"error": f"refused: {given}"}, status=status, headers={"X-Error-Message": given}
                )
        return await handler(request)

    async def create(request: web.Request) -> web.Response:
        body = await request.json()
        repo = f"{body['organization']}/{body['name']}"
        if repo in hub.trees:
            return web.json_response({"error": "there", "url": f"{hub.url}/datasets/{repo}"}, status=409)
        hub.trees[repo] = {}
        hub.private[repo] = body.get("visibility") == "private" or bool(body.get("private"))
        return web.json_response({"url": f"{hub.url}/datasets/{repo}", "name": repo, "id": repo})

    async def info(request: web.Request) -> web.Response:
        repo = _repo(request)
        if repo not in hub.trees:
            return web.json_response({"error": "none"}, status=404, headers={"X-Error-Code": "RepoNotFound"})
        sha = hashlib.sha1(repr(hub.commits).encode()).hexdigest()
        siblings = [{"rfilename": name} for name in hub.trees[repo]]
        return web.json_response(
            {"id": repo, "private": hub.private[repo], "sha": sha, "siblings": siblings, "tags": [], "downloads": 0}
        )

    async def tree(request: web.Request) -> web.Response:
        files = hub.trees[_repo(request)]
        return web.json_response(
            [{"type": "file", "path": name, "size": len(data), "oid": _oid(data)} for name, data in files.items()]
        )

    async def validate(request: web.Request) -> web.Response:
        assert (await request.json())["content"].startswith("---\n")
        return web.json_response({"errors": [], "warnings": []})

    async def preupload(request: web.Request) -> web.Response:
        there = hub.trees[_repo(request)]
        answer = []
        for file in (await request.json())["files"]:
            mode = "lfs" if file["path"].endswith((".parquet", ".safetensors")) else "regular"
            old = there.get(file["path"])
            oid = None if old is None else hashlib.sha256(old).hexdigest() if mode == "lfs" else _oid(old)
            answer.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return web.json_response({"files": answer})

    async def batch(request: web.Request) -> web.Response:
        answer = []
        for wanted in (await request.json())["objects"]:
            entry: dict[str, Any] = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in hub.objects:
                entry["actions"] = {"upload": {"href": f"{hub.url}/lfs/{wanted['oid']}", "header": {}}}
            answer.append(entry)
        return web.json_response({"transfer": "basic", "objects": answer})

    async def put(request: web.Request) -> web.Response:
        data = await request.read()
        oid = request.match_info["oid"]
        if hashlib.sha256(data).hexdigest() != oid:
            return web.Response(status=400)
        hub.objects[oid] = data
        return web.Response()

    async def commit(request: web.Request) -> web.Response:
        branch = hub.branches.get(_repo(request), {}).get(request.match_info["revision"])
        files = dict(hub.trees[_repo(request)] if branch is None else branch)
        changed = []
        for line in (await request.text()).splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = hub.objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
            if entry["key"] != "header":
                changed.append(value["path"])
        if branch is None:
            hub.trees[_repo(request)] = files
        else:
            hub.branches[_repo(request)][request.match_info["revision"]] = files
        hub.commits.append(changed)
        oid = f"{len(hub.commits):040x}"
        kind = "datasets/" if "/api/datasets/" in request.path else ""
        return web.json_response(
            {"success": True, "commitOid": oid, "commitUrl": f"{hub.url}/{kind}{_repo(request)}/commit/{oid}"}
        )

    async def branch(request: web.Request) -> web.Response:
        branches = hub.branches.setdefault(_repo(request), {})
        name = request.match_info["branch"]
        if name in branches:
            return web.json_response({"error": "there"}, status=409)
        branches[name] = dict(hub.trees[_repo(request)])
        return web.json_response({})

    app = web.Application(middlewares=[note], client_max_size=1 << 28)
    app.add_routes([web.post("/api/repos/create", create), web.post("/api/validate-yaml", validate)])
    for kind in ("datasets", "models"):
        one = f"/api/{kind}" + "/{owner}/{name}"
        app.add_routes(
            [
                web.get(one, info),
                web.get(one + "/revision/{revision}", info),
                web.get(one + "/tree/{revision}", tree),
                web.post(one + "/branch/{branch}", branch),
                web.post(one + "/preupload/{revision}", preupload),
                web.post(one + "/commit/{revision}", commit),
            ]
        )
    app.add_routes(
        [
            web.post("/datasets/{owner}/{name}.git/info/lfs/objects/batch", batch),
            web.post("/{owner}/{name}.git/info/lfs/objects/batch", batch),
            web.put("/lfs/{oid}", put),
        ]
    )
    return app


def _oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def fake_hub() -> Iterator[Hub]:
    """Run a hub on a free port while the block runs."""
    hub, ready, stop = Hub(), threading.Event(), threading.Event()

    async def serve() -> None:
        runner = web.AppRunner(_app(hub))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        hub.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        await asyncio.to_thread(stop.wait)
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(10)
    try:
        yield hub
    finally:
        stop.set()
        thread.join()
