"""Where the polygons of a file are, and whether that is anywhere near a map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import shapely

from omnisat_cli.errors import AlignmentError
from omnisat_cli.geo.crs import short_crs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from omnisat_cli.outputs.zonal import MapLayers
    from omnisat_cli.sources.polygons import PolygonFile


class Extent:
    """The bounds of all polygons so far, in the CRS of the map."""

    def __init__(self) -> None:
        self._low, self._high = np.full(2, np.inf), np.full(2, -np.inf)
        self._count = 0

    def add(self, polygons: NDArray[np.object_]) -> None:
        """Take the polygons of a batch in; None counts nothing."""
        self._count += len(polygons)
        bounds = shapely.total_bounds(polygons)
        if np.isfinite(bounds).all():
            self._low = np.minimum(self._low, bounds[:2])
            self._high = np.maximum(self._high, bounds[2:])

    def check(self, layers: MapLayers, source: PolygonFile, option: str) -> None:
        """Refuse polygons none of which can meet the map: their CRS is wrong, or the file.

        Args:
            layers: The map.
            source: The file of the polygons.
            option: Option it was given with; `<option>-crs` is named in the hint.

        Raises:
            AlignmentError: If they are elsewhere.
        """
        left, bottom, right, top = layers.dataset.bounds
        near = (self._low < (right, top)) & (self._high > (left, bottom))
        if near.all():
            return
        place = "no place it can show"
        if np.isfinite(self._low).all():
            place = (
                f"x {self._low[0]:.6g}..{self._high[0]:.6g}, "
                f"y {self._low[1]:.6g}..{self._high[1]:.6g}"
            )
        raise AlignmentError(
            f"{source.path}: none of its {self._count} polygons lies on the map: in its CRS, "
            f"{short_crs(layers.crs)}, they are at {place}; the map is at "
            f"x {left:.6g}..{right:.6g}, y {bottom:.6g}..{top:.6g}\nthe CRS of the file is "
            f"{short_crs(source.crs)}; if that is wrong: {option}-crs EPSG:n"
        )
