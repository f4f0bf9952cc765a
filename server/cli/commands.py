"""All commands of `weft`, put together: one module a noun."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from server.cli.access import app as access
from server.cli.access import login, recover_key
from server.cli.backup import backup, restore
from server.cli.bundle import app as bundle
from server.cli.config import apply_config
from server.cli.datasets import app as datasets
from server.cli.devices import app as devices
from server.cli.doctor import doctor
from server.cli.groups import app as groups
from server.cli.history import app as history
from server.cli.key_changes import app as keys
from server.cli.lineage import app as lineage
from server.cli.methods import app as methods
from server.cli.models import app as models
from server.cli.package import app as package
from server.cli.packages import app as packages
from server.cli.refine import app as refinements
from server.cli.refine import refine
from server.cli.release import release, withdraw
from server.cli.rollouts import app as rollouts
from server.cli.serve import migrate, serve
from server.cli.standing import (
    accept,
    allow,
    decommission,
    preauthorise,
    preauthorised,
    prove,
    reenrol,
)
from server.cli.tokens import app as tokens
from server.cli.versions import app as versions
from server.cli.webhooks import app as webhooks
from server.cli.worker import worker

Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Configuration; before the command."),
]

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


def _tell_version(wanted: bool) -> None:
    if wanted:
        print(f"weft {version('weft')}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", is_eager=True, callback=_tell_version, help="Print it and end."),
]


@app.callback()
def configure(context: typer.Context, config: Config = None, _version: Version = False) -> None:
    """Small, exact updates for neural networks that are already deployed."""
    apply_config(context.invoked_subcommand, config)


app.command("serve")(serve)
app.command("migrate")(migrate)
app.command("worker")(worker)
app.command("backup")(backup)
app.command("restore")(restore)
app.command("doctor")(doctor)
app.command("login")(login)
app.command("recover-key")(recover_key)
app.add_typer(access, name="access")
app.add_typer(models, name="models")
app.add_typer(versions, name="versions")
app.add_typer(versions, name="version", hidden=True)  # of one: `weft version withdraw`
versions.command("withdraw")(withdraw)
app.command("release")(release)
app.add_typer(keys, name="keys")
app.add_typer(datasets, name="datasets")
app.command("refine")(refine)
app.add_typer(refinements, name="refinements")
app.add_typer(packages, name="packages")
app.add_typer(bundle, name="bundle")
app.add_typer(package, name="package")
app.add_typer(rollouts, name="rollouts")
app.add_typer(devices, name="devices")
devices.command("accept")(accept)
devices.command("allow")(allow)
devices.command("decommission")(decommission)
devices.command("reenrol")(reenrol)
devices.command("preauthorise")(preauthorise)
devices.command("preauthorised")(preauthorised)
devices.command("prove")(prove)
app.add_typer(tokens, name="tokens")
app.add_typer(groups, name="groups")
app.add_typer(history, name="history")
app.add_typer(lineage, name="lineage")
app.add_typer(webhooks, name="webhooks")
app.add_typer(methods, name="methods")
