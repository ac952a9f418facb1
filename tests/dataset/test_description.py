"""Descriptions of datasets: KFER's own against the published facts, and what is refused."""

import copy
import json
import unicodedata
from importlib import resources
from pathlib import Path

import pytest

from converters.dataset.description import kfer, load_description, parse_description
from converters.errors import CallError

REFERENCE = Path(__file__).parents[3] / "shared" / "kfer" / "reference.json"
LABELS = ["happy", "sad", "neutral"]


def document(**more) -> dict:
    split = {
        "file": "train.tfrecords",
        "index": "train.idx",
        "records": 3,
        "label_counts": {"sad": 1, "happy": 2, "neutral": 0},
        "labels_per_image": {"1": 3},
        "distinct_label_sets": 2,
        "labels_sha256": "0" * 64,
        "clips": 2,
    }
    config = {"label_names": LABELS, "kind": "single-label", "splits": {"train": split}}
    return {"configs": {"emotions": config}, **more}


def changed(path: str, value) -> dict:
    """The document with the value at ``path`` changed, or taken out with ``...``."""
    whole = document()
    *way, last = path.split("/")
    place = whole
    for key in way:
        place = place.setdefault(key, {})
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return whole


CONFIG = "configs/emotions"
SPLIT = f"{CONFIG}/splits/train"


def test_kfer_is_what_was_published():
    if not REFERENCE.is_file():
        pytest.skip(f"the published facts are not there: {REFERENCE}")
    reference = json.loads(REFERENCE.read_text("utf-8"))
    description = kfer()
    assert [config.name for config in description.configs] == list(reference)
    for config in description.configs:
        expected = reference[config.name]
        label = config.schema.label
        assert list(label.label_names) == expected["label_names"]  # in stored order
        assert label.kind == expected["kind"]
        assert [split.name for split in config.splits] == list(expected["splits"])
        for split in config.splits:
            facts = expected["splits"][split.name]
            assert (split.config, split.schema) == (config.name, config.schema)
            assert split.title == f"{config.name}/{split.name}"
            assert (split.file, split.index) == (facts["file"], facts["index"])
            published = split.published
            assert published.records == facts["records"]
            assert dict(zip(label.label_names, published.label_counts, strict=True)) == facts["label_counts"]
            assert {str(key): value for key, value in published.labels_per_image.items()} == facts[
                "labels_per_image"
            ]
            assert published.distinct_label_sets == facts["distinct_label_sets"]
            assert published.labels_sha256 == facts["labels_sha256"]
            assert published.clips == facts["clips"]


def test_the_reference_is_itself_a_description():
    """A bare mapping of configs is taken as such."""
    if not REFERENCE.is_file():
        pytest.skip(f"the published facts are not there: {REFERENCE}")
    description = parse_description(json.loads(REFERENCE.read_text("utf-8")), "x")
    # The reference has no digests of the identities: these were computed from the published CSVs.
    document = json.loads(resources.files("converters.dataset").joinpath("kfer.json").read_text("utf-8"))
    for config in document["configs"].values():
        for split in config["splits"].values():
            del split["identities_sha256"]
    assert description.configs == parse_description(document, "x").configs


def test_kfer_without_the_reference():
    """Facts of the paper and of the dataset's readme that anyone can look up."""
    description = kfer()
    totals = {
        config.name: (
            len(config.schema.label.label_names),
            [split.published.records for split in config.splits],
        )
        for config in description.configs
    }
    assert totals == {
        "6_basic_emo": (6, [10249, 1282, 1282]),
        "22_emo": (22, [15840, 1980, 1980]),
        "multi-label": (24, [31053, 3882, 3882]),
    }
    for config in description.configs:
        assert [column.feature for column in config.schema.stored] == [
            "image_raw", "label", "height", "width", "depth"
        ]  # fmt: skip
        assert [column.name for column in config.schema] == [
            "image", "label", "label_vector", "height", "width", "depth"
        ]  # fmt: skip
    for split in description.splits():
        published = split.published
        assert sum(published.labels_per_image.values()) == published.records
        assert sum(key * value for key, value in published.labels_per_image.items()) == sum(
            published.label_counts
        )


