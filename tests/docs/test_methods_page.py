"""`docs/methods.md` explains every method and every option."""

from __future__ import annotations

from pathlib import Path

from shared.methods import METHODS


def test_every_method_and_option_is_explained(checkout: Path) -> None:
    page = (checkout / "docs" / "methods.md").read_text(encoding="utf-8")
    wanted = [f"`{name}`" for name in METHODS]
    wanted += [f"`{name}`" for method in METHODS.values() for name in method.Options.model_fields]
    missing = sorted({word for word in wanted if word not in page})
    assert not missing, "explain in docs/methods.md: " + ", ".join(missing)
