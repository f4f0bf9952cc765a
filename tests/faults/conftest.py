from __future__ import annotations

from tests.edge_agent.conftest import bench, plane, settings, shelf

__all__ = ["bench", "plane", "settings", "shelf"]
