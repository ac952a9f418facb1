"""The nouns: what a dataset, a record batch, a shard, a fingerprint, a report and a manifest are.

Promises: nothing here reads a source or writes an output, and no code here holds a fact of a particular dataset;
``kfer.json`` does.
"""
