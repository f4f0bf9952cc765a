"""`weft`: the operators' command line.

Exit status: 0 done, 1 the user can mend it, 2 something around us failed. Results go to stdout,
progress and errors to stderr; with `--json` both are JSON.
"""

from __future__ import annotations

import errno
import sys
import traceback
from typing import TYPE_CHECKING, cast

from server.errors import BadCommand
from shared.errors import NoSpace, UserError, WeftError

if TYPE_CHECKING:
    from typer import Typer

PARSER_REFUSED = 2

#: What a shell says of a program that Ctrl-C ended.
INTERRUPTED = 130


def main() -> int:
    """Run `weft` with the arguments of the process, and return its exit status."""
    # Imported here so that a missing extra is told in a sentence.
    try:
        from server.cli.commands import app
    except KeyboardInterrupt:
        return INTERRUPTED
    except ModuleNotFoundError as error:
        text = f"weft: {error.name!r} is not installed. Install Weft with its extra: weft[server]."
        print(text, file=sys.stderr)
        return UserError.exit_status
    return run(app, sys.argv[1:])


def run(app: Typer, arguments: list[str]) -> int:
    """Run one command line; every error becomes a message and an exit status."""
    from typer import BadParameter

    from server.cli.output import show_error

    as_json = "--json" in arguments
    # Any wrong command line, as the click that typer brings along calls it.
    usage_error = cast("type[BadParameter]", BadParameter.__mro__[1])
    try:
        # For --json the parser hands over what it refuses; else it prints it with the usage.
        status = app(arguments, prog_name="weft", standalone_mode=not as_json)
        return status if isinstance(status, int) else 0
    except usage_error as error:
        show_error(BadCommand("invalid", error.format_message()), as_json)
        return UserError.exit_status
    except SystemExit as stop:
        # The parser ends with 2 for a wrong command line, which is the user's fault here.
        return UserError.exit_status if stop.code == PARSER_REFUSED else int(stop.code or 0)
    except (WeftError, OSError) as error:
        ours = error if isinstance(error, WeftError) else _as_ours(error)
        show_error(ours, as_json)
        return ours.exit_status
    except Exception:
        traceback.print_exc()
        return WeftError.exit_status


def _as_ours(error: OSError) -> WeftError:
    """What a disk or a path refused; errors of the network never come this far."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    text = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return NoSpace("no_space" if full else "unusable", text)
