"""Image folders: the images as files, byte for byte as they are stored, and one metadata file beside them a split.

=====================================================  =============================================================
``<config>/<split>/images/00000000.jpg``               of one shard; the suffix is the content's, and the name is the
                                                       record's number, ``img_id`` or file name
``<config>/<split>/images/00000-of-00002/….jpg``       of several shards
``<config>/<split>/00_angry/00000000.jpg``             with class folders, of one label a record whose names are known
``<config>/<split>/metadata.csv`` or ``.jsonl``        a row a record, in the order of the records:
                                                       :mod:`converters.formats.jpeg.metadata`
``README.md``                                          names the files of every split, so that ``datasets`` finds them
=====================================================  =============================================================

Facts that the layout follows, seen in ``datasets`` 2.14.7, 2.21, 3.6, 4.0 and 5.2: of label files, only
``metadata.csv`` and ``metadata.jsonl`` are seen. Words like ``train`` in the names of files and folders choose the
split, so that an image called ``train_00000000.jpg`` loses its labels, or comes twice, where one split is loaded; and
splits that are called otherwise are found only through the README.
"""

from converters.formats.jpeg.image_folder import JpegFormat

__all__ = ["JpegFormat"]
