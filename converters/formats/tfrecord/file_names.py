"""What the names of files tell: which split they are of, and which are no TFRecords whatever is in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from converters.dataset.members import plain_name

# Words that name a split, by the spelling that the split gets.
_SPLITS = {
    name: own
    for own, *others in (
        ("train", "training", "traindata", "trainset"),
        ("valid", "validset"),
        ("validation", "validationset"),
        ("val", "valdata", "valset"),
        ("dev", "devset"),
        ("test", "testing", "testdata", "testset"),
        ("eval", "evaluation"),
        ("trainval",), ("minival",), ("testdev",),
    )
    for name in (own, *others)
}  # fmt: skip
DEFAULT_SPLIT = "train"

# A word is of one case, or begins with a capital: flowersTrain, VAL, train-00001.
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")

# A checkpoint of TensorFlow's has parts of such names too: model.ckpt.data-00000-of-00001.
_TFRECORD_NAME = re.compile(
    r"(\.(tfrecords?|tfrec|records?|tfr)(-\d+-of-\d+)?|(?<!\.data-\d{5})(?<=\d)-of-\d+)", re.IGNORECASE
)
_SIDECAR_NAME = re.compile(
    r"\..*|events\.out\.tfevents\..*|thumbs\.db|desktop\.ini|_success"
    r"|.*(~|:zone\.identifier|\.(crc|md5|sha\d+|md5sum|sha\d+sum|asc|sig|idx|index|icloud|crdownload|part|partial|download"
    r"|aria2|tmp|swp|lock|torrent|dvc|zip|tar|tgz|tar\.gz|7z|rar|json|yaml|yml|txt|md|rst|csv|tsv|xml|html?|pbtxt|pb"
    r"|py|ipynb|sh|log|cfg|toml))",
    re.IGNORECASE | re.DOTALL,
)
_SUFFIX = re.compile(r"\.[A-Za-z]\w*")


def split_words(name: str) -> list[str]:
    """The splits that a file's or folder's name speaks of, each once, in their order."""
    found = (_SPLITS.get(word.lower()) for word in _WORD.findall(name))
    return list(dict.fromkeys(split for split in found if split))


def splits_of(paths: Iterable[str], source_name: str) -> dict[str, str]:
    """The split of each file, by its own name, or else by the nearest folder whose name says one.

    A name that speaks of two, as ``train_val.record``, is taken at its word: the split is called ``train_val``. A name
    that is another one's but for the word that names the split, as ``svhn_extra`` beside ``svhn_train``, is taken at
    its word too.

    Args:
        paths: the files, relative to the source, with ``/``.
        source_name: the name of the source's folder, which counts if it is a split's word and nothing else.
    """
    found: dict[str, str | None] = {}
    forms = set()
    for path in paths:
        parts = (split_words(part) for part in reversed(path.split("/")))
        found[path] = "_".join(next(filter(None, parts), ())) or None
        if found[path] is not None:
            forms |= {form for word, form in _forms(path) if word.lower() in _SPLITS}
    other = _SPLITS.get(source_name.lower(), DEFAULT_SPLIT)
    return {
        path: split or next((word.lower() for word, form in _forms(path) if form in forms), other)
        for path, split in found.items()
    }


def _forms(path: str) -> Iterator[tuple[str, str]]:
    """Each word of a path that may name a split, and the path without it and without the numbers."""
    for match in _WORD.finditer(path):
        if match[0].lower() != "all":  # which means something else to those who load splits
            yield match[0], sibling_pattern(f"{path[: match.start()]}*{path[match.end() :]}")


def stem_of_shards(path: str) -> str:
    """A file's name without the numbers of shards and without suffixes: what files of one origin have in common."""
    name = re.sub(r"(?<!\d)\d+(-of-\d+)?(?!\d)", "", plain_name(path))
    return re.sub(r"(\.(tfrecords?|tfrec|records?|tfr))?[-_.]*$", "", name, flags=re.IGNORECASE)


def is_sidecar_name(path: str) -> bool:
    """Whether a file's name says that it lies beside data, and is none."""
    return _SIDECAR_NAME.fullmatch(path.rpartition("/")[2]) is not None


def is_tfrecord_name(path: str) -> bool:
    """Whether a file's name says that it is a TFRecord file."""
    name = plain_name(path.rpartition("/")[2])
    return any(match.end() == len(name) for match in _TFRECORD_NAME.finditer(name))


def sibling_pattern(path: str) -> str:
    """The same for two files whose names differ in numbers only."""
    return re.sub(r"\d+", "0", path)


def suffix_of(path: str) -> str | None:
    """The suffix of a file's name, where it has one that says something."""
    suffix = "." + path.rpartition("/")[2].rpartition(".")[2]
    return suffix.lower() if "." in path.rpartition("/")[2] and _SUFFIX.fullmatch(suffix) else None


def natural_order(path: str) -> list[tuple[str, int]]:
    """A key by which numbers in names count as numbers: ``part-2`` stands before ``part-10``."""
    pieces = re.split(r"([0-9]+)", path)
    return [(text, int(number or 0)) for text, number in zip(pieces[::2], [*pieces[1::2], ""], strict=True)]
