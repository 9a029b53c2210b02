"""A disk that is full, read-only or gone: a typed error, and nothing half-made."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from typing import TYPE_CHECKING

import pytest
from outputs_runs import CHILDREN, FINGERPRINT, World

from omnisat_cli.errors import OmnisatError, ResourceError, SourceError
from omnisat_cli.outputs import disk
from omnisat_cli.outputs.run import staging_folder
from omnisat_cli.outputs.store import BlockFacts, BlockStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORLD = World()


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A disk that is full after as many syncs as the list says; clear it to free space."""
    left = [10**9]
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        if left:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return left


@pytest.mark.parametrize("syncs", [0, 1, 2])
def test_a_full_disk_loses_one_block_and_no_more(
    tmp_path: Path, full_disk: list[int], syncs: int
) -> None:
    first, second = WORLD.plan.blocks[:2]
    with WORLD.store(tmp_path / "map.tif") as store:
        store.commit(first, WORLD.predict(first), BlockFacts(0.1))
        journal = (store.folder / "journal.jsonl").read_bytes()
        full_disk[0] = syncs
        with pytest.raises(ResourceError, match="run the same command again") as caught:
            store.commit(second, WORLD.predict(second), BlockFacts(0.1))
        assert caught.value.exit_code == 6
        assert set(store.done()) == {first.index}
        assert (store.folder / "journal.jsonl").read_bytes() == journal
        assert not list(store.folder.rglob("*.part"))
        full_disk.clear()
        store.commit(second, WORLD.predict(second), BlockFacts(0.1))
    with WORLD.store(tmp_path / "map.tif") as store:
        assert set(store.done()) == {first.index, second.index}


def test_nothing_is_renamed_before_it_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[int] = set()
    sync, rename = os.fsync, type(tmp_path).replace

    def fsync(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        sync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        assert self.stat().st_ino in synced, self
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(type(tmp_path), "replace", replace)
    WORLD.run(tmp_path / "map.tif")


def test_too_little_space_is_said_before_the_start_with_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ResourceError, match=r"1\.0 kB \(1000 bytes\) are free; free "):
        WORLD.store(tmp_path / "map.tif")
    assert list(tmp_path.iterdir()) == []


def _export_with_a_file_limit(out: Path, limit: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        WORLD.run(out)
    except OmnisatError as error:
        os._exit(int(error.exit_code))


def test_no_space_while_the_map_is_assembled_leaves_the_old_map_and_the_blocks(
    tmp_path: Path,
) -> None:
    out = tmp_path / "map.tif"
    out.write_bytes(b"the map of last year")
    with WORLD.store(out) as store:
        blocks = len(WORLD.fill(store).done())
    child = CHILDREN.Process(target=_export_with_a_file_limit, args=(out, 30_000))
    child.start()
    child.join(60)
    assert child.exitcode == 6
    assert out.read_bytes() == b"the map of last year"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.tif", "map.tif.omnisat"]
    assert not (staging_folder(out) / "export").exists()
    with WORLD.store(out) as store:
        assert len(store.done()) == blocks
    WORLD.run(out)
    assert out.stat().st_size > 1000


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.ENOENT])
def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, code: int) -> None:
    with pytest.raises(SourceError, match="cannot be written"), disk.disk_errors(tmp_path, "x"):
        raise OSError(code, os.strerror(code))


def test_an_output_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SourceError, match="cannot be written"):
        BlockStore.create(tmp_path / "file" / "map.tif.omnisat", FINGERPRINT, WORLD.facts)


def test_a_folder_removed_during_the_run_is_a_typed_error(tmp_path: Path) -> None:
    out = tmp_path / "gone" / "map.tif"
    block = WORLD.plan.blocks[0]
    with WORLD.store(out) as store:
        shutil.rmtree(out.parent)
        with pytest.raises(SourceError, match="restore the folder"):
            store.commit(block, WORLD.predict(block), BlockFacts(0.1))


def test_sizes_are_said_in_words() -> None:
    assert disk.human(999) == "999 bytes"
    assert disk.human(1_400_000_000) == "1.4 GB"
    assert disk.human(2.5e15) == "2500.0 TB"
