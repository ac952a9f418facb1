"""Mutations of the package: none of them publishes a wrong output.

Each small fault of ``mutations.py`` is put into the code in this process, and a conversion is run. Either it is
refused, or the output is right by ``oracle.py``, which uses nothing of the package. A mutation that is refused nowhere
proves nothing: it would have no effect.
"""

import shutil

import oracle
import pytest
import sources
from mutate import applied
from mutations import MUTATIONS, Mutation

from converters import convert

# So small that each `train` has two shards, and what the strict parser reads alone is in one of them.
SHARD_BYTES = 9000


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mutations") / "source"
    sources.make(folder)
    return folder


def _convert(source, out, run, *, labels):
    target, config = run
    convert(
        source,
        to=target.rstrip("+"),
        out=out,
        configs=[config],
        labels=source if labels else None,
        class_folders=target.endswith("+"),
        workers=1,
        max_shard_bytes=SHARD_BYTES,
    )


def _check(out, run, *, labels):
    target, config = run
    oracle.check(out, target.rstrip("+"), (config,), labels=labels, class_folders=target.endswith("+"))


RUNS = sorted({(run, mutation.labels) for mutation in MUTATIONS for run in mutation.runs})


@pytest.mark.parametrize(
    ("run", "labels"), RUNS, ids=lambda value: "-".join(value) if isinstance(value, tuple) else ""
)
def test_the_code_as_it_is_publishes_what_is_right(source, tmp_path, run, labels):
    _convert(source, tmp_path / "out", run, labels=labels)
    _check(tmp_path / "out", run, labels=labels)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: f"{mutation.room}: {mutation.name}")
def test_no_mutation_publishes_a_wrong_output(source, tmp_path, mutation: Mutation):
    refused = 0
    for number, run in enumerate(mutation.runs):
        out = tmp_path / str(number)
        with applied(mutation.change):
            try:
                _convert(source, out, run, labels=mutation.labels)
            except Exception as error:  # noqa: BLE001  # a mutant may end in any way
                print(f"{':'.join(run)}: {type(error).__name__}: {error}")
                refused += 1
        if out.exists():
            _check(out, run, labels=mutation.labels)
        shutil.rmtree(out, ignore_errors=True)
    assert refused, "this mutation has no effect here"


def test_there_are_at_least_forty_of_different_names():
    assert len({(mutation.room, mutation.name) for mutation in MUTATIONS}) == len(MUTATIONS) >= 40
