"""The layout ``webdataset``: tar archives, of which each record has a few files."""

from converters.formats.webdataset.format import WebDatasetFormat

__all__ = ["WebDatasetFormat"]
