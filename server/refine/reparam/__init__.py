"""The training half of each method; see `server.refine.reparam.base`."""

from __future__ import annotations

from server.refine.reparam.base import Reparam, Site
from server.refine.reparam.dense import Dense, Direct
from server.refine.reparam.ka import KnowledgeAugmentation
from server.refine.reparam.lora import LowRankAdaptation
from server.refine.reparam.lra import LowRankApproximation
from server.refine.reparam.lru import LowRankUpdate
from server.refine.reparam.ml import MappingLearning, MappingLearningDelta
from server.refine.reparam.rm import RandomMask
from server.refine.reparam.sparse import Sparse

__all__ = ["REPARAMS", "Dense", "Reparam", "Site"]

#: Method id -> parametrisation. The lossless methods send what dense training gives.
REPARAMS: dict[str, type[Reparam]] = {
    "ka": KnowledgeAugmentation,
    "ml": MappingLearning,
    "ml_delta": MappingLearningDelta,
    "lra": LowRankApproximation,
    "lru": LowRankUpdate,
    "lora": LowRankAdaptation,
    "rm": RandomMask,
    "sparse": Sparse,
    "direct": Direct,
    "xor": Dense,
    "full": Dense,
}
