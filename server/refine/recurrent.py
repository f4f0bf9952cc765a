"""Recurrent layers of torch have two biases where one says the same: only one of them travels.

A gate adds `b_ih` and `b_hh`. Both get the same gradient, so a training moves both, and an LSTM
would send everything twice. The new gate of a GRU is the exception: its `b_hh` is multiplied by the
reset gate.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from server.refine.weights import State
from server.zoo.architecture import aliases


def merged(module: nn.Module, new: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> State:
    """The biases of recurrent layers, with what both learnt in the one and the base's in the other.

    Only of layers whose biases are their own and that the base has in this shape. All are in the
    dtype of `new`.
    """
    tied = aliases(module)
    shared = {*tied, *tied.values()}
    changed: State = {}
    for name, layer in module.named_modules():
        if not isinstance(layer, nn.RNNBase) or not layer.bias:
            continue
        for own in (n for n, _ in layer.named_parameters(recurse=False) if n.startswith("bias_ih")):
            ih = f"{name}.{own}" if name else own
            hh = ih.replace("bias_ih", "bias_hh")
            if shared & {ih, hh} or any(
                n not in base or base[n].shape != new[n].shape for n in (ih, hh)
            ):
                continue
            rows = slice(2 * layer.hidden_size if layer.mode == "GRU" else None)
            changed[ih], changed[hh] = new[ih].clone(), new[hh].clone()
            held = base[hh][rows].to(new[hh].dtype)
            changed[ih][rows] += new[hh][rows] - held
            changed[hh][rows] = held
    return changed
