"""Fetching from the hub, against a stand-in that speaks its layout on this machine."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from anysat_packs import anysat_config, norms
from cli_runs import omnisat, write_tiny_pack
from safetensors.torch import save_file

from omnisat_cli.errors import Exit
from omnisat_cli.networks.anysat import AnySat
from omnisat_cli.packs.registry import read_pack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMIT = "a" * 40
REPO = "someone/model"


def stand_in(folder: Path, lie: dict[str, str]) -> type[BaseHTTPRequestHandler]:
    """Serve a folder as the hub serves a repository; `lie` states other digests."""

    class Hub(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            place = self.path.split("?")[0]
            if place.startswith(f"/api/models/{REPO}/revision/"):
                self._send(json.dumps(about(folder, lie)).encode(), {}, body=body)
            elif place.startswith(f"/{REPO}/resolve/{COMMIT}/"):
                content = (folder / place.split(f"/{COMMIT}/")[1]).read_bytes()
                digest = hashlib.sha256(content).hexdigest()
                headers = {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT}
                self._send(content, headers, body=body)
            else:
                self._send(b"{}", {"X-Error-Code": "RepoNotFound"}, body=body, status=404)

        def _send(
            self, content: bytes, headers: dict[str, str], *, body: bool, status: int = 200
        ) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

    return Hub


def about(folder: Path, lie: dict[str, str]) -> dict[str, object]:
    files = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = path.read_bytes()
        name = path.relative_to(folder).as_posix()
        blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
        entry: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": blob}
        if not name.endswith(".json"):
            digest = lie.get(name, hashlib.sha256(content).hexdigest())
            entry["lfs"] = {"size": len(content), "sha256": digest, "pointerSize": 130}
        files.append(entry)
    return {"id": REPO, "modelId": REPO, "sha": COMMIT, "siblings": files, "tags": []}


@contextmanager
def serving(
    folder: Path, monkeypatch: pytest.MonkeyPatch, lie: dict[str, str] | None = None
) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), stand_in(folder, lie or {}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def pull(out: Path, *words: object, repo: str = REPO) -> tuple[int, str]:
    done = omnisat("model", "pull", repo, "--out", out, *words)
    return done.code, done.err or done.out


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A repository with AnySat weights and their statistics beside."""
    folder = tmp_path / "repository"
    (folder / "models").mkdir(parents=True)
    save_file(AnySat(anysat_config("s2", "s1")).state_dict(), folder / "models/any.safetensors")
    own = {name: {"mean": n.mean, "std": n.std} for name, n in norms("s2", "s1").items()}
    (tmp_path / "norm.json").write_text(json.dumps(own))
    return folder


def test_a_checkpoint_is_fetched_proved_and_converted(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(shelf, monkeypatch):
        code, said = pull(tmp_path / "pack", "--as", "anysat", "--norm", tmp_path / "norm.json")
        assert code == 0, said
        card = read_pack(tmp_path / "pack").card
        digest = hashlib.sha256((shelf / "models/any.safetensors").read_bytes()).hexdigest()
        assert f"{REPO}/blob/{COMMIT}/models/any.safetensors" in card.source
        assert digest in card.source
        assert not (tmp_path / "pack.download").exists()
        assert pull(tmp_path / "pack", "--as", "anysat")[0] == Exit.EXISTS
        code, said = pull(tmp_path / "b", "--as", "anysat", "--sha256", "0" * 64)
        assert (code, "you say 0000" in said) == (Exit.SECURITY, True)
        code, said = pull(tmp_path / "b", "--as", "anysat", "--file", "other.pth")
        assert (code, "models/any.safetensors" in said) == (Exit.REFUSED, True)
        code, said = pull(tmp_path / "b")
        assert (code, "--as" in said) == (Exit.REFUSED, True)
        assert pull(tmp_path / "b", repo="no/such")[0] == Exit.REFUSED


def test_bytes_that_are_not_those_of_the_hub_are_removed(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(shelf, monkeypatch, {"models/any.safetensors": "1" * 64}):
        code, said = pull(tmp_path / "pack", "--as", "anysat")
    assert (code, "the hub says 1111" in said) == (Exit.SECURITY, True)
    assert not (tmp_path / "pack").exists()
    assert not list((tmp_path / "pack.download").rglob("*.safetensors"))


def test_a_pickle_is_not_even_fetched_without_trust(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shelf / "models/any.safetensors").rename(shelf / "models/any.pth")
    with serving(shelf, monkeypatch):
        code, said = pull(tmp_path / "pack", "--as", "anysat")
    assert (code, "--i-trust-this-file" in said) == (Exit.SECURITY, True)
    assert not (tmp_path / "pack.download").exists()


def test_a_pack_of_omnisat_is_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_pack(tmp_path / "repository")
    with serving(tmp_path / "repository", monkeypatch):
        assert pull(tmp_path / "pack")[0] == 0
    assert omnisat("model", "verify", tmp_path / "pack").code == 0


def test_without_a_network_it_says_what_to_fetch_and_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    code, said = pull(tmp_path / "pack", repo="g-astruc/AnySat")
    assert code == Exit.REFUSED
    assert "https://huggingface.co/g-astruc/AnySat/resolve/main/models/AnySat.pth" in said
    assert f"omnisat model convert {tmp_path / 'AnySat.pth'} --as anysat" in said
    code, said = pull(tmp_path / "pack")
    assert (code, "put them into" in said) == (Exit.REFUSED, True)
