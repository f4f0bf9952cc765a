"""Hold the agent's trust code against the TUF project's conformance suite: `make test-conformance`.

    python tests/conformance/run.py SUITE [--page PAGE]

SUITE is a folder with theupdateframework/tuf-conformance, which is not on PyPI and not part of this
project. It runs in an environment of its own, against the agent's client and against python-tuf's
own, both on the `tuf` that is installed here. Exit status 1 where the agent's fails a test that
python-tuf's passes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
ENVIRONMENT = CHECKOUT / "build" / "conformance"
OURS, THEIRS = "edge_agent.trust", "python-tuf's client"


def main() -> int:
    """Run, compare, and write the page if one is wanted."""
    options = _parser().parse_args()
    missing = _missing(options.suite)
    if missing:
        print(f"skipped: {missing}")
        return 0
    suite = options.suite.resolve()
    python = _environment(suite)
    clients = {
        OURS: HERE / "client.py",
        THEIRS: suite / "clients" / "python-tuf" / "python_tuf.py",
    }
    results = {name: _run(python, suite, client) for name, client in clients.items()}
    page = _page(suite, results)
    print(page)
    if options.page:
        options.page.write_text(page, encoding="utf-8")
    return int(bool(_worse(results)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", type=Path, nargs="?", help="folder with the suite")
    parser.add_argument("--page", type=Path, help="file to write the result to")
    return parser


def _missing(suite: Path | None) -> str | None:
    """What keeps the suite from being run here."""
    if suite is None:
        return "give SUITE=FOLDER, a copy of github.com/theupdateframework/tuf-conformance"
    if not (suite / "tuf_conformance").is_dir():
        return f"{suite} holds no tuf_conformance"
    if shutil.which("faketime") is None:
        return "the suite needs the program `faketime`; Debian's package has the same name"
    return None


def _environment(suite: Path) -> Path:
    """The Python of an environment that holds what the suite needs."""
    python = ENVIRONMENT / "bin" / "python"
    project = tomllib.loads((suite / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
    needs = [str(python), "-m", "pip", "install", "-q", *project["dependencies"]]
    subprocess.run(needs, check=True)
    return python


def _run(python: Path, suite: Path, client: Path) -> dict[str, str]:
    """The outcome of each test against a client."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [
            *(str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "tuf_conformance"),
            *("--entrypoint", f"{sys.executable} {client}"),
            *("--json-report", f"--json-report-file={report}", "--tb=short"),
        ]
        subprocess.run(command, cwd=suite, check=False)
        tests = json.loads(report.read_text(encoding="utf-8"))["tests"]
    return {test["nodeid"].removeprefix("tuf_conformance/"): test["outcome"] for test in tests}


def _worse(results: dict[str, dict[str, str]]) -> list[str]:
    """Tests that only python-tuf's client passes."""
    ours, theirs = results[OURS], results[THEIRS]
    return [name for name in theirs if theirs[name] == "passed" and ours.get(name) != "passed"]


def _page(suite: Path, results: dict[str, dict[str, str]]) -> str:
    tests = max(len(outcomes) for outcomes in results.values())
    rows = [
        f"| `{name}` | {sum(o == 'passed' for o in outcomes.values())} of {tests} | "
        f"{', '.join(f'`{t}`' for t, o in outcomes.items() if o != 'passed') or 'none'} |"
        for name, outcomes in results.items()
    ]
    return PAGE.format(
        release=_release(suite),
        digest=_digest(suite),
        tuf=version("tuf"),
        securesystemslib=version("securesystemslib"),
        python=".".join(map(str, sys.version_info[:3])),
        rows="\n".join(rows),
        worse=", ".join(_worse(results)) or "none",
    )


def _release(suite: Path) -> str:
    text = (suite / "tuf_conformance" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'__version__ = "([^"]+)"', text)
    return found[1] if found else "unknown"


def _digest(suite: Path) -> str:
    """By which it is known whether it was the same suite."""
    found = hashlib.sha256()
    for path in sorted((suite / "tuf_conformance").rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()


PAGE = """# Conformance of the agent's trust code to TUF

The client conformance suite of the TUF project (`theupdateframework/tuf-conformance` {release},
SHA-256 of its Python files {digest}),
run against `edge_agent.trust` through a thin command line (`tests/conformance/client.py`) and, in
the same run, against the client that python-tuf's maintainers have written for it. Both stand on
`tuf` {tuf} and `securesystemslib` {securesystemslib}, on Python {python}.

| client | passed | not passed |
|---|---|---|
{rows}

Passed by python-tuf's client alone: {worse}.

The suite is not part of this project. Once more, with a folder that holds a copy of it, and the
program `faketime` (a Debian package):

    make test-conformance SUITE=FOLDER
    python tests/conformance/run.py FOLDER --page docs/results/conformance.md
"""

if __name__ == "__main__":
    sys.exit(main())
