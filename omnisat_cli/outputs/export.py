"""From finished blocks to the files a user opens, in one order, safe to repeat after a kill.

Everything is made and checked inside the staging folder; then the files are renamed into place one
by one, the provenance after what it describes; the marker that the run is complete comes last.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Literal

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.outputs import disk, sidecars
from omnisat_cli.outputs.area import ClassArea, area_csv, class_areas, pixel_hectares
from omnisat_cli.outputs.faults import strike
from omnisat_cli.outputs.mosaic import Dressing, export_raster, histogram
from omnisat_cli.outputs.products import (
    PRODUCTS,
    Product,
    check_output,
    class_categories,
    display_name,
    presence_categories,
    products_of,
    space_need,
)
from omnisat_cli.outputs.provenance import (
    FileDigest,
    RunDescription,
    describe,
    omnisat_version,
    provenance_path,
    recorded_files,
    write_provenance,
)
from omnisat_cli.outputs.quicklook import Caption, draw_quicklook
from omnisat_cli.outputs.run import COMPLETE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from omnisat_cli.geo.plan import Plan
    from omnisat_cli.outputs.legend import Legend
    from omnisat_cli.outputs.products import Category
    from omnisat_cli.outputs.store import BlockStore

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How the files are written.

    Attributes:
        language: Language of the class names.
        redact_paths: Keep folders out of the provenance.
        threads: Threads of the compression.
    """

    language: Literal["en", "fr"] = "en"
    redact_paths: bool = False
    threads: int = 2


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written.

    Attributes:
        out: The class map.
        files: Every file, the provenance last.
        areas: Ground of each class of the legend.
        holes: Pixels without a class inside the area of interest, by reason.
        pixels: Pixels inside the area of interest.
        hectares_per_pixel: Ground of a pixel.
        faulty_blocks: Blocks that lack a part of their imagery because it could not be read.
    """

    out: Path
    files: tuple[FileDigest, ...]
    areas: tuple[ClassArea, ...]
    holes: dict[str, int]
    pixels: int
    hectares_per_pixel: float
    faulty_blocks: int = 0


@dataclass(frozen=True, slots=True)
class _Run:
    """What every step of one export needs."""

    store: BlockStore
    legend: Legend
    out: Path
    run: RunDescription
    options: ExportOptions

    def staged(self, path: Path) -> Path:
        """Return where a file waits for its final name."""
        return self.store.export_folder / path.name


def export(
    store: BlockStore,
    plan: Plan,
    legend: Legend,
    out: Path,
    run: RunDescription,
    options: ExportOptions = ExportOptions(),
) -> ExportReport:
    """Write every product of a finished run.

    Args:
        store: Store that holds every block of the plan; its folder is beside `out`.
        plan: The plan of the run.
        legend: Meaning of the codes.
        out: Path of the class map; an earlier one is replaced once the new one is checked.
        run: What the provenance says beside the blocks.
        options: How to write.

    Returns:
        What was written; the same again, without work, if the run was exported before.

    Raises:
        OmnisatError: If blocks are missing, or a file does not hold what was written.
        ResourceError: If the disk is full; the output is then untouched.
        JobError: If `out` or the legend do not fit the run.
    """
    check_output(out)
    if legend.label != store.facts.legend:
        raise JobError(f"the run was made with the legend {store.facts.legend}, not {legend.label}")
    before = exported(store, out)
    if before is not None:
        return before
    store.check_complete(plan)
    need = space_need(store.facts)
    disk.require_space(store.folder, need.scratch + need.final, f"writing {out.name}")
    strike("before-export")
    begin = time.monotonic()
    job = _Run(store, legend, out, run, options)
    with _fresh_folder(store):
        report = _write_all(job)
        seconds = {**run.durations, "export": time.monotonic() - begin}
        report = _write_provenance(replace(job, run=replace(run, durations=seconds)), report)
        _publish(job, report)
    return report


def exported(store: BlockStore, out: Path) -> ExportReport | None:
    """Return the report of a complete export whose files are all still there, or None."""
    try:
        content = json.loads((store.folder / COMPLETE).read_bytes())
        if content["out"] != out.name:
            return None
        files = tuple(FileDigest(**entry) for entry in content["files"])
        if any(FileDigest.of(out.with_name(f.name)) != f for f in files):
            return None
        areas = tuple(ClassArea(**row) for row in content["areas"])
        return ExportReport(
            out=out,
            files=files,
            areas=areas,
            holes=dict(content["holes"]),
            pixels=int(content["pixels"]),
            hectares_per_pixel=float(content["hectares_per_pixel"]),
            faulty_blocks=int(content["faulty_blocks"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def _fresh_folder(store: BlockStore) -> Iterator[None]:
    """Give an empty export folder and leave none: half-made files would fill a full disk."""
    shutil.rmtree(store.export_folder, ignore_errors=True)
    with disk.disk_errors(store.folder, "preparing the export"):
        store.export_folder.mkdir()
    try:
        yield
    finally:
        shutil.rmtree(store.export_folder, ignore_errors=True)


def _write_all(job: _Run) -> ExportReport:
    """Write rasters, sidecars, table and picture into the staging folder."""
    facts = job.store.facts
    paths = []
    for product in products_of(facts):
        _LOG.info("writing %s", product.path(job.out).name)
        path = job.staged(product.path(job.out))
        export_raster(
            job.store, product, _dressing(job, product), path, threads=job.options.threads
        )
        paths.append(path)
    with disk.disk_errors(job.store.export_folder, "writing the sidecars"):
        classes, presence = histogram(paths[0]), histogram(_path_of(job, "presence"))
        hectares = pixel_hectares(paths[0])
        areas = class_areas(classes, job.legend, hectares)
        holes = _hole_totals(job.store)
        paths += _write_sidecars(job, frozenset(int(v) for v in presence.nonzero()[0]))
        paths += _write_table_and_picture(job, areas, classes, sum(holes.values()))
    return ExportReport(
        out=job.out,
        files=tuple(FileDigest.of(path) for path in paths),
        areas=areas,
        holes=holes,
        pixels=int(presence[:255].sum()),
        hectares_per_pixel=hectares,
        faulty_blocks=sum(r.status == "fault" for r in job.store.done().values()),
    )


def _dressing(job: _Run, product: Product) -> Dressing:
    """Return names, colours and tags of one raster."""
    _facts, language = job.store.facts, job.options.language
    tags = {
        "TIFFTAG_SOFTWARE": f"omnisat {omnisat_version()}",
        "omnisat_product": product.name,
        "model": f"{job.run.model.name} {job.run.model.version}",
        "model_sha256": job.run.model.sha256,
        "model_licence": job.run.model.licence,
        "legend": job.legend.label,
        "labels": "multi-label" if job.run.model.multilabel else "one class a pixel",
        "modalities": ",".join(job.run.inputs),
    }
    if product.array == "probabilities":
        return Dressing(tuple(c.name(language) for c in job.legend.classes), tags=tags)
    if product.name != "map":
        return Dressing((product.description,), tags=tags)
    categories = class_categories(job.legend, language)
    names = {f"class_{c.value}": c.name for c in categories}
    tags["class_names"] = json.dumps([c.name for c in categories], ensure_ascii=False)
    return Dressing((_map_words(job),), categories, tags, names)


def _map_words(job: _Run) -> str:
    """Return what a pixel of the map says."""
    if job.run.model.multilabel:
        return f"most probable class, {job.legend.label}, multi-label"
    return f"class, {job.legend.label}"


def _write_sidecars(job: _Run, presence_values: frozenset[int]) -> list[Path]:
    """Write what names and colours the categorical rasters."""
    classes = class_categories(job.legend, job.options.language)
    presence = presence_categories(job.store.facts.modalities, presence_values)
    written = _name_values(job, _product("map"), classes, _map_words(job))
    style = job.staged(job.out.with_suffix(".sld"))
    disk.write_atomic(style, sidecars.sld(classes, display_name(job.out)))
    if presence:
        product = _product("presence")
        written += _name_values(job, product, presence, product.description)
    return [*written, style]


def _name_values(
    job: _Run, product: Product, categories: tuple[Category, ...], description: str
) -> list[Path]:
    path = job.staged(product.path(job.out))
    aux, style = path.with_name(f"{path.name}.aux.xml"), path.with_suffix(".qml")
    disk.write_atomic(aux, sidecars.aux_xml(categories, description))
    disk.write_atomic(style, sidecars.qml(categories))
    return [aux, style]


def _write_table_and_picture(
    job: _Run, areas: tuple[ClassArea, ...], counts: NDArray[np.int64], holes: int
) -> list[Path]:
    table = job.staged(job.out.with_name(f"{job.out.stem}.area.csv"))
    disk.write_atomic(table, area_csv(areas))
    caption = Caption(
        title=display_name(job.out),
        lines=_caption_lines(job),
        categories=class_categories(job.legend, job.options.language),
        pixels={row.code: int(counts[row.code]) for row in areas},
        holes=holes,
    )
    picture = draw_quicklook(_path_of(job, "map"), _path_of(job, "presence"), caption)
    png = job.staged(job.out.with_name(f"{job.out.stem}.quicklook.png"))
    disk.write_atomic(png, picture.png)
    disk.write_atomic(png.with_suffix(".pgw"), picture.world)
    return [table, png, png.with_suffix(".pgw")]


def _caption_lines(job: _Run) -> tuple[str, ...]:
    facts = job.store.facts
    dates = sorted(
        date
        for record in job.store.done().values()
        for used in record.dates.values()
        for date in (min(used, default=""), max(used, default=""))
        if date
    )
    several = ", multi-label" if job.run.model.multilabel else ""
    lines = [
        f"{job.run.model.name} {job.run.model.version}, legend {job.legend.label}{several}",
        f"{' + '.join(job.run.inputs)}, {facts.gsd / facts.refine:g} m",
    ]
    return (*lines, f"{dates[0][:10]} to {dates[-1][:10]}") if dates else tuple(lines)


def _write_provenance(job: _Run, report: ExportReport) -> ExportReport:
    records = tuple(job.store.done().values())
    content = describe(job.store.facts, job.legend, records, job.run, report.files)
    path = job.staged(provenance_path(job.out))
    with disk.disk_errors(path, "writing the provenance"):
        write_provenance(path, content, redact_paths=job.options.redact_paths)
        return replace(report, files=(*report.files, FileDigest.of(path)))


def _publish(job: _Run, report: ExportReport) -> None:
    """Rename the checked files into place, then mark the run as complete."""
    with disk.disk_errors(job.out, "putting the files in place"):
        strike("before-replace")
        for stale in _stale(job.out, report):
            stale.unlink(missing_ok=True)
        for entry in report.files:
            target = job.out.with_name(entry.name)
            job.staged(target).replace(target)
            strike("between-products")
        disk.sync_folder(job.out.parent)
        strike("before-complete")
        content = {**asdict(report), "out": job.out.name}
        disk.write_json(job.store.folder / COMPLETE, content)


def _stale(out: Path, report: ExportReport) -> list[Path]:
    """Return files beside `out` that would contradict the new ones.

    They are statistics GIS software kept of rasters that are replaced, and products of an earlier
    run of omnisat, untouched since, that this one does not make.
    """
    new = {entry.name for entry in report.files}
    rasters = [product.path(out) for product in PRODUCTS]
    stale = [path.with_name(f"{path.name}.aux.xml") for path in rasters]
    with suppress(SourceError):  # no provenance, or not ours: nothing is known to be stale
        stale += [
            path
            for entry in recorded_files(out)
            if entry.name.startswith(f"{out.stem}.")
            and (path := out.with_name(entry.name)).is_file()
            and FileDigest.of(path) == entry
        ]
    return [path for path in stale if path.name not in new]


def _hole_totals(store: BlockStore) -> dict[str, int]:
    totals: dict[str, int] = {}
    for record in store.done().values():
        for reason, count in record.holes.items():
            totals[reason] = totals.get(reason, 0) + count
    return totals


def _product(name: str) -> Product:
    return next(product for product in PRODUCTS if product.name == name)


def _path_of(job: _Run, name: str) -> Path:
    return job.staged(_product(name).path(job.out))
