"""Output files appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from shared.errors import NoSpace


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path beside `target`, which becomes `target` when the block ends well.

    After an error `target` is as it was. The system's errors in the block become NoSpace.
    """
    beside = target.with_name(f".{target.name}.part")
    try:
        yield beside
        beside.replace(target)
    except OSError as error:
        code = "no_space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "unusable"
        raise NoSpace(code, f"{error.filename or target}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
