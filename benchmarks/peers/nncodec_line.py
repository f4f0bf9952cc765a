"""NNCodec in the peers' environment: changes in, bytes and decoded changes out.

stdin: a list of `{"change", "decoded", "qp", "other_qp", "weight"}`: a weights file to code, where
the decoded one goes (null: nowhere), the steps of matrices and of vectors, and the weight of bytes
in the encoder's choice of symbols. stdout: the sizes of the bitstreams.

Only its coder is used. What it brings along for frameworks wants libraries (data sets, detection)
that coding does not need, so that part is left out of the import.
"""

from __future__ import annotations

import json
import sys
from typing import Any
from unittest import mock

from safetensors.numpy import load_file, save_file


def main() -> int:
    """Answer the request."""
    sys.modules["nncodec.framework"] = mock.MagicMock()
    from nncodec import nnc  # type: ignore[import-not-found]

    print(json.dumps([_coded(nnc, point) for point in json.load(sys.stdin)]))
    return 0


def _coded(nnc: Any, point: dict[str, Any]) -> int:
    """Code, decode, keep; returns the bytes of the stream, names and shapes included."""
    stream = nnc.compress(
        load_file(point["change"]),
        bitstream_path=None,
        qp=point["qp"],
        nonweight_qp=point["other_qp"],
        lambda_scale=point["weight"],
        use_dq=True,
        param_opt=True,
        return_bitstream=True,
    )
    if point["decoded"]:
        save_file(nnc.decompress(stream), point["decoded"])
    return len(stream)


if __name__ == "__main__":
    sys.exit(main())
