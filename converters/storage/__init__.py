"""Bytes, on this machine and in object stores: opening, hashing, walking, listing.

Promises: no link is followed and no FIFO waited for where a name comes from outside; no file is held as a whole.
"""
