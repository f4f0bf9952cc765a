"""The figures of `make bench-live` as Markdown."""

from __future__ import annotations

import statistics
from typing import Any

MIB = 1 << 20
#: What a pause may take beside one memcpy of the changed bytes.
EXTRA_SECONDS = 0.002


def page(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    cases = result["cases"]
    rounds = len(next(iter(cases.values()))["rounds"]["pause"])
    lines = [
        "# New weights in a running program",
        "",
        f"Made by `{result['command']}` on {result['machine']['processor']} with "
        f"{result['machine']['cores']} cores and torch {result['machine']['torch']}; {rounds} "
        f"swaps of ResNet18 ({result['model_bytes']:,} bytes) each, while a thread infers without "
        "a pause. "
        "Median (minimum to maximum). *Pause*: from the end of the last inference with the old "
        "weights until the next one may begin. *Felt*: what the inference that met it waited. "
        "*memcpy*: of as many bytes, in the same rounds.",
        "",
        "| tensors changed | bytes | pause ms | felt ms | memcpy ms | pause / memcpy "
        "| pause - memcpy, ms | rounds within memcpy + 2 ms |",
        "|---|---|---|---|---|---|---|---|",
        *(_pauses(name, case) for name, case in cases.items()),
        "",
        "Memory beside the model, when the new weights are ready and when all is done:",
        "",
        "| tensors changed | mapped pages of the new file, MiB | of its own, MiB "
        "| peak growth, MiB |",
        "|---|---|---|---|",
        *(_memories(name, case) for name, case in cases.items()),
        "",
        "Mapped pages are the system's cache of the file; they are shared and clean. What stays "
        "until the swap is what differs; at the peak there is one more tensor, the one that is "
        "looked at.",
        "",
    ]
    return "\n".join(lines)


def _pauses(name: str, case: dict[str, Any]) -> str:
    rounds = case["rounds"]
    pairs = list(zip(rounds["pause"], rounds["memcpy"], strict=True))
    over = [pause - copy for pause, copy in pairs]
    within = sum(one <= EXTRA_SECONDS for one in over)
    milli = [_spread([1e3 * s for s in rounds[key]], 2) for key in ("pause", "felt", "memcpy")]
    ratio = _spread([pause / copy for pause, copy in pairs], 2)
    extra = _spread([1e3 * one for one in over], 2)
    cells = [name, f"{case['changed_bytes']:,}", *milli, ratio, extra, f"{within} of {len(over)}"]
    return f"| {' | '.join(cells)} |"


def _memories(name: str, case: dict[str, Any]) -> str:
    keys = ("mapped_bytes", "anonymous_bytes", "peak_bytes")
    cells = [_spread([size / MIB for size in case["rounds"][key]], 1) for key in keys]
    return f"| {' | '.join([name, *cells])} |"


def _spread(values: list[float], digits: int) -> str:
    middle = statistics.median(values)
    return f"{middle:.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"
