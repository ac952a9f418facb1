"""Reading and writing TFRecord files of ``tf.train.Example`` without TensorFlow.

What is there: ``listing`` lists files, ``foreign`` says what each is, ``descriptions`` finds the description that
applies (``tfds`` reads TensorFlow Datasets' own), ``discovery`` matches files to splits by it. Where nothing says the
columns, ``inference_pass`` reads all records, ``feature_facts`` adds up what they show, and ``inference`` decides.

Reading: ``framing`` finds records in bytes, ``compression`` inflates, ``index`` holds them against an ``.idx`` file,
``strict_parser`` parses one record, ``fast_parser`` many at once, ``columns`` makes batches of them, ``reader`` and
``source`` put these together, ``recovery`` finds what is sound in damaged files. ``writer`` is the way back, and
``tensorflow`` has TensorFlow read the same in a process of its own.
"""
