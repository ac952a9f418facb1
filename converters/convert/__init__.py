"""A source becomes a proven output: plan, run the shard tasks, merge their results, compare, finish, publish.

Promises: an output is published whole and equal to its source, or not at all. Enter by :func:`run.run`.
"""