def test_a_full_description():
    description = parse_description(
        document(name="mine", features={"image": "jpeg"}, about={"title": "Mine"}), "x"
    )
    assert (description.name, description.about.title) == ("mine", "Mine")
    (split,) = description.splits()
    assert [column.feature for column in split.schema.stored] == ["jpeg", "label", "height", "width", "depth"]
    assert split.files == ("train.tfrecords",)
    assert split.published.label_counts == (2, 1, 0)  # by the labels' stored order, not the object's
    assert split.published.labels_per_image == {1: 3}
    assert description.config("emotions").splits == (split,)
    with pytest.raises(CallError, match="emotions"):
        description.config("emotion")


def test_the_least_description():
    description = parse_description(
        {"configs": {"a": {"label_names": ["x"], "kind": "multi-label", "splits": {"train": {"file": "f"}}}}},
        "x",
    )
    (split,) = description.splits()
    assert split.index is None
    assert split.published.records is split.published.label_counts is split.published.labels_sha256 is None


def test_a_bare_mapping_of_configs():
    whole = parse_description(document(), "x")
    bare = parse_description(document()["configs"], "x")
    assert bare.configs == whole.configs
    assert (
        parse_description(bare.document, "again").configs == whole.configs
    )  # what manifests carry can be read again


def test_a_description_read_back_from_its_document_is_the_same():
    description = kfer()
    assert parse_description(json.loads(json.dumps(description.document)), "x") == description


@pytest.mark.parametrize("key", ["x", "configs/emotions/label_name", f"{SPLIT}/recrods", "features/images",
                                 "about/titel", "about/licence/url", "about/gating/promt"])  # fmt: skip
def test_unknown_keys_are_errors(key):
    with pytest.raises(CallError, match=key.rsplit("/", 1)[-1]):
        parse_description(changed(key, "value"), "origin")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", 5), ("name", ["x"]), ("features", []), ("features", "x"), ("features/image", 1), ("about", "text"),
        ("about", [1]), ("about/tags", "tag"), ("about/tags", [1]), ("about/personal_data", "yes"),
        ("about/personal_data", 1), ("about/licence", "MIT"), ("about/gating/fields", ["x"]),
        ("about/gating/fields", {"x": 1}), ("configs", []), ("configs", "x"), ("configs", {}), ("configs", None),
        (CONFIG, []), (CONFIG, "x"), (f"{CONFIG}/kind", ...), (f"{CONFIG}/kind", "single"), (f"{CONFIG}/kind", 1),
        (f"{CONFIG}/label_names", ...), (f"{CONFIG}/label_names", []), (f"{CONFIG}/label_names", "abc"),
        (f"{CONFIG}/label_names", [1, 2]), (f"{CONFIG}/label_names", ["a", "a"]), (f"{CONFIG}/label_names", ["a", ""]),
        (f"{CONFIG}/label_names", ["a", "b\n"]), (f"{CONFIG}/label_names", ["a", "file_name"]),
        (f"{CONFIG}/splits", ...), (f"{CONFIG}/splits", {}), (f"{CONFIG}/splits", ["train"]), (SPLIT, "file"),
        (f"{SPLIT}/file", ...), (f"{SPLIT}/file", 1), (f"{SPLIT}/file", ""), (f"{SPLIT}/index", 1),
        (f"{SPLIT}/records", "3"), (f"{SPLIT}/records", 3.0), (f"{SPLIT}/records", True), (f"{SPLIT}/records", -1),
        (f"{SPLIT}/clips", "2"), (f"{SPLIT}/distinct_label_sets", []), (f"{SPLIT}/label_counts", [1, 2, 0]),
        (f"{SPLIT}/label_counts", {"happy": 1}),
        (f"{SPLIT}/label_counts", {"happy": 1, "sad": 1, "neutral": 1, "x": 1}),
        (f"{SPLIT}/label_counts", {"happy": "1", "sad": 1, "neutral": 0}), (f"{SPLIT}/labels_per_image", {"one": 3}),
        (f"{SPLIT}/labels_per_image", {"-1": 3}), (f"{SPLIT}/labels_per_image", {"²": 3}),
        (f"{SPLIT}/labels_per_image", {"1": "3"}), (f"{SPLIT}/labels_sha256", "0" * 63),
        (f"{SPLIT}/labels_sha256", "0" * 64 + "\n"),
        (f"{SPLIT}/labels_sha256", "G" * 64), (f"{SPLIT}/labels_sha256", 0),
    ],
)  # fmt: skip
def test_wrong_values_are_errors_that_name_the_place(path, value):
    with pytest.raises(CallError, match="origin"):
        parse_description(changed(path, value), "origin")


