"""The curve as SVG: accuracy against bytes, on a logarithmic axis. Pure: no fonts, no scripts.

All looks are attributes of the elements, so that a page which forbids styles shows it as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from server.publish.budget.curve import Curve, Point, envelope

WIDTH, HEIGHT = 720, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 40, 56
_INK, _SOFT, _GRID = "#24292f", "#57606a", "#d8dee4"
_LINE, _LIMIT, _CHOSEN = "#0969da", "#cf222e", "#1a7f37"
#: Room beyond the outermost points, as a share of what they span; the least that is spanned.
_MARGIN, _LEAST_POINTS, _LEAST_FACTOR = 0.12, 1.0, 2.0


@dataclass(frozen=True)
class Axis:
    """From a value to a place between `start` and `end`; both ends of the values stay inside."""

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        """Where a value lies."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def bytes_axis(curve: Curve, start: float, end: float) -> Axis:
    """Over the decimal logarithm of bytes."""
    sizes = [float(p.bytes) for p in curve.points] or [float(curve.least_bytes)]
    if curve.goal.max_bytes is not None:
        sizes.append(float(curve.goal.max_bytes))
    return _axis([math.log10(size) for size in sizes], math.log10(_LEAST_FACTOR), start, end)


def accuracy_axis(curve: Curve, start: float, end: float) -> Axis:
    """Over percent."""
    shares = [a for p in curve.points for a in (p.accuracy_before, p.accuracy_after)]
    percents = [100 * share for share in shares]
    if curve.goal.min_accuracy is not None:
        percents.append(curve.goal.min_accuracy)
    return _axis(percents or [0.0, 100.0], _LEAST_POINTS, start, end)


def _axis(values: Sequence[float], least: float, start: float, end: float) -> Axis:
    low, high = min(values), max(values)
    spare = max(0.0, least - (high - low)) / 2
    margin = _MARGIN * max(high - low, least)
    return Axis(low - spare - margin, high + spare + margin, start, end)


def draw(curve: Curve, title: str = "Accuracy against bytes") -> str:
    """The plot, as the text of an SVG file."""
    x = bytes_axis(curve, _LEFT, WIDTH - _RIGHT)
    y = accuracy_axis(curve, HEIGHT - _BOTTOM, _TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(WIDTH / 2, 22, title, size=14, anchor="middle"),
        *_grid(x, y),
        *_limits(curve, x, y),
        *_points(curve, x, y),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _grid(x: Axis, y: Axis) -> Iterator[str]:
    for size in byte_ticks(x):
        at = x.place(math.log10(size))
        yield _rule(at, _TOP, at, HEIGHT - _BOTTOM, _GRID)
        yield _text(at, HEIGHT - _BOTTOM + 18, f"{size:,}", anchor="middle", color=_SOFT)
    for percent in percent_ticks(y):
        at = y.place(percent)
        yield _rule(_LEFT, at, WIDTH - _RIGHT, at, _GRID)
        yield _text(_LEFT - 8, at + 4, f"{percent:g}", anchor="end", color=_SOFT)
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    yield _text(middle, HEIGHT - 14, "bytes of the package", anchor="middle", color=_SOFT)
    yield _text(_LEFT - 48, _TOP - 12, "accuracy, %", color=_SOFT)


def byte_ticks(axis: Axis) -> list[int]:
    """Round sizes on the axis: the fewer decades it spans, the more of each."""
    span = axis.high - axis.low
    digits = (1, 2, 3, 5, 7) if span < 1 else (1, 2, 5) if span < 2.5 else (1,)
    decades = range(max(0, math.floor(axis.low)), math.ceil(axis.high) + 1)
    sizes = [digit * 10**decade for decade in decades for digit in digits]
    return [size for size in sizes if axis.low <= math.log10(size) <= axis.high]


def percent_ticks(axis: Axis, most: int = 7) -> list[float]:
    """Round percents on the axis, at most so many, none outside 0 to 100."""
    for step in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0):
        first = math.ceil(max(axis.low, 0.0) / step)
        last = math.floor(min(axis.high, 100.0) / step)
        if last - first < most:
            break
    return [round(number * step, 1) for number in range(first, last + 1)]


def _limits(curve: Curve, x: Axis, y: Axis) -> Iterator[str]:
    """The base's accuracy, and what was asked for."""
    goal = curve.goal
    if curve.points:
        at = y.place(100 * curve.points[0].accuracy_before)
        yield _rule(_LEFT, at, WIDTH - _RIGHT, at, _SOFT, dashed=True)
        yield _text(WIDTH - _RIGHT - 4, at - 5, "before", anchor="end", color=_SOFT)
    if goal.min_accuracy is not None:
        at = y.place(goal.min_accuracy)
        yield _rule(_LEFT, at, WIDTH - _RIGHT, at, _LIMIT, dashed=True)
        told = f"asked for: {goal.min_accuracy:g}%"
        yield _text(WIDTH - _RIGHT - 4, at - 5, told, anchor="end", color=_LIMIT)
    if goal.max_bytes is not None:
        at = x.place(math.log10(goal.max_bytes))
        yield _rule(at, _TOP, at, HEIGHT - _BOTTOM, _LIMIT, dashed=True)
        told = f"most: {goal.max_bytes:,} bytes"
        yield _text(at - 5, HEIGHT - _BOTTOM - 6, told, anchor="end", color=_LIMIT)


def _points(curve: Curve, x: Axis, y: Axis) -> Iterator[str]:
    best = envelope(curve.points)
    line = [(x.place(math.log10(size)), y.place(100 * share)) for size, share in best]
    if len(line) > 1:
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in line)
        yield f'<polyline points="{path}" fill="none" stroke="{_LINE}" stroke-width="1.5"/>'
    if any(point.fitted for point in curve.points):
        told = "hollow: made to fit"
        yield _text(WIDTH - _RIGHT, HEIGHT - 14, told, anchor="end", color=_SOFT)
    for point in curve.points:
        at = x.place(math.log10(point.bytes)), y.place(100 * point.accuracy_after)
        yield from _mark(point, *at)


def _mark(point: Point, x: float, y: float) -> Iterator[str]:
    color = _CHOSEN if point.chosen else _LINE
    fill = "#ffffff" if point.fitted else color
    radius = 6 if point.chosen else 4
    yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{fill}" stroke="{color}">'
    told = f"{label(point)}: {point.bytes:,} bytes, {point.accuracy_after:.2%}"
    yield f"<title>{escape(told)}</title></circle>"
    if point.chosen:
        side = (x - 10, "end") if x > WIDTH / 2 else (x + 10, "start")
        yield _text(side[0], y - 9, f"chosen: {told}", anchor=side[1], color=_CHOSEN)


def label(point: Point) -> str:
    """What was trained, in a word or two."""
    if not point.matrices:
        word = "biases and BatchNorm"
    else:
        word = " ".join([point.method, *(f"{n}={v:g}" for n, v in point.options.items())])
    if point.rate != 1.0:
        word += f", rate x {point.rate:g}"
    return f"{word}, fitted" if point.fitted else word


def _rule(x1: float, y1: float, x2: float, y2: float, color: str, dashed: bool = False) -> str:
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}"{dashes}/>'
    )


def _text(
    x: float, y: float, text: str, anchor: str = "start", color: str = _INK, size: int = 12
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor={quoteattr(anchor)} fill="{color}" '
        f'font-size="{size}">{escape(text)}</text>'
    )
