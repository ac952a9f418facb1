"""Bytes, on this machine and in object stores: opening, hashing, walking, listing.

Promises: no link is followed and no FIFO waited for where the name comes from outside; memory does not grow with a file.
"""
