"""What a user may set about a training: read by the command line, the docs and `tune.sft`, without torch."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

# What only an adapter has; a full training with other values here would do the same work.
_LORA_ONLY = ("rank", "alpha", "dropout", "target_modules")


class TuneConfig(BaseModel):
    """How a student is tuned. Unknown keys are errors; the defaults suit hub models of 0.5 to 8 billion weights."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    student: str = "bundled"
    """The model to tune: a hub id, a local folder, or "bundled" for the demo's tiny one."""

    revision: str | None = None
    """The branch, tag or commit of a hub student. Default: its main branch."""

    method: Literal["lora", "full"] = "lora"
    """Train a small adapter beside frozen weights ("lora"), or every weight ("full", about 16 bytes of memory each)."""

    candidate: Annotated[str, Field(pattern=NAME_PATTERN)] | None = None
    """The name under students/. Default: the method and eight digits that follow from settings and data, so
    that the same command finds its own work again."""

    rank: Annotated[int, Field(ge=1, le=512)] = 16
    """Rank of the LoRA matrices. 16 holds a few thousand pairs; raise it when the training loss stays high."""

    alpha: Annotated[int, Field(ge=1)] = 32
    """LoRA's scale: the adapter's output is multiplied by alpha / rank."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Dropout before the LoRA matrices, as in the QLoRA paper (Dettmers et al. 2023, appendix B)."""

    target_modules: str | list[str] = "all-linear"
    """The layers that get LoRA matrices. "all-linear" is every linear layer but the output head."""

    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Peak learning rate of AdamW. Default: 2e-4 for "lora" (the QLoRA paper's value up to 13 billion weights) and
    2e-5 for "full" (TRL's own default); an adapter wants about ten times the rate of full training."""

    epochs: Annotated[int, Field(ge=1)] = 3
    """How often every row is seen. A few hundred rows gain from three; watch the validation loss beyond."""

    batch_size: Annotated[int, Field(ge=1)] = 8
    """Rows in memory at once. Halve it when memory runs out, and double the accumulation."""

    gradient_accumulation: Annotated[int, Field(ge=1)] = 2
    """Batches per optimizer step: rows a step are the batch size times this."""

    max_length: Annotated[int, Field(ge=8)] | None = None
    """Longest row in tokens, prompt and completion together. Default: the student's own context."""

    on_overflow: Literal["error", "drop"] = "error"
    """Rows longer than that stop the command, or are dropped and counted. No row is ever cut."""

    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the steps over which the learning rate rises from nought."""

    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after that; "constant" does not."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's weight decay."""

    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are scaled down to this norm."""

    group_by_length: bool = True
    """Whether rows of like length share a batch, which saves padding. Batches still come in random order."""

    gradient_checkpointing: bool | None = None
    """Whether activations are computed twice to save memory, about 20 % slower. Default: yes on a GPU, no on a CPU."""

    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of the training. "auto" is bf16 on a GPU that has it, else fp32."""

    chat_template: Literal["own", "plain"] = "own"
    """The student's own template, or a plain one that ends each turn with the student's end-of-sequence token.
    A student without a template gets the plain one."""

    question_variants: Annotated[int, Field(ge=0, le=64)] = 0
    """How often each training row is repeated with words of its question left out, so that a small student learns
    what a question is about and not its exact wording. Validation rows stay as they are."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Decides the variants, the order of the rows, the adapter's first weights and dropout."""

    save_every: Annotated[float, Field(ge=0)] = 60.0
    """Seconds between checkpoints, from which a killed training goes on. They never take over a twentieth of the
    time, so a slow disk saves less often. It changes nothing in the result."""

    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads. Default: one a core. Where other work keeps the cores busy, threads wait for each other, and one is
    many times faster than two for a tiny model. Resume with the same number for the same bytes."""

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate, with the method's default where none is set."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 2e-4 if self.method == "lora" else 2e-5

    def settings(self) -> dict[str, Any]:
        """Return what decides the result, as it stands in run.json: no name, no checkpoint times, no threads."""
        left_out = {"candidate", "save_every", "threads", *(_LORA_ONLY if self.method == "full" else ())}
        return self.model_dump(exclude=left_out) | {"learning_rate": self.peak_learning_rate}
