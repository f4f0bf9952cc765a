"""Whom a device believes, and the one gate through which package bytes come.

    gate        package bytes: they are what was offered, and say what was promised
    released    what the operator has released, and whether an offer keeps to it
    store       the signed metadata on the disk
    client      signed metadata are checked, by `tuf.ngclient`; the only module that imports `tuf`
    verify      the task of the agent's child: an answer of the server in, what is released out

The agent itself imports `gate`, `released` and `store`, none of which opens a package or a
signature.
"""

from edge_agent.trust.gate import Admitted, Promise, admit, admit_local, obtain, promises

__all__ = ["Admitted", "Promise", "admit", "admit_local", "obtain", "promises"]
