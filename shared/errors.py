"""Every error that Weft raises on purpose.

    WeftError
    ├── UserError           whoever gave the input can mend it            exit status 1
    │   ├── BadWeights      weights.*    a weights file or tensor
    │   ├── BadPackage      package.*    an update package
    │   ├── BadBundle       bundle.*     packages that were brought along
    │   ├── BadMetadata     metadata.*   signed metadata, as they travel
    │   ├── BadMethod       method.*     a method's name or options
    │   ├── BadConfig       config.*     settings, arguments, configuration files
    │   └── ...             each end adds its own in `server/errors.py`, `edge_agent/errors.py`
    └── OperationError      the input was fine; the surroundings were not exit status 2
        ├── BadResult       result.*     decoding did not give the promised weights
        ├── NotReproducible gate.*       an update that devices might decode differently
        ├── NoSpace         storage.*    the disk is full or unusable
        └── Unreachable     server.*     the other end does not answer

An error carries a stable dotted `code`, a `message` that says what was found, and a `todo` that
says what to do about it. Codes are listed in the class that raises them, and documented in
`docs/errors.md`, which a test holds against these tables.
"""

from __future__ import annotations

from typing import ClassVar


class WeftError(Exception):
    """The root of all errors; `codes` maps the last part of a code to what to do about it."""

    area: ClassVar[str] = "weft"
    codes: ClassVar[dict[str, str]] = {}
    exit_status: ClassVar[int] = 2

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = f"{self.area}.{code}"
        self.message = message
        self.todo = self.codes[code]

    def __str__(self) -> str:
        return f"{self.message} [{self.code}] {self.todo}"

    @property
    def described(self) -> dict[str, str]:
        """For JSON."""
        return {"code": self.code, "message": self.message, "todo": self.todo}


class UserError(WeftError):
    """The input cannot be used; whoever gave it can mend it."""

    exit_status = 1


class OperationError(WeftError):
    """The input was usable, and the operation failed all the same."""

    exit_status = 2


class BadWeights(UserError):
    """A weights file or a tensor in it cannot be used."""

    area = "weights"
    codes: ClassVar[dict[str, str]] = {
        "not_found": "Check the path.",
        "malformed": "Write the file again with the safetensors library.",
        "not_finite": "Retrain or repair the weights: learnable tensors must hold finite numbers.",
        "bad_variance": "Repair the running variances: each must be positive.",
        "schema_mismatch": "Give weights whose names, dtypes and shapes match the model's schema.",
    }


class BadPackage(UserError):
    """An update package is refused before it changes anything."""

    area = "package"
    codes: ClassVar[dict[str, str]] = {
        "not_found": "Check the path.",
        "malformed": "Download or build the package again; this copy is damaged.",
        "too_large": "Build a smaller package, or raise the limit if you trust its source.",
        "unknown_format": "Update Weft on this machine, or build the package in an older format.",
        "unknown_method": "Update Weft on this machine, or choose a method that it knows.",
        "unknown_coder": "Update Weft on this machine, or choose a coder that it knows.",
        "wrong_base": "Use a package that starts from the weights held here.",
        "wrong_schema": "Use a package that was built for this model's schema.",
    }


class BadBundle(UserError):
    """A bundle is refused before it changes anything."""

    area = "bundle"
    codes: ClassVar[dict[str, str]] = {
        "unreadable": "Check the path and the medium; nothing was changed.",
        "malformed": "Copy the bundle again, or export it again; this copy is damaged.",
        "unknown_format": "Update Weft on this machine, or export the bundle by an older one.",
        "unsigned": "Export the bundle again: it was made before bundles carried signatures.",
        "other_model": "Bring a bundle of a model that this device runs.",
        "no_way": "Export a bundle from what the device holds (`--from`), or one with `--full`.",
    }


class BadMetadata(UserError):
    """What should be signed metadata cannot even be read; nothing was done with it."""

    area = "metadata"
    codes: ClassVar[dict[str, str]] = {
        "malformed": "It is asked for again; if that does not help, check the proxies.",
    }


class BadMethod(UserError):
    """A method does not exist or cannot work with the options given."""

    area = "method"
    codes: ClassVar[dict[str, str]] = {
        "unknown": "Run `weft methods list` to see the methods.",
        "bad_option": "Run `weft methods list` to see each method's options.",
        "not_applicable": "Choose another method for this pair of weights.",
    }


class BadConfig(UserError):
    """Settings, arguments or a configuration file cannot be used."""

    area = "config"
    codes: ClassVar[dict[str, str]] = {
        "invalid": "Correct the setting that is named.",
        "missing": "Give the setting that is named.",
        "foreign_package": "Install Weft in an environment without the other `shared` package.",
    }


class BadResult(OperationError):
    """Decoding did not give the weights that the package promises; the old ones stay."""

    area = "result"
    codes: ClassVar[dict[str, str]] = {
        "mismatch": "The old weights are kept. Report it: the server can find the tensor.",
        "not_finite": "The old weights are kept. Build the package again from sound weights.",
        "bad_variance": "The old weights are kept. Build the package again from sound weights.",
        "overflow": "The old weights are kept. Build the package again with a larger step.",
        "broken_arithmetic": "This machine computes wrongly; check its BLAS and its FPU settings.",
    }


class NotReproducible(OperationError):
    """The server found that other hardware might decode the update to other weights."""

    area = "gate"
    codes: ClassVar[dict[str, str]] = {
        "unstable": "Send the tensor by `direct`, or choose another method.",
    }


class NoSpace(OperationError):
    """The disk is full or cannot be used."""

    area = "storage"
    codes: ClassVar[dict[str, str]] = {
        "no_space": "Free some space and try again; nothing was changed.",
        "unusable": "Check the disk and its permissions; nothing was changed.",
    }


class Unreachable(OperationError):
    """The other end does not answer, or answers nonsense."""

    area = "server"
    codes: ClassVar[dict[str, str]] = {
        "unreachable": "Check the address, the network, and that the server runs.",
        "untrusted": "Check the certificate of the server, its authority, and the clock here.",
        "cannot_listen": "Choose another address or port, or end the program that uses this one.",
        "refused": "See the message of the server.",
        "bad_answer": "Check that the address is a Weft server of a version that fits.",
    }
