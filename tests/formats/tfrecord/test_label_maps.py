"""Label names in files beside the data, in the forms that people have."""

import pytest

from converters.formats.tfrecord.label_maps import LabelMap, find_label_maps, parse_labels, parse_pbtxt


@pytest.mark.parametrize(
    ("text", "names", "listed"),
    [
        ("0:daisy\n1:rose\n", {0: "daisy", 1: "rose"}, False),
        ("1: a: b\r\n 7:c \n\n", {1: "a: b", 7: "c"}, False),
        ("daisy\nrose bush\n", {0: "daisy", 1: "rose bush"}, True),
        ("0:daisy\nrose\n", {0: "0:daisy", 1: "rose"}, True),
    ],
)
def test_labels_txt(text, names, listed):
    assert parse_labels(text) == (names, listed)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "a\na\n",
        "0:a\n0:b\n",
        "0:a\n1:a\n",
        "a\x00\nb\n",
        "-2:a\n0:b",
        "0:a\n1000000000000000000:b",
    ],
)
def test_a_labels_txt_that_names_nothing(text):
    assert parse_labels(text) is None


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('item { id: 1 name: "cat" }\nitem { id: 2 name: "dog" }', {1: "cat", 2: "dog"}),
        ("item {\n  name: 'cat'\n  id: 1\n}", {1: "cat"}),
        ('item: < id: 1; name: "a", display_name: "A" >', {1: "A"}),
        ('item { id: 1 name: "a" display_name: "A" } item { id: 2 name: "b" }', {1: "a", 2: "b"}),
        (
            'item { id: 1 name: "a" display_name: "X" } item { id: 2 name: "b" display_name: "X" }',
            {1: "a", 2: "b"},
        ),
        ('# a { comment\nitem { id: 1 name: "a # b" keypoints { id: 5 label: "nose" } }', {1: "a # b"}),
        (r"""item { id: 3 name: 'the \'dog\' \303\251' }""", {3: "the 'dog' é"}),
        ('item{id:0 name:"얼굴"}', {0: "얼굴"}),
    ],
)
def test_a_label_map(text, names):
    assert parse_pbtxt(text) == (names, False)


@pytest.mark.parametrize(
    "text",
    [
        "", "item {}", 'item { name: "a" }', "item { id: 1 }", 'item { id: 1 name: "a"', '"a"', "\x00",
        'item { id: 1 name: "a" } item { id: 1 name: "b" }', 'item { id: 1 name: "a" } item { id: 2 name: "a" }',
        'item { id: 1 name: "a }', "node { name: 'graph' }", "item { id: 1 name: '' }",
    ],
)  # fmt: skip
def test_a_label_map_that_names_nothing(text):
    assert parse_pbtxt(text) is None


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ({0, 1}, {0: "a", 1: "b"}),
        ({1, 2}, {1: "a", 2: "b"}),
        ({2}, {1: "a", 2: "b"}),
        ({1}, None),
        ({0, 2}, None),
        ({3}, None),
        ({-1, 0}, None),
    ],
)
def test_names_one_a_line_count_from_0_if_0_occurs(labels, names):
    assert LabelMap("labels.txt", {0: "a", 1: "b"}, listed=True).fitting(labels) == names


def test_minus_one_is_no_label_and_has_no_name():
    label_map = LabelMap("x.pbtxt", {-1: "ignored", 0: "a"})
    assert label_map.fitting({0}) == {0: "a"}
    assert LabelMap("x.pbtxt", {-1: "ignored"}).fitting(set()) is None


@pytest.mark.parametrize(
    ("name", "text"), [("labels.txt", "0:a\n{}:b\n"), ("x.pbtxt", "item {{ id: {} name: 'a' }}")]
)
def test_a_number_of_thousands_of_digits_is_no_label(tmp_path, name, text):
    (tmp_path / name).write_text(text.format("7" * 5000))
    assert find_label_maps(tmp_path, [name]) == []


def test_every_label_needs_a_name():
    label_map = LabelMap("x.pbtxt", {1: "a", 3: "c"})
    assert label_map.fitting({3}) == {1: "a", 3: "c"}
    assert label_map.fitting({2, 3}) is None
