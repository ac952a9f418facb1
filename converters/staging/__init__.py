"""An output until it is published: lock, checkpoint of finished shards, free space, fsync, one rename.

Promises: the destination is absent, or complete; nothing is written outside the staging until then. In an object
store, the manifest is the commit. Enter by :func:`make_staging`.
"""
