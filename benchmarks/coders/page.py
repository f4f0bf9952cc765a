"""The page of `make bench-coders`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
_CODERS = ("zstd/1", "range/1", "range/2", "dense/1")
_SMALL = 100
_UPDATES = {
    "sparse": "`sparse` with an aim of 1,200 bytes",
    "sparse-large": "`sparse` under a weak price of bytes, matrices alone",
    "ka": "`ka`, rank 3, 4 bits",
    "direct": "`direct`, 4 bits, small layers",
}


def page(found: Mapping[str, Mapping[str, Any]]) -> str:
    """docs/results/coders.md, from what is in benchmarks/results/coders."""
    trained, drawn, speed = (found[name]["rows"] for name in ("trained", "drawn", "speed"))
    whole = [row for row in trained if row["tensor"] is None]
    single = [row for row in trained if row["tensor"] is not None]
    above = [row for row in (*trained, *drawn) if _ours(row) > row["deepcabac"]]
    machine = found["trained"]["machine"]
    lines = [
        "# Coders",
        "",
        f"Made by `{found['trained']['command']}`: bytes of integer symbols, with everything that "
        "a decoder of ours needs, beside the",
        "zero-order entropy of each tensor (of being zero, of signs, of magnitudes; what tables "
        "would cost not counted), zstd",
        f"(level 19), and the DeepCABAC of NNCodec {machine['nncodec']} on the same integers. That "
        "one is given its best options for each",
        "tensor, tried one by one (unary length, fitted contexts, skipped rows, limits of the "
        "values, scans in blocks). What",
        "would tell its decoder of them is not counted, but the least that NNCodec writes for "
        "limits and for where rows of",
        "blocks begin is: with those free as well, it may lead by a few bytes on a single tensor. "
        "What a package uses is the",
        "least of ours.",
        "",
        "## Really trained updates",
        "",
        "VGG-small on CIFAR-10; the symbols are in `tests/shared/data`.",
        "",
        "| update | tensors | symbols that are not zero | entropy | "
        + " | ".join(_CODERS)
        + " | DeepCABAC | least of ours / entropy | / DeepCABAC |",
        "|---" * (len(_CODERS) + 7) + "|",
        *(_update(row, single) for row in whole),
        "",
        *_verdict(single, above),
        "",
        "| update | tensor | entropy | range/1 | range/2 | DeepCABAC |",
        "|---|---|---|---|---|---|",
        *map(_tensor, single),
        "",
        "## Drawn symbols",
        "",
        "| symbols | number | entropy | "
        + " | ".join(_CODERS)
        + " | DeepCABAC | least of ours / entropy |",
        "|---" * (len(_CODERS) + 5) + "|",
        *map(_drawn, drawn),
        "",
        "Where a coder has no figure, its decoder would take too long: one by one goes for 131,072 "
        "symbols at most.",
        "",
        "## Time and memory",
        "",
        f"The tensors of ResNet18, {speed[0]['size']:,} symbols, read in pieces as a device does; "
        "seconds of one core's time, the",
        "fastest of three decodings; peak of what a decoder allocates, with the pieces.",
        "",
        "| symbols | coder | bytes | / entropy | encoding (s) | decoding (s) | peak (MB) |",
        "|---|---|---|---|---|---|---|",
        *map(_time, speed),
        "",
        f"Measured with Python {machine['python']}, numpy {machine['numpy']}, zstandard "
        f"{machine['zstandard']} on {machine['processor']}; other work ran on the machine.",
        "",
    ]
    return "\n".join(lines)


def _ours(row: Row) -> int:
    return min(int(row[id_]) for id_ in _CODERS if row[id_] is not None)


def _update(row: Row, single: Sequence[Row]) -> str:
    tensors = sum(other["update"] == row["update"] for other in single)
    ours = _ours(row)
    cells = [_UPDATES[row["update"]], tensors, f"{row['others']:,}", f"{row['entropy']:,.0f}"]
    cells += [*_sizes(row), f"{ours / row['entropy']:.3f}", f"{ours / row['deepcabac']:.3f}"]
    return _line(cells)


def _tensor(row: Row) -> str:
    shape = " x ".join(map(str, row["shape"]))
    sizes = [row[id_] for id_ in ("range/1", "range/2", "deepcabac")]
    return _line([row["update"], shape, f"{row['entropy']:,.1f}", *(f"{n:,}" for n in sizes)])


def _drawn(row: Row) -> str:
    what = f"{row['zeros']:.1%} zeros" if "zeros" in row else f"normal, {row['bits']} bits"
    ratio = f"{_ours(row) / row['entropy']:.4f}"
    return _line([what, f"{row['size']:,}", f"{row['entropy']:,.0f}", *_sizes(row), ratio])


def _time(row: Row) -> str:
    cells = [row["symbols"], row["coder"], f"{row['bytes']:,}"]
    cells += [f"{row['bytes'] / row['entropy']:.4f}", f"{row['encoding']:.2f}"]
    return _line([*cells, f"{row['decoding']:.2f}", f"{row['peak'] / 1e6:.1f}"])


def _sizes(row: Row) -> Iterator[str]:
    for id_ in (*_CODERS, "deepcabac"):
        yield "" if row[id_] is None else f"{row[id_]:,}"


def _verdict(single: Sequence[Row], above: Sequence[Row]) -> Iterator[str]:
    """What is above DeepCABAC, and what small tensors cost above their entropy."""
    if above:
        yield (
            f"Above DeepCABAC: {len(above)} arrays, by up to "
            + str(max(_ours(row) - row["deepcabac"] for row in above))
            + " bytes."
        )
    else:
        yield "None is above DeepCABAC: no update, no tensor alone, nothing drawn."
    yield (
        "Matrices alone, each by itself, to their entropy: "
        + ", ".join(f"`{update}` {_matrices(update, single):.3f}" for update in _UPDATES)
        + "."
    )
    small = [_ours(row) - row["entropy"] for row in single if row["entropy"] < _SMALL]
    yield (
        f"A tensor of less than {_SMALL} bytes takes {min(small):.1f} to {max(small):.1f} bytes "
        "above its entropy, each coded alone: that"
    )
    yield (
        "is of known shares, and learning the shares of a few dozen symbols takes some bytes "
        "whatever the coder. Gains and"
    )
    yield (
        "biases of 10 to 128 numbers are most tensors of the first and the third update, so 1.03 "
        "is hard to reach there."
    )


def _matrices(update: str, single: Sequence[Row]) -> float:
    rows = [row for row in single if row["update"] == update and row["shape"][1] > 1]
    return float(sum(map(_ours, rows)) / sum(row["entropy"] for row in rows))


def _line(cells: Sequence[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"
