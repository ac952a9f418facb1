"""TFRecord files of ``tf.train.Example``, as a source and as an output, without TensorFlow.

Promises: every byte of a file belongs to one checked record, or is an error that says where; what protobuf reads of an
Example is read alike, and what it would drop is an error. Enter by :func:`source.open_tfrecords` and
:class:`format.TFRecordFormat`.

=====================  ============================================================================================
what is there          ``listing``, ``file_names`` and ``foreign`` look at files, ``discovery`` gives each to a split
what is known of it    ``descriptions`` chooses: ``tfds``, ``label_maps``, ``checksum_files``, or ``inference`` (which
                       reads all records by ``inference_pass`` and keeps ``feature_facts``)
bytes to records       ``compression``, ``framing``, ``index``; ``reader`` puts them together
records to columns     ``fast_parser`` (with ``entry_walk``) and ``strict_parser`` give features, ``columns`` columns;
                       ``witnesses`` and ``tensorflow`` read a second time
in shards              ``plan`` cuts, ``source`` reads
damage                 ``recovery`` finds what is sound, ``damage_scan`` and ``damage`` use it, ``quarantine_folder``
the way back           ``encoder``, ``writer``, ``format`` and ``example_files``
=====================  ============================================================================================
"""
