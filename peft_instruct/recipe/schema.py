"""What a recipe may say: one frozen, strict model per section, and every default in its one home.

The docstring under a field is its manual: `peft-instruct recipe schema` and editors show it.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from peft_instruct.secrets import hide_secrets

_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?|.*\.", re.IGNORECASE)


def _not_reserved(name: str) -> str:
    if _RESERVED.fullmatch(name):
        raise ValueError(f"{name!r} is no folder on Windows. Choose another name")
    return name


Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[int, Field(ge=1)]
Minutes = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,5}min$")]
RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"), AfterValidator(_not_reserved)]

LORA_ONLY_KEYS = ("rank", "alpha", "dropout", "targets", "dora", "rslora")
DEFAULT_LEARNING_RATE = {"lora": 2e-4, "full": 5e-5}


class Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class Architecture(Section):
    """A GPT-2 architecture for `model.init: random`."""

    layers: Positive = 4
    """Transformer blocks."""
    width: Positive = 256
    """Size of the residual stream; a multiple of `heads`."""
    heads: Positive = 4
    """Attention heads per block."""
    positions: Positive = 512
    """Longest sequence in tokens."""

    @model_validator(mode="after")
    def _width_fits_heads(self) -> Architecture:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class ModelSection(Section):
    base: Annotated[str, Field(min_length=1)]
    """Who learns: a hub id (`gpt2`), a folder, or `starter` (the small GPT-2 in this package)."""
    revision: str = "main"
    """Branch, tag or commit of a hub id."""
    tokenizer: str | None = None
    """A tokenizer other than the base's own: a hub id or a folder."""
    init: Literal["pretrained", "random"] = "pretrained"
    """`random` trains from scratch with the base's architecture, or with `architecture`."""
    architecture: Architecture | None = None
    """The shape of a model made from scratch; `base` then only lends its tokenizer."""
    attention: Literal["auto", "sdpa", "eager"] = "auto"
    """Attention implementation of transformers; `auto` takes sdpa, and plain products where those are faster."""
    kernels: Literal["fast", "plain"] = "fast"
    """`fast` computes the same in fewer kernels where that pays; `plain` leaves the model as transformers makes it."""
    dropout: Fraction | None = None
    """Dropout of the base while it trains; null keeps what its config says (0.1 for gpt2)."""
    quantization: Literal["none", "nf4", "int8"] = "none"
    """Hold the frozen base in 4 or 8 bits (bitsandbytes); LoRA only."""


class MethodSection(Section):
    kind: Literal["lora", "full"] = "lora"
    """`lora` trains an adapter, `full` trains every weight."""
    rank: Positive = 16
    """Rank of the LoRA update; adapter size grows linearly with it."""
    alpha: Annotated[float, Field(gt=0)] = 32.0
    """The update is scaled by alpha / rank (alpha / sqrt(rank) with `rslora`)."""
    dropout: Fraction = 0.0
    """Dropout in front of the LoRA matrices."""
    targets: Literal["all", "attention"] | Annotated[list[str], Field(min_length=1)] = "all"
    """Which matrices get an adapter: all linear ones of a block, attention's only, or module names."""
    dora: bool = False
    """Weight-decomposed LoRA (Liu et al. 2024)."""
    rslora: bool = False
    """Rank-stabilised scaling (Kalajdzievski 2023)."""

    @model_validator(mode="after")
    def _no_lora_keys_when_full(self) -> MethodSection:
        idle = sorted(self.model_fields_set & set(LORA_ONLY_KEYS))
        if self.kind == "full" and idle:
            raise ValueError(f"{', '.join(idle)}: no effect with kind: full. Remove, or set kind: lora")
        return self


