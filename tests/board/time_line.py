"""The picture of one update: its writes by partition, and what comes up after a power cut at each of them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .boot_loader import Environment
from .expected import PHASES, Course
from .layout import DATA, LOADER, ROOT_A, ROOT_B, Partition
from .write_log import Entry

_LEFT, _RIGHT, _TOP, _LANE, _GAP = 126, 886, 66, 58, 8
_LANES = ((LOADER, "boot loader"), (ROOT_A, "old slot"), (ROOT_B, "new slot"), (DATA, "data"))
_FILLS = dict(zip(PHASES, ("#ddf4ff", "#fbefff", "#fff8c5", "#ffebe9", "#dafbe1"), strict=True))
_STYLE = """text { font: 13px system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #1f2328 }
.small { font-size: 12px; fill: #57606a }
.phase, .next { text-anchor: middle }
.next { fill: #ffffff; font-weight: 600 }
.write { stroke: #0969da; stroke-width: 1.2; fill: none }
.flush { stroke: #57606a; stroke-width: 1; fill: none }
.mark { stroke: #cf222e; stroke-width: 1.5; stroke-dasharray: 4 3 }
.number { fill: #cf222e; font-weight: 600; text-anchor: middle }"""


class Span(NamedTuple):
    """What comes up after a cut at the entries from `first` to `last`: the new system, or the old one."""

    first: int
    last: int
    is_new: bool


def boots(environment: Environment) -> int:
    """Return the slot that GRUB boots next: a trial that was booted already ends."""
    other = ROOT_A.number + ROOT_B.number - environment.slot
    return other if environment.upgrade_available and environment.bootcount else environment.slot


def spans(changes: Sequence[tuple[int, Environment]], first: int, last: int, new: int) -> list[Span]:
    """Return what comes up after each cut from `first` to `last`; before the first change, the old system.

    A change is an entry and the boot loader's environment after it.
    """
    found = [Span(first, last, False)]
    for number, environment in changes:
        is_new = boots(environment) == new
        if is_new != found[-1].is_new:
            found[-1] = found[-1]._replace(last=number)
            found.append(Span(number + 1, last, is_new))
    return found


def draw(
    entries: Sequence[Entry],
    first: int,
    last: int,
    course: Course,
    changes: Sequence[tuple[int, Environment]],
) -> str:
    """Return the SVG of the entries from `first`, the offer of the update, to `last`, the rest after it."""
    scale = _Scale(first, last)
    bottom = _TOP + len(_LANES) * _LANE
    new = changes[0][1].slot
    marked = [(n, text) for n, text in _moments(changes) if first <= n <= last]
    height = bottom + 82 + 20 * len(marked)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 {height}" role="img"',
        '  aria-label="The writes of one update, and which system comes up after a power cut at each">',
        "<title>The writes of one update</title>",
        "<!-- Made by tests/board/time_line.py. The background is part of the picture. -->",
        f"<style>\n{_STYLE}\n</style>",
        f'<rect width="900" height="{height}" rx="8" fill="#f6f8fa" stroke="#d0d7de"/>',
        *_phases(scale, course, bottom),
    ]
    for row, (part, name) in enumerate(_LANES):
        y = _TOP + row * _LANE
        lines.append(f'<text x="14" y="{y + 32}">{name}</text>')
        lines.append(f'<rect x="{_LEFT}" y="{y - 1}" width="{_RIGHT - _LEFT}" height="2" fill="#f6f8fa"/>')
        lines.append(f'<path class="write" d="{_ticks(scale, entries, part, y)}"/>')
    flushes = "".join(
        f"M{scale.x(n)} {bottom + 4}v8" for n in range(first, min(last, len(entries))) if entries[n].is_flush
    )
    lines += [
        f'<text x="14" y="{bottom + 12}">flushes</text><path class="flush" d="{flushes}"/>',
        f'<text x="14" y="{bottom + 38}">after a cut</text>',
        *_next(scale, spans(changes, first, last, new), bottom + 22),
        *_marks(scale, marked, bottom),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


class _Scale(NamedTuple):
    first: int
    last: int

    def x(self, entry: int) -> float:
        """Return the place of an entry."""
        width = max(1, self.last - self.first)
        return round(_LEFT + (_RIGHT - _LEFT) * (entry - self.first) / width, 1)


def _ticks(scale: _Scale, entries: Sequence[Entry], part: Partition, y: int) -> str:
    """Return a short line for each write to a partition, as high as its place there."""
    room = _LANE - _GAP - 4
    found = []
    for number in range(scale.first, min(scale.last, len(entries))):
        entry = entries[number]
        if entry.is_write and part.start <= entry.start < part.start + part.size:
            place = (entry.start - part.start) / part.size
            found.append(f"M{scale.x(number)} {y + _GAP // 2 + round(room * place, 1)}v5")
    return "".join(found)


def _phases(scale: _Scale, course: Course, bottom: int) -> Iterator[str]:
    numbers = range(scale.first, scale.last + 1)
    for index, phase in enumerate(PHASES):
        inside = [number for number in numbers if course.phase(number) == phase]
        if not inside:
            continue
        left, right = scale.x(inside[0]), scale.x(min(inside[-1] + 1, scale.last))
        yield (
            f'<rect x="{left}" y="{_TOP}" width="{right - left:.1f}" height="{bottom - _TOP}" '
            f'fill="{_FILLS[phase]}"/>'
        )
        # Neighbours are narrow, so their names are on two lines.
        middle = min((left + right) / 2, _RIGHT - 30)
        yield f'<text class="phase" x="{middle:.1f}" y="{_TOP - 22 - 18 * (index % 2)}">{phase}</text>'
    yield f'<text class="small" x="14" y="24">{scale.last - scale.first} writes</text>'
    yield '<text class="small" x="14" y="40">and flushes</text>'


def _next(scale: _Scale, found: Sequence[Span], y: int) -> Iterator[str]:
    for span in found:
        left, right = scale.x(span.first), scale.x(min(span.last + 1, scale.last))
        fill, name = ("#1a7f37", "new") if span.is_new else ("#0969da", "old")
        yield f'<rect x="{left}" y="{y}" width="{right - left:.1f}" height="22" fill="{fill}"/>'
        if right - left > 30:
            yield f'<text class="next" x="{(left + right) / 2:.1f}" y="{y + 16}">{name}</text>'


def _moments(changes: Sequence[tuple[int, Environment]]) -> Iterator[tuple[int, str]]:
    for number, environment in changes:
        if not environment.upgrade_available:
            yield number, "upgrade_available=0: committed. From here the new system comes up."
        elif environment.bootcount:
            yield (
                number,
                "GRUB writes bootcount=1: the new system is on trial. From here the old one comes back.",
            )
        else:
            yield number, "upgrade_available=1: installed. From here the new system comes up, on trial."


def _marks(scale: _Scale, marked: Sequence[tuple[int, str]], bottom: int) -> Iterator[str]:
    for index, (number, text) in enumerate(marked, 1):
        x, y = scale.x(number), bottom + 66 + 20 * index
        yield f'<line class="mark" x1="{x}" y1="{_TOP - 4}" x2="{x}" y2="{bottom + 48}"/>'
        yield f'<text class="number" x="{x}" y="{bottom + 62}">{index}</text>'
        yield f'<text class="number" x="{_LEFT + 4}" y="{y}">{index}</text>'
        yield f'<text x="{_LEFT + 18}" y="{y}">Write {number - scale.first}, {text}</text>'
