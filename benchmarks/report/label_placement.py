"""Labels of points in a plot, placed so that none covers another, a point, or the edge."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import cos, hypot, pi, sin
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patheffects import withStroke

_FONT = 8.5  # points
_RADII = (9.0, 16.0, 26.0, 38.0, 52.0, 68.0, 86.0, 106.0)  # points, from the marker to the label
_DIRECTIONS = 16
_LEADER_FROM = 11.0  # labels further away than this get a line to their point
_CLEARLY = 1.4  # how much closer a label should be to its own point than to any other
_MARKER = 4.0  # half the width of a marker
_PIECES = 8  # of the line to a point, as far as crossings are concerned
_PASSES = 5
_COST_OF_DISTANCE = 0.02  # per typographic point, where covering something costs 10
Point = tuple[float, float]  # or a width and a height


@dataclass(frozen=True)
class Box:
    """A rectangle in display coordinates."""

    left: float
    bottom: float
    right: float
    top: float

    @property
    def centre(self) -> Point:
        """Its middle."""
        return (self.left + self.right) / 2, (self.bottom + self.top) / 2

    def overlaps(self, other: "Box") -> bool:
        """Whether the two share an area.

        Example:
            >>> Box(0, 0, 2, 2).overlaps(Box(1, 1, 3, 3)), Box(0, 0, 1, 1).overlaps(Box(1, 0, 2, 1))
            (True, False)
        """
        return (
            self.left < other.right
            and other.left < self.right
            and self.bottom < other.top
            and other.bottom < self.top
        )

    def inside(self, other: "Box") -> bool:
        """Whether it lies within the other one."""
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.bottom >= other.bottom
            and self.top <= other.top
        )


def place_boxes(
    anchors: Sequence[Point], sizes: Sequence[Point], within: Box, *, unit: float = 1.0
) -> list[Point]:
    """Centres of labels beside their points: each label in turn takes the best place that the others leave, until
    none moves any more.

    The best place is near, inside, covers nothing, its line crosses nothing, and leaves no doubt whose it is; right of
    the point comes first among equals.

    Args:
        anchors: Points in display coordinates.
        sizes: Width and height of every label, the same units.
        within: Where labels may be.
        unit: Display units per typographic point.

    Returns:
        One centre per label, in display coordinates.

    Example:
        >>> place_boxes([(50, 50)], [(20, 8)], Box(0, 0, 100, 100))
        [(69.0, 50.0)]
    """
    placing = _Placing(list(anchors), list(sizes), within, unit)
    # a label placed late may have taken the best place of an early one
    for _ in range(_PASSES):
        before = list(placing.boxes)
        for k in range(len(anchors)):
            placing.place(k)
        if placing.boxes == before:
            break

    return [box.centre for box in placing.boxes if box is not None]


class _Placing:
    """Labels placed so far; None for those that are not."""

    def __init__(self, anchors: list[Point], sizes: list[Point], within: Box, unit: float) -> None:
        self.anchors, self.sizes, self.within, self.unit = anchors, sizes, within, unit
        self.markers = [_square(anchor, _MARKER * unit) for anchor in anchors]
        self.boxes: list[Box | None] = [None] * len(anchors)

    def place(self, k: int) -> None:
        """Give a label the best place that the others leave."""
        obstacles = [marker for n, marker in enumerate(self.markers) if n != k]
        for n, box in enumerate(self.boxes):
            if n != k and box is not None:
                obstacles += [box, *self._line(box, self.anchors[n])]

        best, least = None, float("inf")
        for radius, box in self._candidates(k):
            far = radius * _COST_OF_DISTANCE
            # candidates come nearest first, and distance alone may already cost too much
            if far < least and (cost := far + self._faults(box, k, obstacles)) < least:
                best, least = box, cost

        self.boxes[k] = best

    def _candidates(self, k: int) -> Iterator[tuple[float, Box]]:
        """Places around a point, nearest first; the edge of the label, not its centre, keeps about that distance."""
        (x, y), (width, height) = self.anchors[k], self.sizes[k]
        for radius in _RADII:
            for step in range(_DIRECTIONS):
                # right of the point first, then alternately above and below
                angle = 2 * pi * ((step + 1) // 2) / _DIRECTIONS * (1 if step % 2 else -1)
                across, up = cos(angle), sin(angle)

                yield (
                    radius,
                    _box(
                        (
                            x + radius * self.unit * across + width / 2 * max(-1.0, min(1.0, 1.5 * across)),
                            y + radius * self.unit * up + height / 2 * up,
                        ),
                        (width, height),
                    ),
                )

    def _faults(self, box: Box, k: int, obstacles: Sequence[Box]) -> float:
        """What is wrong with a place; 0 where nothing is."""
        anchor, line = self.anchors[k], self._line(box, self.anchors[k])
        covered = sum(map(box.overlaps, obstacles))
        crossed = sum(any(piece.overlaps(obstacle) for piece in line) for obstacle in obstacles)
        own = _CLEARLY * _distance(box, anchor)
        others = (other for other in self.anchors if other != anchor)
        doubtful = not line and any(_distance(box, other) < own for other in others)
        hidden = bool(line) and box.left < anchor[0] < box.right  # behind the line of an interval

        return 100.0 * (not box.inside(self.within)) + 10.0 * covered + 3.0 * crossed + doubtful + hidden

    def _line(self, box: Box, anchor: Point) -> list[Box]:
        """The line from a label to its point in small pieces; none where the label is close."""
        if _distance(box, anchor) <= _LEADER_FROM * self.unit:
            return []
        x, y = min(max(anchor[0], box.left), box.right), min(max(anchor[1], box.bottom), box.top)
        return [
            _square((x + (anchor[0] - x) * k / _PIECES, y + (anchor[1] - y) * k / _PIECES), self.unit / 2)
            for k in range(1, _PIECES)
        ]


def _box(centre: Point, size: Point) -> Box:
    (x, y), (width, height) = centre, size
    return Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def _square(centre: Point, half: float) -> Box:
    return _box(centre, (2 * half, 2 * half))


def _distance(box: Box, point: Point) -> float:
    x, y = point
    return hypot(max(box.left - x, 0.0, x - box.right), max(box.bottom - y, 0.0, y - box.top))


def place_labels(axes: Axes, labels: Sequence[str], points: Sequence[Point]) -> None:
    """Write a label beside every point (data coordinates); limits and scales of the axes must be final."""
    figure: Any = axes.figure
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()  # the layout engine settles where the axes are
    renderer = canvas.get_renderer()
    unit = figure.dpi / 72
    area = axes.get_window_extent(renderer)

    # drawn once to learn how much room each takes, and drawn again in its place
    texts = [axes.text(0, 0, label, fontsize=_FONT) for label in labels]
    extents = [text.get_window_extent(renderer) for text in texts]
    for text in texts:
        text.remove()

    sizes = [(extent.width + 3 * unit, extent.height + 2 * unit) for extent in extents]
    anchors = [(float(x), float(y)) for x, y in axes.transData.transform(points)]
    within = Box(area.x0, area.y0, area.x1, area.y1)

    centres = place_boxes(anchors, sizes, within, unit=unit)
    for label, point, anchor, centre, size in zip(labels, points, anchors, centres, sizes, strict=True):
        offset = (centre[0] - anchor[0], centre[1] - anchor[1])
        far = _distance(_box(offset, size), (0.0, 0.0)) > _LEADER_FROM * unit
        _write(axes, label, point, (offset[0] / unit, offset[1] / unit), line=far)


def _write(axes: Axes, label: str, point: Point, offset: Point, *, line: bool) -> None:
    """One label, its middle so many typographic points from its point."""
    leader = {"arrowstyle": "-", "color": "#9AA0A8", "linewidth": 0.7, "shrinkA": 0, "shrinkB": 3}
    text = axes.annotate(
        label,
        point,
        offset,
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=_FONT,
        color="#333A44",
        arrowprops=leader if line else None,
        path_effects=[
            withStroke(linewidth=2, foreground="white")
        ],  # where a line of another point crosses it
        annotation_clip=False,
    )
    text.set_in_layout(False)
