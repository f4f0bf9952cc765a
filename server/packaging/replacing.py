"""Output files appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from shared.errors import NoSpace
from shared.places import check_place


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path beside `target`, which becomes `target` when the block ends well.

    After an error `target` is as it was. The system's errors in the block become NoSpace.
    """
    try:
        check_place(target)
        beside = target.with_name(f".{target.name}.part")
        try:
            yield beside
            beside.replace(target)
        finally:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
    except OSError as error:
        code = "no_space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "unusable"
        place = error.filename or target
        raise NoSpace(code, f"{place}: {error.strerror or error}") from error
