"""Reading and writing TFRecord files of ``tf.train.Example`` without TensorFlow.

``framing`` finds records in bytes, ``streams`` decompresses, ``index`` holds them against an ``.idx`` file,
``example`` parses one record strictly, ``layout`` parses many at once, ``reader`` puts these together,
``writer`` is the way back, and ``second_reader`` has TensorFlow read the same in a process of its own.
"""
