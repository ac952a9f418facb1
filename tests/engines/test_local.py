"""The local engine: results in the order of the shards, whoever makes them; the first error ends the run soon."""

import os
import time

import pytest

from converters.engines.local import LocalEngine
from converters.errors import DataError
from converters.formats.tfrecord.source import open_tfrecords


def who(shard, progress):
    """Some work, and which process did it."""
    time.sleep(0.02)
    return shard, os.getpid()


class Noted:
    """Makes a file for each shard that is done."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, shard, progress):
        (self.folder / shard.key.replace("/", "-")).touch()
        return shard


class FailElsewhere:
    """Fails in every process but this one, whose second shard waits for that."""

    def __init__(self, failed):
        self.parent = os.getpid()
        self.failed = failed
        self.done = 0

    def __call__(self, shard, progress):
        if os.getpid() != self.parent:
            self.failed.touch()
            raise DataError("damaged")
        self.done += 1
        deadline = time.monotonic() + 120
        while self.done > 1 and not self.failed.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        return shard


@pytest.fixture
def shards(sample):
    found = open_tfrecords(sample).plan(3_000)
    assert len(found) > 30
    return found


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_the_order_of_the_shards(shards, workers):
    results = list(LocalEngine(workers).run(who, shards))
    assert [shard for shard, _ in results] == list(shards)
    processes = {process for _, process in results}
    assert os.getpid() in processes
    assert 1 <= len(processes) <= workers


@pytest.mark.parametrize("workers", [1, 2])
def test_results_are_passed_on_while_others_are_still_made(shards, tmp_path, workers):
    results = LocalEngine(workers).run(Noted(tmp_path), shards)
    assert next(results) == shards[0]
    assert len(list(tmp_path.iterdir())) < len(shards)  # a generator that waited for all would have made all
    assert list(results) == list(shards)[1:]
    assert len(list(tmp_path.iterdir())) == len(shards)


def test_an_error_elsewhere_ends_the_run_before_this_process_has_done_all(shards, tmp_path):
    task = FailElsewhere(tmp_path / "failed")
    with pytest.raises(DataError, match="damaged"):
        list(LocalEngine(2).run(task, shards))
    assert task.done < len(shards) - 1
