"""The local engine: results in the order of the shards, whoever makes them; the first error ends the run soon."""

import os
import time

import pytest

from converters.dataset.description import load_description
from converters.engines.local import LocalEngine
from converters.errors import DataError
from converters.formats.tfrecord.discovery import find_source
from converters.formats.tfrecord.plan import plan_shards


def who(shard, progress):
    """Some work, and which process did it."""
    time.sleep(0.02)
    return shard, os.getpid()


def fail_elsewhere(shard, parent):
    """Fails in every process but the one called ``parent``, whose work is slow."""
    if os.getpid() != parent:
        raise DataError("damaged")
    time.sleep(0.2)
    return shard


class FailElsewhere:
    def __init__(self):
        self.parent = os.getpid()
        self.done = 0

    def __call__(self, shard, progress):
        self.done += 1
        return fail_elsewhere(shard, self.parent)


@pytest.fixture
def shards(sample):
    found = plan_shards(find_source(sample, load_description(sample)).splits, 3_000)
    assert len(found) > 30
    return found


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_the_order_of_the_shards(shards, workers):
    results = list(LocalEngine(workers).run(who, shards))
    assert [shard for shard, _ in results] == list(shards)
    processes = {process for _, process in results}
    assert os.getpid() in processes
    assert 1 <= len(processes) <= workers


def test_results_are_passed_on_while_others_are_still_made(shards):
    results = LocalEngine(2).run(who, shards)
    next(results)
    # A generator that had waited for all would give the rest at once.
    started = time.monotonic()
    rest = list(results)
    assert len(rest) == len(shards) - 1
    assert time.monotonic() - started > 0.1


def test_an_error_elsewhere_ends_the_run_before_this_process_has_done_all(shards):
    task = FailElsewhere()
    with pytest.raises(DataError, match="damaged"):
        list(LocalEngine(2).run(task, shards))
    assert task.done < len(shards) - 1
