"""`train` where its adapter is already: exit 0 and no step for the very same run, a refusal for any other."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from listeners import silent
from tiny import write_tiny_recipe

from peft_instruct.adapter.folder import open_adapter
from peft_instruct.cli import cli
from peft_instruct.commands import train_run
from peft_instruct.commands.train import train
from peft_instruct.errors import AdapterError

QUICK = ("training.max_steps=2", "evaluation.rows=0", "samples.count=0")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_base_folder: Path, tiny_rows_file: Path) -> Path:
    """A folder with a base, rows, a recipe of them, and the adapter `a` that it has trained."""
    place = tmp_path_factory.mktemp("finished")
    base, rows = place / "base", place / "rows.json"
    shutil.copytree(tiny_base_folder, base)
    shutil.copyfile(tiny_rows_file, rows)
    recipe = write_tiny_recipe(place / "r.yaml", base, rows)
    train(str(recipe), QUICK, out=place / "a", say=silent)
    return place


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*args: object) -> None:
        raise AssertionError("a run was begun")

    monkeypatch.setattr(train_run, "Run", run)


@pytest.mark.usefixtures("no_training")
def test_the_same_command_says_so_and_exits_0(place: Path) -> None:
    options = [option for override in QUICK for option in ("--set", override)]
    command = ["train", str(place / "r.yaml"), "--out", str(place / "a"), *options]
    before = sorted((path.name, path.stat().st_mtime_ns) for path in (place / "a").iterdir())
    said = CliRunner().invoke(cli, command)
    created = open_adapter(place / "a").manifest.created
    told = (
        f"{place}/a: finished already (2 steps, {created}); nothing was trained. --if-exists replace trains it again."
    )
    assert (said.exit_code, said.stdout) == (0, told + "\n")
    said = CliRunner().invoke(cli, [*command, "--json"])
    assert said.exit_code == 0
    record = json.loads(said.stdout)
    assert (record["finished_already"], record["num_steps"], record["created"]) == (True, 2, created)
    assert sorted((path.name, path.stat().st_mtime_ns) for path in (place / "a").iterdir()) == before
    assert not (place / "a.run").exists()


@contextmanager
def changed(path: Path) -> Iterator[None]:
    """For a while a row less in a file of rows, another last byte in any other."""
    before = path.read_bytes()
    is_rows = path.name == "rows.json"
    path.write_bytes(json.dumps(json.loads(before)[:-1]).encode() if is_rows else before[:-1] + bytes([before[-1] ^ 1]))
    try:
        yield
    finally:
        path.write_bytes(before)


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("rows.json", r"holds a finished adapter of another run; nothing was trained.*--if-exists replace.*"
                      r"\n  data: other rows \(.{12}… -> .{12}…\)"),
        ("base/model.safetensors", r"holds a finished adapter of another run.*\n  model\.base: other weights \("),
        ("a/adapter_model.safetensors", r"holds a damaged adapter.*--if-exists replace.*adapter_model\.safetensors"),
        ("a/recipe.yaml", r"holds a damaged adapter|holds a finished adapter of another"),
        ("a/manifest.json", r"holds a damaged adapter.*manifest\.json"),
    ],
)  # fmt: skip
def test_another_base_other_rows_or_one_changed_byte_is_told_and_nothing_is_trained(
    place: Path, name: str, told: str
) -> None:
    with changed(place / name), pytest.raises(AdapterError, match=rf"(?s){told}") as caught:
        train(str(place / "r.yaml"), QUICK, out=place / "a", say=silent)
    assert caught.value.exit_code == 4
    open_adapter(place / "a")


def test_another_recipe_is_refused_before_torch_is_imported(place: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from peft_instruct.commands.train import train\n"
        "from peft_instruct.errors import AdapterError\n"
        "try: train(sys.argv[1], sys.argv[3:], out=Path(sys.argv[2]), say=print)\n"
        "except AdapterError as error: print(error)\n"
        "assert 'torch' not in sys.modules\n"
    )
    arguments = [str(place / "r.yaml"), str(place / "a"), *QUICK, "training.learning_rate=0.5"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "holds a finished adapter of another recipe" in done.stdout
    assert "\n  training.learning_rate: 0.01 -> 0.5\n" in done.stdout
