"""doctor tells what is here, what is not, and what to do about it; it asks nobody unless told to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from peft_instruct.commands import doctor as module
from peft_instruct.commands.doctor import Device, Library, check_libraries, doctor
from peft_instruct.environment import HubState

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def test_this_installation_is_told_as_it_is() -> None:
    found = doctor()
    assert found.hub == "not asked"
    assert {device.kind: device.is_here for device in found.devices}["cpu"]
    assert found.num_threads >= 1 and found.memory_bytes > 0
    assert json.loads(json.dumps(found.record()))["devices"][2]["kind"] == "cpu"
    for name in ("torch", "transformers", "trl", "peft"):
        assert name in found.text()


def test_the_tested_ranges_are_those_of_pyproject() -> None:
    declared = PYPROJECT.read_text(encoding="utf-8")
    found = doctor().libraries
    assert len(found) >= 12
    for library in found:
        written = (f'"{library.name}{library.tested}', f'"{library.name.replace("-", ".")}{library.tested}')
        assert any(line in declared for line in written), library


def test_a_library_is_within_its_range_outside_of_it_or_missing() -> None:
    lines = [
        "torch>=2.11,<2.14",
        "peft>=99",
        "not-installed-anywhere>=1",
        'pytest>=8; extra == "test"',
        'bitsandbytes>=0.50; python_version < "3"',
    ]
    found = check_libraries(lines)
    assert [(library.name, library.tested, library.fits) for library in found] == [
        ("torch", ">=2.11,<2.14", True),
        ("peft", ">=99", False),
        ("not-installed-anywhere", ">=1", False),
    ]
    assert module._library_problems(found) == [
        f"peft: {found[1].installed} is outside the tested range. expected >=99. pip install 'peft>=99'",
        "not-installed-anywhere: not installed. expected >=1. pip install 'not-installed-anywhere>=1'",
    ]


def test_a_local_build_is_of_its_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.13.0+cu130")
    assert check_libraries(["torch>=2.11,<2.14"])[0].fits


def test_a_checkout_that_was_not_installed_is_a_problem_with_a_way_on() -> None:
    assert module._library_problems(()) == [
        "peft-instruct: not installed, so its tested ranges are not known. pip install -e ."
    ]


@pytest.mark.parametrize(("has_driver", "has_cuda", "problems"), [(True, False, 1), (True, True, 0), (False, False, 0)])
def test_a_gpu_that_torch_does_not_see_is_a_problem(has_driver: bool, has_cuda: bool, problems: int) -> None:
    assert len(module._device_problems((Device("cuda", has_cuda),), has_driver)) == problems


def test_a_missing_starter_and_a_silent_hub_are_problems_with_a_way_on() -> None:
    found = module._other_problems("", has_starter=False, hub=HubState(False, "https://hub did not answer within 2 s"))
    assert [line.partition(":")[0] for line in found] == ["starter", "hub"]
    assert all(line.count(".") >= 2 for line in found)


def test_bitsandbytes_is_tried_and_not_only_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes.functional")
    assert module._quantization_problem() == ""

    def wrong(weights: object, state: object) -> object:
        return right(weights, state) * 0.5

    right = bitsandbytes.dequantize_4bit
    monkeypatch.setattr(bitsandbytes, "dequantize_4bit", wrong)
    assert module._quantization_problem().startswith("bitsandbytes gives wrong values here (off by 0.5")


def test_bitsandbytes_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    assert module._quantization_problem().startswith("bitsandbytes cannot be imported")


def test_the_hub_is_asked_only_when_told_to_and_a_closed_port_is_not_reachable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    # Port 9 (discard) of this machine: nothing listens there, and nothing leaves the machine.
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    found = doctor(check_hub=True)
    assert found.hub.startswith("not reachable: http://127.0.0.1:9")
    assert any(problem.startswith("hub: ") for problem in found.problems)


def test_a_sound_installation_has_nothing_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_has_starter", lambda: True)
    monkeypatch.setattr(module, "check_libraries", lambda lines: (Library("torch", ">=2", "2.13", True),))
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert doctor().text().endswith("\n\nNothing to mend.")


def test_importing_the_command_imports_no_torch() -> None:
    script = "import peft_instruct.commands.doctor, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
