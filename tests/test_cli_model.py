from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
import torch
from cli_runs import LEGEND, omnisat, tiny_card, tiny_weights, write_tiny_pack
from safetensors.torch import load_file, save_file

from omnisat_cli.errors import Exit

if TYPE_CHECKING:
    from pathlib import Path


class Evil:
    """A pickle of this runs a program when it is read carelessly."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.victim}",)


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with card, legend and weights, not yet a pack."""
    card = tiny_card()
    plain = card.model_dump(mode="json")
    del plain["weights_sha256"]
    (tmp_path / "card.json").write_text(json.dumps(plain))
    (tmp_path / "legend.json").write_text(json.dumps(LEGEND))
    save_file(tiny_weights(card), tmp_path / "weights.safetensors")
    return tmp_path


def convert(desk: Path, checkpoint: str, *words: object) -> tuple[int, str]:
    done = omnisat(
        *("model", "convert", desk / checkpoint, "--card", desk / "card.json"),
        *("--legend", desk / "legend.json", "--out", desk / "pack", *words),
    )
    return done.code, done.err or done.out


def test_the_list_names_what_a_model_needs_and_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omnisat_cli.packs.registry.pack_folders", lambda: (tmp_path,))
    assert "no bundled model" in omnisat("model", "list").out
    write_tiny_pack(tmp_path / "tiny")
    heading, row = omnisat("model", "list").out.splitlines()
    assert heading.split()[:2] == ["model", "modalities"]
    for part in ("tiny 1", "aerial+s2+s1", "2.5 m", "tiny@1, 3 classes", "mIoU 12.5 %"):
        assert part in row
    (plain,) = json.loads(omnisat("model", "list", "--json").out)
    assert plain["legend"] == "tiny@1"


def test_show_gives_every_field_of_the_card_and_every_class(tmp_path: Path) -> None:
    folder = write_tiny_pack(tmp_path / "tiny")
    text = omnisat("model", "show", folder).out
    card = tiny_card()
    for part in (card.summary, card.licence, card.source, card.limits, "forest", "#0000aa"):
        assert part in text
    for band in ("B8A", "VV", "NIR"):
        assert band in text
    plain = json.loads(omnisat("model", "show", folder, "--json").out)
    assert [entry["name_en"] for entry in plain["classes"]] == ["building", "field", "forest"]


def test_verify_finds_a_flipped_bit(tmp_path: Path) -> None:
    folder = write_tiny_pack(tmp_path / "tiny")
    assert omnisat("model", "verify", folder).code == 0
    weights = folder / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-10] ^= 4
    weights.write_bytes(content)
    done = omnisat("model", "verify", folder)
    assert done.code == Exit.REFUSED
    assert "sha256" in done.err


def test_safetensors_become_a_pack_that_maps(desk: Path) -> None:
    code, said = convert(desk, "weights.safetensors")
    assert (code, "tiny 1" in said) == (0, True)
    assert omnisat("model", "verify", desk / "pack").code == 0
    assert convert(desk, "weights.safetensors")[0] == Exit.EXISTS


def test_names_of_published_checkpoints_are_recognised(desk: Path) -> None:
    plain = load_file(desk / "weights.safetensors")
    for place, prefix in enumerate(("model.", "module.")):
        save_file({prefix + key: v for key, v in plain.items()}, desk / "other.safetensors")
        assert convert(desk, "other.safetensors", "--out", desk / f"pack{place}")[0] == 0


def test_weights_that_do_not_fit_are_listed(desk: Path) -> None:
    plain = load_file(desk / "weights.safetensors")
    lost = plain.pop("encoder.cls_token")
    plain["stray"] = torch.zeros(2)
    plain["encoder.pos_embed"] = plain["encoder.pos_embed"][:, :-1].contiguous()
    plain["head.last.bias"] = torch.full_like(plain["head.last.bias"], torch.nan)
    save_file(plain, desk / "bad.safetensors")
    code, said = convert(desk, "bad.safetensors")
    assert code == Exit.REFUSED
    assert lost is not None
    for part in ("encoder.cls_token", "stray", "(1, 64, 16)", "head.last.bias", "not finite"):
        assert part in said
    assert not (desk / "pack").exists()


def test_a_legend_with_another_number_of_classes_is_refused(desk: Path) -> None:
    legend = dict(LEGEND)
    legend["classes"] = LEGEND["classes"][:2]  # type: ignore[index]
    (desk / "legend.json").write_text(json.dumps(legend))
    code, said = convert(desk, "weights.safetensors")
    assert code == Exit.REFUSED
    assert "3 classes" in said


def test_pickles_are_read_only_on_trust_and_never_run(desk: Path) -> None:
    state = {"state_dict": load_file(desk / "weights.safetensors"), "epoch": 3}
    torch.save(state, desk / "good.ckpt")
    victim = desk / "victim"
    torch.save({"state_dict": {"w": Evil(victim)}}, desk / "evil.pth")
    code, said = convert(desk, "good.ckpt")
    assert code == Exit.SECURITY
    assert "--i-trust-this-file" in said
    code, said = convert(desk, "evil.pth", "--i-trust-this-file")
    assert code == Exit.SECURITY
    assert "system" in said
    assert not victim.exists()
    assert convert(desk, "good.ckpt", "--i-trust-this-file")[0] == 0
    assert omnisat("model", "verify", desk / "pack").code == 0


def test_bytes_that_are_no_checkpoint_are_refused(desk: Path) -> None:
    (desk / "cut.safetensors").write_bytes((desk / "weights.safetensors").read_bytes()[:900])
    assert convert(desk, "cut.safetensors")[0] == Exit.REFUSED
    assert convert(desk, "absent.safetensors")[0] == Exit.REFUSED
    (desk / "card.json").write_text("[")
    assert convert(desk, "weights.safetensors")[0] == Exit.REFUSED
