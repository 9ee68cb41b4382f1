"""Where the prompts, the schemas and the demo lie: in the wheel, or else in the checkout."""

from pathlib import Path

from synth.core.errors import ConfigError, did_you_mean

# How a user names the models that come with the package.
BUNDLED = "bundled"

_PACKAGE = Path(__file__).resolve().parent.parent
_CHECKOUT = {"demo": "examples/demo", "prompts": "prompts", "schemas": "schemas"}


def resource_folder(kind: str) -> Path:
    """Return the folder of `kind`: "prompts", "schemas" or "demo".

    An installed wheel carries the folders under `synth/_data`; an editable install does not see those,
    so the checkout beside the package is the second place.

    Raises:
        ConfigError: neither place has the folder; the installation is damaged.
    """
    for folder in (_PACKAGE / "_data" / kind, _PACKAGE.parent / _CHECKOUT[kind]):
        if folder.is_dir():
            return folder
    raise ConfigError(f"the folder {kind} is missing from this installation", fix="install the package again")


def resource(kind: str, name: str) -> Path:
    """Return the path of one resource, such as `resource("schemas", "record.schema.json")`.

    Raises:
        ConfigError: there is no such resource; near matches are named.
    """
    folder = resource_folder(kind)
    path = folder / name
    if not path.exists():
        raise ConfigError(
            f"no {kind} resource is called {name!r}",
            fix=did_you_mean(name, (p.name for p in folder.iterdir())),
        )
    return path
