"""securesystemslib without boto3, which it imports for one KMS of many wherever it is installed.

That takes a tenth of a second at each start, and 16 MB.
"""

from __future__ import annotations

import importlib
import sys
from typing import Final

#: How URIs of that KMS begin.
AWS: Final = "awskms:"


def import_without_boto3() -> None:
    """Import securesystemslib's signers as if boto3 were not there; another import finds it."""
    if "boto3" in sys.modules or "securesystemslib.signer" in sys.modules:
        return
    sys.modules["boto3"] = None  # type: ignore[assignment] # Python's way to say that it is not there
    try:
        importlib.import_module("securesystemslib.signer")
    finally:
        del sys.modules["boto3"]


def import_aws() -> None:
    """Let `awskms:` be signed by after all, where boto3 is installed."""
    from securesystemslib.signer import SIGNER_FOR_URI_SCHEME, _aws_signer

    if _aws_signer.AWS_IMPORT_ERROR is not None:
        module = importlib.reload(_aws_signer)
        SIGNER_FOR_URI_SCHEME[module.AWSSigner.SCHEME] = module.AWSSigner
