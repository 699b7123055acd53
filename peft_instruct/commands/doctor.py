"""`doctor`: what this machine and this installation can do, and what to mend."""

from __future__ import annotations

import importlib.metadata
import shutil
from dataclasses import asdict, dataclass
from typing import Any

from packaging.requirements import Requirement

from peft_instruct.environment import HubState, prepare_environment
from peft_instruct.errors import first_line

DISTRIBUTION = "peft-instruct"
HUB_ID_TO_ASK_FOR = "gpt2"
"""Only its name matters: an id that is not local is what makes the hub be asked at all."""
QUANTIZATION_TOLERANCE = 0.16
"""Half of nf4's widest gap, 0.304 between -1 and -0.696 (Dettmers et al. 2023, appendix E), and rounding."""


@dataclass(frozen=True)
class Library:
    """A dependency, its range and what is installed.

    Attributes:
        tested: the range that this version was tested with, as a version specifier.
        installed: empty where it is not.
    """

    name: str
    tested: str
    installed: str
    fits: bool


@dataclass(frozen=True)
class Device:
    """A device that torch knows.

    Attributes:
        precision: what `training.precision: auto` comes to there.
        memory_bytes: of the device; of the machine for the CPU and MPS, which share it.
    """

    kind: str
    is_here: bool
    name: str = ""
    is_faster_in_bf16: bool = False
    precision: str = ""
    memory_bytes: int = 0


@dataclass(frozen=True)
class DoctorResult:
    """What was found.

    Attributes:
        quantization: why bitsandbytes is unusable; empty where it works.
        hub: `not asked`, `reachable`, or why it is not.
        problems: each with what to do.
    """

    libraries: tuple[Library, ...]
    devices: tuple[Device, ...]
    num_threads: int
    memory_bytes: int
    quantization: str
    hub: str
    has_starter: bool
    problems: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        from peft_instruct.report.tables import text_table

        libraries = [[found.name, found.installed or "–", found.tested, _mark(found)] for found in self.libraries]
        return "\n".join(
            [
                text_table(("library", "installed", "tested", ""), libraries),
                "",
                *[_device_line(device) for device in self.devices],
                f"CPU threads  {self.num_threads}, memory {self.memory_bytes / 1e9:.1f} GB",
                f"4-bit bases  {self.quantization or 'bitsandbytes works'}",
                f"starter      {'here' if self.has_starter else 'not here'}",
                f"hub          {self.hub}",
                "",
                *(self.problems or ("Nothing to mend.",)),
            ]
        )


def doctor(*, check_hub: bool = False) -> DoctorResult:
    """Look at libraries, devices, quantisation, the starter and, only where asked to, the hub."""
    hub = prepare_environment([HUB_ID_TO_ASK_FOR] if check_hub else [])
    import psutil
    import torch

    libraries = check_libraries(_requirements())
    devices = tuple(_device(kind) for kind in ("cuda", "mps", "cpu"))
    quantization = _quantization_problem()
    has_starter = _has_starter()
    problems = [
        *_library_problems(libraries),
        *_device_problems(devices, has_nvidia_driver=shutil.which("nvidia-smi") is not None),
        *_other_problems(quantization, has_starter, hub if check_hub else None),
    ]
    return DoctorResult(
        libraries=libraries,
        devices=devices,
        num_threads=torch.get_num_threads(),
        memory_bytes=psutil.virtual_memory().total,
        quantization=quantization,
        hub=_hub_line(hub) if check_hub else "not asked",
        has_starter=has_starter,
        problems=tuple(problems),
    )


def _requirements() -> list[str]:
    try:
        return importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return []  # run from a checkout that was never installed


