"""Asking the person at the terminal: for passphrases, and whether to sign."""

from __future__ import annotations

import getpass
import os
import sys

import typer

from server.cli.output import say
from server.errors import BadCeremony, BadKey
from server.trust.passphrases import Ask, check_passphrase, passphrase_from


def ask_passphrase() -> Ask:
    """Where passphrases of key files come from: the environment, else the terminal.

    What it gives raises BadKey `no_passphrase` where there is neither.
    """
    return passphrase_from(os.environ) or _from_terminal


def new_passphrase(name: str) -> bytes:
    """A passphrase for a key that is being made; from the terminal twice.

    Raises BadKey `no_passphrase`, `weak_passphrase`, `wrong_passphrase`.
    """
    given = passphrase_from(os.environ)
    passphrase = given(name) if given else _from_terminal(f"new key {name}")
    check_passphrase(passphrase)
    if given is None and _from_terminal(f"new key {name}, again") != passphrase:
        raise BadKey("wrong_passphrase", "the two are not the same")
    return passphrase


def confirm(lines: list[str], yes: bool) -> None:
    """Show what is about to be signed, and wait for a yes. Raises BadCeremony `not_confirmed`."""
    for line in lines:
        say(line)
    if yes:
        return
    if not sys.stdin.isatty():
        raise BadCeremony("not_confirmed", "there is no terminal to ask whether to sign this")
    if not typer.confirm("Sign it?", err=True):
        raise BadCeremony("not_confirmed", "it was not confirmed")


def _from_terminal(name: str) -> bytes:
    if not sys.stdin.isatty():
        raise BadKey("no_passphrase", f"there is no terminal to ask for the passphrase of {name}")
    return getpass.getpass(f"Passphrase of {name}: ").encode()
