"""A linear head on embeddings of real parcels against a random forest on the same monthly values.

    python benchmarks/probe_parcels.py FOLDER [--model omnisat-demo] [--repeats 3]

FOLDER holds the monthly Sentinel-1 and -2 values of 500 French parcels of 2022, one point each, as
published with WorldCereal (`2022_FRA_LPIS_POLY_110.geoparquet`). One point has no neighbourhood: of
a model only the encoders of its series take part (`tokens`), or these and the fusion of a window
in which a single patch is present (`fused`).

Every figure is that of predictions on held-out parcels. `random parcels`: stratified folds.
`10 km squares`: parcels of one square are held out together. The penalty of a head is chosen inside
the training folds. All methods see the same folds; a repeat is one way to deal them.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from omnisat_cli.engine.encode import day_numbers
from omnisat_cli.learning.probing.probe_head import LabelledPatches, fit_head
from omnisat_cli.networks.segmenter import OmniSatSegmenter
from omnisat_cli.networks.table import build_network
from omnisat_cli.packs.registry import Pack, find_pack, load_weights

FILE = "2022_FRA_LPIS_POLY_110.geoparquet"
MISSING = 65535
S2 = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B11", "B12")
FOLDS = 5
SQUARE_DEGREES = 0.1
PERIODS = {"17 months": ("2021-09", "2023-01"), "calendar 2022": ("2022-01", "2022-12")}

Method = Callable[[NDArray[np.int64], NDArray[np.int64], int], NDArray[np.int64]]
"""Training and test places and a seed to the classes of the test places."""


@dataclass(frozen=True)
class Parcels:
    """N parcels, T months.

    Attributes:
        s2: (N, T, 9) reflectance × 10 000, NaN where missing.
        s1: (N, T, 2) VV and VH in dB, NaN where missing.
        months: (T,) first days.
        classes: (N,) class indices.
        squares: (N,) number of the 10 km square.
    """

    s2: NDArray[np.float32]
    s1: NDArray[np.float32]
    months: NDArray[np.datetime64]
    classes: NDArray[np.int64]
    squares: NDArray[np.int64]

    def during(self, first: str, last: str) -> Parcels:
        """Return some of the months."""
        text = self.months.astype("datetime64[M]").astype(str)
        kept = (text >= first) & (text <= last)
        return replace(self, s2=self.s2[:, kept], s1=self.s1[:, kept], months=self.months[kept])

    @property
    def features(self) -> NDArray[np.float32]:
        """(N, F) all monthly values, NaN where missing."""
        parts = (self.s2, self.s1)
        return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)


def read(path: Path, least: int) -> tuple[Parcels, int]:
    """Read the parcels whose crop has at least `least` of them, and how many there are in all.

    The file has no geo metadata, and its radar is amplitude: dB = 20 log10(DN) - 83.
    """
    table = pq.read_table(path).to_pandas().sort_values(["sample_id", "timestamp"])
    months = np.sort(table["timestamp"].unique()).astype("datetime64[D]")
    first = table.groupby("sample_id", sort=True).first()
    N, T = len(first), len(months)
    assert len(table) == N * T, "every parcel has every month"

    def values(names: list[str]) -> NDArray[np.float32]:
        raw = table[names].to_numpy(np.float32).reshape(N, T, len(names))
        return np.where(raw == MISSING, np.float32(np.nan), raw)

    amplitude = values(["S1-SIGMA0-VV", "S1-SIGMA0-VH"])
    codes, classes, counts = np.unique(first["ewoc_code"], return_inverse=True, return_counts=True)
    square = np.floor(first[["lon", "lat"]].to_numpy() / SQUARE_DEGREES).astype(int)
    kept = counts[classes] >= least
    parcels = Parcels(
        values([f"S2-L2A-{band}" for band in S2])[kept],
        (20 * np.log10(amplitude) - 83)[kept],
        months,
        np.unique(codes[classes[kept]], return_inverse=True)[1],
        np.unique(square[kept], axis=0, return_inverse=True)[1],
    )
    return parcels, N


def embed(
    pack: Pack, parcels: Parcels, *, b8a: str, fused: bool, trained: bool
) -> NDArray[np.float32]:
    """Embed every parcel.

    Args:
        pack: An OmniSat pack with the modalities s2 and s1.
        parcels: N parcels.
        b8a: What stands for the band B8A, which the file lacks: "B08", or "mean" of the training.
        fused: The fused token instead of both series tokens side by side.
        trained: The weights of the pack instead of fresh ones.
    """
    torch.manual_seed(0)
    network = build_network(pack.card.network.kind, pack.card.network.config).eval()
    assert isinstance(network, OmniSatSegmenter)
    if trained:
        network.load_state_dict(load_weights(pack))
    tokens, present = {}, {}
    for card in pack.card.modalities:
        if card.name not in ("s2", "s1"):
            continue
        have = S2 if card.name == "s2" else ("VV", "VH")
        values = parcels.s2 if card.name == "s2" else parcels.s1
        clear: NDArray[np.bool_] = np.asarray(~np.isnan(values).any(axis=2))
        bands = []
        for band, mean, std in zip(card.bands, card.mean, card.std, strict=True):
            source = b8a if band not in have else band
            if source == "mean":
                bands.append(np.zeros(clear.shape, np.float32))
            else:
                bands.append((values[..., have.index(source)] - mean) / std)
        pixels = np.where(clear[..., None], np.stack(bands, axis=2), 0).astype(np.float32)
        there = clear.any(axis=1)
        days = torch.from_numpy(day_numbers(parcels.months, card.dates))
        encoded = torch.zeros(len(clear), network.traits.width)
        with torch.inference_mode():
            encoded[torch.from_numpy(there)] = network.encode_series(
                card.name,
                torch.from_numpy(pixels[there])[..., None, None],
                days,
                torch.from_numpy(clear[there]),
            ).tokens
        tokens[card.name], present[card.name] = encoded, torch.from_numpy(there)
    if not fused:
        return torch.cat(list(tokens.values()), dim=1).numpy()
    return fuse(network, pack.card.window.size, tokens, present)


def fuse(
    network: OmniSatSegmenter,
    side: int,
    tokens: dict[str, torch.Tensor],
    present: dict[str, torch.Tensor],
) -> NDArray[np.float32]:
    """Fuse each parcel as the middle patch of a window where nothing else is present."""
    middle, found = side * side // 2 + side // 2, []
    for n in range(len(next(iter(tokens.values())))):
        vectors = {name: torch.zeros(1, side * side, t.shape[1]) for name, t in tokens.items()}
        flags = {name: torch.zeros(1, side * side, dtype=torch.bool) for name in tokens}
        for name in tokens:
            vectors[name][0, middle], flags[name][0, middle] = tokens[name][n], present[name][n]
        with torch.inference_mode():
            found.append(network.fuse(vectors, flags)[0, 1 + middle])
    return torch.stack(found).numpy()


def head(values: NDArray[np.float32], classes: NDArray[np.int64]) -> Method:
    """A linear head as `train --probe` fits it; missing values become the median."""

    def method(train: NDArray[np.int64], test: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
        middle = np.nanmedian(values[train], axis=0)
        filled = np.where(np.isnan(values), middle, values).astype(np.float32)
        known, places = np.unique(classes[train], return_inverse=True)
        fitted = fit_head(LabelledPatches(filled[train], places, np.arange(len(train))), seed)
        return np.asarray(known[fitted.head.logits(filled[test]).argmax(axis=1)])

    return method


def forest(values: NDArray[np.float32], classes: NDArray[np.int64], trees: int) -> Method:
    """A random forest of scikit-learn's defaults; it takes missing values as they are."""

    def method(train: NDArray[np.int64], test: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
        model = RandomForestClassifier(trees, random_state=seed)
        return np.asarray(model.fit(values[train], classes[train]).predict(values[test]))

    return method


def cross_validate(
    method: Method, parcels: Parcels, repeats: int, *, squares: bool
) -> NDArray[np.float64]:
    """Return (repeats, 2): macro F1 and accuracy of all held-out predictions of a repeat."""
    figures = []
    for seed in range(repeats):
        dealer = StratifiedGroupKFold if squares else StratifiedKFold
        folds = dealer(FOLDS, shuffle=True, random_state=seed)
        found = np.full(len(parcels.classes), -1)
        groups = parcels.squares if squares else None
        for train, test in folds.split(parcels.classes, parcels.classes, groups):
            found[test] = method(train, test, seed)
        macro = f1_score(parcels.classes, found, average="macro")
        figures.append((macro, accuracy_score(parcels.classes, found)))
    return 100 * np.array(figures)


def methods_for(pack: Pack, parcels: Parcels, trees: int) -> dict[str, Method]:
    """Return what is compared, the forest first."""
    classes, features = parcels.classes, parcels.features
    found = {
        "random forest, monthly values": forest(features, classes, trees),
        "linear head, monthly values": head(features, classes),
    }
    for form, fused in (("tokens", False), ("fused", True)):
        for b8a in ("B08", "mean"):
            values = embed(pack, parcels, b8a=b8a, fused=fused, trained=True)
            found[f"probe, {form}, B8A = {b8a}"] = head(values, classes)
    untrained = embed(pack, parcels, b8a="B08", fused=False, trained=False)
    found["probe, tokens of an untrained encoder"] = head(untrained, classes)
    return found


def main() -> None:
    """Read, embed, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="omnisat-demo")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--trees", type=int, default=200)
    parser.add_argument("--least", type=int, default=10, help="parcels a crop must have")
    parser.add_argument("--period", choices=tuple(PERIODS), action="append", help="default: all")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="The least populated class")
    whole, total = read(args.folder / FILE, args.least)
    pack = find_pack(args.model)
    K = int(whole.classes.max()) + 1
    print(f"{len(whole.classes)} of {total} parcels, {K} crops with at least {args.least} each, "
          f"{int(whole.squares.max()) + 1} squares; {pack.card.name} {pack.card.version}, "
          f"weights {pack.card.weights_sha256[:12]}; "
          f"{args.repeats} repeats of {FOLDS} folds")  # fmt: skip
    results: dict[str, dict[str, dict[str, list[float]]]] = {}
    for period in args.period or PERIODS:
        parcels = whole.during(*PERIODS[period])
        methods = methods_for(pack, parcels, args.trees)
        for split, squares in (("random parcels", False), ("10 km squares", True)):
            print(f"\n{period}, {split}:  macro F1 ± spread (against the forest)   accuracy")
            table = results.setdefault(f"{period}, {split}", {})
            base: NDArray[np.float64] | None = None
            for name, method in methods.items():
                found = cross_validate(method, parcels, args.repeats, squares=squares)
                base = found if base is None else base
                gain = (found - base)[:, 0]
                mean, spread = found.mean(0), found.std(0, ddof=1) if args.repeats > 1 else (0, 0)
                print(f"  {name:40} {mean[0]:5.1f} ± {spread[0]:.1f}  ({gain.mean():+5.1f})   "
                      f"{mean[1]:5.1f} ± {spread[1]:.1f}", flush=True)  # fmt: skip
                table[name] = {"macro_f1": found[:, 0].tolist(), "accuracy": found[:, 1].tolist()}
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
