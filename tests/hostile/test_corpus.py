"""Hostile sources, each through the command in a process of its own: it ends with a message, soon and small."""

import pytest
from corpus import CASES, SOUND, make_source

MEGABYTES, SECONDS = 400, 20


@pytest.fixture
def place(tmp_path):
    """A sound source in a folder of its own; the output would lie beside it."""
    make_source(tmp_path / "work" / "source")
    return tmp_path / "work"


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_source_ends_with_a_message(kfer_isolated, place, name):
    further = CASES[name](place / "source") or []
    (place / "to").mkdir()
    run = kfer_isolated(place / "source", "--to", "parquet", "--out", place / "to" / "out", *further)
    # Nothing was read then: it is the call that is wrong.
    words = ("dataset.json", "l.csv", "a directory as t.tfrecords", "a link to itself as t")
    wrong_call = any(word in name for word in words)
    assert run.status in ((1, 2) if wrong_call else (1,)), run
    assert "Traceback" not in run.err, run.err
    assert run.err.startswith("kfer-convert: ") or "nothing was published" in run.err, run.err
    assert len(run.err) < 3000, run.err[:500]
    assert str(place) in run.err or "c/train" in run.err, run.err
    assert list((place / "to").iterdir()) == []
    assert run.megabytes < MEGABYTES, run
    assert run.seconds < SECONDS, run


@pytest.mark.parametrize("name", SOUND)
def test_what_is_sound_is_converted(kfer_isolated, place, name):
    """The bounds above would also hold if everything were refused."""
    further = SOUND[name](place / "source") or []
    run = kfer_isolated(place / "source", "--to", "parquet", "--out", place / "out", *further)
    assert (run.status, run.err) == (0, "")
    assert kfer_isolated("verify", place / "out", "--source", place / "source").status == 0
