"""What every section of a recipe is: frozen, strict, and with a manual for each of its keys."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """The docstring under a field is its manual: `peft-instruct recipe schema` and editors show it.

    pydantic's own `use_attribute_docstrings` reads the source of every section whenever one is imported, a fifth of
    the time that `recipe validate` takes; here it is read where the schema is asked for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> dict[str, Any]:
        found: dict[str, Any] = handler(core_schema)
        properties = handler.resolve_ref_schema(found).get("properties", {})
        for name, text in _manuals(cls):
            properties[name]["description"] = text
        return found


def _manuals(section: type[Section]) -> Iterator[tuple[str, str]]:
    """(field, docstring under it), from the section's source."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    assert isinstance(body, ast.ClassDef)
    for field, below in pairwise(body.body):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            yield ast.unparse(field.target), inspect.cleandoc(str(below.value.value))
