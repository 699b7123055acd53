"""The shipped GPT-2 recipes through a stand-in hub, from its cache, and without it; nothing else is ever asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hub import COMMIT, Hub, Repository, closed_endpoint, running_hub, silent_endpoint
from tiny import tiny_rows

SMALL = (
    "data.max_length=128",
    "data.limit=64",
    "training.max_steps=4",
    "samples.every=end",
    "samples.max_new_tokens=4",
    "evaluation.rows=4",
    "evaluation.max_new_tokens=4",
)
Process = subprocess.CompletedProcess[str]
Trained = dict[str, Process]
# The whole of a command that cannot go on; the issue's own figure.
DOWN_SECONDS = 10.0


@dataclass(frozen=True)
class Machine:
    """A home folder with its own cache, and a folder to work in."""

    home: Path
    work: Path

    def python(self, *arguments: str, endpoint: str, proxy: str | None = None) -> Process:
        """Run Python as a person with this home would, with nothing of the tests' own environment."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "DO_NOT"))}
        environment |= {"HF_HOME": str(self.home), "HF_ENDPOINT": endpoint}
        if proxy is not None:
            environment |= {"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "ALL_PROXY": proxy, "NO_PROXY": "127.0.0.1"}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.work,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def command(self, *arguments: str, endpoint: str, proxy: str | None = None) -> Process:
        return self.python("-m", "peft_instruct", *arguments, endpoint=endpoint, proxy=proxy)

    def train(self, recipe: str, *options: str, endpoint: str, proxy: str | None = None) -> Process:
        sets = [part for override in SMALL for part in ("--set", override)]
        return self.command("train", recipe, *sets, *options, endpoint=endpoint, proxy=proxy)


def _machine(folder: Path) -> Machine:
    machine = Machine(folder / "home", folder / "work")
    machine.home.mkdir(parents=True)
    machine.work.mkdir()
    return machine


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return _machine(tmp_path_factory.mktemp("machine"))


@pytest.fixture(scope="module")
def alpaca_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set repository like tatsu-lab/alpaca: parquet, with the `text` column that Alpaca has."""
    import pyarrow
    import pyarrow.parquet

    folder = tmp_path_factory.mktemp("alpaca")
    (folder / "data").mkdir()
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Rows of the tests\n")
    rows = [{**row, "text": f"Below is ... {row['instruction']} {row['output']}"} for row in tiny_rows()] * 2
    table = pyarrow.table({name: [row[name] for row in rows] for name in ("instruction", "input", "output", "text")})
    pyarrow.parquet.write_table(table, folder / "data" / "train-00000-of-00001-a09b74b3ef9c3b56.parquet")
    return folder


@pytest.fixture(scope="module")
def hub(tiny_base_folder: Path, alpaca_folder: Path) -> Iterator[Hub]:
    repositories = (
        Repository("models", "gpt2", tiny_base_folder),
        Repository("datasets", "tatsu-lab/alpaca", alpaca_folder),
    )
    with running_hub(*repositories) as running:
        yield running


@pytest.fixture(scope="module")
def trained(hub: Hub, machine: Machine) -> Trained:
    """Both recipes, trained through the stand-in."""
    return {
        name: machine.train(f"recipes/{name}.yaml", endpoint=hub.endpoint, proxy=hub.outside)
        for name in ("gpt2_lora", "gpt2_full")
    }


@pytest.mark.parametrize(
    ("recipe", "weights"), [("gpt2_lora", "adapter_model.safetensors"), ("gpt2_full", "model.safetensors")]
)
def test_a_shipped_recipe_trains_through_the_hub(trained: Trained, machine: Machine, recipe: str, weights: str) -> None:
    done = trained[recipe]
    assert done.returncode == 0, done.stderr
    folder = machine.work / "adapters" / recipe.replace("_", "-")
    names = {path.name for path in folder.iterdir()}
    assert {weights, "manifest.json", "recipe.yaml", "README.md", "metrics.jsonl", "report.html"} <= names
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["base"]["id"] == "gpt2"
    assert len(manifest["base"]["revision"]) == 40, "the commit, not the branch"
    assert manifest["proofs"]["reloaded_equals_trained"]["largest_logit_difference"] <= 1e-4
    for path in folder.rglob("*"):
        assert path.suffix not in (".bin", ".pt", ".pth", ".pkl"), "no pickle is handed over"
        if path.suffix in (".json", ".yaml", ".md", ".jsonl", ".html"):
            assert str(machine.home) not in path.read_text(encoding="utf-8"), f"{path.name} tells of this machine"


def test_alpacas_own_text_column_is_named_and_not_used(
    trained: Trained,
) -> None:
    assert "columns not used: text" in trained["gpt2_lora"].stderr


def test_only_the_endpoint_is_asked_and_for_nothing_but_files(trained: Trained, hub: Hub) -> None:
    assert trained["gpt2_lora"].returncode == 0
    assert hub.outside_log.requests == []
    allowed = ("/", "/gpt2/resolve/", "/api/models/gpt2", "/datasets/tatsu-lab/alpaca/resolve/", "/api/datasets/tatsu")
    odd = [request for request in hub.log.requests if not _is_allowed(request.split(" ")[1], allowed)]
    assert odd == [], "no telemetry, no look-up of agents, no other repository"
    assert not [request for request in hub.log.requests if request.startswith(("POST", "PUT"))]
    assert not [request for request in hub.log.requests if request.endswith((".bin", ".pt", ".h5", ".msgpack"))]


def _is_allowed(path: str, allowed: tuple[str, ...]) -> bool:
    return path == "/" or any(path.startswith(prefix) for prefix in allowed[1:])


@pytest.mark.slow
def test_the_run_is_repeated_from_the_cache_with_the_hub_down(trained: Trained, machine: Machine) -> None:
    assert trained["gpt2_lora"].returncode == 0
    again = machine.train("gpt2_lora", "--out", "again", "--json", endpoint=closed_endpoint())
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["name"] == "gpt2-lora"
    before = json.loads((machine.work / "adapters" / "gpt2-lora" / "manifest.json").read_text())
    after = json.loads((machine.work / "again" / "manifest.json").read_text())
    assert after["base"]["fingerprint"] == before["base"]["fingerprint"]
    assert after["base"]["revision"] == before["base"]["revision"]
    assert after["data_fingerprint"] == before["data_fingerprint"]


# What `train` asks for before it imports torch, for several ids in one process.
ASK = """
import json, sys
from peft_instruct.environment import prepare_environment
from peft_instruct.errors import PeftInstructError
hub = prepare_environment(["gpt2"])
from peft_instruct.data.sources import read_rows
from peft_instruct.model.location import locate
answers = []
for kind, name, revision in json.loads(sys.argv[1]):
    try:
        if kind == "model":
            answers.append(locate(name, revision, hub).revision)
        else:
            rows = read_rows(name, revision).rows
            answers.append([len(rows), rows[1].origin, rows[1].values])
    except PeftInstructError as error:
        answers.append([error.exit_code, str(error)])
print(json.dumps({"reachable": hub.reachable, "answers": answers, "torch": "torch" in sys.modules}))
"""


def _ask(machine: Machine, *asked: tuple[str, str, str], endpoint: str, proxy: str | None = None) -> list[Any]:
    done = machine.python("-c", ASK, json.dumps(asked), endpoint=endpoint, proxy=proxy)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["torch"] is False
    return list(answer["answers"])


def test_what_was_fetched_is_read_from_the_cache_with_the_hub_down(trained: Trained, machine: Machine) -> None:
    assert trained["gpt2_lora"].returncode == 0
    start = time.perf_counter()
    model, rows = _ask(
        machine, ("model", "gpt2", "main"), ("data", "tatsu-lab/alpaca", "main"), endpoint=closed_endpoint()
    )
    assert model == COMMIT
    assert rows[:2] == [128, "tatsu-lab/alpaca row 2"]
    assert {name: rows[2][name] for name in ("instruction", "input", "output")} == tiny_rows()[1]
    # The libraries alone take 50 s for the model and 24 s for the rows (shared/STACK.md, 13.1).
    assert time.perf_counter() - start < DOWN_SECONDS


@pytest.mark.parametrize("hub_is", ["checked", "held against"])
def test_rows_on_the_hub_are_checked_though_no_model_is_asked_for(hub: Hub, tmp_path: Path, hub_is: str) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in tiny_rows()), encoding="utf-8")
    target = ["tatsu-lab/alpaca"] if hub_is == "checked" else [str(rows), "--against", "tatsu-lab/alpaca"]
    machine = Machine(tmp_path / "home", tmp_path)
    done = machine.command("data", "check", *target, endpoint=hub.endpoint, proxy=hub.outside)
    assert "tatsu-lab/alpaca: 128 rows" in done.stdout, done.stderr
    assert ("train-evaluation-overlap" in done.stdout) == (hub_is == "held against")


def test_what_the_hub_does_not_have_is_told_as_such(hub: Hub, machine: Machine) -> None:
    answers = _ask(
        machine,
        ("model", "gpt2-of-nobody", "main"),
        ("model", "gpt2", "v9"),
        ("data", "nobody/nothing", "main"),
        ("data", "tatsu-lab/alpaca:test", "main"),
        ("data", "tatsu-lab/alpaca", "v9"),
        endpoint=hub.endpoint,
        proxy=hub.outside,
    )
    assert [code for code, _ in answers] == [4, 4, 3, 3, 3]
    texts = [text for _, text in answers]
    assert texts[0].startswith(f"model.base: 'gpt2-of-nobody' is no folder here and no model on {hub.endpoint}")
    assert texts[1].startswith("model.base: 'gpt2' (revision v9) is not on")
    assert texts[2].startswith("nobody/nothing: no such file, and no such dataset on the hub")
    assert texts[3].startswith("tatsu-lab/alpaca:test: ") and "train" in texts[3], "the splits that there are"
    assert texts[4].startswith("tatsu-lab/alpaca: ") and "v9" in texts[4]
    assert hub.outside_log.requests == []


def test_a_data_set_that_cannot_be_had_is_an_error_of_the_data(tmp_path: Path) -> None:
    [(code, text)] = _ask(_machine(tmp_path), ("data", "tatsu-lab/alpaca", "main"), endpoint=closed_endpoint())
    assert code == 3
    assert text.startswith("tatsu-lab/alpaca: ")
    assert "--set data.train=FILE.json" in text
    assert "quickstart_lora" in text


def test_with_the_hub_down_the_message_names_the_id_what_was_tried_and_the_ways_on(tmp_path: Path) -> None:
    endpoint = closed_endpoint()
    message = _refused(_machine(tmp_path), endpoint)
    assert message.startswith("error: model.base: 'gpt2' (revision main) is not on this machine. Tried ")
    assert endpoint in message, "what was tried"
    assert "--set model.base=FOLDER" in message, "one way on"
    assert "quickstart_lora" in message, "the other way on"


def test_a_bench_measures_what_it_has_to_download(hub: Hub, tmp_path: Path) -> None:
    words = ["--devices", "cpu", "--steps", "1", "--warmup", "0"]
    words += ["--set", "data.max_length=128", "--set", "data.limit=64"]
    done = _machine(tmp_path).command("bench", *words, "gpt2_lora", endpoint=hub.endpoint, proxy=hub.outside)
    assert done.returncode == 0, done.stderr
    assert "tokens/s on cpu" in done.stderr


def test_a_hub_that_takes_the_call_and_says_nothing_is_given_up_in_time(tmp_path: Path) -> None:
    with silent_endpoint() as endpoint:
        assert f"{endpoint} did not answer within 2 s" in _refused(_machine(tmp_path), endpoint)


def _refused(machine: Machine, endpoint: str) -> str:
    """What `train` says when its base is not to be had; in time, and on stderr alone."""
    start = time.perf_counter()
    done = machine.train("gpt2_lora", endpoint=endpoint)
    assert time.perf_counter() - start < DOWN_SECONDS
    assert done.returncode == 4, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, "one message, no traceback"
    return done.stderr


@pytest.mark.slow
def test_a_local_run_asks_nobody(tiny_recipe: Path, tmp_path: Path) -> None:
    with running_hub() as hub:
        done = _machine(tmp_path).command(
            "train", str(tiny_recipe), "--set", "training.max_steps=2", endpoint=hub.endpoint, proxy=hub.outside
        )
        assert done.returncode == 0, done.stderr
        assert hub.log.requests == []
        assert hub.outside_log.requests == []