class CustomTemplate(Section):
    """Text of your own; `{instruction}` and `{input}` stand for the example's fields.

    `{bos}`, `{eos}` and `{sep}` are those tokens of the tokenizer, and the name of a special token is that token.
    """

    prompt: Annotated[str, Field(min_length=1)]
    """The prompt of an example that has an input (or of every example, without `prompt_without_input`)."""
    prompt_without_input: str | None = None
    """The prompt of an example whose input is empty."""
    prompt_with_system: str | None = None
    """The prompt that opens a conversation with a system message, `{system}`; without it such rows are refused."""
    follow_up: str | None = None
    """A later message of a conversation, right after the stop token of the answer before it."""
    answer: str = "{answer}"
    """What is learned of an output: text around `{answer}`, taken off again when the model answers."""
    stop: str | None = None
    """The special token that ends an answer, where the tokenizer has it; null is the end-of-text token."""

    @model_validator(mode="after")
    def _names_the_fields(self) -> CustomTemplate:
        for name in ("prompt", "prompt_without_input", "prompt_with_system", "follow_up"):
            text = getattr(self, name)
            if text is not None and "{instruction}" not in text:
                raise ValueError(f"{name} lacks {{instruction}}: every example would get the same prompt")
        if self.prompt_with_system is not None and "{system}" not in self.prompt_with_system:
            raise ValueError("prompt_with_system lacks {system}: the system message would be lost")
        if self.answer.count("{answer}") != 1:
            raise ValueError("answer must hold {answer} once: it is what is learned")
        return self


class Columns(Section):
    """Which columns hold what, when their names are not the usual ones."""

    instruction: str | None = None
    input: str | None = None
    output: str | None = None
    prompt: str | None = None
    completion: str | None = None
    messages: str | None = None
    text: str | None = None


SourceName = Annotated[str, Field(min_length=1)]
FormatName = Literal["auto", "alpaca", "prompt_completion", "question_answer", "messages", "sharegpt", "text"]


class Source(Section):
    """One of several sources of training rows."""

    source: SourceName
    """A file, a folder, a pattern (`chats/*.jsonl`), a hub id, or `starter:train`."""
    weight: Annotated[float, Field(gt=0)] | None = None
    """How often its rows are seen in a pass: 2 is every row twice, 0.5 a seeded half of them. Default: 1."""
    rows: Positive | None = None
    """How many of its rows are seen in a pass, in place of `weight`; more than it has repeats them."""
    revision: str | None = None
    """As `data.revision`, for this source."""
    format: FormatName | None = None
    """As `data.format`, for this source."""
    columns: Columns | None = None
    """As `data.columns`, for this source."""

    @model_validator(mode="after")
    def _one_measure(self) -> Source:
        if self.weight is not None and self.rows is not None:
            raise ValueError("rows: the weight is given, too. Keep one of them")
        return self


class DataSection(Section):
    train: SourceName | Annotated[list[SourceName | Source], Field(min_length=1)]
    """What to learn from: a file (.json, .jsonl, .csv, .tsv, .parquet, .txt; also .gz and .zst), a folder, a pattern, a
    hub id, `starter:train`, or a list of these."""
    validation: str | None = None
    """Rows for the validation loss; null takes `validation_fraction` of the training rows."""
    test: str | None = None
    """Rows for `evaluate`; null takes `test_fraction` of the training rows."""
    validation_fraction: Fraction = 0.05
    """Share of the training rows set aside when `validation` is null; 0 trains without validation."""
    test_fraction: Fraction = 0.0
    """Share of the training rows set aside when `test` is null."""
    split: Literal["groups", "rows"] = "groups"
    """How rows are set aside: `groups` keeps near-duplicates and rows of one prompt on one side."""
    revision: str = "main"
    """Branch, tag or commit of a hub id."""
    format: FormatName = "auto"
    """The shape of a row; `auto` decides by columns and content, and says why. `text` learns every token."""
    columns: Columns = Columns()
    """Names of the columns where they are not the format's own."""
    template: (
        Literal["alpaca", "alpaca_short", "plain", "chatml", "phi3", "vicuna", "bos_sep_eos", "tokenizer"]
        | CustomTemplate
    ) = "alpaca"
    """How an example becomes a prompt, `tokenizer` by its own chat template; saved with the adapter and used again."""
    max_length: Positive = 512
    """Longest row in tokens, prompt, completion and stop token together."""
    overlong: Literal["truncate", "drop", "error"] = "truncate"
    """`truncate` cuts the prompt from its left first, then the completion (which then lacks its stop token)."""
    empty: Literal["drop", "error"] = "drop"
    """What happens to rows whose instruction or output is empty; dropped ones are counted and listed."""
    packing: bool = False
    """`format: text` only: join the documents and cut them into rows of exactly `max_length`."""
    limit: Positive | None = None
    """Use only the first rows of `train` (after the seeded shuffle of the split)."""

    def sources(self) -> tuple[Source, ...]:
        """What `train` names, each as a `Source`."""
        named = [self.train] if isinstance(self.train, str) else self.train
        return tuple(each if isinstance(each, Source) else Source(source=each) for each in named)

    def all_names(self) -> list[str]:
        """Every source, those of validation and test included."""
        return [*(each.source for each in self.sources()), *(s for s in (self.validation, self.test) if s)]

    def train_name(self) -> str:
        """The training rows, for a message."""
        return ", ".join(source.source for source in self.sources())


