"""The conventions of both HTTP planes: problems, request ids, paging, idempotency, ranges."""
