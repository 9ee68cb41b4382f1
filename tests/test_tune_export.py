"""`tune export`: merged models that answer as their adapters do, whole or not there, and refusals in plain words."""

import importlib.util
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import pytest

pytest.importorskip("trl")

import torch
from peft import PeftModel
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from synth.core.errors import ConfigError, InferenceError, RunError
from synth.core.jsonl import write_json
from synth.core.records import Message
from synth.core.runs import Run
from synth.inference.weights import weights_revision
from tests.conftest import CHECKOUT
from tests.runs_for_tests import filtered_run, row, tiny_student
from tune.adapter import unservable
from tune.candidate import Candidate, find_candidate
from tune.config import TuneConfig
from tune.export import ExportConfig, export, open_candidate
from tune.exporting.merge import write_merged
from tune.exporting.parity import Parity, Reply, Tolerance, ask, compare, fixed_prompts, rendered
from tune.exporting.peft_speaker import PeftSpeaker
from tune.exporting.tools import check_awq, find_converter, write_gguf
from tune.serving import by_vllm
from tune.sft import train
from tune.student import open_student

MERGE = ExportConfig(merge=True, parity=False)


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_student(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def run(student: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with the candidates "full" and "ad", the latter tuned until it answers otherwise than its base."""
    run = filtered_run(tmp_path_factory.mktemp("export") / "run")
    quick = {"student": str(student), "threads": 1, "batch_size": 4, "gradient_accumulation": 1, "save_every": 1e9}
    train(run, TuneConfig(**{**quick, "candidate": "full", "method": "full", "steps": 1}))
    train(run, TuneConfig(**{**quick, "candidate": "ad", "epochs": 6, "learning_rate": 5e-3}))
    return run


def logits(model: Any) -> torch.Tensor:  # noqa: ANN401
    ids = torch.arange(3, 40)[None]
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=ids).logits
    return found


def with_adapter(student: Path, candidate: Path) -> Any:  # noqa: ANN401
    base = AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32)
    return PeftModel.from_pretrained(base, str(candidate)).eval()


def make_adapter(run: Run, student: Path, name: str, **settings: Any) -> Candidate:  # noqa: ANN401
    """An adapter of another kind, with random matrices, in a folder of its own."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32)
    model = get_peft_model(
        base, LoraConfig(**{"r": 4, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **settings})
    )
    for parameter_name, weight in model.named_parameters():
        if "lora_" in parameter_name:
            weight.data += torch.randn_like(weight) * 0.02
    folder = run.path.parent / name
    model.save_pretrained(folder, save_embedding_layers=False)
    AutoTokenizer.from_pretrained(student).save_pretrained(folder)
    write_json(folder / "training.json", {})
    return replace(find_candidate(run, "ad"), name=name, folder=folder)


def test_a_merged_model_gives_the_numbers_of_the_adapter_beside_its_base(
    run: Run, student: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = export(run.path, out, ExportConfig(merge=True, dtype="fp32", parity=False))
    assert (done.path, done.candidate, done.dtype, done.parity) == (out, "ad", "fp32", ())
    merged = AutoModelForCausalLM.from_pretrained(out)
    mine, base = (
        logits(with_adapter(student, run.student_path("ad"))),
        logits(AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32)),
    )
    assert merged.dtype == torch.float32
    assert float((logits(merged) - mine).abs().max()) < 1e-4 < 1 < float((base - mine).abs().max())
    assert not any("lora" in name for name in load_file(out / "model.safetensors"))


def test_a_merged_folder_has_all_that_a_model_needs_and_says_what_it_was_made_of(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "er" / "out"
    export(run.path, out, MERGE)
    assert {path.name for path in out.iterdir()} == {
        "model.safetensors",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "training.json",
        "README.md",
        "export.json",
    }
    candidate = run.student_path("ad")
    for name in ("chat_template.jinja", "training.json"):
        assert (out / name).read_bytes() == (candidate / name).read_bytes()
    assert GenerationConfig.from_pretrained(out).eos_token_id == AutoTokenizer.from_pretrained(out).eos_token_id
    report = orjson.loads((out / "export.json").read_bytes())
    assert (report["candidate"], report["merged"], report["dtype"]) == ("ad", True, "bf16")
    assert report["candidate_weights"] == weights_revision(candidate)
    assert set(report["files"]) == {path.name for path in out.iterdir()} - {"export.json"}
    card = (out / "README.md").read_text()
    assert "base_model: tiny" in card and report["candidate_weights"] in card and "--no-parity" in card
    for path in out.iterdir():
        assert str(run.path.parent).encode() not in path.read_bytes(), path.name
        assert path.stat().st_mode & 0o777 == 0o644
    assert not [path for path in out.parent.iterdir() if path != out]


@pytest.mark.parametrize(("dtype", "kept"), [(None, torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)])
@pytest.mark.parametrize("name", ["ad", "full"])
def test_weights_have_the_type_that_was_asked_for(
    run: Run, tmp_path: Path, name: str, dtype: str | None, kept: torch.dtype
) -> None:
    export(
        run.path,
        tmp_path / "out",
        ExportConfig.model_validate({**MERGE.model_dump(), "dtype": dtype, "candidate": name}),
    )
    assert {tensor.dtype for tensor in load_file(tmp_path / "out" / "model.safetensors").values()} == {kept}


def test_a_merge_in_16_bits_rounds_each_weight_once(run: Run, tmp_path: Path) -> None:
    for dtype in ("fp32", "bf16"):
        export(run.path, tmp_path / dtype, ExportConfig.model_validate({**MERGE.model_dump(), "dtype": dtype}))
    exact, rounded = (load_file(tmp_path / dtype / "model.safetensors") for dtype in ("fp32", "bf16"))
    assert all(torch.equal(exact[name].to(torch.bfloat16), rounded[name]) for name in exact)


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"use_rslora": True}, {"lora_alpha": 64}])
def test_other_kinds_of_adapters_merge_as_well(
    run: Run, student: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    candidate = make_adapter(run, student, f"kind-{'-'.join(settings)}", **settings)
    assert write_merged(candidate, tmp_path, "fp32") == "fp32"
    apart = (
        logits(AutoModelForCausalLM.from_pretrained(tmp_path)) - logits(with_adapter(student, candidate.folder))
    ).abs()
    assert float(apart.max()) < 1e-4


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")  # where the adapter is made
def test_an_adapter_on_weights_that_input_and_output_share_is_refused(run: Run, student: Path, tmp_path: Path) -> None:
    candidate = make_adapter(run, student, "tied", target_modules=["embed_tokens"])
    with pytest.raises(RunError, match="embed_tokens, whose weights input and output share"):
        write_merged(candidate, tmp_path, None)


def test_weights_too_large_for_fp16_are_refused(run: Run, student: Path, tmp_path: Path) -> None:
    base = tiny_student(tmp_path / "large")
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"][0] = 1e6
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "out").mkdir()
    candidate = replace(find_candidate(run, "ad"), student=base)
    with pytest.raises(ConfigError, match="too large for fp16.*take bf16 or fp32"):
        write_merged(candidate, tmp_path / "out", "fp16")


