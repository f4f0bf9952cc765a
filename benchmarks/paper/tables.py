"""Runs -> docs/results/paper.md."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.lift.figures import figures, kind_of, lift, ratio
from benchmarks.lift.protocol import device
from benchmarks.lift.report import interval, needed
from benchmarks.lift.settings import SETTINGS
from benchmarks.paper.experiments import EXPERIMENTS, Experiment
from benchmarks.paper.lines import Line, lines, made
from benchmarks.paper.published import SAYS, TABLE1
from benchmarks.paper.runs import TUNING, Pace, Row, refinement, spent, tuned_in

_HEAD = """\
# The paper's experiments, made again

Made by `make bench-paper`, of Chen et al. 2022, "Update Compression for Deep Neural Networks on the
Edge", section 5: a model is deployed with a first part of the training data and updated with all of
it. Sizes are counted as the paper counts: learnable parameters of the update, of all of the
model's. `ka-3` is KA with n = 3; `ml`, `lra`, `lru` are followed by their ranks, `rm` by the
percent of the weights in its mask, `fp` by the percent of the filters it removes. `control`
retrains biases and BatchNorm alone, `dense` everything. Lifts are points of test accuracy: mean,
and half of its 95% interval over initial models and seeds. A line whose runs are fewer or shorter
than planned says so: it is *reduced*.

What differs from the paper, which prints no recipe: Adam with a one-cycle schedule; each method's
rate (`rate`, the highest of a training) chosen from a grid on 5,000 held-out training rows; few
epochs, as two cores allow; images of CIFAR-10 shifted and mirrored, in a JPEG edition;
tiny-ResNet's widths are ours. Accuracies before differ, and with them what there is to gain. The
paper's intervals are of 90%.
"""


def page(rows: list[Row]) -> str:
    """All experiments as Markdown."""
    found = [_section(experiment, rows) for experiment in EXPERIMENTS.values()]
    return "\n".join([_HEAD, _hours(rows), "", *found])


def _section(experiment: Experiment, rows: list[Row]) -> str:
    has_runs, table = _TABLES.get(experiment.name, _curves)(experiment, rows)
    plot = ["", f"![{experiment.title}](paper-{experiment.name}.png)"]
    body = [*table, *plot] if has_runs else ["No run yet."]
    says = f"The paper: {SAYS[experiment.name]}"
    return "\n".join(
        [f"## {experiment.title}", "", says, "", *body, "", _plan(experiment, rows), ""]
    )


def _plan(experiment: Experiment, rows: list[Row]) -> str:
    """How much the whole experiment is."""
    cells = list(experiment.cells())
    hours = Pace(rows).hours(refinement(cell) for cell in cells)
    about = "" if hours is None else f", about {_plain(hours)} hours on {device()} besides tuning"
    command = f'`make bench-paper ARGS="--only {experiment.name}"`'
    return f"{command}: {len(cells)} runs in all{about}."


def _table1(experiment: Experiment, rows: list[Row]) -> tuple[bool, list[str]]:
    """Ours, with the paper's in brackets."""
    found = lines(experiment, rows)
    is_published = any(setting == own for setting in experiment.settings for own, _ in TABLE1)
    table = [
        *(["In brackets, the paper's Table 1.", ""] if is_published else []),
        "| model | family | parameters sent | accuracy before | lift | rate | runs |",
        "|---|---|---|---|---|---|---|",
    ]
    for line in found:
        theirs = TABLE1.get((line.setting, line.method))
        sent, before, gained = f"{line.sent:,}", f"{line.before:.2f}", _lift(line)
        if theirs:
            sent, before = f"{sent} ({theirs.size:,})", f"{before} ({theirs.before:.2f})"
            gained = f"{gained} ({theirs.lift:+.2f})"
        table.append(
            f"| {line.setting} | {line.family} | {sent} | {before} | {gained} | {line.rate} "
            f"| {line.runs} |"
        )
    without = [s for s in experiment.settings if s not in {line.setting for line in found}]
    if without:
        table += [
            "",
            f"No run yet of {', '.join(without)}: these wait for a GPU or for their turn.",
        ]
    return bool(found), table


def _curves(experiment: Experiment, rows: list[Row]) -> tuple[bool, list[str]]:
    """By method, from the least update to the largest."""
    found = lines(experiment, rows)
    planned = sum(len(experiment.families(setting)) for setting in experiment.settings)
    table = [
        "| family | parameters sent | share | bytes | accuracy | lift | rate | runs |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {one.family} | {one.sent:,} | {one.share:.1%} | {one.figure.bytes:,.0f} "
            f"| {one.before + one.figure.lift:.2f} | {_lift(one)} | {one.rate} | {one.runs} |"
            for one in sorted(found, key=lambda one: one.sent)
        ),
        "",
        f"{len(found)} of {planned} families. Bytes are 4 a parameter; those of `fp` are of the "
        "file that holds what remains. The plot ends not far below the base; the table does not.",
    ]
    return bool(found), table


