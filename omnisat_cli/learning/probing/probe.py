"""Few labels on cached embeddings become a model pack."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from omnisat_cli.errors import CheckpointError
from omnisat_cli.learning.probing.embed import patch_card
from omnisat_cli.learning.probing.probe_head import fit_head
from omnisat_cli.learning.probing.probe_labels import gather
from omnisat_cli.learning.scoring.report import Report, Result, card_figures
from omnisat_cli.learning.training.packing import (
    pack_name,
    publish_pack,
    refuse_existing,
    workplace,
)
from omnisat_cli.networks.probe import KIND, Probe
from omnisat_cli.networks.table import build_network
from omnisat_cli.outputs.provenance import omnisat_version
from omnisat_cli.packs.card import Card, NetworkCard
from omnisat_cli.packs.patch_size import at_patch_size
from omnisat_cli.packs.registry import find_pack, load_weights
from omnisat_cli.sources.embeddings import open_embeddings

if TYPE_CHECKING:
    from torch import Tensor

    from omnisat_cli.learning.probing.probe_head import FittedHead, Head
    from omnisat_cli.learning.probing.probe_labels import Gathered, ProbeJob
    from omnisat_cli.outputs.legend import Legend
    from omnisat_cli.packs.registry import Pack
    from omnisat_cli.sources.embeddings import EmbeddingFacts, Embeddings


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What came of it.

    Attributes:
        pack: What was written.
        report: Figures on held-out groups.
        patches: Labelled patches that were used.
        groups: Polygons, or squares of ground, they lie in.
        by: What was held out together: "polygon" or "square".
        seconds: Wall-clock time.
        notes: What to look at.
    """

    pack: Pack
    report: Report
    patches: int
    groups: int
    by: str
    seconds: float
    notes: tuple[str, ...]


def train_probe(job: ProbeJob) -> ProbeReport:
    """Fit a head on labelled embeddings and write encoder and head as a pack.

    Raises:
        OutputExistsError: If the pack is there.
        CheckpointError: If the embeddings come from another encoder than the pack.
        SourceError: If a file cannot be used, or there are too few labels.
        AlignmentError: If labels and embeddings share no ground.
        JobError: If the labels hold codes that the table lacks.
    """
    begin = time.monotonic()
    refuse_existing(job.out, overwrite=job.overwrite)
    embeddings = open_embeddings(job.embeddings)
    pack = source_pack(job.start, embeddings)
    gathered = gather(embeddings, job)
    fitted = fit_head(gathered.patches, job.seed)
    legend = gathered.legend
    report = Report(
        subject=pack_name(job.out),
        reference=f"{job.labels.path}, held out by {gathered.by}",
        names=tuple(entry.name_en for entry in legend.classes),
        colors=tuple(entry.color for entry in legend.classes),
        results=(Result("+".join(embeddings.facts.modalities), fitted.scores),),
    )
    card = _card(job, pack, (embeddings.facts, gathered), card_figures(report))
    probe = build_probe(pack, card, fitted.head)
    facts = _facts(job, embeddings.facts, gathered, fitted)
    with workplace(job.out, resume=False):
        made = publish_pack(job.out, card, legend, probe, facts)
    return ProbeReport(
        pack=made,
        report=report,
        patches=len(gathered.patches.classes),
        groups=len(np.unique(gathered.patches.groups)),
        by=gathered.by,
        seconds=time.monotonic() - begin,
        notes=(*gathered.notes, *_unseen(fitted, legend)),
    )


def source_pack(name: str | None, embeddings: Embeddings) -> Pack:
    """Find the pack that embeddings come from, at their patch size.

    Raises:
        CheckpointError: If there is none of this name, or its weights are others.
    """
    facts = embeddings.facts
    try:
        pack = find_pack(name or facts.model)
    except CheckpointError as error:
        if name is not None:
            raise
        raise CheckpointError(
            f"{embeddings.path} was made with {facts.model} {facts.version}, and there is no such "
            "model by its name alone: give the pack it was made with as --from PACK"
        ) from error
    if pack.card.weights_sha256 != facts.weights_sha256:
        raise CheckpointError(
            f"{embeddings.path} was made with {facts.model} {facts.version} (weights "
            f"{facts.weights_sha256[:12]}…), but {pack.folder} has the weights "
            f"{pack.card.weights_sha256[:12]}…: a head for one fits no other. Give the pack it was "
            "made with as --from PACK, or embed again"
        )
    missing = [n for n in facts.modalities if n not in pack.card.names]
    if missing:
        raise CheckpointError(f"{pack.card.name} knows no {', '.join(missing)}")
    return at_patch_size(pack, facts.patch_m)


