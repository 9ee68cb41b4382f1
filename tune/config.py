"""What a user may set about a training: read by the command line, the docs and `tune.sft`, without torch."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tune.registry import CURRENT

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

# What only an adapter has; a full training with other values here would do the same work.
_LORA_ONLY = frozenset({"rank", "alpha", "dropout", "target_modules", "rslora", "dora"})

# What changes no weight: names, where it runs, how often it saves, who is told, what it costs. How many processes there
# are does change them; `tune.sft` adds their true number.
_NOT_DECISIVE = frozenset(
    {
        "candidate", "save_every", "threads", "launcher", "accelerate_config", "processes", "report_to", "hourly_price",
        # Sources are known by the digests of their files, and may be moved.
        "data", "mix", "replay", "from_",
    }
)  # fmt: skip


class TuneConfig(BaseModel):
    """How a student is tuned. Unknown keys are errors; the defaults suit hub models of 0.5 to 8 billion weights."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, populate_by_name=True)

    student: str = "bundled"
    """The model to tune: a hub id, a local folder, or "bundled" for the demo's tiny one."""

    revision: str | None = None
    """The branch, tag or commit of a hub student. Default: its main branch."""

    from_: Annotated[str | None, Field(alias="from")] = None
    """A finished candidate to go on from, in place of the untuned student: its name in this run, the folder of one
    in another run, or "current" for the promoted one. Its method, student and adapter shape are taken over."""

    method: Literal["lora", "qlora", "full"] = "lora"
    """Train a small adapter beside frozen weights ("lora"), beside weights held in four bits ("qlora", needs the
    package bitsandbytes), or every weight ("full", about 16 bytes of memory each)."""

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

    rslora: bool = False
    """Scale the adapter by alpha / sqrt(rank), which keeps high ranks from learning too slowly (Kalajdzievski 2023)."""

    dora: bool = False
    """Train the size of each weight row beside its direction (DoRA, Liu et al. 2024). Slower, and vLLM serves it only
    after `tune export --merge`."""

    data: str | None = None
    """Rows to train on in place of the run's own dataset: a JSONL file, a dataset of the hub, or another run."""

    mix: tuple[str, ...] = ()
    """Several sources in place of the run's own dataset, each a run, a JSONL file or a dataset of the hub. SOURCE=0.7
    gives it that share of the training rows; without shares all rows of all sources are taken. No row is repeated:
    the source that runs out first sets the number. May be repeated."""

    validation_share: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Split again, by document, with this share of the rows to validate on. Default: the split that a run has, and
    0.2 for files and hub datasets without one."""

    folds: Annotated[int, Field(ge=2, le=50)] | None = None
    """Train so many students, each validated on another part of the documents, and report the mean and the spread."""

    fold: Annotated[int, Field(ge=1)] | None = None
    """Train this fold alone, such as one per machine."""

    subset: Annotated[float, Field(gt=0, le=1)] | None = None
    """Train on this share of the rows, by whole documents. A smaller share is always a part of a larger one."""

    curriculum: str | None = None
    """A score of the records to order the rows by: lowest first, or with a minus before it, highest first. Default:
    another random order in each epoch."""

    replay: str | None = None
    """General data to mix in against forgetting: a JSONL file, a dataset of the hub, or another run."""

    replay_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """The share of the training rows that the replayed rows are."""

    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Peak learning rate of AdamW. Default: 2e-4 for adapters (the QLoRA paper's value up to 13 billion weights) and
    2e-5 for "full" (TRL's own default); an adapter wants about ten times the rate of full training."""

    epochs: Annotated[int, Field(ge=1)] = 3
    """How often every row is seen. A few hundred rows gain from three; watch the validation loss beyond."""

    steps: Annotated[int, Field(ge=1)] | None = None
    """Optimizer steps, in place of epochs."""

    batch_size: Annotated[int, Field(ge=1)] = 8
    """Rows in memory at once. Halve it when memory runs out, and double the accumulation."""

    gradient_accumulation: Annotated[int, Field(ge=1)] = 2
    """Batches per optimizer step: rows a step are the batch size times this."""

    max_length: Annotated[int, Field(ge=8)] | None = None
    """Longest row in tokens, prompt and completion together. Default: the student's own context."""

    on_overflow: Literal["error", "drop", "truncate"] = "error"
    """What is done with longer rows: stop the command, leave them out, or cut off their ends. All are counted and
    named; a row that is cut teaches no stop token."""

    packing: bool | None = None
    """Whether several rows share one sequence, each blind to the others (TRL's best-fit decreasing). A step still sees
    about as many rows. Default: yes on a GPU, no on a CPU, where long sequences cost more than padding."""

    packing_length: Annotated[int, Field(ge=8)] | None = None
    """Longest packed sequence in tokens. Default: 4096, or the longest row, but no more than the rows of one step."""

    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the steps over which the learning rate rises from nought; less than one step is none."""

    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after that; "constant" does not."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's weight decay."""

    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are scaled down to this norm."""

    group_by_length: bool = True
    """Whether rows of like length share a batch, which saves padding. Batches still come in random order."""

    gradient_checkpointing: bool | None = None
    """Whether activations are computed twice to save memory, at about a third more work. Default: on a GPU where they
    would not fit with room to spare, not on a CPU."""

    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of the training. "auto" is bf16 on a GPU that has it, else fp32."""

    attention: str = "auto"
    """The attention implementation, by transformers' name: "sdpa", "eager", "flex_attention", "flash_attention_2", or a
    kernel of the hub. "auto" is flash attention on a GPU where it is installed, else "sdpa"."""

    kernels: bool = False
    """Whether layers are replaced by kernels of the hub (the package kernels, on a GPU)."""

    evaluate_every: Annotated[float, Field(gt=0)] = 1.0
    """Epochs between validation losses."""

    early_stopping: Annotated[int, Field(ge=0)] = 2
    """Stop after so many validation losses without a new lowest one; 0 never stops early."""

    keep: Literal["best", "last"] = "best"
    """Which weights the candidate gets: those of the lowest validation loss, or the last ones."""

    chat_template: Literal["own", "plain"] = "own"
    """The student's own template, or a plain one that ends each turn with the student's end-of-sequence token.
    A student without a template gets the plain one."""

    question_variants: Annotated[int, Field(ge=0, le=64)] = 0
    """How often each training row is repeated with words of its question left out and words of other questions put
    in, so that a small student learns what a question is about and not its exact wording. Validation rows stay as
    they are."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Decides the variants, the order of the rows, the adapter's first weights and dropout."""

    save_every: Annotated[float, Field(ge=0)] = 60.0
    """Seconds between checkpoints, from which a killed training goes on. They never take over a twentieth of the
    time, so a slow disk saves less often. It changes nothing in the result."""

    report_to: tuple[str, ...] = ()
    """Trackers beside the TensorBoard files that are always written: "wandb", "mlflow", "trackio" or another that
    transformers knows. May be repeated."""

    hourly_price: Annotated[float, Field(ge=0)] | None = None
    """What an hour of this machine costs, in any currency; training.json then names the cost."""

    launcher: Literal["none", "accelerate"] = "none"
    """Train in this process, or start one process a GPU with `accelerate launch`."""

    accelerate_config: Path | None = None
    """A config file of accelerate (FSDP, DeepSpeed, several machines). Default: one process a GPU of this machine."""

    processes: Annotated[int, Field(ge=1)] | None = None
    """How many processes accelerate starts. Default: what its config says, or one a GPU."""

    trainer: dict[str, Any] = Field(default_factory=dict)
    """More settings of TRL's SFTConfig, passed on unchanged: the table [sft.trainer] of a config file."""

    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads. Default: one a core. Where other work keeps the cores busy, threads wait for each other, and one is
    many times faster than two for a tiny model. Resume with the same number for the same bytes."""

    @model_validator(mode="after")
    def _consistent(self) -> "TuneConfig":
        if self.candidate == CURRENT:
            raise ValueError("candidate: 'current' is the name of the promoted one, so take another")
        if self.data is not None and self.mix:
            raise ValueError("data and mix exclude each other: name all sources with mix")
        if self.fold is not None and (self.folds is None or self.fold > self.folds):
            raise ValueError("fold: one of the folds, so set folds, and count from 1")
        if self.folds is not None and self.validation_share is not None:
            raise ValueError("folds and validation_share exclude each other: each fold validates on its own part")
        if self.curriculum is not None and self.packing:
            raise ValueError("curriculum and packing exclude each other: packing puts rows together by length")
        if self.method == "full" and (self.rslora or self.dora):
            raise ValueError("rslora and dora are of adapters; method full has none")
        return self

    @property
    def adapter(self) -> bool:
        """Whether an adapter is trained, in place of every weight."""
        return self.method != "full"

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate, with the method's default where none is set."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 2e-4 if self.adapter else 2e-5

    def settings(self) -> dict[str, Any]:
        """Return what decides the result, as it stands in run.json: no name, no checkpoint times, no threads."""
        left_out = _NOT_DECISIVE if self.adapter else _NOT_DECISIVE | _LORA_ONLY
        return self.model_dump(exclude=set(left_out)) | {"learning_rate": self.peak_learning_rate}
