"""What the agent tells the server on its own account: who it is, what it can, what it holds."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator

from edge_agent.agent.model import Device, Installation
from edge_agent.config import Config
from edge_agent.errors import AgentError
from edge_agent.identity import Identity, load_identity, persist_identity
from edge_agent.inventory import attributes, told
from edge_agent.keys import DeviceKey
from edge_agent.trust.root import RootStore, accepted
from shared.errors import NoSpace
from shared.wire import Enrolment, HeldModel, Renewal, Report, split_pinned

_log = logging.getLogger(__name__)


class Teller:
    """One device's word to its server."""

    def __init__(self, config: Config, device: Device, models: Collection[Installation]) -> None:
        self._config, self._device, self._models = config, device, models
        self._identity = config.state_dir / "identity.json"
        self._key = DeviceKey(config.state_dir / "device.key")
        self._roots, self._first_root = RootStore(config.state_dir / "trust"), b""
        self._attributes = attributes(config.attributes)
        self._is_known = False
        self._given: Identity | None = None  # by the server, and not yet noted
        self._me: Identity | None = None
        self._is_shut_out = False
        self._checked: set[str] = set()

    def introduce(self) -> None:
        """Use the device's own token, or get one; before each poll."""
        self._is_shut_out = False
        if not self._is_known:
            self._enrol()

    def note_changes(self) -> None:
        """Persist a report of what the server has not heard of: another model, say.

        After the first poll, which need not wait until it is known what this machine can do.
        """
        if not self._is_known or self._checked == self._names():
            return
        if isinstance(self._device.heavy.about().fault, AgentError):
            return  # the child died before it could say; it is asked again
        inventory = self._inventory()
        if self._device.outbox.told != inventory:
            self._device.outbox.add(*self._holdings(), told=inventory)
        self._checked = self._names()

    def send(self) -> None:
        """Send the reports that wait; not again before the next poll, if the server wants none.

        Raises ServerAway.
        """
        if not self._is_shut_out:
            self._is_shut_out = not self._device.outbox.send(self._send_one)

    def _send_one(self, body: bytes) -> None:
        assert self._me is not None
        signature = self._key.sign("report", self._me.device_id, body)
        self._device.api.report(body, signature)

    def tell(self) -> None:
        """Report what is held of each model, and all else that the server should know."""
        self._device.outbox.add(*self._holdings())

    def _holdings(self) -> Iterator[Report]:
        for model, held in self._held():
            yield Report(
                counter=1,  # the outbox gives the real one
                model=model,
                result="committed",
                state="idle",
                weights_digest=held.current,
                slots=held.slots,
                capabilities=self._device.capabilities(),
                attributes=self._attributes,
            )

    def _held(self) -> Iterator[tuple[str, HeldModel]]:
        """What is held of each model; of one whose directory cannot be read, nothing is said."""
        for model in self._models:
            slots = [held.digest for held in model.journal.slots.values()]
            try:
                yield model.model, HeldModel(slots=slots, current=model.digest)
            except NoSpace as error:
                _log.error("%s: %s", model.model, error)

    def _enrol(self) -> None:
        """A token goes only to the server that gave it; without the key it is worth nothing."""
        identity = self._given or load_identity(self._identity)
        is_mine = identity is not None and identity.server == self._config.server
        if identity is None or not is_mine or not self._key.exists:
            identity = self._given = self._ask_to_be_known()
        if self._given:
            if self._roots.pinned is None:
                self._roots.begin(self._first_root)
            persist_identity(self._identity, self._given)
            if not self._device.outbox.pending:  # else those that wait would have the last word
                self._device.outbox.note_told(self._inventory())
        self._be(identity)
        self._is_known = True

    def _be(self, identity: Identity) -> None:
        self._me = identity
        self._device.api.use_token(identity.token, self._renew)

    def _renew(self) -> None:
        """Get another token, as the server no longer takes this one: it has expired, say.

        Raises AgentError `token_refused`, `decommissioned`, Refused and ServerAway.
        """
        assert self._me is not None
        asking = self._me.model_copy(update={"renewals": self._me.renewals + 1})
        persist_identity(self._identity, asking)
        self._be(asking)
        wish = Renewal(device_id=asking.device_id, counter=asking.renewals)
        renewed = asking.model_copy(update={"token": self._device.api.renew(wish, self._key).token})
        self._be(renewed)
        persist_identity(self._identity, renewed)
        _log.info("the server has given another token")

    def _ask_to_be_known(self) -> Identity:
        token = self._config.enrolment_token
        if token is None:
            raise AgentError("not_enrolled", f"no token for {self._config.server} is held here")
        secret, _root = split_pinned(token.get_secret_value())
        self._key.make()
        request = Enrolment(
            name=self._config.name,
            token=secret,
            key=self._key.public,
            models=dict(self._held()),
            capabilities=self._device.capabilities(),
            attributes=self._attributes,
        )
        given = self._device.api.enrol(request, self._key)
        roots = [root.encode() for root in given.roots]
        self._first_root = accepted(self._roots, roots, self._device.pin)
        self._device.outbox.begin_after(given.counter)
        waits = ", and waits to be accepted" if given.pending else ""
        _log.info("enrolled as device %s%s", given.device_id, waits)
        return Identity(server=self._config.server, device_id=given.device_id, token=given.token)

    def _inventory(self) -> str:
        return told(self._attributes, self._device.capabilities(), self._names())

    def _names(self) -> set[str]:
        """The models that are open; others may come."""
        return {model.model for model in self._models}