def build_probe(pack: Pack, card: Card, head: Head) -> dict[str, Tensor]:
    """Return the weights of a pack's encoder with a head on it."""
    probe = build_network(card.network.kind, card.network.config)
    assert isinstance(probe, Probe)
    weights = load_weights(pack)
    if pack.card.network.kind == KIND:
        weights = {
            key.removeprefix("base."): value
            for key, value in weights.items()
            if key.startswith("base.")
        }
    probe.base.load_state_dict(weights)
    with torch.no_grad():
        probe.head.weight.copy_(torch.from_numpy(head.weight))
        probe.head.bias.copy_(torch.from_numpy(head.bias))
    return dict(probe.state_dict())


def _card(
    job: ProbeJob,
    pack: Pack,
    material: tuple[EmbeddingFacts, Gathered],
    figures: dict[str, dict[str, float]],
) -> Card:
    facts, gathered = material
    base = pack.card
    classes = len(gathered.legend.classes)
    patches = len(gathered.patches.classes)
    groups = len(np.unique(gathered.patches.groups))
    config: dict[str, object] = {
        "base": base.network.kind,
        "base_config": base.network.config,
        "classes": classes,
        "width": facts.width,
    }
    if base.network.kind == KIND:
        config = {**base.network.config, "classes": classes}
    changes = {
        "name": pack_name(job.out),
        "version": "1",
        "summary": f"{classes} classes from {', '.join(facts.modalities)}, a linear head on "
        f"{base.name} {base.version}",
        "licence": job.licence,
        "source": f"omnisat {omnisat_version()}, `omnisat train --probe`",
        "training": f"logistic regression on {patches} patches of {groups} {gathered.by}s; the "
        f"encoder is that of {base.name} {base.version} ({base.licence})",
        "limits": job.limits
        or f"Fitted on {groups} labelled {gathered.by}s of one area and season: check it before "
        "using it elsewhere.",
        "network": NetworkCard(kind=KIND, config=config),
        "modalities": tuple(entry for entry in base.modalities if entry.name in facts.modalities),
        "patch_sizes": (),
        "legend": gathered.legend.label,
        "scores": {f"held-out {gathered.by}s": figures},
        "pretrained_only": False,
    }
    return patch_card(base).model_copy(update=changes)


def _facts(
    job: ProbeJob, facts: EmbeddingFacts, gathered: Gathered, fitted: FittedHead
) -> dict[str, object]:
    """Return what `training.json` says."""
    counts = np.bincount(gathered.patches.classes, minlength=len(gathered.legend.classes))
    return {
        "omnisat": omnisat_version(),
        "command": list(job.command),
        "embeddings": {
            "path": str(job.embeddings),
            "model": facts.model,
            "weights_sha256": facts.weights_sha256,
            "modalities": list(facts.modalities),
            "dates": {name: list(days) for name, days in facts.dates.items()},
            "inputs": {name: list(files) for name, files in facts.inputs.items()},
        },
        "labels": {"path": job.labels.path, "field": job.labels.field, "table": job.table},
        "patches": {
            entry.name_en: int(count)
            for entry, count in zip(gathered.legend.classes, counts, strict=True)
        },
        "labelled_patches": gathered.labelled,
        "held_out_by": gathered.by,
        "seed": job.seed,
        "strength": fitted.strength,
    }


def _unseen(fitted: FittedHead, legend: Legend) -> tuple[str, ...]:
    if not fitted.unseen:
        return ()
    names = ", ".join(legend.classes[k].name_en for k in fitted.unseen)
    return (f"labelled in one place only, so its figures are 0: {names}",)
