"""A comparison as one self-contained page: tables, and each matrix as a picture."""

from __future__ import annotations

import base64
import html
import io
import math
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.learning.scoring.metrics import Scores
from omnisat_cli.learning.scoring.report import SAMPLING, means
from omnisat_cli.outputs.provenance import omnisat_version

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from omnisat_cli.learning.scoring.metrics import Adjusted
    from omnisat_cli.learning.scoring.report import Report, Result

_CELL_INCHES = 0.42
_LARGEST_PLOT = 60
"""Classes beyond this are not plotted: nobody could read the matrix."""

_STYLE = (
    "body{font:15px sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em .8em;text-align:right}"
    "th:first-child{text-align:left;font-weight:normal}tr:first-child th{border-bottom:1px solid}"
    "i{display:inline-block;width:.9em;height:.9em;border:1px solid #888}img{max-width:100%}"
    "footer{color:#777}"
)
_SHOWN, _DARK = 0.005, 0.5
"""Share from which a cell shows its number, and from which it does so in white."""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(report: Report) -> bytes:
    """Return the page as UTF-8; every text in it is escaped."""
    title = html.escape(f"{report.subject} against {report.reference}")
    parts = [
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{title}</h1>",
    ]
    parts += [f"<p>{html.escape(note)}</p>" for note in report.notes]
    for result in report.results:
        if result.subset:
            parts.append(f"<h2>{html.escape(result.subset)}</h2>")
        parts += _html_result(report, result)
    parts.append(f"<footer>omnisat {html.escape(omnisat_version())}</footer></body></html>\n")
    return "\n".join(parts).encode("utf-8", "replace")


def _html_result(report: Report, result: Result) -> Iterator[str]:
    named = {k: _percent(v) for k, v in means(result.scores).items()}
    yield _table(("figure", "%"), list(named.items()))
    if isinstance(result.scores, Scores) and len(result.scores.occurring) <= _LARGEST_PLOT:
        picture = base64.b64encode(plot_matrix(report, result.scores)).decode()
        yield f'<img alt="confusion matrix" src="data:image/png;base64,{picture}">'
    each = result.scores.classes
    head = ("class", "precision %", "recall %", "F1 %", "IoU %", "labelled")
    rows = [
        (
            name,
            *(_percent(part[k]) for part in (each.precision, each.recall, each.f1, each.iou)),
            f"{int(each.support[k]):,}",
        )
        for k, name in enumerate(report.names)
        if math.isfinite(each.f1[k])
    ]
    yield _table(head, rows, report)
    if result.adjusted is not None:
        yield from _html_adjusted(report, result, result.adjusted)


def _html_adjusted(report: Report, result: Result, found: Adjusted) -> Iterator[str]:
    yield "<h3>Area-adjusted estimates, 95 % intervals</h3>"
    yield f"<p>{html.escape(SAMPLING)}</p>"
    overall = _interval(found.overall.value, found.overall.margin, 100)
    covered = f", over {100 * found.covered:.1f} % of the map" if found.covered < 1 else ""
    yield f"<p>Accuracy {overall} %{covered}</p>"
    ground = result.hectares * found.covered
    rows = [
        (
            name,
            _interval(found.share.value[k], found.share.margin[k], ground),
            _interval(found.user.value[k], found.user.margin[k], 100),
            _interval(found.producer.value[k], found.producer.margin[k], 100),
        )
        for k, name in enumerate(report.names)
        if found.share.value[k] > 0 or math.isfinite(found.user.value[k])
    ]
    head = ("class", "true area, ha", "user's accuracy %", "producer's accuracy %")
    yield _table(head, rows, report)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], report: Report | None = None) -> str:
    colors = {} if report is None else dict(zip(report.names, report.colors, strict=True))
    lines = ["<table><tr>", *(f"<th>{html.escape(cell)}</th>" for cell in head), "</tr>"]
    for first, *rest in rows:
        swatch = colors.get(first)
        mark = f'<i style="background:{html.escape(swatch)}"></i> ' if swatch else ""
        cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in rest)
        lines.append(f"<tr><th>{mark}{html.escape(first)}</th>{cells}</tr>")
    return "".join([*lines, "</table>"])


def _percent(value: float) -> str:
    return f"{100 * value:.1f}" if math.isfinite(value) else "–"


def _interval(value: NDArray[np.float64], margin: NDArray[np.float64], unit: float) -> str:
    if not math.isfinite(value * unit):
        return "–"
    spread = f"{margin * unit:,.1f}" if math.isfinite(margin) else "?"
    return f"{value * unit:,.1f} ± {spread}"


def plot_matrix(report: Report, scores: Scores) -> bytes:
    """Draw the classes that occur, each row as shares of its labels, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kept = scores.occurring
    counts = scores.confusion[np.ix_(kept, kept)].astype(float)
    total = counts.sum(1, keepdims=True)
    share = np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
    names = [report.names[k] for k in kept]
    side = 4 + len(kept) * _CELL_INCHES
    figure = Figure(figsize=(side, side), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    ticks = range(len(kept))
    axes.set_xticks(ticks, names, rotation=60, ha="right", rotation_mode="anchor", parse_math=False)
    axes.set_yticks(ticks, names, parse_math=False)
    axes.tick_params(pad=14, length=0)
    axes.set_xlabel("mapped as")
    axes.set_ylabel("labelled as (each row: % of its labels)")
    colors = [report.colors[k] for k in kept]
    below = [len(kept) - 0.5 + 0.3] * len(kept)
    for x, y in ((below, ticks), (ticks, [-0.8] * len(kept))):
        axes.scatter(y, x, marker="s", s=60, c=colors, edgecolors="#888888", clip_on=False)
    axes.set_xlim(-0.5, len(kept) - 0.5)
    axes.set_ylim(len(kept) - 0.5, -0.5)
    for row, col in zip(*np.nonzero(share >= _SHOWN), strict=True):
        ink = "white" if share[row, col] > _DARK else "black"
        text = f"{100 * share[row, col]:.0f}"
        axes.text(col, row, text, ha="center", va="center", color=ink, fontsize=8)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()
