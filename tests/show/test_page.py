"""The page without a browser: its numbers against an independent reading, what it finds, and hostile texts."""

import io
import json
import re
from collections import Counter
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from conftest import CONFIGS, SPLITS, edit_description, read_records, tfrecords, write_records
from helpers.examples import encode_features, write_frames
from PIL import Image

import converters
from converters import CallError, convert

pytest.importorskip("vl_convert", reason="the extra show is not installed")

COPIES = 10


class Parsed(HTMLParser):
    """What a browser would find: the elements, their attributes, the rows of each table, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text = ""
        self._region, self._in_cell = "", False
        self._row: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.elements.append((tag, found))
        if found.get("role") == "region":
            self._region = found["aria-label"]
            self.tables[self._region] = []
        elif tag == "tr":
            self._row = []
            if self._region:
                self.tables[self._region].append(self._row)
        elif tag in ("td", "th"):
            self._row.append("")
            self._in_cell = True

    def handle_endtag(self, tag):
        if tag == "table":
            self._region = ""
        elif tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data):
        self.text += data
        if self._in_cell:
            self._row[-1] += data.strip("\n")

    def all(self, tag, **wanted):
        return [
            found
            for name, found in self.elements
            if name == tag and all(found.get(key) == value for key, value in wanted.items())
        ]


def number(text: str) -> int:
    return int(text.replace(",", ""))


@pytest.fixture(scope="module")
def page(sample):
    return converters.show(sample, labels=sample / "labels")


@pytest.fixture(scope="module")
def parsed(page) -> Parsed:
    return Parsed(page.html)


@pytest.fixture(scope="module")
def output(sample, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("show") / "parquet"
    convert(sample, to="parquet", out=out)
    return out


@pytest.fixture(scope="module")
def frames(output):
    """What pandas reads in the Parquet output: the images, and the labels of each record by their names."""
    pandas = pytest.importorskip("pandas")
    import pyarrow.parquet

    found = {}
    for config in CONFIGS:
        for split in SPLITS:
            (path,) = (output / config).glob(f"{split}-*.parquet")
            frame = pandas.read_parquet(path)
            metadata = json.loads(pyarrow.parquet.read_schema(path).metadata[b"huggingface"])
            feature = metadata["info"]["features"]["label"]
            names = feature.get("names") or feature.get("feature", feature)["names"]
            frame["names"] = [
                tuple(names[rank] for rank in (labels if np.ndim(labels) else [labels]))
                for labels in frame["label"]
            ]
            frame["bytes"] = [len(image["bytes"]) for image in frame["image"]]
            found[config, split] = frame
    return found


# --- Numbers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("from_output", [False, True])
def test_every_number_is_that_of_an_independent_reading(page, frames, output, from_output):
    document = (converters.show(output).inspection if from_output else page.inspection).to_json()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert {(split["config"], split["split"]) for split in document["splits"]} == set(frames)
    for split in document["splits"]:
        frame = frames[split["config"], split["split"]]
        sets = Counter(frame["names"])
        assert {tuple(entry["labels"]): entry["records"] for entry in split["combinations"]} == sets
        pairs = Counter(pair for names in frame["names"] for pair in combinations(names, 2))
        assert {tuple(entry["labels"]): entry["records"] for entry in split["label_pairs"]} == pairs
        counts = Counter(name for names in frame["names"] for name in names)
        for entry in split["label_counts"]:
            assert entry["records"] == counts[entry["name"]]
            assert entry["share"] == pytest.approx(counts[entry["name"]] / len(frame), abs=1e-6)
        sizes = Counter(map(len, frame["names"]))
        assert split["labels_per_image"] == {str(size): sizes[size] for size in sorted(sizes)}
        images = split["images"]
        assert (images["total_bytes"], images["least_bytes"], images["most_bytes"]) == (
            frame["bytes"].sum(),
            frame["bytes"].min(),
            frame["bytes"].max(),
        )
        powers = Counter(int(size).bit_length() - 1 for size in frame["bytes"])
        assert images["bytes_by_power_of_two"] == {str(power): n for power, n in sorted(powers.items())}
        assert images["sizes"] == [{"height": 64, "width": 64, "depth": 3, "images": len(frame)}]
        assert images["encodings"] == {"jpeg": len(frame)}


def test_the_page_says_the_same(parsed, frames, label_names):
    for config in CONFIGS:
        own = {split: frames[config, split] for split in SPLITS}
        _, *rows = parsed.tables[f"Sets of labels, {config}"]
        sets = {split: Counter(", ".join(names) for names in frame["names"]) for split, frame in own.items()}
        found = {row[0]: list(map(number, row[2:])) for row in rows}
        assert found == {
            names: [*(sets[split][names] for split in SPLITS), sum(sets[split][names] for split in SPLITS)]
            for names in set().union(*sets.values())
        }
        _, *rows = parsed.tables[f"Images per label, {config}"]
        counts = {
            split: Counter(n for names in frame["names"] for n in names) for split, frame in own.items()
        }
        assert {row[0]: list(map(number, row[1:4])) for row in rows} == {
            name: [counts[split][name] for split in SPLITS] for name in label_names[config]
        }
        _, *rows = parsed.tables[f"Share of each label, {config}"]
        assert {row[0]: row[1:] for row in rows} == {
            name: [f"{counts[split][name] / len(own[split]):.2%}" for split in SPLITS]
            for name in label_names[config]
        }
    own = {split: frames["multi-label", split] for split in SPLITS}
    pairs = {
        split: Counter(" + ".join(pair) for names in frame["names"] for pair in combinations(names, 2))
        for split, frame in own.items()
    }
    _, *rows = parsed.tables["Labels that occur together, multi-label"]
    assert {row[0]: list(map(number, row[1:4])) for row in rows} == {
        pair: [pairs[split][pair] for split in SPLITS] for pair in set().union(*pairs.values())
    }
    _, *rows, total = parsed.tables["Number of labels, multi-label"]
    for size, *cells in rows:
        for split, images, sets in zip(SPLITS, cells[::2], cells[1::2], strict=True):
            of_size = [names for names in own[split]["names"] if len(names) == int(size)]
            assert (number(images), number(sets)) == (len(of_size), len(set(of_size)))
    assert [number(cell) for cell in total[2::2]] == [own[split]["names"].nunique() for split in SPLITS]


def test_clips_that_splits_share(page, parsed, truth):
    wanted = []
    for config in CONFIGS:
        for one, other in combinations(SPLITS, 2):
            first, second = ([record.clip_id for record in truth[config, split]] for split in (one, other))
            both = set(first) & set(second)
            images = tuple(sum(clip in both for clip in clips) for clips in (first, second))
            wanted.append(((f"{config}/{one}", f"{config}/{other}"), len(both), images))
    found = page.inspection.shared_clips
    assert [(shared.splits, shared.clips, shared.images) for shared in found] == wanted
    _, *rows = parsed.tables["Clips that splits share"]
    assert [list(map(number, row[1:])) for row in rows] == [[clips, *images] for _, clips, images in wanted]


def test_clips_are_said_to_be_unchecked_without_labels(output):
    assert "Unchecked: which image is from which clip" in converters.show(output, images=False).html


# --- Pictures ------------------------------------------------------------------------------------------


def test_pictures_are_the_records_they_say(page, parsed, truth, label_names):
    """Each has the bytes, labels, split, record and name of a record; every label and split that occurs has some."""
    import base64

    seen = set()
    figures = re.findall(r'<figure class="pic".*?</figure>', page.html, re.S)
    assert len(figures) == len(set(figures)) > 60
    by_image = {record.image: (key, n, record) for key, own in truth.items() for n, record in enumerate(own)}
    for figure in figures:
        found = Parsed(figure)
        data = base64.b64decode(found.all("img")[0]["src"].removeprefix("data:image/jpeg;base64,"))
        (config, split), place, record = by_image[data]
        names = [label_names[config][rank] for rank in record.indices]
        assert found.all("figure")[0]["data-split"] == split
        assert (
            re.sub(r"\s+", " ", found.text)
            .strip()
            .startswith(f"{', '.join(names)}{split} · record {place:,}")
        )
        assert record.img_id in found.text
        ranks = [int(rank) for rank in found.all("figure")[0]["data-labels"].split()]
        assert [label_names[config][rank] for rank in ranks] == names
        seen |= {(config, split, name) for name in names}
    wanted = {
        (config, split, label_names[config][rank])
        for (config, split), own in truth.items()
        for record in own
        for rank in record.indices
    }
    assert seen == wanted


def test_the_same_call_makes_the_same_bytes_and_another_seed_draws_others(sample):
    one, same, other = (converters.show(sample, seed=seed, per_label=1).html for seed in (1, 1, 2))
    assert one == same
    pictures = [set(re.findall(r'src="([^"]+)"', html)) for html in (one, other)]
    assert pictures[0] != pictures[1]


def test_without_images(sample):
    found = Parsed(converters.show(sample, images=False).html)
    assert not found.all("img")
    assert "--no-images" in found.text
    assert len(found.all("svg")) > 10


def write_detection(folder: Path) -> None:
    """One record as the Object Detection API writes it, with a large image."""
    noise = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "TIFF")
    features = {
        "image/encoded": stream.getvalue(),
        "image/object/bbox/xmin": [0.25, 0.0],
        "image/object/bbox/xmax": [0.5, 1.0],
        "image/object/bbox/ymin": [0.5, 0.0],
        "image/object/bbox/ymax": [0.75, 1.0],
        "image/object/class/text": [b"cat", b"<b>dog</b>"],
        "image/object/class/label": [1, 2],
    }
    folder.mkdir()
    write_frames(folder / "train.tfrecord", [encode_features(features)], index=False)


def test_boxes_and_large_images(tmp_path):
    write_detection(tmp_path / "source")
    html = converters.show(tmp_path / "source").html
    found = Parsed(html)
    boxes = [element["style"] for element in found.all("span", **{"class": "box"})]
    assert boxes == [
        "left:25.0%;top:50.0%;width:25.0%;height:25.0%",
        "left:0.0%;top:0.0%;width:100.0%;height:100.0%",
    ]
    assert "<b>dog</b>" in found.text
    assert "1,200 × 900 pixels, tiff, shown smaller, 2 boxes" in found.text
    (image,) = found.all("img")
    assert image["src"].startswith("data:image/jpeg;base64,")
    assert 1000 < len(image["src"]) < 150_000
    assert (image["width"], image["height"]) == ("112", "84")


def test_boxes_of_tensorflow_datasets(tmp_path):
    stream = io.BytesIO()
    Image.new("RGB", (10, 10)).save(stream, "PNG")
    features = {
        "image": stream.getvalue(),
        "objects/bbox": [
            0.1,
            0.2,
            0.3,
            0.6,
            0.0,
            0.0,
            7.5,
            1.0,
        ],  # ymin, xmin, ymax, xmax; the second is in pixels
        "objects/label": [3, 4],
    }
    write_frames(tmp_path / "train.tfrecord", [encode_features(features)], index=False)
    found = Parsed(converters.show(tmp_path).html)
    boxes = [element["style"] for element in found.all("span", **{"class": "box"})]
    assert boxes == ["left:20.0%;top:10.0%;width:40.0%;height:20.0%"]


def test_labels_without_names_and_texts(tmp_path):
    stream = io.BytesIO()
    Image.new("RGB", (10, 10)).save(stream, "PNG")
    records = [{"image": stream.getvalue(), "label": [label]} for label in (10, 9, 10)]
    write_frames(tmp_path / "train.tfrecord", list(map(encode_features, records)), index=False)
    found = Parsed(converters.show(tmp_path).html)
    assert found.tables["Images per label, default"][1:] == [["10", "2", "2"], ["9", "1", "1"]]
    assert "1 occurs more than once in default/train" in re.sub(r"\s+", " ", found.text)


# --- What would spoil an evaluation --------------------------------------------------------------------


def test_ten_images_of_train_in_test_are_found(source, kfer_convert):
    train, test = (tfrecords(source, "22_emo", split) for split in ("train", "test"))
    records = read_records(train)
    own = read_records(test)
    write_records(test, own + records[:COPIES])
    write_records(train, [*records, records[3], records[3]])
    groups = [[("22_emo/train", place), ("22_emo/test", len(own) + place)] for place in range(COPIES)]
    groups[3][1:1] = [("22_emo/train", len(records)), ("22_emo/train", len(records) + 1)]
    done = kfer_convert("inspect", source, "--json")
    assert done.status == 1  # they are not as published
    equal = json.loads(done.out)["equal_images"]
    assert equal["within"] == {"22_emo/train": 1}
    assert equal["across"] == [{"splits": ["22_emo/train", "22_emo/test"], "images": COPIES}]
    assert [[(place["split"], place["record"]) for place in group] for group in equal["groups"]] == groups
    assert equal["number_of_groups"] == COPIES
    text = kfer_convert("inspect", source).out
    assert "10 images both in 22_emo/train and in 22_emo/test" in text
    assert "1 image more than once in 22_emo/train" in text

    html = converters.show(source).html
    shown = re.findall(r'<div class="group">(.*?)\n</div>', html, re.S)
    assert len(shown) == COPIES
    for group, places in zip(shown, groups, strict=True):
        found = Parsed(group)
        assert len({image["src"] for image in found.all("img")}) == 1
        said = [image["alt"].rpartition("; ")[2] for image in found.all("img")]
        assert said == [f"{title.partition('/')[2]}, record {record}" for title, record in places]


def test_configs_that_share_images(source):
    records = read_records(tfrecords(source, "6_basic_emo", "train"))[:4]
    path = tfrecords(source, "multi-label", "train")
    own = read_records(path)
    write_records(path, own + [type(own[0])(record.image, own[0].label, 64, 64, 3) for record in records])
    page = converters.show(source, images=False)
    assert page.inspection.equal_images.across == {("6_basic_emo/train", "multi-label/train"): 4}
    assert page.inspection.equal_images.groups == ()
    assert Parsed(page.html).tables["Images that splits of different configs share"][1:] == [
        ["6_basic_emo/train", "multi-label/train", "4"]
    ]


def test_too_many_images_are_said_to_be_unchecked(sample, monkeypatch):
    from converters.verify import survey

    monkeypatch.setattr(survey, "MAX_COMPARED_IMAGES", 100)
    page = converters.show(sample, images=False)
    assert page.inspection.to_json()["equal_images"] is None
    assert "Unchecked: there are more images than are compared" in page.html


def test_a_damaged_split_is_said_to_be(source):
    path = tfrecords(source, "22_emo", "test")
    path.write_bytes(path.read_bytes()[:-5])
    found = Parsed(converters.show(source).html)
    assert ["22_emo", "test", "unknown", f"{path.stat().st_size:,}", "damaged"] in found.tables["Splits"]
    assert f"{path} (record" in found.text
    assert found.all("figure", **{"data-split": "train"})


# --- Safety --------------------------------------------------------------------------------------------

HOSTILE = (
    '</title></style></script><script>alert(1)</script><img src=x onerror="alert(2)">'
    "<svg onload=alert(3)> \" ' ` {{ 7*7 }} &lt; \u202e\u2066 مرحبا " + "x" * 10_000
)


@pytest.fixture
def hostile(source) -> Path:
    def change(document):
        document["about"] |= {
            "title": HOSTILE,
            "description": HOSTILE,
            "homepage": "javascript:alert(4)",
            "citation": HOSTILE,
            "notes": [HOSTILE],
            "personal_data": True,
            "licence": {"name": "x", "text": HOSTILE, "link": "javascript:alert(5)"},
        }
        config = document["configs"]["22_emo"]
        names = config["label_names"]
        new = dict(zip(names, ['<script>alert(6)</script>"', "'><b>", "x" * 10_000, "فرح"], strict=False))
        config["label_names"] = [new.get(name, name) for name in names]
        for split in config["splits"].values():
            split["label_counts"] = {new.get(name, name): n for name, n in split["label_counts"].items()}

    edit_description(source, change)
    return source


def test_hostile_texts_are_text(hostile, sample):
    page, plain = Parsed(converters.show(hostile).html), Parsed(converters.show(sample).html)
    for tag in ("script", "style", "title", "h1"):
        assert len(page.all(tag)) == len(plain.all(tag)) > 0
    assert {tag for tag, _ in page.elements} - {tag for tag, _ in plain.elements} <= {
        "li",
        "ul",
        "bdi",
        "strong",
    }
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        assert (attributes.get("href") or "#").startswith("#")
        assert (attributes.get("src") or "data:image/").startswith("data:image/")
    assert "alert(1)" in page.text
    assert "This page holds pictures of people." in page.text
    assert "7*7" in page.text


def test_the_page_asks_nothing_of_any_network(parsed):
    (policy,) = parsed.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"].startswith("default-src 'none'; img-src data:;")
    for tag, attributes in parsed.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        assert (attributes.get("src") or "data:").startswith("data:")
        assert (attributes.get("href") or "#").startswith("#")


def test_a_notebook_displays_it(page):
    (frame,) = Parsed(page._repr_html_()).all("iframe")
    assert frame["srcdoc"] == page.html
    assert frame["sandbox"] == "allow-scripts"


# --- The command ---------------------------------------------------------------------------------------


def test_the_command(sample, tmp_path, kfer_convert, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = kfer_convert("show", sample, "--no-images")
    path = tmp_path / "kfer-sample.html"
    assert done.status == 0
    assert (
        done.out == f"120 records: kfer-sample.html ({path.stat().st_size:,} bytes); open it in a browser.\n"
    )
    assert path.read_text("utf-8") == converters.show(sample, images=False).html
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]

    path.write_text("mine")
    done = kfer_convert("show", sample, "--no-images")
    assert (done.status, path.read_text()) == (2, "mine")
    assert "--overwrite" in done.err
    assert kfer_convert("show", sample, "--no-images", "--overwrite", "--quiet").out == ""
    assert path.stat().st_size > 1000


def test_nothing_is_written_into_an_output_or_a_source(output, source, tmp_path):
    for out in (output / "page.html", output / "22_emo" / "page.html", source / "page.html"):
        with pytest.raises(CallError, match=r"Write (it|the page) elsewhere"):
            converters.show(source, out=out)
        assert not out.exists()
    with pytest.raises(CallError, match="there is no folder"):
        converters.show(source, out=tmp_path / "none" / "page.html")
    with pytest.raises(CallError, match="is there already"):
        converters.show(source, out=tmp_path)


def test_without_the_extra(sample, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "vl_convert" else find(name, *rest)
    )
    with pytest.raises(CallError, match=r"pip install 'kfer-convert\[show\]'"):
        converters.show(sample)