class EarlyStopping(Section):
    patience: Positive = 3
    """Evaluations in a row without improvement before training stops."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """The least fall of the validation loss that counts as improvement."""


class TrainingSection(Section):
    epochs: Annotated[float, Field(gt=0)] = 3.0
    """Passes over the training rows; `max_steps` wins."""
    max_steps: Positive | None = None
    """Optimizer steps; null trains for `epochs`."""
    batch_size: Positive = 8
    """Rows per forward pass and device."""
    accumulation: Positive = 1
    """Forward passes per optimizer step."""
    micro_batch: Literal["auto", "fixed"] = "auto"
    """A batch too large for memory: `auto` computes it in smaller passes, to the same result; `fixed` stops."""
    learning_rate: Annotated[float, Field(gt=0)]
    """Peak learning rate. Default: 2e-4 for lora, 5e-5 for full."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup: Annotated[float, Field(ge=0)] = 0.03
    """Below 1 a share of all steps, from 1 on a number of steps."""
    optimizer: Literal["adamw", "adamw_8bit", "adafactor", "sgd", "muon"] = "adamw"
    """`adamw` is torch's fused AdamW, `adamw_8bit` bitsandbytes'; `muon` is for training from scratch."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's decoupled weight decay (not applied to biases and layer norms)."""
    adam_beta1: Fraction = 0.9
    adam_beta2: Fraction = 0.999
    adam_epsilon: Annotated[float, Field(gt=0)] = 1e-8
    max_gradient_norm: Annotated[float, Field(ge=0)] = 1.0
    """Gradients are clipped to this norm; 0 does not clip."""
    neftune_alpha: Annotated[float, Field(gt=0)] | None = None
    """Noise on the embeddings while training (Jain et al. 2023); 5 is usual."""
    gradient_checkpointing: bool = False
    """Recompute activations in backward: less memory, about a third more time."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the matrices; weights and optimizer of what trains stay in fp32."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """`auto` takes CUDA, then MPS, then the CPU."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Order of rows, split, initialisation of the adapter, dropout."""
    log_every: Positive = 10
    """Steps between lines of metrics.jsonl."""
    evaluate_every: Positive | Literal["epoch", "never"] = "epoch"
    """Steps between validation losses."""
    save_every: Positive | Literal["epoch", "never"] | Minutes = "10min"
    """Steps (or minutes, as `10min`) between checkpoints, which are gone when a run is done; with `keep_best` each
    evaluation writes one too. A run that a signal stops saves even with `never`."""
    keep_best: bool = False
    """Hand over the weights of the lowest validation loss instead of the last ones."""
    ledger: bool = False
    """Write the loss of each training row before and after to ledger.jsonl (`data worst` reads it); costs two forward
    passes over the training rows."""
    early_stopping: EarlyStopping | None = None
    """Stop when the validation loss no longer falls; implies `keep_best`."""

    @model_validator(mode="after")
    def _stopping_needs_evaluations(self) -> TrainingSection:
        if (self.early_stopping or self.keep_best) and self.evaluate_every == "never":
            key = "early_stopping" if self.early_stopping else "keep_best"
            raise ValueError(f"{key} needs a validation loss: set evaluate_every to a number or to epoch")
        return self


