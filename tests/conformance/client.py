"""The agent's trust code under the command line that the TUF project's conformance suite drives.

See CLIENT-CLI.md of theupdateframework/tuf-conformance. Metadata are fetched file by file, as the
suite serves them, where a device gets one answer; all else is what devices do: the same client, the
same store, the same writes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from urllib.parse import quote

# Started by its path, from any directory.
sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from tuf.ngclient import Urllib3Fetcher  # noqa: E402

from edge_agent.trust.client import Client  # noqa: E402
from edge_agent.trust.store import Store  # noqa: E402


def main() -> None:
    """Run a command; any exception ends with exit status 1."""
    options = _parser().parse_args()
    store = Store(options.metadata_dir, options.metadata_dir)
    if options.command == "init":
        store.root.begin(options.trusted_root.read_bytes())
        return
    root = store.root.newest
    assert root is not None, "not initialised"
    client = Client(root, store, Urllib3Fetcher(), url=options.metadata_url)
    client.refresh()
    if options.command == "download":
        for name in options.target_name:
            _download(client, name, options.target_dir, options.target_base_url)


def _download(client: Client, name: str, folder: Path, url: str) -> None:
    """Packages of a device come by the agent's own downloads; here ngclient's do."""
    info = client.get_targetinfo(name)
    if info is None:
        raise LookupError(f"{name} is not in the repository")
    path = str(folder / quote(name, ""))
    if not client.find_cached_target(info, path):
        client.download_target(info, path, url)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--metadata-url")
    parser.add_argument("--metadata-dir", type=Path, required=True)
    parser.add_argument("--target-name", action="append")
    parser.add_argument("--target-dir", type=Path)
    parser.add_argument("--target-base-url")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("trusted_root", type=Path)
    commands.add_parser("refresh")
    commands.add_parser("download")
    return parser


if __name__ == "__main__":
    main()
