"""An adapter's replies by PEFT itself, where vLLM cannot serve the adapter: torch and peft load with this module."""

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from synth.core.records import Message
from tune.candidate import Candidate
from tune.exporting.merge import TYPES, base_of, no_bars
from tune.exporting.parity import MAX_TOKENS, Reply, rendered


class PeftSpeaker:
    """A candidate's adapter beside its base, run by transformers in the type of the merged model.

    Args:
        candidate: an adapter.
        merged: the merged model's folder, for its tokenizer, template and stop tokens.
        dtype: "bf16", "fp16" or "fp32".
    """

    def __init__(self, candidate: Candidate, merged: Path, dtype: str) -> None:
        source, options = base_of(candidate)
        with no_bars():
            base = AutoModelForCausalLM.from_pretrained(source, dtype=TYPES[dtype], **options)
            self._model = PeftModel.from_pretrained(base, str(candidate.folder)).to(TYPES[dtype]).eval()
        if torch.accelerator.is_available():
            self._model.to(torch.accelerator.current_accelerator())
        self._tokenizer = AutoTokenizer.from_pretrained(merged, local_files_only=True)
        saved = GenerationConfig.from_pretrained(merged, local_files_only=True)
        stops = saved.eos_token_id if isinstance(saved.eos_token_id, list) else [saved.eos_token_id]
        self._stops = sorted({self._tokenizer.eos_token_id, *(i for i in stops if i is not None)})

    @torch.inference_mode()
    def replies(self, prompts: Sequence[Sequence[Message]]) -> list[Reply]:
        """Return the greedy reply to each prompt."""
        return [self._reply(prompt) for prompt in prompts]

    def _reply(self, prompt: Sequence[Message]) -> Reply:
        ids = rendered(self._tokenizer, prompt)
        greedy = GenerationConfig(
            do_sample=False,
            max_new_tokens=MAX_TOKENS,
            eos_token_id=self._stops,
            pad_token_id=self._tokenizer.pad_token_id or self._stops[0],
            return_dict_in_generate=True,
            output_logits=True,
        )
        asked = torch.tensor([ids], device=self._model.device)
        done = self._model.generate(input_ids=asked, attention_mask=torch.ones_like(asked), generation_config=greedy)
        said = done.sequences[0, len(ids) :].tolist()
        logprobs = [
            float(torch.log_softmax(logits[0].float(), dim=-1)[token])
            for logits, token in zip(done.logits, said, strict=True)
        ]
        text = self._tokenizer.decode(said, skip_special_tokens=True)
        return Reply(text, tuple(ids), tuple(said), tuple(logprobs))
