"""A bundle that somebody brings to the device: choosing the way in it, and having it installed.

It is opened before the agent starts, and every package that is needed is read and checked before
anything is given up for it: a bad bundle loses nothing. What follows is an update like any other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from edge_agent import files
from edge_agent.agent.loop import Agent
from edge_agent.config import Config
from edge_agent.journal import Held
from edge_agent.slots import STORAGES
from shared.bundle import Bundle, BundleReader, Way
from shared.errors import BadBundle, WeftError
from shared.wire import PackageOffer

_DIGITS = 12


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BundleReader]:
    """The bundle at `path`, which may lie on a read-only medium. Raises BadBundle."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise BadBundle("unreadable", f"{path}: {error.strerror}") from error
    with file:
        yield BundleReader(file, path.name)


def install(
    agent: Agent, config: Config, reader: BundleReader, *, rollback: bool = False
) -> list[WeftError]:
    """Install the bundle's version; says what went wrong. `rollback`: it may be an older one.

    Raises BadBundle where it is damaged or leads nowhere from what is held, TrustError where it
    is not released, and what else `Agent.install` raises; nothing has changed then.
    """
    bundle = reader.bundle
    if bundle.model not in config.models:
        known = ", ".join(config.models)
        raise BadBundle("other_model", f"it is of {bundle.model}; this device runs {known}")
    slots = agent.held(bundle.model).values()
    longest = STORAGES[config.models[bundle.model].storage].max_chain
    way = choose(bundle, slots, longest)
    for offer in way.packages if way else ():
        reader.check(offer)

    def bring(offer: PackageOffer, place: Path) -> None:
        with files.replacing(place) as file:
            for piece in reader.pieces(offer):
                file.write(piece)

    wanted = bundle.desired(way).model_copy(update={"rollback": rollback})
    return agent.install(wanted, reader.metadata(), bring)


def choose(bundle: Bundle, slots: Collection[Held], longest: int) -> Way | None:
    """The way of fewest bytes from what the slots hold; None where one holds the version already.

    Raises BadBundle `no_way`, with what is held and what would be needed.
    """
    held = {slot.digest for slot in slots}
    if bundle.weights_digest in held:
        return None
    fit = [way for way in bundle.ways if way.base_digest in {None, *held}]
    usable = [way for way in fit if len(way.packages) <= longest]
    if usable:
        return min(usable, key=lambda way: way.size)
    here = _listed((slot.version, slot.digest) for slot in slots)
    told = f"{bundle.model}: the device holds {here or 'no weights'}; "
    if fit:
        told += f"a way of {len(fit[0].packages)} packages would be needed in one update, "
        raise BadBundle("no_way", told + f"and storage takes {longest}")
    needed = _listed((way.base_version, way.base_digest or "") for way in bundle.ways)
    raise BadBundle("no_way", f"{told}version {bundle.version} is reached here from {needed}")


def _listed(weights: Iterable[tuple[int | None, str]]) -> str:
    """Versions and digests, for people."""
    told = dict.fromkeys(
        f"{f'version {version}' if version else 'weights'} ({digest[:_DIGITS]})"
        for version, digest in weights
    )
    return " and ".join(told)
