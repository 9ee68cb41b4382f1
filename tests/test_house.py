"""The house itself: import arrows, the wheel outside the checkout, the pages that are made from the code."""

import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from synth.core.resources import resource_folder
from tests.conftest import CHECKOUT


def test_the_import_arrows_point_one_way() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([str(lint)], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_the_training_modules_of_tune_import_torch_or_trl() -> None:
    heavy = re.compile(r"^(?:from|import) (torch|transformers|trl|peft|datasets|vllm)\b", re.MULTILINE)
    importing = {
        path.relative_to(CHECKOUT).as_posix()
        for package in ("synth", "tune")
        for path in (CHECKOUT / package).rglob("*.py")
        if heavy.search(path.read_text())
    }
    # fmt: off
    names = ["building", "dora", "order", "parallel", "quantized", "quiet", "rehearsal", "setup", "sft", "student", "trackers",
             "trainer", "watch", "exporting/merge", "exporting/peft_speaker"]
    # fmt: on
    assert importing == {f"tune/{name}.py" for name in names}


def test_no_tracked_file_names_a_path_of_a_machine() -> None:
    if not (CHECKOUT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    own = re.compile("|".join(["/" + "root/", "/" + "home/[a-z]", "/" + "work/"]))
    guilty = []
    for name in filter(None, listed.stdout.split("\0")):
        path = CHECKOUT / name
        if path.suffix in {".py", ".md", ".toml", ".json", ".jsonl", ".txt", ".jinja", ""} and path.is_file():
            guilty += [name] if own.search(path.read_text(errors="ignore")) else []
    assert not guilty


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(CHECKOUT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_carries_prompts_schemas_and_the_demo_and_no_run(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {"prompts/qa.md", "schemas/record.schema.json", "demo/heldout.jsonl", "demo/demo.toml"}
    wanted |= {f"demo/models/{role}/model.safetensors" for role in ("teacher", "student")}
    assert {f"synth/_data/{name}" for name in wanted} <= names
    assert sum(name.startswith("synth/_data/demo/handbook/") for name in names) >= 40
    assert {"synth/py.typed", "tune/py.typed"} <= names
    assert not any(name.startswith(("runs/", "tests/")) for name in names)


def test_the_wheel_installed_outside_the_checkout_finds_its_resources(wheel: Path, tmp_path: Path) -> None:
    """A fresh environment sees this one's packages but not the checkout: only the wheel brings `synth`."""
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    site = subprocess.check_output([str(python), "-c", "import site; print(site.getsitepackages()[0])"], text=True)
    zipfile.ZipFile(wheel).extractall(site.strip())
    outer = [path for path in sys.path if path.endswith("site-packages")]
    code = (
        "from synth.core.resources import resource, resource_folder\n"
        "from synth.core.prompts import load_template\n"
        "from synth.core.schemas import validator\n"
        "import synth\n"
        f"assert not synth.__file__.startswith({str(CHECKOUT)!r}), synth.__file__\n"
        "assert load_template('qa').schema == 'qa' and validator('record')\n"
        "assert '_data' in resource_folder('demo').parts and resource('demo', 'heldout.jsonl').is_file()\n"
        "print('found')"
    )
    # The wheel's own folder comes first; the packages it needs are those of the environment of the tests.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {
        "PYTHONPATH": os.pathsep.join([site.strip(), *outer])
    }
    done = subprocess.run(
        [str(python), "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "found", done.stderr


def test_a_checkout_finds_its_resources_beside_the_package() -> None:
    assert resource_folder("prompts") == CHECKOUT / "prompts"
    assert resource_folder("demo") == CHECKOUT / "examples" / "demo"


def test_the_page_of_the_command_line_is_what_the_commands_say() -> None:
    done = subprocess.run(
        [sys.executable, "docs/make_cli.py", "--check"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_link_of_the_docs_leads_to_a_file() -> None:
    pages = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *(CHECKOUT / "docs").glob("*.md")]
    broken = [
        f"{page.name}: {link}"
        for page in pages
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text())
        if not (page.parent / link).exists()
    ]
    assert not broken
