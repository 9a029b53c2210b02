from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from outputs_runs import FINGERPRINT, World

from omnisat_cli.errors import BlockError, OmnisatError, OutputExistsError, ResumeError
from omnisat_cli.outputs.journal import BlockRecord, read_journal
from omnisat_cli.outputs.prediction import Hole
from omnisat_cli.outputs.run import differences, has_run, read_run, running, staging_folder
from omnisat_cli.outputs.store import BlockFacts, BlockStore

WORLD = World()
OUT = "map.tif"


def test_a_committed_block_is_read_back_as_it_was(tmp_path: Path) -> None:
    block = WORLD.plan.blocks[0]
    prediction = WORLD.predict(block)
    with WORLD.store(tmp_path / OUT) as store:
        facts = BlockFacts(1.25, {"s2": ("2024-03-01",)})
        record = store.commit(block, prediction, facts)
        for name, array in prediction.arrays().items():
            assert (store.read(record, name) == array).all()
        assert record.holes == {"clouds": prediction.holes()[Hole.CLOUDS]}
    with WORLD.store(tmp_path / OUT) as store:
        assert store.done() == {block.index: record}
        assert len(store.pending(WORLD.plan.blocks)) == len(WORLD.plan.blocks) - 1


def test_the_same_block_gives_the_same_bytes(tmp_path: Path) -> None:
    digests = set()
    for name in ("a.tif", "b.tif"):
        with WORLD.store(tmp_path / name) as store:
            block = WORLD.plan.blocks[0]
            digests.add(store.commit(block, WORLD.predict(block), BlockFacts(0.1)).sha256)
    assert len(digests) == 1


def test_a_run_says_what_it_is_without_a_lock(tmp_path: Path) -> None:
    with WORLD.store(tmp_path / OUT) as store:
        facts, run = read_run(store.folder)
        owner = running(store.folder)
        assert facts == WORLD.facts
        assert run["fingerprint"] == FINGERPRINT
        assert owner is not None
        assert owner.pid == os.getpid()
    assert running(store.folder) is None


def test_resuming_with_other_inputs_names_every_field_and_both_values(tmp_path: Path) -> None:
    WORLD.store(tmp_path / OUT).close()
    other = {"model": "4567", "inputs": {"s2": ["a.nc", 18], "s1": ["b.nc"]}}
    with pytest.raises(ResumeError) as caught:
        BlockStore.resume(staging_folder(tmp_path / OUT), other)
    text = str(caught.value)
    assert 'model: was "0123", now "4567"' in text
    assert 'inputs.s2: was ["a.nc", 17], now ["a.nc", 18]' in text
    assert 'inputs.s1: was (absent), now ["b.nc"]' in text
    BlockStore.resume(staging_folder(tmp_path / OUT), FINGERPRINT).close()


@pytest.mark.parametrize(
    ("before", "after", "names"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": {"b": 1}}, {"a": {}}, ["a.b", "a"]),
        ({"a": [{"x": 1}, {"x": 2}]}, {"a": [{"x": 1}, {"x": 3}]}, ["a[1].x"]),
        ({"a": None}, {}, ["a"]),
        ({"a": 1}, {"a": True}, ["a"]),
        ({"a": 1}, {"a": 1.0}, ["a"]),
    ],
)
def test_fingerprints_are_compared_field_by_field(
    before: dict[str, object], after: dict[str, object], names: list[str]
) -> None:
    assert [name for name, _, _ in differences(before, after)] == names