def test_without_merge_the_candidates_files_are_copied_byte_for_byte(run: Run, tmp_path: Path) -> None:
    export(run.path, tmp_path / "out", ExportConfig(candidate="ad"))
    names = {Path(name).name for name in run.stages()["sft:ad"].outputs}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names | {"export.json"}
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (run.student_path("ad") / name).read_bytes()


def test_a_folder_that_is_there_is_never_overwritten_and_an_empty_one_is_filled(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / ".out.part").mkdir()  # of a killed export
    (tmp_path / ".out.part" / "old").write_text("x")
    export(run.path, out, MERGE)
    before = {path: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(ConfigError, match="is there already, and is never overwritten"):
        export(run.path, out, MERGE)
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    assert not (tmp_path / ".out.part").exists()


def test_a_candidates_folder_stands_for_its_run(run: Run, tmp_path: Path) -> None:
    found, candidate = open_candidate(run.student_path("full"))
    assert (found.path, candidate.name) == (run.path, "full")
    with pytest.raises(ConfigError, match="the folder is that of 'full'"):
        open_candidate(run.student_path("full"), "ad")
    with pytest.raises(RunError, match="there is no run here"):
        open_candidate(tmp_path)
    with pytest.raises(RunError, match="no finished candidate is called 'add'; did you mean ad"):
        open_candidate(run.path, "add")


def test_a_full_disk_leaves_nothing_and_says_so(run: Run, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from synth.core.errors import SynthError\n"
        "from tune.export import ExportConfig, export\n"
        "try: export(Path(sys.argv[1]), Path(sys.argv[2]), ExportConfig(merge=True, parity=False))\n"
        "except SynthError as error: print(error)"
    )
    full = subprocess.run(
        [sys.executable, "-c", script, str(run.path), str(tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)),
    )
    assert "cannot be written" in full.stdout and "free some disk space" in full.stdout, full.stderr
    assert list(tmp_path.iterdir()) == []


def test_settings_that_mean_nothing_are_refused() -> None:
    for wrong in ({"dtype": "bf16"}, {"quantize": "awq"}, {"merge": True, "dtype": "int8"}):
        with pytest.raises(ValidationError):
            ExportConfig.model_validate(wrong)


def test_a_missing_converter_is_said_before_any_work(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="not on PATH; `git clone.*--llama-cpp"):
        export(run.path, tmp_path / "out", ExportConfig(merge=True, quantize="gguf"))
    with pytest.raises(ConfigError, match="has no convert_hf_to_gguf.py"):
        export(run.path, tmp_path / "out", ExportConfig(merge=True, quantize="gguf", llama_cpp=tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(importlib.util.find_spec("llmcompressor") is not None, reason="llm-compressor is installed")
def test_a_missing_quantizer_is_said_before_any_work(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="llm-compressor, which this Python has not.*--quantize-python"):
        export(run.path, tmp_path / "out", ExportConfig(merge=True, quantize="awq"))
    with pytest.raises(ConfigError, match="that Python cannot be run"):
        check_awq(str(tmp_path / "python"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(
    not os.environ.get("SYNTH_QUANTIZE_PYTHON"), reason="SYNTH_QUANTIZE_PYTHON names no Python with llm-compressor"
)
def test_awq_writes_a_model_of_four_bits(run: Run, tmp_path: Path) -> None:
    python = Path(os.environ["SYNTH_QUANTIZE_PYTHON"])
    export(run.path, tmp_path / "out", ExportConfig(merge=True, parity=False, quantize="awq", quantize_python=python))
    settings = orjson.loads((tmp_path / "out" / "config.json").read_bytes())["quantization_config"]
    assert settings["config_groups"]["group_0"]["weights"]["num_bits"] == 4
    assert orjson.loads((tmp_path / "out" / "export.json").read_bytes())["quantization"]["method"] == "awq"


@pytest.mark.skipif(not os.environ.get("SYNTH_LLAMA_CPP"), reason="SYNTH_LLAMA_CPP names no checkout of llama.cpp")
def test_llama_cpp_writes_a_gguf_file_of_a_tokenizer_that_it_knows(tmp_path: Path) -> None:
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    made.train_from_iterator(["ab abc"], trainers.BpeTrainer(special_tokens=["<unk>", "<s>", "</s>", *bytes_]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer.save_pretrained(tmp_path / "model")
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path / "model")
    converter = find_converter(Path(os.environ["SYNTH_LLAMA_CPP"]))
    write_gguf(tmp_path / "model", tmp_path / "m.gguf", "q8_0", converter=converter, log_path=tmp_path / "log")
    assert (tmp_path / "m.gguf").read_bytes()[:4] == b"GGUF"


@pytest.mark.skipif(not os.environ.get("SYNTH_LLAMA_CPP"), reason="SYNTH_LLAMA_CPP names no checkout of llama.cpp")
def test_a_tokenizer_that_llama_cpp_does_not_know_is_an_error_that_quotes_it(run: Run, tmp_path: Path) -> None:
    checkout = Path(os.environ["SYNTH_LLAMA_CPP"])
    config = ExportConfig(merge=True, parity=False, quantize="gguf", llama_cpp=checkout)
    with pytest.raises(RunError, match="llama.cpp's converter failed: .*pre-tokenizer was not recognized"):
        export(run.path, tmp_path / "out", config)
    assert list(tmp_path.iterdir()) == []


@dataclass(frozen=True)
class Local:
    """A model folder, run by transformers."""

    folder: Path

    def replies(self, prompts: Sequence[Sequence[Message]]) -> list[Reply]:
        """Return the greedy replies."""
        model, tokenizer = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32), self.tokenizer
        answers = []
        for prompt in prompts:
            ids = rendered(tokenizer, prompt)
            asked = torch.tensor([ids])
            out = model.generate(asked, attention_mask=torch.ones_like(asked), do_sample=False, max_new_tokens=64)
            said = out[0, len(ids) :].tolist()
            [logprobs] = self.logprobs([([*ids, *said], len(said))])
            answers.append(
                Reply(tokenizer.decode(said, skip_special_tokens=True), tuple(ids), tuple(said), tuple(logprobs))
            )
        return answers

    def logprobs(self, sequences: Sequence[tuple[Sequence[int], int]]) -> list[list[float]]:
        """Return the log probabilities of the last tokens."""
        model, found = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32), []
        for tokens, counted in sequences:
            with torch.inference_mode():
                table = torch.log_softmax(model(torch.tensor([list(tokens)])).logits[0], dim=-1)
            found.append([float(table[i - 1, tokens[i]]) for i in range(len(tokens) - counted, len(tokens))])
        return found

    @property
    def tokenizer(self) -> Any:  # noqa: ANN401
        return AutoTokenizer.from_pretrained(self.folder)


def held_to(candidate: Candidate, exported: Path, prompts: list[list[Message]], tolerance: Tolerance) -> Parity:
    mine = ask(PeftSpeaker(candidate, exported, "fp32"), prompts)
    return compare(prompts, mine, Local(exported), candidate_by="peft", exported_by="here", tolerance=tolerance)


def test_the_check_passes_a_right_merge_and_fails_a_wrong_one(run: Run, student: Path, tmp_path: Path) -> None:
    export(run.path, tmp_path / "right", ExportConfig(merge=True, dtype="fp32", parity=False))
    candidate = find_candidate(run, "ad")
    prompts = [[Message.from_json(turn) for turn in row(number)["prompt"]] for number in range(6)]
    right = held_to(candidate, tmp_path / "right", prompts, Tolerance(0.001, 0.01))
    assert right.passed and (right.identical, right.prompts) == (6, 6) and right.first_difference is None
    assert right.tokens > 30 and right.largest < 1e-3
    wrong = held_to(candidate, student, prompts, Tolerance(0.05, 0.5))
    assert not wrong.passed and wrong.identical < 6 and wrong.mean > 0.05
    assert wrong.first_difference is not None
    assert wrong.first_difference.candidate[:1] != wrong.first_difference.exported[:1]
    assert wrong.to_json()["passed"] is False and "at most 0.05 and 0.5 are allowed" in str(wrong)


def test_another_chat_template_is_no_parity(run: Run, tmp_path: Path) -> None:
    export(run.path, tmp_path / "out", MERGE)
    prompts = [[Message("user", "Hello")]]
    mine = ask(PeftSpeaker(find_candidate(run, "ad"), tmp_path / "out", "fp32"), prompts)
    template = tmp_path / "out" / "chat_template.jinja"
    template.write_text("Be kind. " + template.read_text())
    with pytest.raises(InferenceError, match="reads the same prompt as other tokens"):
        compare(prompts, mine, Local(tmp_path / "out"), candidate_by="", exported_by="", tolerance=None)


def test_prompts_are_spread_over_the_validation_rows_and_leave_room_for_a_reply(tmp_path: Path) -> None:
    many = filtered_run(tmp_path / "many", validation=[row(n, "lamp.txt", question=f"q{n}") for n in range(160)])
    asked = [prompt[0].content for prompt in fixed_prompts(many, len, None)]
    assert asked == [f"q{n}" for n in range(0, 160, 10)]
    none = filtered_run(tmp_path / "none", validation=[])
    assert [prompt[0].content for prompt in fixed_prompts(none, len, None)] == [
        row(n)["prompt"][0]["content"] for n in range(12)
    ]
    assert fixed_prompts(many, lambda prompt: 100, 163)[0][0].content == "What can you help me with?"


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "trained biases"),
        ({"modules_to_save": ["lm_head"]}, "lm_head"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"rank_pattern": {"q_proj": 1024}}, "the rank 1024"),
        ({"use_rslora": True, "init_lora_weights": "gaussian", "modules_to_save": None}, None),
    ],
)
def test_adapters_that_vllm_refuses_are_known_from_their_settings(
    tmp_path: Path, settings: dict[str, Any], why: str | None
) -> None:
    write_json(tmp_path / "adapter_config.json", {"r": 8, "bias": "none", "init_lora_weights": True, **settings})
    found = unservable(tmp_path)
    assert found is None if why is None else why in str(found)


