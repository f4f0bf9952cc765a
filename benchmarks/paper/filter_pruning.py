"""`fp`, the paper's last competitor (section 5.1): filter pruning after Li et al. 2017.

Of each convolution the filters with the least L1 norm are removed, together with their feature
maps: the BatchNorm entries behind them and the kernels that read them. What remains is retrained
on all data and sent as a whole. All norms are of the deployed weights ("independent pruning").

In a residual network only convolutions inside a block are pruned: what a block adds to its
shortcut keeps its width (Li et al., section 3.3).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from server import zoo
from server.publish import spec
from server.publish.pipeline import Report
from server.refine import batchnorm
from server.refine.batches import Batches
from server.refine.checkpoint import Checkpoint
from server.refine.effective import dense_clone
from server.refine.evaluate import accuracy
from server.refine.initial import RATE
from server.refine.loop import fit
from server.refine.start import Start
from server.refine.weights import load_into, load_state, save_state
from server.registry.opening import open_dataset
from server.zoo.architecture import learnable
from server.zoo.resnet import BasicBlock, Bottleneck
from server.zoo.vgg import Vgg

PRUNED = "pruned.safetensors"

#: A convolution whose filters may go, its BatchNorm, and the only layer that reads its maps.
Link: TypeAlias = tuple[nn.Conv2d, nn.BatchNorm2d | None, nn.Conv2d | nn.Linear]


def pruned(module: nn.Module, percent: int) -> nn.Module:
    """A smaller copy, without `percent` of the filters of each convolution that may be pruned."""
    smaller = copy.deepcopy(module)
    found = list(links(smaller))
    kept = [_strongest(conv.weight, percent) for conv, _, _ in found]
    for (conv, norm, reader), places in zip(found, kept, strict=True):
        _keep_filters(conv, places)
        if norm is not None:
            _keep_entries(norm, places)
        _keep_inputs(reader, places)
    return smaller


def links(module: nn.Module) -> Iterator[Link]:
    """What may be pruned of a VGG or a residual network. Raises ValueError for anything else."""
    if isinstance(module, Vgg):
        yield from _stack(module)
        return
    blocks = [m for m in module.modules() if isinstance(m, (BasicBlock, Bottleneck))]
    if not blocks:
        raise ValueError(f"no plan to prune a {type(module).__name__}")
    for block in blocks:
        yield block.conv1, block.bn1, block.conv2
        if isinstance(block, Bottleneck):
            yield block.conv2, block.bn2, block.conv3


def _stack(module: Vgg) -> Iterator[Link]:
    layers = [m for m in module.features if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))]
    places = [n for n, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
    readers = [*(layers[n] for n in places[1:]), module.classifier]
    for place, reader in zip(places, readers, strict=True):
        conv, after = layers[place], layers[place + 1 : place + 2]
        norm = after[0] if after and isinstance(after[0], nn.BatchNorm2d) else None
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(reader, (nn.Conv2d, nn.Linear))
        yield conv, norm, reader


def _strongest(weight: Tensor, percent: int) -> Tensor:
    """Places of the filters with the largest L1 norms, in their order; at least one."""
    count = _kept(weight.shape[0], percent)
    return weight.detach().abs().flatten(1).sum(1).topk(count).indices.sort().values


def _kept(filters: int, percent: int) -> int:
    return max(1, round(filters * (100 - percent) / 100))


def _keep_filters(conv: nn.Conv2d, places: Tensor) -> None:
    conv.weight = nn.Parameter(conv.weight.detach()[places])
    if conv.bias is not None:
        conv.bias = nn.Parameter(conv.bias.detach()[places])
    conv.out_channels = len(places)


def _keep_entries(norm: nn.BatchNorm2d, places: Tensor) -> None:
    norm.weight = nn.Parameter(norm.weight.detach()[places])
    norm.bias = nn.Parameter(norm.bias.detach()[places])
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean, norm.running_var = norm.running_mean[places], norm.running_var[places]
    norm.num_features = len(places)


def _keep_inputs(reader: nn.Conv2d | nn.Linear, places: Tensor) -> None:
    reader.weight = nn.Parameter(reader.weight.detach()[:, places])
    if isinstance(reader, nn.Linear):
        reader.in_features = len(places)
    else:
        reader.in_channels = len(places)


def remaining(module: nn.Module, percent: int) -> int:
    """The learnable parameters of `pruned(module, percent)`, all of which are sent.

    From shapes alone: the module may be an outline.
    """
    shapes = {name: list(parameter.shape) for name, parameter in module.named_parameters()}
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    for conv, norm, reader in links(module):
        kept = _kept(conv.out_channels, percent)
        after = () if norm is None else (norm.weight, norm.bias)
        for parameter in (conv.weight, conv.bias, *after):
            if parameter is not None:
                shapes[names[id(parameter)]][0] = kept
        shapes[names[id(reader.weight)]][1] = kept
    return sum(math.prod(shape) for shape in shapes.values())


def refine(task: spec.Task, folder: Path, report: Report) -> dict[str, Any]:
    """Prune, retrain densely from the checkpoint if there is one, and judge: a run of `fp`.

    The file of the update holds in float32 what remains, BatchNorm's statistics with it.
    """
    began, job = time.monotonic(), task.job
    if job.recipe.threads is not None:
        torch.set_num_threads(job.recipe.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data, judge = (_opened(uri, device) for uri in (job.dataset, job.evaluation_dataset or ""))
    whole = zoo.get(job.architecture).build(job.arguments).float()
    load_into(whole, load_state(job.base))
    before = accuracy(whole.to(device), judge)
    smaller = pruned(whole, job.options["percent"])
    dtypes = {name: tensor.dtype for name, tensor in smaller.state_dict().items()}
    start = Start(smaller, dtypes, frozenset(learnable(smaller)), frozenset())
    clone = dense_clone(start, job.recipe.learning_rate or RATE, device)
    checkpoint = Checkpoint(folder, job.model_dump(mode="json"))
    fit(clone, data, data.rows(torch.arange(0)), job.recipe, report, checkpoint)
    with clone.applied() as trained:
        batchnorm.reestimate(trained, data)
        after = accuracy(trained, judge)
    save_state(folder / PRUNED, clone.state())
    return {
        "package_bytes": (folder / PRUNED).stat().st_size,
        "full_bytes": job.base.stat().st_size,
        "learnable_count": sum(parameter.numel() for parameter in smaller.parameters()),
        "before": before,
        "after": after,
        "seconds": round(time.monotonic() - began, 1),
    }


def _opened(uri: str, device: torch.device) -> Batches:
    return Batches.of(open_dataset(uri), device)
