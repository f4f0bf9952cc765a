"""`weft methods`: the methods, and what each learns."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from server.cli.models import Arguments
from server.cli.options import Bits, Json, More, Proportion, Rank, Seed, method_options, parse_pairs
from server.cli.output import show_json, show_table
from shared import methods
from shared.methods import LossyMethod, Method
from shared.tensors import TensorSpec

app = typer.Typer(help="The methods of update compression.", no_args_is_help=True)


@app.command("list")
def list_methods(as_json: Json = False) -> None:
    """List the methods with their options."""
    listed = [_describe(method) for method in methods.METHODS.values()]
    if as_json:
        show_json({"items": listed, "next": None})
        return
    rows = [item | {"options": _options(item["options"])} for item in listed]
    show_table(rows, ("id", "version", "options", "summary"))


def _options(described: dict[str, Any]) -> str:
    """Options by name; those that must be given stand out."""
    return ", ".join(
        name if option["required"] else f"[{name}={option['default']}]"
        for name, option in described.items()
    )


def _describe(method: Method) -> dict[str, Any]:
    return {
        "id": method.id,
        "version": method.version,
        "summary": method.summary,
        "needs_base": method.needs_base,
        "lossless": not isinstance(method, LossyMethod),
        "options": {
            name: {
                "description": field.description,
                "required": field.is_required(),
                "default": None if field.is_required() else field.default,
            }
            for name, field in method.Options.model_fields.items()
        },
    }


@app.command("count")
def count(
    architecture: Annotated[str, typer.Argument(help="Of the zoo, or `module:factory`.")],
    method: Annotated[str, typer.Argument(help="See `weft methods list`.")],
    rank: Rank = None,
    bits: Bits = None,
    proportion: Proportion = None,
    seed: Seed = None,
    option: More = None,
    argument: Arguments = None,
    as_json: Json = False,
) -> None:
    """Print the paper's count: what the method learns of an architecture.

    Each matrix by the method's formula, plus all biases and BatchNorm weights and biases.
    """
    from server import zoo

    chosen = methods.get(method)
    given = method_options(method, rank, bits, proportion, seed, option)
    options = methods.options(chosen, given)
    known = zoo.get(architecture)
    arguments = parse_pairs("--argument", argument)
    schema, names = known.schema(arguments), known.learnable(arguments)
    learnt = sum(_count(chosen, schema[name], options) for name in names)
    if as_json:
        parameters = sum(schema[name].size for name in names)
        told = {"architecture": architecture, "arguments": arguments, "method": method}
        show_json(told | {"options": given, "count": learnt, "parameters": parameters})
    else:
        print(learnt)


def _count(method: Method, spec: TensorSpec, options: Any) -> int:
    """What the method learns of one tensor; a vector is learnt whole."""
    if isinstance(method, LossyMethod) and len(spec.shape) > 1:
        return method.count(*spec.matrix, options)
    return spec.size