def check_libraries(requirements: list[str]) -> tuple[Library, ...]:
    """The libraries of this machine's requirement lines (extras left out) against what is installed."""
    found = []
    for line in requirements:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            installed = ""
        # A local build such as 2.13.0+cpu is of its release; a nightly of a tested release is let through.
        fits = bool(installed) and requirement.specifier.contains(installed, prereleases=True)
        # `>=2.11,<2.14` as it is written in pyproject.toml; packaging gives the parts in no order.
        tested = ",".join(sorted(map(str, requirement.specifier), reverse=True))
        found.append(Library(requirement.name, tested, installed, fits))
    return tuple(found)


def _device(kind: str) -> Device:
    import psutil
    import torch

    from peft_instruct.model.device import available_devices, choose_compute, is_faster_in_bf16

    if kind not in available_devices():
        return Device(kind, is_here=False)
    compute = choose_compute(kind)
    memory = torch.cuda.mem_get_info()[1] if kind == "cuda" else psutil.virtual_memory().total
    return Device(kind, True, compute.device_name, is_faster_in_bf16(kind), compute.precision, memory)


def _quantization_problem() -> str:
    """Why 4-bit weights cannot be used, found by quantising some; empty where they can."""
    import torch

    from peft_instruct.model.device import available_devices

    try:
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit
    except ImportError as error:
        return f"bitsandbytes cannot be imported ({error})"
    # 64 weights share a scale; each 64 here span [-1, 1].
    weights = torch.linspace(-1, 1, 64, device=available_devices()[0]).repeat(64, 1)
    try:
        back = dequantize_4bit(*quantize_4bit(weights, quant_type="nf4"))
    except (RuntimeError, NotImplementedError, OSError, ValueError) as error:
        return f"bitsandbytes does not work here ({first_line(error)})"
    furthest = float((back - weights).abs().max())
    return "" if furthest < QUANTIZATION_TOLERANCE else f"bitsandbytes gives wrong values here (off by {furthest:.2f})"


def _has_starter() -> bool:
    from peft_instruct.model.location import STARTER_FOLDER

    wanted = ("base/config.json", "base/*.safetensors", "instructions/*.jsonl")
    return all(any(STARTER_FOLDER.parent.glob(pattern)) for pattern in wanted)


def _library_problems(libraries: tuple[Library, ...]) -> list[str]:
    if not libraries:
        return [f"{DISTRIBUTION}: not installed, so its tested ranges are not known. pip install -e ."]
    problems = []
    for found in libraries:
        if not found.fits:
            state = f"{found.installed} is outside the tested range" if found.installed else "not installed"
            problems.append(f"{found.name}: {state}. expected {found.tested}. pip install '{found.name}{found.tested}'")
    return problems


def _device_problems(devices: tuple[Device, ...], has_nvidia_driver: bool) -> list[str]:
    has_cuda = any(device.kind == "cuda" and device.is_here for device in devices)
    if not has_nvidia_driver or has_cuda:
        return []
    return ["cuda: an NVIDIA driver is here (nvidia-smi), but this torch does not see a GPU. Install torch for CUDA."]


def _other_problems(quantization: str, has_starter: bool, hub: HubState | None) -> list[str]:
    problems = []
    if quantization:
        problems.append(f"quantization: {quantization}. Recipes with model.quantization need it; all others do not.")
    if not has_starter:
        problems.append("starter: not in this installation, so quickstart_lora cannot run. Install the package again.")
    if hub is not None and not hub.reachable:
        problems.append(f"hub: {hub.reason}. Use local folders and files, or the starter, which need no hub.")
    return problems


def _hub_line(hub: HubState) -> str:
    return "reachable" if hub.reachable else f"not reachable: {hub.reason}"


def _mark(library: Library) -> str:
    return "" if library.fits else "outside" if library.installed else "missing"


def _device_line(device: Device) -> str:
    if not device.is_here:
        return f"{device.kind:<12} not here"
    bf16 = "bf16 faster than fp32" if device.is_faster_in_bf16 else "bf16 not known to be faster"
    memory = f"{device.memory_bytes / 1e9:.1f} GB"
    return f"{device.kind:<12} {device.name}, {memory}, {bf16}: precision auto is {device.precision}"
