"""Backup and restore: database, blobs, and (when trust has come) online metadata, in one folder.

take     a running server's state -> folder
verify   whether a folder holds what it says
restore  folder -> an empty database and a blob store, of either kind
"""