def _shares(experiment: Experiment, rows: list[Row]) -> tuple[bool, list[str]]:
    """A column a family, a line an initial share."""
    found = {(one.setting, one.family): one for one in lines(experiment, rows)}
    settings = [s for s in experiment.settings if any(s == one[0] for one in found)]
    families = list(dict.fromkeys(f for s in settings for f in experiment.families(s)))
    table = [
        f"| initial share | before | {' | '.join(families)} | runs of each |",
        f"|{'---|' * (len(families) + 3)}",
    ]
    for setting in settings:
        own = [found[setting, family] for family in families if (setting, family) in found]
        cells = [_lift(found[setting, f]) if (setting, f) in found else "" for f in families]
        runs = " / ".join(dict.fromkeys(one.runs for one in own))
        table.append(
            f"| {initial_share(setting):.0%} | {own[0].before:.2f} | {' | '.join(cells)} | {runs} |"
        )
    if settings:
        rates = tuned_in(settings[0])
        table += ["", f"Rates are those tuned in `{rates}`, at a share of 20%."]
    return bool(found), table


def _saturation(experiment: Experiment, rows: list[Row]) -> tuple[bool, list[str]]:
    """A line a length, a column a rate."""
    found = made(experiment, rows)
    table = [
        f"| epochs | {' | '.join(f'lift at rate {rate:g}' for rate in experiment.rates)} |",
        f"|{'---|' * (len(experiment.rates) + 1)}",
    ]
    for epochs in experiment.epochs:
        cells = []
        for rate in experiment.rates:
            own = [r for r in found if _is_at(r, epochs, rate)]
            cells.append(f"{sum(map(lift, own)) / len(own):+.2f}" if own else "not run")
        table.append(f"| {epochs} | {' | '.join(cells)} |")
    table += ["", "One initial model, one seed: no interval.", *_at_own_length(experiment, rows)]
    return bool(found), table


def _at_own_length(experiment: Experiment, rows: list[Row]) -> list[str]:
    """KA's lift at each rate, over what models and seeds there are, and what ours needs for it."""
    (setting,) = experiment.settings
    (family,) = experiment.families(setting)
    full = SETTINGS[setting].epochs
    rows = [row for row in rows if row["setting"] == setting and row["stage"] != TUNING]
    ours = [r for r in rows if r["stage"] == "test" and kind_of(r["family"]) == "sparse"]
    told = []
    for rate in experiment.rates:
        theirs = [r for r in rows if r["family"] == family and _is_at(r, full, rate)]
        if theirs and ours:
            (own,) = figures(theirs)
            gained = f"{own.lift:+.2f} {interval(own)}".rstrip()
            held = needed("sparse", ratio(theirs, ours))
            told.append(f"- Rate {rate:g}: {gained}, of {own.runs} runs. {held}")
    return ["", f"After {full} epochs, over initial models and seeds:", "", *told] if told else []


def _is_at(row: Row, epochs: int | None, rate: float | None) -> bool:
    return (row["recipe"]["epochs"], row["recipe"]["learning_rate"]) == (epochs, rate)


def initial_share(setting: str) -> float:
    """The part of the training rows that the deployed model has seen."""
    return SETTINGS[setting].deployed / SETTINGS[setting].rows


def _lift(line: Line) -> str:
    figure = line.figure
    return f"{figure.lift:+.2f}" + (f" ± {figure.half:.2f}" if figure.runs > 1 else "")


def _plain(hours: float) -> str:
    return f"{hours:.1f}" if hours < 10 else f"{hours:,.0f}"


def _hours(rows: list[Row]) -> str:
    """What the runs of this page took, by device."""
    hours: dict[str, float] = {}
    for row in _shown(rows):
        where = row.get("device", "cpu")
        hours[where] = hours.get(where, 0) + spent(row) / 3600
    told = ", ".join(f"{total:.1f} hours on {where}" for where, total in sorted(hours.items()))
    return f"The runs shown here took {told or 'no time yet'}, tuning included."


def _shown(rows: Iterable[Row]) -> list[Row]:
    settings = {setting for one in EXPERIMENTS.values() for setting in one.settings}
    families = {
        (s, f) for one in EXPERIMENTS.values() for s in one.settings for f in one.families(s)
    }
    return [
        row
        for row in rows
        if (row["setting"], row["family"]) in families
        or (row["stage"] == "tune" and row["setting"] in settings)
    ]


_TABLES = {"table1": _table1, "reduced": _table1, "fig6": _shares, "saturation": _saturation}
