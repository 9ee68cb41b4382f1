"""What a user may set about an export: read by the command line, which should not load what exports, and by Python."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator


class ExportConfig(BaseModel):
    """What to make of a candidate."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    candidate: str | None = None
    """The candidate under students/. Default: the one that was finished last."""

    merge: bool = False
    """Merge the adapter into its base: a model folder that needs no adapter. Without it the candidate is copied as
    it is."""

    dtype: Literal["bf16", "fp16", "fp32"] | None = None
    """The type of the merged weights. Default: that of the untuned model."""

    quantize: Literal["awq", "gguf"] | None = None
    """Quantize the merged model: "awq" to four bits by llm-compressor, for vLLM; "gguf" by llama.cpp's converter."""

    gguf_type: Literal["q8_0", "f16", "bf16", "f32"] = "q8_0"
    """The type of the GGUF file's weights. Smaller ones are made of an f16 file by llama.cpp's llama-quantize."""

    llama_cpp: Path | None = None
    """A checkout of llama.cpp, for its convert_hf_to_gguf.py. Default: the one on PATH."""

    quantize_python: Path | None = None
    """The Python that has llm-compressor. Default: this one."""

    parity: bool = True
    """Whether candidate and exported model are both served and asked the same before the folder is put in place."""

    @model_validator(mode="after")
    def _consistent(self) -> "ExportConfig":
        for name in ("dtype", "quantize"):
            if getattr(self, name) is not None and not self.merge:
                raise ValueError(f"{name} is of merged weights: add merge")
        return self
