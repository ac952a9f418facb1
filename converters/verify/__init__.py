"""An output, or a source, against what is known of it.

Promises: what could not be checked is *unverified*, what differs is *failed*; neither is ever called passed. Nothing in
an output is trusted. Enter by :func:`output.verify_output` and :func:`source.inspect_source`.
"""
