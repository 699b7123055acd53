"""What is settled before the libraries are imported."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from peft_instruct import environment
from peft_instruct.environment import in_own_process, prepare_environment

FAULTS_OF_A_SECOND_BLOCK = """
import ctypes, resource
from peft_instruct.environment import keep_freed_memory
keep_freed_memory()
libc = ctypes.CDLL(None)
libc.prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE (linux/prctl.h)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
faults = []
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(100_000_000)
    ctypes.memset(block, 1, 100_000_000)
    libc.free(block)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(*faults)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_a_process_of_ours_takes_no_module_of_the_working_folder(tmp_path: Path) -> None:
    """As `-m` does; an adapter of others may hold a json.py, and a project of one's own a datasets.py."""
    for name in ("json.py", "datasets.py"):
        (tmp_path / name).write_text("raise SystemExit('of the working folder')")
    arguments = ("peft_instruct", "recipe", "validate", "quickstart_lora", "--json")
    found = {}
    for command in (in_own_process(*arguments), [sys.executable, "-m", *arguments]):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        found[command[1]] = (done.returncode, done.stderr.strip())
    assert found == {"-c": (0, ""), "-m": (1, "of the working folder")}


def test_a_package_that_is_not_installed_is_found_where_it_is(tmp_path: Path) -> None:
    """Of a checkout that is run from its folder, even where another one is installed."""
    copy = tmp_path / "peft_instruct"
    copy.mkdir()
    for file in Path(environment.__file__).parent.glob("*.py"):
        shutil.copy(file, copy)
    (copy / "here.py").write_text("print(__file__)")
    start = "import subprocess; from peft_instruct.environment import in_own_process as command; "
    start += "subprocess.run(command('peft_instruct.here'), check=True, cwd='..')"
    without = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", start], cwd=tmp_path, env=without, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(copy / "here.py")


def test_what_a_launcher_says_of_precision_does_not_go_before_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "inductor")
    prepare_environment([])
    assert not any(name.startswith("ACCELERATE_") for name in os.environ)


@pytest.mark.parametrize("name", ["ONEDNN_PRIMITIVE_CACHE_CAPACITY", "DNNL_PRIMITIVE_CACHE_CAPACITY"])
def test_as_many_kernels_stay_compiled_as_the_user_says(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for each in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "DNNL_PRIMITIVE_CACHE_CAPACITY"):
        monkeypatch.setenv(each, "")
        monkeypatch.delenv(each)
    monkeypatch.setenv(name, "1500")
    prepare_environment([])
    assert {key: value for key, value in os.environ.items() if "PRIMITIVE" in key} == {name: "1500"}
    monkeypatch.delenv(name)
    prepare_environment([])
    assert int(os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"]) > 1024


def test_freed_memory_is_used_again_unless_the_user_has_settings() -> None:
    """A page that was given back to the system faults anew: 100 MB are 24,414 pages of 4 KiB.

    Of large ones, which the system may put in their place, they are 48, and a few others would decide.
    """

    def faults(**settings: str) -> list[int]:
        without = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
        found = subprocess.run(
            [sys.executable, "-c", FAULTS_OF_A_SECOND_BLOCK],
            env={**without, **settings}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return [int(count) for count in found.stdout.split()]

    first, second = faults()
    assert second < first / 4
    first, second = faults(MALLOC_MMAP_THRESHOLD_="1000000")
    assert second > first / 2
