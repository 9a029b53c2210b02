"""Labels of the user, as classes on the lattice: polygons and points, or a raster of codes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Protocol

from omnisat_cli.errors import JobError
from omnisat_cli.learning.labelling.classes import Codes, Scheme, choose_scheme
from omnisat_cli.learning.labelling.rasters import is_raster, survey_raster
from omnisat_cli.learning.labelling.request import Ground, LabelRequest
from omnisat_cli.learning.labelling.vectors import survey_vectors
from omnisat_cli.sources.safe import local_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from omnisat_cli.geo.lattice import Bounds, Lattice, Window
    from omnisat_cli.outputs.legend import Legend
    from omnisat_cli.sources.values import Decision

__all__ = ["Ground", "LabelRequest", "Labels", "open_labels"]


class Labels(Protocol):
    """Labels over some ground; pickles."""

    @property
    def legend(self) -> Legend:
        """The classes."""

    @property
    def bounds(self) -> Bounds:
        """Ground that may be labelled, in the CRS of the lattice."""

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """What was recognised, repaired or left out."""

    def burn(
        self, lattice: Lattice, window: Window, refine: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32] | None]:
        """Lay the labels of a window on the pixels of the lattice.

        Args:
            lattice: The anchor lattice, in the CRS the labels were opened for.
            window: Window in anchor pixels.
            refine: Pixels along one anchor pixel.

        Returns:
            (H, W) legend codes, 255 = not labelled, and (H, W) numbers of parcels, 0 = none known,
            or None where no border is known.
        """


class Survey(Protocol):
    """Labels that were read; what their codes mean is not decided yet."""

    @property
    def codes(self) -> Codes:
        """The codes over the imagery."""

    def labelled(self, scheme: Scheme) -> Labels:
        """Give the codes their meaning."""


def open_labels(
    requests: Sequence[LabelRequest],
    grounds: Sequence[Ground],
    table: str | None = None,
    legend: Legend | None = None,
    *,
    binding: bool = False,
) -> tuple[Labels, ...]:
    """Open the labels of one or several areas, with one legend for all.

    Args:
        requests: One for each area.
        grounds: Where the imagery of each area is.
        table: CSV that merges, names or leaves out codes, or None.
        legend: Legend of the model that is trained further; used where all codes fit.
        binding: Whether that legend must be used (for evaluation).

    Raises:
        AlignmentError: If labels and imagery do not meet.
        JobError: If the field, the table or the codes do not fit; see `label_classes`.
        SourceError: If a file is damaged.
        SecurityError: If it asks for what data files may not ask for.
    """
    surveys = [_survey(*pair) for pair in zip(requests, grounds, strict=True)]
    scheme = choose_scheme(_together([s.codes for s in surveys]), table, legend, binding=binding)
    return tuple(survey.labelled(scheme) for survey in surveys)


def _survey(request: LabelRequest, ground: Ground) -> Survey:
    if not request.radius_m >= 0:
        raise JobError(f"--point-radius {request.radius_m:g}: at least 0 m")
    if is_raster(local_path(request.path)):
        return survey_raster(request, ground)
    return survey_vectors(request, ground)


def _together(found: Sequence[Codes]) -> Codes:
    """Join what was found in several files."""
    counts: Counter[str] = Counter()
    names: dict[str, str] = {}
    for one in found:
        counts.update(one.counts)
        names = {**one.names, **names}
    where = found[0].where if len(found) == 1 else f"{found[0].where} and {len(found) - 1} more"
    return Codes(dict(counts), found[0].unit, where, names)