def test_an_error_has_the_whole_path_of_the_key():
    with pytest.raises(CallError) as caught:
        parse_description(changed(f"{SPLIT}/label_counts/sad", -1), "origin")
    assert (
        str(caught.value)
        == "origin configs emotions splits train label_counts sad: expected a count, found -1."
    )


def test_half_of_a_surrogate_pair_is_an_error():
    """No file that carries the description, like a dataset card, could be written in UTF-8."""
    with pytest.raises(CallError, match="surrogate"):
        parse_description(changed("about/title", "\ud800"), "origin")


@pytest.mark.parametrize("value", [None, [], "x", 5, True, {}])
def test_what_is_no_object_is_an_error(value):
    with pytest.raises(CallError, match="origin"):
        parse_description(value, "origin")


@pytest.mark.parametrize("key", ["file", "index", "labels_csv"])
@pytest.mark.parametrize(
    "value", ["../x", "a/../../b", "a//b", "a/", "./a", "/etc/passwd", "..", ".", "a\\b", "..\\x", "", "/"]
)
def test_files_stay_in_the_source_folder(key, value):
    with pytest.raises(CallError, match=key):
        parse_description(changed(f"{SPLIT}/{key}", value), "origin")


@pytest.mark.parametrize("key", ["file", "index", "labels_csv"])
def test_a_file_name_with_a_nul_is_an_error(key):
    """The system would refuse it with a bare ValueError, deep in a conversion."""
    with pytest.raises(CallError, match=key):
        parse_description(changed(f"{SPLIT}/{key}", "a\0b"), "origin")


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "..", "con", "a ", "-x", "a\0", "\ud800"])
def test_config_and_split_names_that_cannot_be_folders(name):
    whole = document()
    whole["configs"][name] = copy.deepcopy(whole["configs"]["emotions"])
    with pytest.raises(CallError):
        parse_description(whole, "origin")
    whole = document()
    splits = whole["configs"]["emotions"]["splits"]
    splits[name] = copy.deepcopy(splits["train"])
    with pytest.raises(CallError):
        parse_description(whole, "origin")


@pytest.mark.parametrize("name", ["a-b", "a b", "a..b", ".a", "a.", "train\n"])
def test_split_names_that_hugging_face_refuses(name):
    whole = document()
    splits = whole["configs"]["emotions"]["splits"]
    splits[name] = splits.pop("train")
    with pytest.raises(CallError):
        parse_description(whole, "origin")


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("a", "A"),
        ("straße", "STRASSE"),
        ("caf\u00e9", "cafe\u0301"),
        ("슬픔", unicodedata.normalize("NFD", "슬픔")),
    ],
)
@pytest.mark.parametrize("level", ["config", "split"])
def test_names_that_are_one_folder_on_some_systems_collide(one, two, level):
    whole = document()
    if level == "config":
        whole["configs"] = {name: copy.deepcopy(whole["configs"]["emotions"]) for name in (one, two)}
    else:
        splits = whole["configs"]["emotions"]["splits"]
        whole["configs"]["emotions"]["splits"] = {name: copy.deepcopy(splits["train"]) for name in (one, two)}
    with pytest.raises(CallError):
        parse_description(whole, "origin")


def test_feature_names_must_differ():
    with pytest.raises(CallError, match="different"):
        parse_description(document(features={"image": "label"}), "origin")


def test_load_spec(tmp_path):
    assert load_description(tmp_path) == kfer()
    path = tmp_path / "dataset.json"
    for encoding in ("utf-8", "utf-8-sig"):  # Windows editors begin with a byte order mark
        path.write_text(json.dumps(document(name="mine")), encoding)
        assert load_description(tmp_path).name == "mine"


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"not json", b"\xff\xfe", b"[]", b'{"configs": {}, "configs": {}}', b"[" * 100_000,
     b'{"name": 1' + b"0" * 5000 + b"}", b'{"configs": {"a": {}, "a": {}}}'],
)  # fmt: skip
def test_a_broken_dataset_json_is_the_calls_error(tmp_path, text):
    path = tmp_path / "dataset.json"
    path.write_bytes(text)
    with pytest.raises(CallError, match=r"dataset\.json"):
        load_description(tmp_path)


def test_a_dataset_json_that_is_a_folder(tmp_path):
    (tmp_path / "dataset.json").mkdir()
    with pytest.raises(CallError, match=r"dataset\.json"):
        load_description(tmp_path)