def test_a_run_is_never_started_over_another_by_accident(tmp_path: Path) -> None:
    folder = staging_folder(tmp_path / OUT)
    WORLD.fill(WORLD.store(tmp_path / OUT)).close()
    with pytest.raises(OutputExistsError, match="already holds a run"):
        BlockStore.create(folder, FINGERPRINT, WORLD.facts)
    with BlockStore.create(folder, {"model": "x"}, WORLD.facts, start_over=True) as store:
        assert store.done() == {}
        assert list((folder / "blocks").iterdir()) == []


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"format": 2}', b'{"format": 1, "facts": {"crs": 1}}', b"\xff"]
)
def test_a_damaged_run_file_is_a_typed_error(tmp_path: Path, content: bytes) -> None:
    WORLD.store(tmp_path / OUT).close()
    (staging_folder(tmp_path / OUT) / "run.json").write_bytes(content)
    with pytest.raises(ResumeError, match="remove"):
        WORLD.store(tmp_path / OUT)
    with BlockStore.create(
        staging_folder(tmp_path / OUT), FINGERPRINT, WORLD.facts, start_over=True
    ):
        pass


def test_resuming_nothing_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(ResumeError, match="does not exist"):
        BlockStore.resume(tmp_path / "absent", FINGERPRINT)


def test_a_block_that_does_not_fit_is_our_bug(tmp_path: Path) -> None:
    first, second = WORLD.plan.blocks[:2]
    with WORLD.store(tmp_path / OUT) as store:
        with pytest.raises(ValueError, match="needs"):
            store.commit(first, WORLD.predict(second), BlockFacts(0.1))
        rich = replace(WORLD, arrays=("boundary",))
        with pytest.raises(ValueError, match="boundary"):
            store.commit(first, rich.predict(first), BlockFacts(0.1))
        assert store.done() == {}


def test_blocks_with_a_fault_are_retried_only_on_request(tmp_path: Path) -> None:
    blocks = WORLD.plan.blocks
    with WORLD.store(tmp_path / OUT) as store:
        prediction = WORLD.predict(blocks[0])
        store.commit(blocks[0], prediction, BlockFacts(0.1, note="s2.nc: cannot be read"))
        assert store.done()[blocks[0].index].status == "fault"
        assert blocks[0] not in store.pending(blocks)
        assert blocks[0] in store.pending(blocks, retry_faults=True)
        store.commit(blocks[0], prediction, BlockFacts(0.1))
        assert blocks[0] not in store.pending(blocks, retry_faults=True)
    assert [r.status for r in read_journal(store.folder)] == ["fault", "done"]


def test_an_incomplete_run_cannot_be_exported(tmp_path: Path) -> None:
    with WORLD.store(tmp_path / OUT) as store, pytest.raises(OmnisatError, match="not finished"):
        store.check_complete(WORLD.plan)


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b"[1]",
        b"null",
        b"\xff\xfe",
        b'{"index": [0, 0], "window": [0, 0, 1, 1], "path": "../../x", "dates": {}}',
    ],
)
def test_damaged_journal_lines_are_skipped(tmp_path: Path, line: bytes) -> None:
    with WORLD.store(tmp_path / OUT) as store:
        count = len(WORLD.fill(store).done())
    journal = store.folder / "journal.jsonl"
    journal.write_bytes(line + b"\n" + journal.read_bytes())
    with WORLD.store(tmp_path / OUT) as store:
        assert len(store.done()) == count


def test_a_journal_cannot_name_a_file_elsewhere(tmp_path: Path) -> None:
    with WORLD.store(tmp_path / OUT) as store:
        WORLD.fill(store)
    secret = tmp_path / "secret"
    secret.write_bytes(b"x")
    journal = store.folder / "journal.jsonl"
    record = json.loads(journal.read_bytes().splitlines()[0])
    record |= {"path": "../secret", "sha256": hashlib.sha256(b"x").hexdigest()}
    journal.write_bytes(json.dumps(record).encode() + b"\n")
    with WORLD.store(tmp_path / OUT) as store:
        assert store.done() == {}
    assert secret.exists()


