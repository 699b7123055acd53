"""What a recipe may say of the rows to learn from: sources, format, template, split, lengths."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from peft_instruct.recipe.section import Fraction, Positive, Section


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
