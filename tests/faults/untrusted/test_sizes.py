"""Files of a gigabyte, headers that lie, texts that unfold: refused before memory or time is gone."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from planting import World, refused

from peft_instruct.data.sources import read_rows
from peft_instruct.errors import DatasetError, PeftInstructError

pytestmark = pytest.mark.usefixtures("quiet_transformers")


def file_of(path: Path, header: bytes, size: int) -> None:
    """A file of `size` bytes that takes no room on the disk."""
    with path.open("wb") as stream:
        stream.write(header)
        stream.truncate(size)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json", "generation_config.json"])
def test_a_file_of_a_gigabyte_is_not_read(name: str, world: World) -> None:
    file_of(world.base / name, b"{", 1 << 30)
    began = time.process_time()
    refused(world.train)
    assert time.process_time() - began < 2


def test_a_manifest_of_a_gigabyte_is_not_read(world: World) -> None:
    file_of(world.adapter / "manifest.json", b"{", 1 << 30)
    began = time.process_time()
    refused(world.generate)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "content", ["", "[]", "3", "{}", "null", '{"version": "1.0", "model": {"type": "BPE"}}', "\x00", "{"]
)
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "config.json"])
def test_json_that_is_something_else_is_no_traceback(name: str, content: str, world: World) -> None:
    from peft_instruct.environment import HubState
    from peft_instruct.model.base import load_base
    from peft_instruct.model.device import choose_compute
    from peft_instruct.model.location import locate
    from peft_instruct.recipe.model_section import ModelSection

    (world.base / name).write_text(content)
    try:
        location = locate(str(world.base), "main", HubState(False))
        load_base(ModelSection(base=str(world.base)), location, choose_compute("cpu", "fp32"))
    except PeftInstructError as error:
        assert error.exit_code == 4


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "manifest.json", "adapter_config.json"])
def test_a_json_of_30000_levels_is_refused(name: str, world: World) -> None:
    text = '{"a":' * 30_000 + "1" + "}" * 30_000
    is_adapters = name in ("manifest.json", "adapter_config.json")
    ((world.adapter if is_adapters else world.base) / name).write_text(text)
    if name == "adapter_config.json":
        world.reseal()
    refused(world.generate if is_adapters else world.train)


HEADERS = {
    "a header of 2^63 bytes": (2**63).to_bytes(8, "little"),
    "a header longer than the file": (1 << 20).to_bytes(8, "little") + b"{}",
    "a header of 200 MB": (200 << 20).to_bytes(8, "little") + b"{",
    "a tensor beyond the end": len(
        h := b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'
    ).to_bytes(8, "little") + h,
    "a shape that overflows": len(
        s := b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}'
    ).to_bytes(8, "little") + s,
}  # fmt: skip


@pytest.mark.parametrize("header", HEADERS)
def test_a_safetensors_header_that_lies_is_refused(header: str, world: World) -> None:
    file_of(world.base / "model.safetensors", HEADERS[header], (201 << 20) if "200 MB" in header else 100)
    began = time.process_time()
    assert refused(world.train).exit_code == 4
    assert time.process_time() - began < 3
    (world.adapter / "adapter_model.safetensors").write_bytes(HEADERS[header])
    world.reseal()
    assert refused(world.generate).exit_code == 4


@pytest.mark.parametrize("how", ["one repeated text", "one long text"])
def test_a_parquet_that_unfolds_without_end_is_refused(how: str, tmp_path: Path) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    path = tmp_path / "bomb.parquet"
    if how == "one repeated text":
        texts = arrow.DictionaryArray.from_arrays(arrow.array([0] * 2_000, arrow.int32()), arrow.array(["x" * 100_000]))
    else:
        texts = arrow.array(["x" * (65 << 20)])
    parquet.write_table(arrow.table({"text": texts}), path, compression="zstd")
    assert path.stat().st_size < 1 << 20
    began = time.process_time()
    with pytest.raises(DatasetError, match="unfold to more than"):
        read_rows(str(path))
    assert time.process_time() - began < 2


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="a device without an end is of Unix")
def test_rows_from_a_device_or_a_pipe_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.json").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.json")
    for name in ("rows.json", "pipe.json"):
        with pytest.raises(DatasetError, match="a device or a pipe"):
            read_rows(str(tmp_path / name))
