"""What every test may use: a tiny base, rows, a recipe, an adapter; no test reaches the network or a user's cache."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import write_tiny_base, write_tiny_recipe, write_tiny_rows

REPOSITORY = Path(__file__).resolve().parent.parent

# huggingface_hub and matplotlib read these once, at import, and test modules are imported before any fixture runs.
_HOME = Path(tempfile.mkdtemp(prefix="peft-instruct-tests-"))
ISOLATION = {
    "HF_HOME": str(_HOME / "huggingface"),
    "XDG_CACHE_HOME": str(_HOME / "cache"),
    "MPLCONFIGDIR": str(_HOME / "matplotlib"),
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
# One thread each where tests run side by side: two pools of threads on the same cores are ten times as slow.
if "PYTEST_XDIST_WORKER" in os.environ:
    ISOLATION["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", "1")
for _name in [name for name in os.environ if name.startswith(("HF_", "HUGGING"))]:
    del os.environ[_name]
os.environ.update(ISOLATION)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """What runs in one process: the tests of a file, and all files that fork from one process with a head start."""
    from xdist.scheduler import LoadScopeScheduling

    faults = REPOSITORY / "tests" / "faults"
    forking = {f"tests/faults/{path.name}" for path in faults.glob("test_*.py") if "zygote: Zygote" in path.read_text()}

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "zygote" if file in forking else file

    return ByFile(config, log)


def pytest_collection_finish() -> None:
    """What is imported is no garbage: transformers collects at the end of each training, and walks through it all."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(autouse=True)
def isolated_environment() -> Iterator[None]:
    """The environment above for each test, whatever the one before has set."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def quiet_transformers() -> Iterator[None]:
    """Damaged folders make transformers talk."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    yield
    logging.set_verbosity(before)


@pytest.fixture(scope="session")
def tiny_base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved GPT-2 of 2 layers, 64 wide, 256 positions, with its tokenizer of 512 entries."""
    return write_tiny_base(tmp_path_factory.mktemp("base") / "tiny-gpt2")


@pytest.fixture(scope="session")
def tiny_rows_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 Alpaca-format rows."""
    return write_tiny_rows(tmp_path_factory.mktemp("rows") / "tiny_rows.json")


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory, tiny_base_folder: Path, tiny_rows_file: Path) -> Path:
    """A recipe that trains the tiny base by LoRA of rank 4 for 12 steps on the CPU."""
    return write_tiny_recipe(tmp_path_factory.mktemp("recipe") / "tiny_lora.yaml", tiny_base_folder, tiny_rows_file)


@pytest.fixture(scope="session")
def tiny_adapter_folder(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Path) -> Path:
    """The adapter that the train command makes of `tiny_recipe`; tests read it, and copy it before they change it."""
    from peft_instruct.commands.train import train

    lines: list[str] = []
    out = tmp_path_factory.mktemp("adapters") / "tiny-lora"
    return train(str(tiny_recipe), (), out=out, say=lines.append).folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real input that lies beside the repository on the build machines; never copied into it."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("../shared/data is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def gpt2_tokenizer(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Any:
    """GPT-2's own BPE of 50,257 entries, as our loader gives it (pad = eos)."""
    from peft_instruct.model.tokenizer import load_tokenizer

    return load_tokenizer(_gpt2_tokenizer_folder(tmp_path_factory.mktemp("gpt2-tokenizer"), shared_data))


def _gpt2_tokenizer_folder(folder: Path, shared_data: Path) -> Path:
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(shared_data / "gpt2" / name, folder / name)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer", "model_max_length": 1024}\n')
    return folder
