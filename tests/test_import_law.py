"""The house has one direction (DESIGN §2): a room imports from rooms to its left, and each library has one door."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "peft_instruct"
# Each room with what it may import from; a room may always import from itself.
LEFT = ("errors", "secrets", "environment", "whole_file", "recipe", "data", "model", "adapter")
BESIDE = ("inference", "evaluation", "bench", "training", "report", "starter")
LAW: dict[str, set[str]] = {
    "errors": set(),
    "secrets": set(),
    "environment": set(LEFT[:2]),
    "whole_file": set(),
    "recipe": set(LEFT[:4]),
    "data": set(LEFT[:5]),
    "model": set(LEFT[:6]),
    "adapter": set(LEFT[:7]),
    "inference": set(LEFT),
    "evaluation": set(LEFT),
    "bench": set(LEFT),
    "training": set(LEFT),
    "report": {"errors", "secrets", "recipe"},
    "starter": set(),
    "commands": {*LEFT, *BESIDE},
    "cli": {*LEFT, *BESIDE, "commands"},
    "__main__": {"cli"},
    "__init__": set(),
}
# Each library with the rooms (or modules) that may import it.
DOORS = {
    "trl": {"training"},
    "peft": {"model", "adapter"},
    "datasets": {"data", "training"},
    "click": {"cli"},
    "ruamel": {"recipe"},
    "matplotlib": {"report"},
    "gradio": {"inference"},
}
# What takes seconds to import.
HEAVY = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "accelerate",
    "bitsandbytes",
    "matplotlib",
    "pyarrow",
    "gradio",
)


@dataclass(frozen=True)
class Import:
    """One import statement.

    Attributes:
        module: the dotted name of what is imported.
        is_early: whether it runs when its module is imported, and not in a function or for type checkers alone.
    """

    path: Path
    line: int
    module: str
    is_early: bool

    @property
    def room(self) -> str:
        return self.path.relative_to(PACKAGE).parts[0].removesuffix(".py")

    @property
    def place(self) -> str:
        return f"{self.path.relative_to(PACKAGE.parent)}:{self.line}: {self.module}"


MODULES = sorted(PACKAGE.rglob("*.py"))


def _imports(path: Path) -> Iterator[Import]:
    yield from _walk(ast.parse(path.read_text(encoding="utf-8")), path, True)


def _walk(node: ast.AST, path: Path, is_early: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for name in child.names:
                yield Import(path, child.lineno, name.name, is_early)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{path}:{child.lineno}: a relative import hides which room it is from"
            for name in child.names:
                # `from peft_instruct import cli` names a room too.
                yield Import(path, child.lineno, f"{child.module}.{name.name}", is_early)
        else:
            late = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or _for_types_alone(child)
            yield from _walk(child, path, is_early and not late)


def _for_types_alone(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


ALL = [found for path in MODULES for found in _imports(path)]


def test_the_walk_sees_the_package() -> None:
    assert len(MODULES) > 40
    assert {found.room for found in ALL} <= set(LAW), "a new room needs its place in the law"
    seen = {found.module.split(".")[0] for found in ALL}
    assert {"torch", *DOORS} <= seen, "a door that nobody uses guards nothing"


def test_a_room_imports_only_from_rooms_to_its_left() -> None:
    broken = []
    for found in ALL:
        parts = found.module.split(".")
        if parts[0] == "peft_instruct" and len(parts) > 1:
            room = parts[1]
            if room in LAW and room != found.room and room not in LAW[found.room]:
                broken.append(found.place)
    assert broken == []


@pytest.mark.parametrize("library", DOORS)
def test_a_library_has_one_door(library: str) -> None:
    users = [found for found in ALL if found.module.split(".")[0] == library]
    assert [found.place for found in users if found.room not in DOORS[library]] == []


def test_nothing_heavy_is_imported_by_the_rooms_that_start_every_command() -> None:
    early = [found for found in ALL if found.is_early and found.module.split(".")[0] in HEAVY]
    light = ("cli", "__main__", "__init__", "errors", "secrets", "environment", "recipe", "data")
    assert [found.place for found in early if found.room in light] == []


def test_commands_that_the_command_line_names_import_nothing_heavy_early() -> None:
    """In a process of its own, since what is early in them may be heavy further on."""
    named = sorted({found.module.rpartition(".")[0] for found in ALL if _is_named_command(found)})
    assert len(named) >= 5
    code = f"import sys, {', '.join(named)}\nprint([m for m in {HEAVY!r} if m in sys.modules])"
    assert _python("-c", code).strip() == "[]"


def _is_named_command(found: Import) -> bool:
    return found.room == "cli" and found.module.startswith("peft_instruct.commands.")


def _python(*arguments: str) -> str:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True).stdout


# Runs a command line as `peft-instruct` does and tells which modules it took.
WATCHED = """
import io, json, sys
from contextlib import redirect_stdout
from peft_instruct.cli import main
code = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["peft-instruct", *arguments]
    with redirect_stdout(io.StringIO()):
        try:
            main()
            code.append(0)
        except SystemExit as leaving:
            code.append(leaving.code or 0)
print(json.dumps([code, sorted(sys.modules)]))
"""
LIGHT_COMMANDS = [
    ["--help"],
    ["--version"],
    ["train", "--help"],
    ["generate", "--help"],
    ["recipe", "list"],
    ["recipe", "show", "gpt2_lora"],
    ["recipe", "explain", "gpt2_lora"],
    ["recipe", "validate", "gpt2_lora"],
    ["recipe", "schema"],
]


def test_help_and_recipes_import_no_torch() -> None:
    codes, modules = json.loads(_python("-c", WATCHED, json.dumps(LIGHT_COMMANDS)))
    assert codes == [0] * len(LIGHT_COMMANDS)
    assert [name for name in (*HEAVY, "numpy", "huggingface_hub", "jinja2") if name in modules] == []


def test_help_needs_no_recipe_either() -> None:
    codes, modules = json.loads(_python("-c", WATCHED, json.dumps([["--help"]])))
    assert codes == [0]
    assert [name for name in ("pydantic", "ruamel.yaml") if name in modules] == []


def test_help_and_validate_answer_within_a_quarter_of_a_second() -> None:
    """On a machine where `import click` takes 0.042 s; a slower one is granted the same proportion.

    Processor seconds and the least of several, in turn with the yardstick: other work on the machine only adds.
    """
    commands = {
        "click": ["-c", "import click"],
        "help": ["-m", "peft_instruct", "--help"],
        "validate": ["-m", "peft_instruct", "recipe", "validate", "gpt2_lora"],
    }
    least = dict.fromkeys(commands, float("inf"))
    for _ in range(20):
        for name, arguments in commands.items():
            before = os.times()
            _python(*arguments)
            after = os.times()
            used = after.children_user - before.children_user + after.children_system - before.children_system
            least[name] = min(least[name], used)
        if max(least["help"], least["validate"]) < max(0.25, 6 * least["click"]):
            return
    pytest.fail(f"processor seconds, the least of 20: {least}")
