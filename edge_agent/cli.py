"""The command `edge-agent`. Results on standard output, progress and logs on standard error.

Exit status: 0 done, 1 the input cannot be used, 2 the surroundings failed (server away, no space,
an update that did not succeed). Modules are imported by the commands that need them, so that the
small ones start fast.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from edge_agent import __version__, logs
from shared.errors import BadConfig, UserError, WeftError

if TYPE_CHECKING:
    from edge_agent.config import Config

#: `apply` works on a file at hand: only a length that cannot be meant is refused.
MAX_LOCAL_PACKAGE_BYTES = 1 << 40


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; the entry point of `edge-agent`."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        options = _parser(_AsJson if "--json" in words else argparse.ArgumentParser).parse_args(
            words
        )
    except BadConfig as error:
        return _refuse(error, as_json=True)
    except SystemExit as stop:
        # argparse ends with 2 for a wrong command line, which is the user's fault here.
        return UserError.exit_status if stop.code else 0
    logs.begin(logging.INFO)
    try:
        result = options.command(options)
    except WeftError as error:
        return _refuse(error, as_json=options.json)
    except KeyboardInterrupt:
        return 130
    except Exception:
        # Python itself would end with 1, which says that the input can be mended.
        sys.stderr.write(logs.line("CRITICAL", traceback.format_exc()) + "\n")
        return WeftError.exit_status
    try:
        _show(result, as_json=options.json)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has seen enough (`| head`); Python flushes once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return int(result.get("exit_status", 0))


class _AsJson(argparse.ArgumentParser):
    """Raises what is wrong with a command line, so that it can be told as JSON."""

    def error(self, message: str) -> NoReturn:
        raise BadConfig("invalid", f"{self.prog}: {message}")


def _parser(kind: type[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    parser = kind(prog="edge-agent", description=_summary())
    parser.add_argument("--version", action="version", version=f"edge-agent {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, command, text in (
        ("run", _run, "poll the server and install what it wants, until stopped"),
        ("once", _once, "poll once, install, report, and end"),
        ("status", _status, "show what the device holds and does; asks nobody"),
        ("key", _key, "print the device's public key, made if there is none"),
    ):
        sub = _add(commands, name, command, text)
        sub.add_argument("--config", type=Path, help="configuration file (TOML)")
    rollback = _add(commands, "rollback", _rollback, "go back to the weights used before")
    rollback.add_argument("model", nargs="?", help="which model, if there are several")
    rollback.add_argument("--config", type=Path, help="configuration file (TOML)")
    bundle = _add(commands, "apply-bundle", _apply_bundle, "install what `weft bundle export` made")
    bundle.add_argument("file", type=Path, help="the bundle; it is only read")
    bundle.add_argument(
        "--rollback", action="store_true", help="the version may be older than the one in use"
    )
    bundle.add_argument("--config", type=Path, help="configuration file (TOML)")
    apply = _add(commands, "apply", _apply, "make new weights from a package, without a server")
    apply.add_argument("--base", type=Path, help="weights that the package starts from")
    apply.add_argument("--package", type=Path, required=True, help="update package")
    apply.add_argument("--output", type=Path, required=True, help="file to write, safetensors")
    service = _add(commands, "install-service", _install_service, "write the unit for systemd")
    service.add_argument("--config", type=Path, help="configuration file of the service (TOML)")
    service.add_argument("--user", default="weft-agent", help="whom it runs as (weft-agent)")
    service.add_argument(
        "--root", type=Path, default=Path("/"), help="the device's root directory, for an image"
    )
    digest = _add(commands, "digest", _digest, "print the weights digest of a safetensors file")
    digest.add_argument("file", type=Path)
    return parser


def _add(commands: Any, name: str, command: Any, text: str) -> argparse.ArgumentParser:
    sub: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    sub.add_argument("--json", action="store_true", help="print the result as JSON")
    sub.set_defaults(command=command)
    return sub


def _summary() -> str:
    return "The agent of a device: keeps its models at the versions that the server wants."


def _run(options: argparse.Namespace) -> dict[str, Any]:
    from edge_agent.commands import run

    return run(_config(options))


def _once(options: argparse.Namespace) -> dict[str, Any]:
    from edge_agent.commands import once

    return once(_config(options))


def _key(options: argparse.Namespace) -> dict[str, Any]:
    from edge_agent.commands import key

    return key(_config(options))


def _rollback(options: argparse.Namespace) -> dict[str, Any]:
    from edge_agent.commands import rollback

    config = _config(options)
    return rollback(config, _chosen(options.model, config))


def _apply_bundle(options: argparse.Namespace) -> dict[str, Any]:
    from edge_agent.commands import apply_bundle

    return apply_bundle(_config(options), options.file, rollback=options.rollback)


def _chosen(model: str | None, config: Config) -> str:
    """The model that is meant; there is no need to name the only one."""
    known = ", ".join(config.models)
    if model is None and len(config.models) == 1:
        return next(iter(config.models))
    if model is None:
        raise BadConfig("missing", f"say which model is meant: {known}")
    if model not in config.models:
        raise BadConfig("invalid", f"{model} is no model of this device, which has {known}")
    return model


def _status(options: argparse.Namespace) -> dict[str, Any]:
    from edge_agent.agent.status import status

    return status(_config(options))


def _apply(options: argparse.Namespace) -> dict[str, Any]:
    from edge_agent import trust
    from edge_agent.reconstitute import reconstitute
    from shared.decode import known_answer

    started = time.monotonic()
    known_answer()
    with trust.admit_local(options.package, MAX_LOCAL_PACKAGE_BYTES) as admitted:
        digest = reconstitute(admitted, options.base, options.output)
    seconds = round(time.monotonic() - started, 3)
    return {"weights_digest": digest, "output": str(options.output), "seconds": seconds}


def _install_service(options: argparse.Namespace) -> dict[str, Any]:
    from edge_agent.service import install

    return install(options.config, options.user, options.root)


def _digest(options: argparse.Namespace) -> dict[str, Any]:
    from shared.weights import WeightsReader

    with WeightsReader(options.file) as reader:
        return {"weights_digest": reader.digest().hex()}


def _config(options: argparse.Namespace) -> Config:
    from edge_agent.config import load_config

    config = load_config(options.config)
    logging.getLogger().setLevel(config.log_level.upper())
    return config


def _refuse(error: WeftError, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"error": error.described, "exit_status": error.exit_status}))
    sys.stderr.write(logs.line("ERROR", f"error: {error}") + "\n")
    return error.exit_status


def _show(result: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(result))
    elif list(result) == ["weights_digest"]:
        print(result["weights_digest"])
    else:
        _print_tree(result, "")


def _print_tree(values: dict[str, Any], margin: str) -> None:
    """One `name: value` a line, nested ones indented; nothing for what is not there."""
    for name, value in values.items():
        if name == "exit_status" or value in (None, [], {}):
            continue
        if isinstance(value, dict):
            print(f"{margin}{name}:")
            _print_tree(value, margin + "  ")
        elif name == "errors":
            print(f"{margin}{name}:")
            for error in value:
                print(logs.plain(f"{margin}  {error['message']} [{error['code']}]"))
        elif isinstance(value, list):
            print(f"{margin}{name}:")
            for line in value:
                print(f"{margin}  {line}")
        else:
            print(logs.plain(f"{margin}{name}: {value}"))


if __name__ == "__main__":
    sys.exit(main())
