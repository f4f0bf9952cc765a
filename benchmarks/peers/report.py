"""Runs of peers, beside those of `benchmarks.lift` -> Markdown and plot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.lift import report as lift
from benchmarks.lift.figures import figures, kind_of, ratio

CODEC = "nncodec"
#: Ours that stand in the table and the plot.
SHOWN = ("sparse", "ka", "rm", "lru", "lra", "ml", "ml_delta", "lora", "dense", "control")
#: Points of lift at which bytes are compared.
LIFTS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5)

Rows = list[dict[str, Any]]

_HEAD = """# Peers: what a user could pick instead

Made by `make bench-peers`, on the models, rows and recipe of `make bench-lift`: VGG-small on
CIFAR-10, deployed with 20% of the data, updated with all. Same initial models and seeds (paired),
{epochs} epochs, one thread; test accuracy of the decoded weights, the test set read once a run.
{pairs} pairs of initial model and seed at most; {minutes:.0f} minutes of training.

What is counted: the whole file that travels, with names and shapes. BatchNorm's statistics do not
travel for anyone: they are re-estimated on the decoded weights and folded into its scale and shift,
as in our packages, and the biases that BatchNorm absorbs stay as they are.
"""

_TOLD = {
    "nncodec": """
- `nncodec-*`: [NNCodec](https://github.com/fraunhoferhhi/nncodec) {nncodec} (ISO/IEC 15938-17) on
  the change of dense retrained weights, with dependent quantisation. `qp` and `o` are the steps of
  matrices and of all else, `w` is the weight of bytes in the encoder's choice of symbols (its
  default is 0), `d` the decay of the training towards the base. {searched} points were searched on
  held-out rows with one initial model, on trainings as long as these; these are those on the
  envelope. It is good at what it is made for: it takes any trained
  weights, needs no training of its own, and is done in half a second.""",
    "peft": """
- `peft-RANK`: LoRA of PEFT {peft} on every convolution and linear layer, trained in our loop with
  our batches, and with BatchNorm and the last bias, as all methods are; its rate is tuned on the
  grid of all methods. The file is safetensors in float32; `16bit` is the same in float16. It is
  good at being known: many libraries load its adapters, and several can lie beside one base.""",
    "xor": """
- `zstd-patch` (`zstd --ultra -22 --patch-from`), `bsdiff` (bsdiff4 {bsdiff4}) and our `xor` send
  the file of the dense retraining to the bit. They know nothing of models and lose nothing: right
  where few tensors change. The low bits of retrained floats are noise to them.""",
}

_TAIL = """
DeepCABAC, the coder inside NNCodec, on our own integer symbols: `make bench-coders`.

![Points of test accuracy gained, against bytes](peers.png)
"""


def page(theirs: Rows, ours: Rows) -> str:
    """The figures as Markdown."""
    if not theirs:
        return "# Peers\n\nNothing has been measured yet: `make bench-peers`.\n"
    rows = beside(theirs, ours)
    head = _HEAD.format(
        epochs=theirs[0]["recipe"]["epochs"],
        pairs=len(_pairs(theirs)),
        minutes=sum(_seconds(theirs)) / 60,
    )
    searched = max((row["points"] for row in theirs if "points" in row), default=0)
    values = {**theirs[0]["peers"], "searched": searched}
    kinds = {row["family"].split("-")[0] for row in theirs}
    told = [text.format(**values) for kind, text in _TOLD.items() if kind in kinds]
    told += [f"\nNot measured yet: `{kind}`." for kind in _TOLD if kind not in kinds]
    parts = [head, *_table(rows), "", *_compared(theirs, ours), *told]
    return "\n".join([*parts, _TAIL])


def plot(theirs: Rows, ours: Rows, path: Path) -> None:
    """Lift against bytes, theirs and ours."""
    if theirs:
        lift.plot({theirs[0]["setting"]: beside(theirs, ours)}, path)


def beside(theirs: Rows, ours: Rows) -> Rows:
    """All of theirs, and of ours what is shown, of the pairs that theirs were run with."""
    pairs = _pairs(theirs)
    shown = (row for row in ours if row["family"].split("-")[0] in SHOWN)
    return theirs + [row for row in shown if (row["model"], row["seed"]) in pairs]


def _pairs(rows: Iterable[dict[str, Any]]) -> set[tuple[int, int]]:
    return {(row["model"], row["seed"]) for row in rows}


def _seconds(rows: Rows) -> list[float]:
    """Of each training once: many rows come from the same."""
    runs = {
        (row["method"] == "peft" and row["family"], str(row["recipe"]), row["model"]): row[
            "seconds"
        ]
        for row in rows
    }
    return list(runs.values())


def _table(rows: Rows) -> list[str]:
    return [
        "| family | bytes | lift | runs |",
        "|---|---|---|---|",
        *(
            f"| {f.family} | {f.bytes:,.0f} | {f.lift:+.2f} {lift.interval(f)} | {f.runs} |"
            for f in sorted(figures(rows), key=lambda f: f.bytes)
        ),
    ]


def _compared(theirs: Rows, ours: Rows) -> list[str]:
    codec = _of(theirs, CODEC)
    lines = [line for kind in lift.OURS for line in _lifts(codec, _of(ours, kind), kind)]
    if not lines:
        return [f"The curves of `{CODEC}` and ours have no lift in common yet."]
    return [
        "Bytes on the mean curves for the same lift; points that lift no more than a smaller one "
        "are left out:",
        "",
        f"| lift | `{CODEC}`, bytes | ours | bytes | ours of theirs | 95% interval |",
        "|---|---|---|---|---|---|",
        *lines,
        "",
    ]


def _lifts(codec: Rows, own: Rows, kind: str) -> Iterator[str]:
    for wanted in LIFTS:
        found = ratio(codec, own, wanted)
        if found is not None:
            yield (
                f"| {wanted:+.1f} | {found.theirs:,.0f} | {kind} | {found.ours:,.0f} "
                f"| 1/{found.times:.1f} | {lift.spread(found)} |"
            )


def _of(rows: Rows, kind: str) -> Rows:
    return [row for row in rows if kind_of(row["family"]) == kind]