def test_a_block_damaged_during_the_run_is_a_typed_error(tmp_path: Path) -> None:
    with WORLD.store(tmp_path / OUT) as store:
        record = next(iter(WORLD.fill(store).done().values()))
        path = store.folder / record.path
        whole = path.read_bytes()
        for at in (3, 40, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
            with pytest.raises(BlockError, match="computed anew"):
                read_all(store, record)
        path.unlink()
        with pytest.raises(BlockError, match="cannot be read"):
            store.digest(record, "classes")


def test_discarding_leaves_nothing_and_gives_the_lock_back(tmp_path: Path) -> None:
    with WORLD.store(tmp_path / OUT) as store:
        WORLD.fill(store)
        assert has_run(store.folder)
        store.discard()
    assert list(tmp_path.iterdir()) == []


def read_all(store: BlockStore, record: BlockRecord) -> None:
    for name in ("classes", "confidence", "validity", "presence"):
        store.read(record, name)


class StoreUnderAttack(RuleBasedStateMachine):
    """Whatever happens to the files between two openings, done means complete."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.out = self.folder / OUT
        self.store = WORLD.store(self.out)
        self.lines: list[tuple[tuple[int, int], int]] = []
        """Block and end, in bytes, of each complete line of the journal."""
        self.intact: set[tuple[int, int]] = set()
        """Blocks whose file is whole: the same block always has the same bytes."""

    @property
    def journal(self) -> Path:
        return self.store.folder / "journal.jsonl"

    def path(self, index: tuple[int, int]) -> Path:
        block = next(b for b in WORLD.plan.blocks if b.index == index)
        return self.store.folder / "blocks" / f"{block.name}.block"

    def reopen(self) -> None:
        self.store.close()
        self.store = WORLD.store(self.out)
        self.intact &= {index for index, _ in self.lines}  # the others were swept

    @rule(number=st.integers(0, len(WORLD.plan.blocks) - 1))
    def commit(self, number: int) -> None:
        block = WORLD.plan.blocks[number]
        self.store.commit(block, WORLD.predict(block), BlockFacts(0.1))
        self.lines.append((block.index, self.journal.stat().st_size))
        self.intact.add(block.index)

    @precondition(lambda self: self.lines)
    @rule(data=st.data())
    def cut_the_journal(self, data: st.DataObject) -> None:
        self.store.close()
        size = self.journal.stat().st_size
        keep = data.draw(st.integers(0, size))
        os.truncate(self.journal, keep)
        self.lines = [(index, end) for index, end in self.lines if end <= keep]
        self.reopen()

    @precondition(lambda self: self.intact)
    @rule(data=st.data())
    def damage_a_block(self, data: st.DataObject) -> None:
        self.store.close()
        index = data.draw(st.sampled_from(sorted(self.intact)))
        path = self.path(index)
        whole = bytearray(path.read_bytes())
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1
        path.write_bytes(whole)
        self.intact.discard(index)
        self.reopen()

    @precondition(lambda self: self.intact)
    @rule(data=st.data())
    def lose_a_block(self, data: st.DataObject) -> None:
        self.store.close()
        index = data.draw(st.sampled_from(sorted(self.intact)))
        self.path(index).unlink()
        self.intact.discard(index)
        self.reopen()

    @rule()
    def leave_rubbish(self) -> None:
        self.store.close()
        (self.store.folder / "blocks" / "0123.part").write_bytes(b"half")
        (self.store.folder / "blocks" / "r-000001_c+000001.block").write_bytes(b"orphan")
        self.reopen()
        names = {path.name for path in (self.store.folder / "blocks").iterdir()}
        assert not names & {"0123.part", "r-000001_c+000001.block"}

    @invariant()
    def done_is_what_is_complete(self) -> None:
        assert set(self.store.done()) == {index for index, _ in self.lines} & self.intact
        for record in self.store.done().values():
            block = next(b for b in WORLD.plan.blocks if b.index == record.index)
            assert (self.store.read(record, "classes") == WORLD.predict(block).classes).all()

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)


TestStoreUnderAttack = StoreUnderAttack.TestCase
TestStoreUnderAttack.settings = settings(max_examples=12, stateful_step_count=12, deadline=None)
