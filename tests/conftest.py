"""What several test files share: the real engine, started once a session, and small folders of documents."""

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from synth.core.resources import resource_folder

if TYPE_CHECKING:
    from synth.inference.server import VLLMServer

CHECKOUT = Path(__file__).resolve().parent.parent
# A timing is no test's pass condition: these machines are shared.
hypothesis.settings.register_profile("shared", deadline=None)
hypothesis.settings.load_profile("shared")
# Of a shell that starts us in the background we inherit that Ctrl-C is ignored, and so would the commands under test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
HAS_VLLM = importlib.util.find_spec("vllm") is not None


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, what this machine cannot run; keep what shares something in one process, the engine first.

    With several processes (`pytest -n 2 --dist loadgroup`) a file is a group, and all that needs the engine is another.
    """
    first = []
    for item in items:
        with_engine = item.get_closest_marker("vllm") is not None or "engine" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("engine" if with_engine else item.path.name))
        first += [item] * with_engine
        if item.get_closest_marker("vllm") and not HAS_VLLM:
            item.add_marker(pytest.mark.skip(reason="vLLM is not installed: pip install .[cpu] or .[vllm]"))
        if item.get_closest_marker("shared") and not os.environ.get("SYNTH_SHARED_DATA"):
            item.add_marker(pytest.mark.skip(reason="SYNTH_SHARED_DATA does not name the folder of human data"))
    # Begun first, the longest group does not end last.
    begun = {*first}
    items[:] = [*first, *(item for item in items if item not in begun)]


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator["VLLMServer"]:
    """A real vLLM server on the bundled teacher, one for the whole session."""
    from synth.inference.server import VLLMServer

    log = tmp_path_factory.mktemp("engine") / "engine.log"
    with VLLMServer(resource_folder("demo") / "models" / "teacher", log_path=log) as server:
        yield server


@pytest.fixture
def manuals(tmp_path: Path) -> Path:
    """A folder with two small manuals."""
    folder = tmp_path / "manuals"
    folder.mkdir()
    (folder / "kettle.md").write_text(
        "# Brevo kettle\n\n## Care\n\nThe Brevo kettle holds 1.7 litres of water. Descale the Brevo kettle every six weeks.\n"
        "\n## Faults\n\nThe red light means that the tank is empty.\n"
    )
    (folder / "lamp.txt").write_text("The Orla lamp costs 40 pounds. Do not place the Orla lamp on carpet.\n")
    return folder


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Run `synth` or `tune` as a user does, in a folder of their own: `command("synth", "filter", run)`."""

    def run(
        module: str, *arguments: object, cwd: Path = tmp_path, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "COLUMNS": "200", "NO_COLOR": "1"}
        return subprocess.run(
            [sys.executable, "-m", f"{module}.cli", *map(str, arguments)],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run
