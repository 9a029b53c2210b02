"""Score a model on a set of examples, with each wanted subset of its modalities."""

from __future__ import annotations

from itertools import chain, combinations
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.errors import JobError
from omnisat_cli.learning.examples import UNLABELLED
from omnisat_cli.learning.scoring.mapping import on_labels
from omnisat_cli.learning.scoring.report import Report, card_figures
from omnisat_cli.learning.scoring.schemes import scheme_classes
from omnisat_cli.learning.scoring.tally import Tally
from omnisat_cli.modality import stand_alone
from omnisat_cli.outputs import disk
from omnisat_cli.packs.registry import CARD

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from omnisat_cli.learning.examples import Example, Examples
    from omnisat_cli.learning.scoring.evaluate import TruthRequest
    from omnisat_cli.learning.scoring.mapping import SampleMapper
    from omnisat_cli.learning.scoring.schemes import Scheme
    from omnisat_cli.outputs.legend import Legend
    from omnisat_cli.packs.registry import Pack

    Subset = tuple[str, ...]


def choose_subsets(
    text: str | None, available: Sequence[str], needed: Sequence[str] = ()
) -> tuple[Subset, ...]:
    """Read `--subsets`.

    Args:
        text: "all" for every subset, "each" for all together and each modality alone, or subsets
            as "aerial+s2,s2"; None for all together.
        available: Modalities that the model uses and the imagery has, in the order of the card.
        needed: Modalities without which it makes no map; all and each leave subsets without them
            out.

    Raises:
        JobError: If a subset names something else, or sensors that tell nothing alone.
    """
    whole = tuple(available)
    if text is None:
        return (whole,)
    if text == "each":
        parts = dict.fromkeys([whole, *((name,) for name in whole)])
        return tuple(part for part in parts if stand_alone(part) and set(needed) <= set(part))
    if text == "all":
        every = chain.from_iterable(combinations(whole, n) for n in range(len(whole), 0, -1))
        return tuple(part for part in every if stand_alone(part) and set(needed) <= set(part))
    subsets = []
    for part in text.split(","):
        wanted = {name.strip() for name in part.split("+")}
        unknown = sorted(wanted - set(whole))
        if unknown:
            raise JobError(
                f"--subsets {text}: {unknown[0] or 'nothing'} is none of {', '.join(whole)}; write "
                "all, each, or subsets like aerial+s2,s2"
            )
        if not stand_alone(wanted):
            raise JobError(
                f"--subsets {text}: {part} tells of the ground around alone; add another"
            )
        subsets.append(tuple(name for name in whole if name in wanted))
    return tuple(dict.fromkeys(subsets))


def not_measured(text: str | None, needed: Sequence[str]) -> list[str]:
    """Return the note about subsets that `choose_subsets` leaves out."""
    if text not in ("all", "each") or not needed:
        return []
    names = " and ".join(needed)
    return [f"subsets without {names} are not measured: the model draws its map from {names}"]


def pack_scheme(model: Legend, labels: Legend, meaning: TruthRequest) -> Scheme:
    """Choose the classes on which a model and a set of examples are compared.

    Args:
        model: Legend of the model.
        labels: Legend of the examples.
        meaning: Its crosswalk or class table, where they differ; no file of labels is looked at.

    Raises:
        JobError: If they use other classes and no crosswalk says how these meet.
    """
    scheme = meaning.scheme(scheme_classes(model.classes), model.label)
    if meaning.crosswalk is not None or meaning.classes is not None:
        return scheme
    theirs = {entry.code: entry.name_en for entry in labels.classes}
    ours = {entry.code: entry.name_en for entry in model.classes}
    if not set(theirs.items()) <= set(ours.items()):
        raise JobError(
            f"the examples use the legend {labels.label} ({len(theirs)} classes), the model maps "
            f"{model.label} ({len(ours)}): say how they meet with --crosswalk, e.g. --crosswalk "
            f"{model.id}:{labels.id} or a CSV file"
        )
    return scheme


def evaluate_examples(
    mapper: SampleMapper,
    examples: Examples,
    scheme: Scheme,
    subsets: Sequence[Subset],
    watch: Callable[[int], object] = lambda _: None,
) -> Report:
    """Map every example with each subset of the modalities and compare with its classes.

    Args:
        mapper: The network, matched with the examples.
        examples: The examples; each is read once.
        scheme: Classes of the comparison.
        subsets: Modalities to use.
        watch: Told the number of examples done.

    Raises:
        JobError: If the examples have no dense labels.
        SourceError: If nothing is labelled, or a file is damaged.
    """
    if examples.task != "segmentation":
        raise JobError(f"{examples.name} labels places, not pixels; {mapper.card.name} makes maps")
    tallies = {subset: Tally.of(len(scheme.names)) for subset in subsets}
    for index in range(len(examples)):
        example = examples.example(index)
        for subset, tally in tallies.items():
            _add(mapper, example, scheme, (subset, tally))
        watch(index + 1)
    for subset, tally in tallies.items():
        tally.refuse_unknown(scheme, examples.name)
        tally.refuse_empty(examples.name, f"{mapper.card.name} from {'+'.join(subset)}")
    notes = [
        f"{'+'.join(subset)}: {remark}" if len(subsets) > 1 else remark
        for subset, tally in tallies.items()
        for remark in tally.remarks(scheme)
    ]
    results = tuple(tally.result("+".join(subset), None) for subset, tally in tallies.items())
    return Report(
        subject=f"{mapper.card.name} {mapper.card.version}",
        reference=examples.name,
        names=scheme.names,
        colors=scheme.colors,
        results=results,
        notes=(*([scheme.note] if scheme.note else []), *notes),
    )


def _add(
    mapper: SampleMapper, example: Example, scheme: Scheme, into: tuple[Subset, Tally]
) -> None:
    subset, tally = into
    if example.classes is None:
        return
    labelled = example.classes != UNLABELLED
    if not labelled.any():
        return
    recipe = mapper.recipe(subset, example.classes.shape[0] // example.sample.window.height)
    mapped = on_labels(mapper.map(example.sample, recipe), example.classes.shape)
    truth = scheme.label_classes(example.classes)
    tally.add(example.classes.astype(np.int64), truth, scheme.map_classes(mapped), labelled)


def update_card(pack: Pack, test_set: str, report: Report) -> None:
    """Write the figures into the card of a pack, in place of those of the same test set.

    Raises:
        SourceError: If the card cannot be written.
        ResourceError: If the disk is full.
    """
    scores = {**pack.card.scores, test_set: card_figures(report)}
    card = pack.card.model_copy(update={"scores": scores})
    path = pack.folder / CARD
    with disk.disk_errors(path, "writing the card"):
        disk.write_json(path, card.model_dump(mode="json"))
