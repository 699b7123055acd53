"""What a recipe may say: one frozen, strict model per section, and every default in its one home."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from peft_instruct.recipe.data_section import DataSection
from peft_instruct.recipe.model_section import MethodSection, ModelSection
from peft_instruct.recipe.section import Positive, Section
from peft_instruct.recipe.training_section import SpeedSection, TrainingSection
from peft_instruct.secrets import hide_secrets

_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?|.*\.", re.IGNORECASE)


def _not_reserved(name: str) -> str:
    if _RESERVED.fullmatch(name):
        raise ValueError(f"{name!r} is no folder on Windows. Choose another name")
    return name


RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"), AfterValidator(_not_reserved)]

DEFAULT_LEARNING_RATE = {"lora": 2e-4, "full": 5e-5}


class SamplesSection(Section):
    """Completions of fixed prompts while training, to see it learn."""

    instructions: list[str] = Field(default=[])
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
        if isinstance(training, dict):
            # Of a kind that there is none of, it is told alone.
            known = kind if isinstance(kind, str) and kind in DEFAULT_LEARNING_RATE else "lora"
            raw = {**raw, "training": {"learning_rate": DEFAULT_LEARNING_RATE[known], **training}}
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
        if self.training.batch_tokens is not None and not self.speed.length_buckets:
            problems.append("training.batch_tokens: makes batches of like length. Remove speed.length_buckets: false")
        formats = {self.data.format, *(source.format or self.data.format for source in self.data.sources())}
        if self.data.packing and formats != {"text"}:
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
