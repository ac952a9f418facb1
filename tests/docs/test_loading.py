"""The chapter ``loading``: its Keras inputs are what TensorFlow decodes from the original TFRecords, bit for bit."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from converters import convert

CHAPTER = (Path(__file__).parents[2] / "converters" / "docs" / "loading.md").read_text("utf-8")
FOLDERS, TABLE = re.findall(
    r"^```python\n(.*?)^```$", CHAPTER.split("## Keras")[1].split("\n## ")[0], re.MULTILINE | re.DOTALL
)
COMPARE = """
import numpy as np
import tensorflow as tf

def original(data):
    features = {"image_raw": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([LABELS], tf.int64)}
    found = tf.io.parse_single_example(data, features)
    return tf.io.decode_jpeg(found["image_raw"], channels=3) / 255, tf.cast(found["label"], tf.float32)

def rows(dataset):
    return [(image.numpy(), vector.numpy()) for image, vector in dataset.unbatch()]

expected = rows(tf.data.TFRecordDataset(SOURCE).map(original).batch(32))
found = rows(test)
if BY_CLASS:  # class folders are read by class, and not in the order of the records
    expected.sort(key=lambda row: (row[1].argmax(), row[0].tobytes()))
    found.sort(key=lambda row: (row[1].argmax(), row[0].tobytes()))
assert len(found) == len(expected) > 1
for (image, vector), (wanted, label) in zip(found, expected):
    assert image.shape == (64, 64, 3) and image.dtype == np.float32 and 0 <= image.min() <= image.max() <= 1
    assert np.array_equal(image, wanted) and np.array_equal(vector, label)
"""


@pytest.mark.parametrize(
    ("snippet", "config", "labels"),
    [(FOLDERS, "22_emo", 22), (TABLE, "multi-label", 24)],
    ids=["folders", "table"],
)
def test_keras_gets_the_inputs_of_the_authors(sample, tmp_path, snippet, config, labels):
    pytest.importorskip("keras")
    by_class = "kfer-folders" in snippet
    out = tmp_path / ("kfer-folders" if by_class else "kfer-jpeg")
    convert(sample, to="jpeg", out=out, configs=[config], class_folders=by_class)
    compare = COMPARE.replace("LABELS", str(labels)).replace("BY_CLASS", str(by_class))
    compare = compare.replace("SOURCE", repr(str(sample / f"{config}_test.tfrecords")))
    done = subprocess.run(
        [sys.executable, "-c", snippet + compare], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
