"""The agent's errors, added to the tree of `shared/errors.py`.

    UserError
    └── TrustError           trust.*      what the operator has not provably released
    OperationError
    ├── DownloadError        download.*   the answer to a request for a package makes no sense
    ├── LinkHeld             link.*       the link of the moment is not to be used for downloads
    ├── AgentError           agent.*      the agent's own state, or an update that it cannot do
    ├── HealthError          health.*     the new weights did not pass the check
    ├── RuntimeAway          runtime.*    the program that uses the weights does not answer
    ├── RuntimeRefused       runtime.*    ... or cannot take these weights; nothing has changed
    ├── BadResult
    │   └── WrongWeights                  ... with the digests by which the server finds the tensor
    └── Unreachable
        ├── Refused                       ... with the server's code
        └── ServerAway                    ... with the time after which it wants to be asked again

The codes are explained in `docs/errors.md`.
"""

from __future__ import annotations

from typing import ClassVar

from shared.errors import BadResult, OperationError, Unreachable, UserError


class TrustError(UserError):
    """An update is not what the operator has released, or not provably; nothing was done of it."""

    area = "trust"
    codes: ClassVar[dict[str, str]] = {
        "wrong_length": "It is downloaded again; if that does not help, check the proxies.",
        "wrong_hash": "It is downloaded again; if that does not help, check the proxies.",
        "wrong_model": "Publish a package that was built for this model.",
        "wrong_base": "Publish the package again: its header and its listing disagree.",
        "wrong_result": "Publish the package again: its header and its listing disagree.",
        "wrong_method": "Publish the package again: its header and its listing disagree.",
        "wrong_root": "Give an `enrolment_token` or a `root` of this very server.",
        "unsigned": "Ask who has answered: keys that this device trusts have not signed that.",
        "expired": "Check the clock here, and with `weft doctor` that the server renews metadata.",
        "older_metadata": "Ask who has answered: this device has seen newer metadata.",
        "other_model": "Ask who has answered: it was asked for another model's metadata.",
        "too_much_metadata": "Ask who has answered: metadata are never that long.",
        "incomplete": "It is asked for again; if that does not help, check the server's metadata.",
        "bad_metadata": "It is asked for again; if that does not help, ask who has answered.",
        "not_released": "Release the version, if you mean it: `weft release`.",
        "not_listed": "Have the server offer the package again; it has to sign that it does.",
        "wrong_listing": "Have the server offer the package again: offer and listing disagree.",
        "older_version": "Order it as a way back: `weft rollouts start ... --rollback`.",
    }


class DownloadError(OperationError):
    """The answer to a request for a package makes no sense; what has arrived before is kept."""

    area = "download"
    codes: ClassVar[dict[str, str]] = {
        "bad_answer": "Check the proxies on the way: the answer does not fit the request.",
        "too_long": "Check the proxies on the way: more bytes came than were offered.",
    }


class LinkHeld(OperationError):
    """Downloads wait for another link, or for the next period of this one's budget.

    `retry_after`: seconds until that period, where it is known.
    """

    area = "link"
    codes: ClassVar[dict[str, str]] = {
        "metered": "Connect by another link, or change `action` of the one that is named.",
        "budget_spent": "It goes on in the next period; or raise `budget_bytes` of the link.",
    }

    def __init__(self, code: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(code, message)
        self.retry_after = retry_after


class AgentError(OperationError):
    """The agent cannot do what is asked, or cannot work at all."""

    area = "agent"
    codes: ClassVar[dict[str, str]] = {
        "busy": "Another agent works there; stop it first, with `systemctl stop edge-agent`.",
        "state_too_new": "The state was written by a later agent; install that version again.",
        "state_damaged": "Remove it, and identity.json too: the agent then enrols anew.",
        "not_enrolled": "Set `enrolment_token`, so that the agent can enrol.",
        "token_refused": "The server no longer knows this device: remove identity.json to enrol.",
        "decommissioned": "To use it again, remove device.key and identity.json: it enrols anew.",
        "no_base": "Offer a package that starts from weights which the device holds, or `full`.",
        "broken_chain": "Publish the packages again: they do not follow one another.",
        "no_such_weights": "Offer a package: no slot of the device holds these weights.",
        "too_many_attempts": "Look at the error named in the message, then offer a new update.",
        "package_too_large": "Raise `max_package_bytes`, or offer a smaller package.",
        "needs_ab": "Set `storage` to `ab`, or offer weights with the same tensors.",
        "outside_window": "It goes on by itself when `install_window` opens.",
        "left_by_hand": "Somebody went back on the device itself; order it with a new rollout.",
        "rolled_back_by_hand": "Somebody has run `edge-agent rollback` on the device: ask why.",
        "nothing_to_go_back_to": "Have the server offer the version that you want.",
        "update_under_way": "Wait until it has ended; `edge-agent status` shows it.",
        "slot_damaged": "A slot no longer holds its weights; offer a `full` package.",
        "not_permitted": "Run the command as root, or as the agent's own user.",
        "no_systemd": "Give `--root`, or start `edge-agent run` by what starts services here.",
        "worker_died": "It is tried again; if it was killed for memory, free some.",
        "unexpected": "This is a fault of the agent: report it, with its log.",
    }


class Decommissioned(AgentError):
    """The server is done with this device; `retry_after`: seconds until it is asked again."""

    retry_after = 3600.0

    def __init__(self, message: str) -> None:
        super().__init__("decommissioned", message)


class OutsideWindow(AgentError):
    """New weights may not come into use now; `retry_after`: seconds until they may."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__("outside_window", message)
        self.retry_after = retry_after


class HealthError(OperationError):
    """The health check did not accept the new weights; the old ones are back in use."""

    area = "health"
    codes: ClassVar[dict[str, str]] = {
        "failed": "Look at what the check said; the old weights are in use.",
        "timed_out": "Raise `health_timeout_seconds`, or make the check faster.",
        "not_started": "Correct `health_command`: it cannot be started.",
        "not_notified": "Correct the `notify_...` settings, or the program that is notified.",
        "wrong_weights": "The program holds other weights than were installed: see its log.",
    }


class RuntimeAway(OperationError):
    """The program does not answer. Before the swap the update waits; no attempt is counted."""

    area = "runtime"
    codes: ClassVar[dict[str, str]] = {
        "away": "Start the program that uses the weights, or correct its `socket`.",
    }


class RuntimeRefused(OperationError):
    """The program cannot take these weights, and has changed nothing."""

    area = "runtime"
    codes: ClassVar[dict[str, str]] = {
        "refused": "Offer weights that fit the program, or a program that fits them.",
    }


class WrongWeights(BadResult):
    """Decoding gave other weights than promised; `tensor_digests` tell which tensor."""

    def __init__(self, message: str, tensor_digests: dict[str, str]) -> None:
        super().__init__("mismatch", message)
        self.tensor_digests = tensor_digests


class Refused(Unreachable):
    """The server refuses a request; `reason` is its own code, such as `device.not_accepted`."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__("refused", message)
        self.reason = reason


class ServerAway(Unreachable):
    """The server does not answer now, or somebody else does: `untrusted`, `bad_answer`.

    `retry_after` is its own wish in seconds, if it said one.
    """

    def __init__(
        self, message: str, retry_after: float | None = None, code: str = "unreachable"
    ) -> None:
        super().__init__(code, message)
        self.retry_after = retry_after
