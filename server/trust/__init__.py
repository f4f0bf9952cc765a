"""Trust: keys, and the signed metadata by which devices know what they may install."""

from server.trust.signers import import_without_boto3

import_without_boto3()  # before any module of this package imports securesystemslib
