"""`omnisat evaluate --dataset`: a model on examples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

import torch
from tqdm import tqdm

from omnisat_cli.cli.learning_options import comma_list
from omnisat_cli.engine.device import choose_compute
from omnisat_cli.engine.memory import keep_freed_memory
from omnisat_cli.engine.network import load_network, trained_network
from omnisat_cli.errors import JobError
from omnisat_cli.learning.datasets import DATASETS, Options, open_dataset
from omnisat_cli.learning.scoring.evaluate_pack import (
    choose_subsets,
    evaluate_examples,
    not_measured,
    pack_scheme,
)
from omnisat_cli.learning.scoring.evaluate_tags import evaluate_tags
from omnisat_cli.learning.scoring.mapping import mapper_for
from omnisat_cli.networks.tile import Tile
from omnisat_cli.packs.registry import find_pack
from omnisat_cli.runners.setup import thread_count

if TYPE_CHECKING:
    from pathlib import Path

    from omnisat_cli.engine.device import Compute
    from omnisat_cli.job import Execution
    from omnisat_cli.learning.examples import Examples
    from omnisat_cli.learning.scoring.evaluate import TruthRequest
    from omnisat_cli.learning.scoring.report import Report
    from omnisat_cli.packs.card import Card
    from omnisat_cli.packs.registry import Pack


@dataclass(frozen=True, slots=True)
class Part:
    """Part of a dataset."""

    name: str
    root: Path | None
    split: str | None
    folds: str | None
    side: int | None
    modalities: str | None = None

    def open(self, card: Card) -> Examples:
        """Open it with the labels a model gives, of pixels or of whole places.

        Raises:
            JobError: If something is missing or unknown.
            SourceError: If files are missing or damaged.
        """
        if self.root is None:
            raise JobError(f"--dataset {self.name}: say where it lies with --root DIR")
        folds = self.folds.split(",") if self.folds else None
        options = Options(side=self.side, patch_m=card.patch_m)
        if card.whole_places:
            known = DATASETS.get(self.name)
            side = card.window.size if known is not None and not known.tags else None
            options = replace(options, side=self.side or side, task="multilabel")
        return open_dataset(
            self.name,
            self.root,
            split=self.split,
            folds=folds,
            modalities=comma_list(self.modalities),
            options=options,
        )


def of_dataset(
    model: str,
    part: Part,
    choices: tuple[str | None, TruthRequest],
    execution: Execution,
    *,
    quiet: bool,
) -> Report:
    """Score a model on a dataset.

    Args:
        model: Name or folder of the pack.
        part: Part of the dataset.
        choices: Value of --subsets, and what the labels of the dataset mean.
        execution: Device and threads.
        quiet: No progress.
    """
    pack = find_pack(model)
    examples = part.open(pack.card)
    keep_freed_memory()
    torch.set_num_threads(thread_count(execution))
    compute = choose_compute(execution.device)
    bar = tqdm(total=len(examples), desc="examples", leave=False, disable=quiet or None)
    with bar:
        if pack.card.whole_places:
            return _of_tags(pack, examples, choices[0], (compute, bar))
        network = load_network(pack, compute)
        mapper = mapper_for(network, pack.card, pack.legend.codes, examples, compute)
        subsets = choose_subsets(choices[0], [feed.name for feed in mapper.feeds], mapper.needed)
        scheme = pack_scheme(pack.legend, examples.legend, choices[1])
        report = evaluate_examples(mapper, examples, scheme, subsets, lambda _: bar.update())
        notes = not_measured(choices[0], mapper.needed)
        return replace(report, notes=(*report.notes, *notes))


def _of_tags(
    pack: Pack, examples: Examples, subsets: str | None, run: tuple[Compute, tqdm[NoReturn]]
) -> Report:
    """Score a model that labels whole places."""
    compute, bar = run
    network = trained_network(pack).to(compute.device)
    assert isinstance(network, Tile), "the table of networks says so"
    return evaluate_tags(
        network,
        pack,
        examples,
        lambda names: choose_subsets(subsets, names),
        lambda done: bar.update(done - bar.n),
    )
