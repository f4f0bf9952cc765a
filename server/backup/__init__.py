"""Backup and restore: the database, signed metadata among it, and the blobs, in one folder.

take     a running server's state -> folder
verify   whether a folder holds what it says
restore  folder -> an empty database and a blob store, of either kind
"""