class SpeedSection(Section):
    """Ways of computing the same in less time; each can be switched off to see that it is the same."""

    completion_head: bool = True
    """Off CUDA, score the learned positions only (TRL scores all of them there)."""
    shared_preamble: bool = True
    """Compute the tokens that all prompts of a batch begin with once (without dropout, and off CUDA)."""
    length_buckets: bool = True
    """Batches of rows of like length, so that little is padded; the order stays shuffled."""
    cache: bool = True
    """Keep prepared rows for the next run, by content, never stale; PEFT_INSTRUCT_CACHE names the folder, or `off`."""
    frozen_weights: Literal["auto", "fp32"] = "auto"
    """How a frozen base is held under LoRA: `auto` in `training.precision`, so that nothing is cast at each step."""


class SamplesSection(Section):
    """Completions of fixed prompts while training, to see it learn."""

    instructions: list[str] = []
    """Instructions to answer; empty takes the first validation rows."""
    count: Annotated[int, Field(ge=0)] = 3
    """How many validation rows when `instructions` is empty; 0 switches samples off."""
    every: Positive | Literal["epoch", "end"] = "epoch"
    """Steps between samples."""
    max_new_tokens: Positive = 48


class GenerationSection(Section):
    """Defaults of `generate`, saved with the adapter."""

    max_new_tokens: Positive = 128
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    """0 keeps every token."""
    repetition_penalty: Annotated[float, Field(gt=0)] = 1.0


class EvaluationSection(Section):
    """What is measured on held-out rows, base beside tuned, at the end of training and by `evaluate`."""

    rows: Annotated[int, Field(ge=0)] = 50
    """Rows answered for exact match and stopping at the end of `train`; 0 measures the loss alone."""
    batch_size: Positive = 8
    max_new_tokens: Positive = 64


class Recipe(Section):
    """One run: who learns, how, from what, and what is shown of it."""

    name: RunName
    """The adapter lands in `adapters/<name>`. Default: the file's name with `-` for `_`."""
    description: str = ""
    """One line for `recipe list`."""
    model: ModelSection
    method: MethodSection = MethodSection()
    data: DataSection
    training: TrainingSection
    speed: SpeedSection = SpeedSection()
    samples: SamplesSection = SamplesSection()
    generation: GenerationSection = GenerationSection()
    evaluation: EvaluationSection = EvaluationSection()

    @model_validator(mode="before")
    @classmethod
    def _learning_rate_suits_the_method(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        training, method = raw.get("training", {}), raw.get("method", {})
        kind = method.get("kind", "lora") if isinstance(method, dict) else "lora"
        if isinstance(training, dict) and kind in DEFAULT_LEARNING_RATE:
            raw = {**raw, "training": {"learning_rate": DEFAULT_LEARNING_RATE[kind], **training}}
        return raw

    @model_validator(mode="after")
    def _sections_fit(self) -> Recipe:
        problems = []
        if self.model.quantization != "none" and self.method.kind == "full":
            problems.append("model.quantization: a quantised base cannot be trained fully. Use method.kind: lora")
        if self.model.init == "random" and self.method.kind == "lora":
            problems.append("model.init: an adapter on random weights cannot be used again. Use method.kind: full")
        if self.model.init == "random" and self.model.quantization != "none":
            problems.append("model.quantization: random weights are not quantised. Use quantization: none")
        if self.model.architecture and self.model.init != "random":
            problems.append("model.architecture: only for init: random. Remove it, or set init: random")
        if self.training.optimizer == "muon" and self.method.kind != "full":
            problems.append("training.optimizer: muon is for full training. Use adamw, or set method.kind: full")
        if self.data.packing and self.data.format != "text":
            problems.append("data.packing: joins plain documents. Set data.format: text, or packing: false")
        needs_validation = [key for key in ("early_stopping", "keep_best") if getattr(self.training, key)]
        if needs_validation and self.data.validation is None and self.data.validation_fraction == 0:
            problems.append(f"training.{needs_validation[0]}: needs validation rows. Set data.validation_fraction")
        for key, text in (("name", self.name), ("data.template", str(self.data.template))):
            if hide_secrets(text) != text:
                problems.append(
                    f"{key}: holds what looks like a key or a password, and is handed on as it is. Remove it"
                )
        if self.data.validation_fraction + self.data.test_fraction >= 1:
            problems.append("data.validation_fraction: with test_fraction it leaves no training rows")
        if problems:
            raise ValueError("\n".join(problems))
        return self
