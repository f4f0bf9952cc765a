"""The server as a service: whether it lives and is ready, its figures, and its own description."""
