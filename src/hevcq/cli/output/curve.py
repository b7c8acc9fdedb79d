"""Draw what a search for a quality tried: size against VMAF, for a terminal and as SVG."""

from collections.abc import Iterator

from hevcq.domain.quality import Aim, Probe
from hevcq.util.text import size

BAR = 30
"""Characters of the longest bar."""
WIDTH, HEIGHT, EDGE = 640, 360, 60
"""Pixels of the drawing, and of its margins."""


def curve_lines(aim: Aim, source_size: int) -> Iterator[str]:
    """Yield a line for each CRF that was tried, the best first, with a bar of its size."""
    most = max((each.size or 0 for each in aim.probes), default=0) or 1
    for each in sorted(aim.probes, key=lambda probe: probe.crf):
        bar = "█" * max(1, round(BAR * (each.size or 0) / most))
        mark = f"  chosen for {aim.target:g}" if each.crf == aim.crf else ""
        yield f"  CRF {each.crf:<5g}VMAF {each.vmaf:<7.1f}{_size(each, source_size):<22}{bar}{mark}"
    if aim.out_of_reach:
        yield f"  VMAF {aim.target:g} is out of reach."


def _size(probe: Probe, source_size: int) -> str:
    if probe.size is None:
        return "size unknown"
    return f"{size(probe.size)} ({100 * probe.size / max(1, source_size):.0f} %)"


def curve_svg(aim: Aim) -> str:
    """Return the curve as a picture: bytes to the right, VMAF up, and the target as a line."""
    known = sorted((each for each in aim.probes if each.size), key=lambda each: each.size or 0)
    right = max((each.size or 0 for each in known), default=1) * 1.05
    low = min([aim.target, *(each.vmaf for each in known)]) - 1
    high = max([aim.target, *(each.vmaf for each in known)]) + 1

    def across(each: Probe) -> float:
        return EDGE + (each.size or 0) / right * (WIDTH - 2 * EDGE)

    def up(vmaf: float) -> float:
        return HEIGHT - EDGE - (vmaf - low) / (high - low) * (HEIGHT - 2 * EDGE)

    line = " ".join(f"{across(each):.1f},{up(each.vmaf):.1f}" for each in known)
    goal = up(aim.target)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}">',
        '<g font-family="sans-serif" font-size="12" fill="none" stroke="#555">',
        f'<path d="M{EDGE} {EDGE}V{HEIGHT - EDGE}H{WIDTH - EDGE}"/>',
        f'<path d="M{EDGE} {goal:.1f}H{WIDTH - EDGE}" stroke-dasharray="4"/>',
        f'<polyline points="{line}" stroke="#06c" stroke-width="2"/>',
    ]
    for each in known:
        x, y, chosen = across(each), up(each.vmaf), each.crf == aim.crf
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{6 if chosen else 3}" fill="#06c" stroke="none"/>'
            f'<text x="{x:.1f}" y="{y - 10:.1f}" text-anchor="middle" stroke="none" fill="#555"'
            f' font-weight="{"bold" if chosen else "normal"}">CRF {each.crf:g}: {size(each.size)},'
            f" {each.vmaf:.1f}</text>"
        )
    parts.append(
        f'<text x="{EDGE}" y="{EDGE - 20}" stroke="none" fill="#555">VMAF of the worst twentieth'
        f" against size; {aim.target:g} was asked for</text></g></svg>"
    )
    return "\n".join(parts) + "\n"