def test_validating_a_dora_adapter_fails_at_once_with_the_fix_and_its_merged_model_is_judged(
    run: Run, student: Path, tmp_path: Path
) -> None:
    candidate = make_adapter(run, student, "dora", use_dora=True)
    with pytest.raises(RunError, match=r"it has DoRA.*tune export .*--merge --to FOLDER.*--merged FOLDER"):
        by_vllm(candidate, log_path=tmp_path / "log", max_in_flight=1)
    merged = tmp_path / "merged"
    merged.mkdir()
    write_merged(candidate, merged, None)
    write_json(merged / "export.json", {"version": 1, "candidate_weights": weights_revision(candidate.folder)})
    base, tuned = by_vllm(candidate, log_path=tmp_path / "log", max_in_flight=1, merged=merged)
    assert tuned.weights["tuned"].revision == weights_revision(merged) and "base" in base.weights
    with pytest.raises(ConfigError, match="with other weights than ad has now"):
        by_vllm(find_candidate(run, "ad"), log_path=tmp_path / "log", max_in_flight=1, merged=merged)
    with pytest.raises(ConfigError, match="has no export.json"):
        by_vllm(candidate, log_path=tmp_path / "log", max_in_flight=1, merged=student)


def test_a_merged_folder_is_a_student_like_any_other(run: Run, tmp_path: Path) -> None:
    export(run.path, tmp_path / "merged", MERGE)
    opened = open_student(str(tmp_path / "merged"))
    assert (opened.name, opened.template) == ("merged", "own")
    again = filtered_run(tmp_path / "again")
    done = train(
        again, TuneConfig(student=str(tmp_path / "merged"), candidate="next", threads=1, steps=1, save_every=1e9)
    )
    assert done.trained and find_candidate(again, "next").student_name == "merged"


@pytest.mark.vllm
def test_what_vllm_serves_of_the_merged_model_answers_as_the_adapter_beside_its_base(run: Run, tmp_path: Path) -> None:
    told: list[str] = []
    done = export(run.path, tmp_path / "out", ExportConfig(merge=True), on_progress=told.append)
    [parity] = done.parity
    assert parity.passed and parity.prompts == 3 and parity.tokens > 10
    assert (parity.candidate_by, parity.exported_by) == ("vLLM (bf16)", "vLLM (bf16)")
    assert {"merging", "asking the candidate", "asking the exported model"} <= set(told)
    report = orjson.loads((tmp_path / "out" / "export.json").read_bytes())
    assert report["parity"][0]["identical"] == parity.identical
    assert (
        f"| merged | vLLM (bf16) | vLLM (bf16) | {parity.identical} of 3 |"
        in (tmp_path / "out" / "README.md").read_text()
    )
