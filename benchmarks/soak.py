"""`make soak-edge`: updates over a slow line that breaks, to an agent that is killed all along.

A real server (`weft serve`), a real agent (`edge-agent run`), between them a line that throttles
and cuts (`benchmarks/cutting_line.py`). The server wants one version after the other; while each is
on its way, the agent is killed by SIGKILL at random times and started again at once. (How many
times is drawn for each; kills for which an update was too fast are for the next one.) After each
update the weights in use are read from the disk, and their digest is compared; at the end the bytes
that the line has carried to the agent, polls and all, are compared with those of the packages.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.cutting_line import Line, line
from benchmarks.measure import machine
from benchmarks.soak_page import page
from benchmarks.soak_site import MODES, Agent, Server, SoakFailed, serving
from shared.errors import WeftError

RESULTS = Path(__file__).parent / "results" / "soak.json"
PAGE = Path(__file__).resolve().parent.parent / "docs" / "results" / "soak.md"
#: Bytes a second, and the bytes after which a connection is cut.
RATE, CUT = 80_000.0, (20_000, 300_000)
#: Seconds that an agent lives until it is killed. It needs about half a second to its first poll.
LIFE = (0.1, 2.0)
#: At most this many times the packages' bytes may come to the agent.
MOST_BYTES_RATIO = 1.2
DEADLINE_SECONDS = 120.0


@dataclass
class Run:
    """What a run of one mode has come to."""

    mode: str
    seed: int
    updates: int = 0
    kills: int = 0
    killed_in: Counter[str] = field(default_factory=Counter)
    package_bytes: int = 0
    downloaded_bytes: int = 0
    cuts: int = 0
    connections: int = 0
    seconds: float = 0.0
    results: Counter[str] = field(default_factory=Counter)

    @property
    def ratio(self) -> float:
        """Bytes to the agent over bytes of the packages."""
        return self.downloaded_bytes / self.package_bytes


def update(run: Run, agent: Agent, server: Server, version: int, kills: int, draw: Any) -> int:
    """Bring the agent to a version, with so many kills on the way. Raises SoakFailed.

    Returns the kills that are left: those are for the next version.
    """
    result = server.want(version)
    while kills and (result() is None or version == max(server.sizes)):
        kills -= 1
        with agent.running():
            time.sleep(draw.uniform(*LIFE))
        run.kills += 1
        run.killed_in[agent.state_name()] += 1
        found = agent.in_use()
        whole = {server.digests[version - 1], server.digests[version]}
        if found not in whole and not (found is None and run.mode == "inplace"):
            raise SoakFailed(f"after a kill {agent.folder} holds {found}")
    with agent.running():
        end = time.monotonic() + DEADLINE_SECONDS
        while result() is None:
            if time.monotonic() > end:
                raise SoakFailed(f"version {version} took too long: see {agent.state}.log")
            time.sleep(0.1)
    run.results[str(result())] += 1
    if agent.in_use() != server.digests[version]:
        raise SoakFailed(f"version {version}: {agent.in_use()} is in use, told: {result()}")
    run.updates += 1
    run.package_bytes += server.sizes[version]
    return kills


def soak(folder: Path, mode: str, updates: int, kills: int, seed: int) -> Run:
    """All updates of one mode, on a server and a line of its own."""
    run, draw = Run(mode, seed), random.Random(seed)
    spread = Counter(draw.randrange(updates) for _ in range(kills))
    with serving(folder) as server:
        server.publish(folder, updates + 1)
        parts = urlsplit(str(server.http.base_url))
        address = (str(parts.hostname), int(parts.port or 80))
        with line(address, RATE, CUT, random.Random(seed + 1)) as slow:
            agent = Agent(folder, mode, slow.url, server.token)
            _enrol(agent)
            before, began = slow.down, time.monotonic()
            left = 0
            for number in range(updates):
                left = update(run, agent, server, number + 2, left + spread[number], draw)
                _say(run, slow, before)
            run.seconds = round(time.monotonic() - began, 1)
            run.downloaded_bytes = slow.down - before
            run.cuts, run.connections = slow.cuts, slow.connections
    return run


def _enrol(agent: Agent) -> None:
    with agent.running():
        end = time.monotonic() + DEADLINE_SECONDS
        while not (agent.state / "identity.json").exists():
            if time.monotonic() > end:
                raise SoakFailed("the agent does not enrol")
            time.sleep(0.1)


def _say(run: Run, slow: Line, before: int) -> None:
    carried = (slow.down - before) / run.package_bytes
    sys.stderr.write(
        f"{run.mode}: {run.updates} updates, {run.kills} kills, {carried:.3f}x bytes\n"
    )


def _shown(run: Run, kills: int, updates: int) -> dict[str, Any]:
    return {
        "mode": run.mode,
        "seed": run.seed,
        "updates": run.updates,
        "kills": run.kills,
        "killed_in": dict(sorted(run.killed_in.items())),
        "results": dict(run.results),
        "package_bytes": run.package_bytes,
        "downloaded_bytes": run.downloaded_bytes,
        "bytes_ratio": round(run.ratio, 4),
        "connections": run.connections,
        "cuts": run.cuts,
        "seconds": run.seconds,
        "met": run.updates == updates and run.kills == kills and run.ratio <= MOST_BYTES_RATIO,
    }


def main() -> int:
    """Run both modes, or the one that is asked for, and write the result and its page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mode", choices=MODES, action="append")
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--kills", type=int, default=200, help="in each mode")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for logs and states; kept")
    options = parser.parse_args()
    runs = []
    for mode in options.mode or MODES:
        folder = Path(tempfile.mkdtemp(dir=options.keep, prefix=f"soak-{mode}-"))
        run = soak(folder, mode, options.updates, options.kills, options.seed)
        runs.append(_shown(run, options.kills, options.updates))
        if not options.keep:
            shutil.rmtree(folder)
    if options.updates < 20 or options.kills < 200 or len(runs) < len(MODES):
        print(json.dumps(runs, indent=1))
        return 0
    record = {
        "rate": RATE,
        "cut_after": CUT,
        "lives": LIFE,
        "most_bytes_ratio": MOST_BYTES_RATIO,
        "runs": runs,
        "machine": machine(),
    }
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    PAGE.write_text(page(record))
    return 0 if all(run["met"] for run in runs) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (SoakFailed, WeftError) as error:
        sys.exit(f"{error}")
