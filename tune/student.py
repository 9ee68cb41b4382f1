"""A model to tune, opened but for its weights: config, tokenizer, chat template, stop tokens."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

from synth.core.errors import ConfigError, did_you_mean
from synth.core.resources import resource
from synth.inference.weights import model_name, weights_revision

PLAIN_TEMPLATE_NAME = "plain"

# ChatML's form, with the student's own end-of-sequence token where ChatML has <|im_end|>: a base model has no
# <|im_end|> token, and served as it is it stops on its own token alone.
PLAIN_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + eos_token + '\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True, slots=True)
class Student:
    """A model to tune, opened but for its weights.

    `source` is a folder or a hub id and stays out of every file; `name` and `revision` are what files say.
    `stop_ids` are the tokens that end a reply when the student is served; `context` is in tokens.
    """

    source: str
    local: bool
    name: str
    revision: str
    config: PretrainedConfig
    tokenizer: PreTrainedTokenizerBase
    generation: GenerationConfig | None
    stop_ids: frozenset[int]
    context: int | None
    template: str

    @property
    def options(self) -> dict[str, Any]:
        """How every part of the student is loaded: nothing remote runs, a folder is never looked up on the hub."""
        revision = {} if self.local or not self.revision else {"revision": self.revision}
        return {"local_files_only": self.local, "trust_remote_code": False, **revision}


def open_student(named: str, *, revision: str | None = None, template: str = "own") -> Student:
    """Open the config, the tokenizer and the generation settings of a student.

    Args:
        named: a hub id, a local folder, or "bundled".
        revision: branch, tag or commit of a hub student.
        template: "own", or "plain" to use `PLAIN_TEMPLATE` in place of the student's.

    Raises:
        ConfigError: there is no such model, it cannot be fetched, or it has no end-of-sequence token.
    """
    source, local = _locate(named)
    options: dict[str, Any] = {"local_files_only": local, "trust_remote_code": False}
    if not local:
        options["revision"] = revision or "main"
    config = _load(AutoConfig.from_pretrained, source, named, options)
    # From here on the commit, not the branch: the parts of one student must not come from two commits.
    commit = "" if local else str(getattr(config, "_commit_hash", None) or revision or "")
    if commit:
        options["revision"] = commit
    tokenizer = _load(AutoTokenizer.from_pretrained, source, named, options)
    try:
        where = {key: value for key, value in options.items() if key != "trust_remote_code"}
        generation = GenerationConfig.from_pretrained(source, **where)
    except (OSError, ValueError):
        generation = None  # Many models have no generation_config.json; then the tokenizer's token stops a reply.
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            "its tokenizer has no end-of-sequence token, so a tuned student could never stop",
            where=named,
            fix="set eos_token in its tokenizer_config.json, or take another student",
        )
    if template == "plain" or not tokenizer.chat_template:
        tokenizer.chat_template = PLAIN_TEMPLATE
        used = PLAIN_TEMPLATE_NAME
    else:
        used = "own"
    return Student(
        source=source,
        local=local,
        name=model_name(source),
        revision=weights_revision(source) if local else commit,
        config=config,
        tokenizer=tokenizer,
        generation=generation,
        stop_ids=_stop_ids(tokenizer, generation),
        context=_context(config, tokenizer),
        template=used,
    )


def _locate(named: str) -> tuple[str, bool]:
    """Return where the student lies and whether that is a folder."""
    if named == "bundled":
        folder = resource("demo", "models") / "student"
    else:
        folder = Path(named).expanduser()
        looks_like_a_path = named.startswith((".", "/", "~")) or named.count("/") > 1 or "\\" in named
        if not folder.exists() and not looks_like_a_path and _HUB_ID.fullmatch(named):
            return named, False
    if not folder.is_dir():
        beside = [p.name for p in folder.parent.iterdir() if p.is_dir()] if folder.parent.is_dir() else []
        raise ConfigError("there is no such model folder", where=str(folder), fix=did_you_mean(folder.name, beside))
    if (folder / "adapter_config.json").exists():
        raise ConfigError(
            "this is an adapter",
            where=str(folder),
            fix="name the model it was trained for; `tune export --merge` makes one model of both, and "
            "`tune sft --from` trains an adapter further",
        )
    if not (folder / "config.json").exists():
        raise ConfigError(
            "the folder has no config.json, so it is no model", where=str(folder), fix="name a model's folder"
        )
    return str(folder), True


def _load(load: Callable[..., Any], source: str, named: str, options: dict[str, Any]) -> Any:  # noqa: ANN401
    try:
        return load(source, **options)
    except (OSError, ValueError, KeyError) as error:
        raise load_error(error, named, local=bool(options["local_files_only"])) from error


def load_error(error: Exception, named: str, *, local: bool) -> ConfigError:
    """Return in plain words why a model cannot be opened, and what to do."""
    text = " ".join(str(error).split())
    if "trust_remote_code" in text:
        return ConfigError(
            "the model needs Python code of its own, which is never run here",
            where=named,
            fix="take a student whose architecture transformers knows",
        )
    if local:
        return ConfigError(
            f"the model cannot be opened ({text[:300]})", where=named, fix="mend or copy the folder again"
        )
    if "gated" in text or "401" in text or "403" in text:
        fix = "accept its terms on its hub page and log in with `hf auth login`"
    elif "not a valid model identifier" in text or "not a local folder" in text:
        fix = "check the spelling; a folder is named with a path such as ./models/student"
    else:
        fix = (
            "the hub cannot be reached and the model is not in the local cache: fetch it where there is a network "
            f"(`hf download {named}`), or name a local folder"
        )
    return ConfigError(f"the student cannot be fetched ({text[:200]})", where=named, fix=fix)


def _stop_ids(tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig | None) -> frozenset[int]:
    """Return what an engine stops on: the tokenizer's end-of-sequence token and those of generation_config.json."""
    listed = generation.eos_token_id if generation is not None else None
    several = listed if isinstance(listed, list) else [listed]
    return frozenset({tokenizer.eos_token_id, *(i for i in several if i is not None)})


def _context(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int | None:
    known = [getattr(config.get_text_config(), "max_position_embeddings", None), tokenizer.model_max_length]
    # Tokenizers without a limit of their own say 1e30.
    lengths = [int(length) for length in known if isinstance(length, int | float) and 0 < length < 1e9]
    return min(lengths, default=None)
