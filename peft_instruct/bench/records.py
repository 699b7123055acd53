"""The result file of a bench: what was asked, what was measured where, and why a cell has no figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from peft_instruct.errors import RecipeError, problems_of
from peft_instruct.whole_file import whole_file

SCHEMA_VERSION = 1

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Quantity = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Axis = Literal["length", "batch", "rank", "method"]


class Record(BaseModel):
    # A figure that is not a number is no measurement.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Cell(Record):
    """What one process is asked to measure, in the words of the recipe.

    Attributes:
        rank: of the LoRA update; None in full training, and in files of earlier versions.
        axis: the axis of a sweep that the cell is a point of. On `length` every row has exactly `max_length` tokens.
    """

    device: Literal["cuda", "mps", "cpu"]
    method: Annotated[str, Field(min_length=1)]
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    batch_size: Positive
    max_length: Positive
    rank: Positive | None = None
    axis: Axis | None = None

    def __str__(self) -> str:
        rank = f" rank {self.rank}" if self.rank else ""
        exactly = "of exactly " if self.axis == "length" else ""
        return (
            f"{self.device} {self.method}{rank} {self.precision} batch {self.batch_size} length "
            f"{exactly}{self.max_length}"
        )


class Spread(Record):
    """Median, smallest and largest over the measured steps."""

    median: Quantity
    smallest: Quantity
    largest: Quantity

    @model_validator(mode="after")
    def _in_order(self) -> Spread:
        if not self.smallest <= self.median <= self.largest:
            raise ValueError(f"median {self.median} is not between {self.smallest} and {self.largest}")
        return self

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(median=float(median(values)), smallest=float(min(values)), largest=float(max(values)))


class Memory(Record):
    """Peak memory while training.

    Attributes:
        peak_bytes: of what `how` says.
        baseline_bytes: the same quantity after the model was loaded, before the first step; of a resident set, weights
            in a mapped file count from when they are first read.
        how: which counter, of what, and since when.
    """

    peak_bytes: Positive
    baseline_bytes: Count
    how: Annotated[str, Field(min_length=1)]


class MatrixRate(Record):
    """What this device reaches on one large matrix product, measured in the same process."""

    flops_per_second: Quantity
    dtype: Literal["fp32", "bf16", "fp16"]
    size: Positive
    """Rows and columns of the square matrices."""


class Split(Record):
    """Shares of a step's time, measured in steps of their own after the others."""

    data: Share
    forward: Share
    backward: Share
    optimizer: Share


class Measurement(Record):
    """What was measured, on the device and in the type that were really used.

    Attributes:
        num_steps: measured optimizer steps, `num_warmup` unmeasured ones before them.
        tokens_per_second: real tokens, padding not counted.
        completion_tokens_per_second: the tokens among them that are learned.
        tokens_per_step: real tokens of a measured step, on average.
        fill_fraction: real tokens by all positions of the batches; the rest is padding.
        flops_per_token: necessary arithmetic per real token, by `flops_formula`.
        share_of_matrix_rate: median model FLOP/s by the matrix rate.
        split: where the time of a step goes; files of earlier versions have none.
    """

    device: Literal["cuda", "mps", "cpu"]
    device_name: str
    dtype: Literal["fp32", "bf16", "fp16"]
    num_threads: Positive
    num_warmup: Count
    num_steps: Positive
    step_seconds: Spread
    tokens_per_second: Spread
    completion_tokens_per_second: Spread
    tokens_per_step: Quantity
    fill_fraction: Annotated[float, Field(gt=0, le=1)]
    memory: Memory
    num_trainable: Positive
    num_parameters: Positive
    flops_per_token: Quantity
    flops_formula: str
    model_flops_per_second: Spread
    matrix_rate: MatrixRate
    share_of_matrix_rate: Quantity
    split: Split | None = None


class BenchRow(Record):
    """A cell and its figures, or why it has none."""

    cell: Cell
    status: Literal["measured", "absent", "failed"]
    reason: str = ""
    measurement: Measurement | None = None

    @model_validator(mode="after")
    def _figures_only_where_measured(self) -> BenchRow:
        if (self.status == "measured") != (self.measurement is not None):
            raise ValueError(f"status {self.status!r} with{'' if self.measurement else 'out'} a measurement")
        if (self.status == "measured") == bool(self.reason):
            raise ValueError(f"status {self.status!r} with reason {self.reason!r}")
        return self


class Growth(Record):
    """How cost grows along one axis of a sweep: slopes of log-log lines by least squares, over the measured points.

    Attributes:
        around: what the other axes were held at.
        values: the measured points; an exponent needs two, and an axis of numbers.
        memory_exponent: of the whole peak, weights and libraries included.
    """

    axis: Axis
    device: Literal["cuda", "mps", "cpu"]
    around: str
    values: list[int | str]
    seconds_exponent: float | None
    tokens_per_second_exponent: float | None
    memory_exponent: float | None


class BenchFile(Record):
    """One run of `bench` on one machine.

    Attributes:
        growth: of its sweeps; files of earlier versions have none.
    """

    schema_version: Literal[1] = 1
    created: str
    recipe: str
    recipe_sha256: str
    environment: dict[str, Any]
    rows: list[BenchRow]
    growth: list[Growth] = []


def write_bench(path: Path, file: BenchFile) -> None:
    """Write the result file in one step, so that no half of one is ever read."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as stream:
            stream.write(file.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise RecipeError(f"{path}: cannot be written ({error.strerror}). Name another file with --out.") from error


def read_bench(path: Path) -> BenchFile:
    """A result file, validated.

    Raises:
        RecipeError: not there, not a result file, or of another version; every wrong value is named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise RecipeError(f"{path}: no such file. expected one that `peft-instruct bench --out` wrote.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read ({error}).") from error
    try:
        return BenchFile.model_validate_json(text)
    except ValidationError as error:
        raise RecipeError.of(f"{path}: not a bench result of version {SCHEMA_VERSION}", problems_of(error)) from error
