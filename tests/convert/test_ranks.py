"""Many processes that share nothing but a file system: the same bytes as one, whatever is missing, twice or killed."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import digests, flip

from converters import CallError, CheckError, convert, ranks
from converters.convert.run import Options

SHARD_BYTES = 14_000


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "converters", *map(str, arguments)], capture_output=True, text=True, **options
    )


@pytest.mark.parametrize("to", ["parquet", "jpeg", "hf"])
def test_many_ranks_give_the_bytes_of_one_run(sample, tmp_path, kfer_convert, to):
    convert(sample, to=to, out=tmp_path / "expected", max_shard_bytes=SHARD_BYTES)
    out = tmp_path / "out"
    planned = kfer_convert("plan", sample, "--to", to, "--out", out, "--max-shard-size", SHARD_BYTES)
    assert planned.status == 0
    assert "run-shards" in planned.out
    for rank in (2, 0, 1):
        assert kfer_convert("run-shards", out, "--rank", rank, "--world-size", 3).status == 0
        assert not out.exists()
    merged = kfer_convert("merge", out)
    assert merged.status == 0
    assert "verified to equal the source" in merged.out
    assert digests(out) == digests(tmp_path / "expected")
    assert {path.name for path in tmp_path.iterdir()} == {"expected", "out"}


def test_the_names_of_the_images_and_other_options_come_along(sample, tmp_path):
    options = {"labels": sample / "labels", "configs": ("22_emo",)}
    convert(sample, to="jpeg", out=tmp_path / "expected", class_folders=True, **options)
    ranks.plan(sample, "jpeg", tmp_path / "out", Options(format_options={"class_folders": True}, **options))
    ranks.run_shards(tmp_path / "out", 0, 1)
    assert not ranks.merge(tmp_path / "out").failures()
    assert digests(tmp_path / "out") == digests(tmp_path / "expected")


def planned(sample, out, **options):
    return ranks.plan(sample, "parquet", out, Options(max_shard_bytes=SHARD_BYTES, **options))


def test_a_merge_names_the_shards_that_are_missing(sample, tmp_path, kfer_convert):
    out = tmp_path / "out"
    count = planned(sample, out).shards
    done, before = ranks.run_shards(out, 1, 2)
    assert (done, before) == (count // 2, 0)
    merged = kfer_convert("merge", out)
    assert merged.status == 2
    assert f"{count - done} of {count} shards are not finished: 0 (6_basic_emo/train-00000-of-" in merged.err
    assert not out.exists()
    assert ranks.run_shards(out, 1, 2) == (0, done)  # nothing is done twice
    ranks.run_shards(out, 0, 1)
    assert not ranks.merge(out).failures()


def test_a_shard_that_is_not_what_its_result_says_is_missing(sample, tmp_path):
    out = tmp_path / "out"
    planned(sample, out)
    ranks.run_shards(out, 0, 1)
    flip(next((tmp_path / "out.incomplete").rglob("*.parquet")), 300)
    with pytest.raises(CallError, match="1 of"):
        ranks.merge(out)
    assert ranks.run_shards(out, 0, 1)[0] == 1
    assert not ranks.merge(out).failures()


def test_nothing_is_planned(tmp_path, kfer_convert):
    for arguments in (
        ("run-shards", tmp_path / "out", "--rank", 0, "--world-size", 1),
        ("merge", tmp_path / "out"),
    ):
        outcome = kfer_convert(*arguments)
        assert outcome.status == 2
        assert "nothing is planned here. First: kfer-convert plan" in outcome.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("rank", "of"), [(3, 3), (-1, 3), (0, 0)])
def test_a_rank_that_is_none(sample, tmp_path, rank, of):
    planned(sample, tmp_path / "out")
    with pytest.raises(CallError, match="ranks are numbered from 0"):
        ranks.run_shards(tmp_path / "out", rank, of)


def test_a_source_that_changed_since_it_was_planned(source, tmp_path):
    planned(source, tmp_path / "out")
    os.utime(source / "22_emo_train.tfrecords", (1, 1))
    with pytest.raises(CallError, match="not those of the plan"):
        ranks.run_shards(tmp_path / "out", 0, 1)


def test_an_option_of_a_plan_that_is_none(sample, tmp_path):
    planned(sample, tmp_path / "out")
    path = tmp_path / "out.incomplete" / "plan.json"
    document = json.loads(path.read_text())
    document["options"]["allow_mismatch"] = None
    path.write_text(json.dumps(document))
    with pytest.raises(CallError, match=r"kfer-convert plan"):
        ranks.run_shards(tmp_path / "out", 0, 1)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"shards": 1}'])
def test_a_plan_that_is_none(sample, tmp_path, text):
    planned(sample, tmp_path / "out")
    (tmp_path / "out.incomplete" / "plan.json").write_text(text)
    with pytest.raises(CallError, match=r"kfer-convert plan"):
        ranks.run_shards(tmp_path / "out", 0, 1)


def test_a_damaged_record_is_an_error_of_its_rank_and_the_others_are_kept(source, tmp_path):
    flip(source / "multi-label_test.tfrecords", 40)
    out = tmp_path / "out"
    count = planned(source, out).shards
    outcomes = [run("run-shards", out, "--rank", rank, "--world-size", 4) for rank in range(4)]
    assert sorted(outcome.returncode for outcome in outcomes) == [0, 0, 0, 1]
    (failed,) = [outcome for outcome in outcomes if outcome.returncode]
    assert "multi-label_test.tfrecords (record 0, byte 0)" in failed.stderr
    with pytest.raises(CallError, match=f"of {count} shards are not finished"):
        ranks.merge(out)


def test_a_check_that_fails_at_the_merge_keeps_the_shards(source, tmp_path):
    description = json.loads((source / "dataset.json").read_text())
    description["configs"]["22_emo"]["splits"]["test"]["records"] = 1
    (source / "dataset.json").write_text(json.dumps(description))
    out = tmp_path / "out"
    planned(source, out)
    ranks.run_shards(out, 0, 1)
    with pytest.raises(CheckError):
        ranks.merge(out)
    assert not out.exists()
    assert (tmp_path / "out.incomplete" / "plan.json").is_file()


def test_a_rank_that_is_killed_is_started_again(sample, tmp_path):
    out = tmp_path / "out"
    planned(sample, out)
    command = [sys.executable, "-m", "converters", "run-shards", str(out), "--rank", "0", "--world-size", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not list(tmp_path.glob("out.incomplete/shards/*/*/*.json")):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert run("run-shards", out, env=os.environ | {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}).returncode == 0
    assert run("merge", out).returncode == 0
    assert run("verify", out, "--source", sample).returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_no_merge_while_a_rank_runs_and_ranks_do_not_disturb_each_other(sample, tmp_path):
    out = tmp_path / "out"
    planned(sample, out)

    def progress(stage: str, count: int) -> None:
        if not seen:
            seen.append(run("merge", out))
            seen.append(run("run-shards", out, "--rank", 1, "--world-size", 2))

    seen = []
    ranks.run_shards(out, 0, 2, progress=progress)
    assert seen[0].returncode == 2
    assert "another run is writing this output" in seen[0].stderr
    assert seen[1].returncode == 0
    assert not ranks.merge(out).failures()


def test_an_ordinary_run_takes_up_what_ranks_have_done(sample, tmp_path):
    out = tmp_path / "out"
    count = planned(sample, out).shards
    done, _ = ranks.run_shards(out, 0, 2)
    report = convert(sample.absolute(), to="parquet", out=out, max_shard_bytes=SHARD_BYTES)
    assert report.resumed_shards == done < count
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_quarantine_is_not_for_ranks(sample, tmp_path):
    with pytest.raises(CallError, match="quarantine"):
        planned(sample, tmp_path / "out", on_error="quarantine")


def test_an_output_is_replaced_where_the_plan_says_so(sample, tmp_path, kfer_convert):
    out = tmp_path / "out"
    convert(sample, to="jpeg", out=out, configs=["22_emo"])
    arguments = ("plan", sample, "--to", "parquet", "--config", "22_emo", "--out", out)
    assert kfer_convert(*arguments).status == 2
    assert kfer_convert(*arguments, "--overwrite").status == 0
    assert kfer_convert("run-shards", out, "--rank", 0, "--world-size", 1).status == 0
    assert kfer_convert("merge", out).status == 0
    assert list(out.rglob("*.parquet"))
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


@pytest.mark.parametrize(
    "change",
    [
        lambda cuts: [*cuts[:-4], 10**30, 0, 0, 0],
        lambda cuts: [*cuts[:-4], 9, 0, 0, 0],
        lambda cuts: [*cuts[:-4], 2**62, 0, 0, 0],
        lambda cuts: [-1, -5, *cuts[2:]],
        lambda cuts: [*cuts[:4], *cuts],
        lambda cuts: [*cuts[4:8], *cuts[:4], *cuts[8:]],
        lambda cuts: [*cuts[:5], 10**9, *cuts[6:]],
        lambda cuts: cuts[:-1],
        lambda cuts: [],
        lambda cuts: None,
    ],
)
def test_cuts_that_do_not_tile_the_source_are_no_plan(sample, tmp_path, kfer_convert, change):
    out = tmp_path / "out"
    planned(sample, out, configs=("6_basic_emo",), splits=("train",))
    path = tmp_path / "out.incomplete" / "plan.json"
    document = json.loads(path.read_text())
    document["shards"][0]["cuts"] = change(document["shards"][0]["cuts"])
    path.write_text(json.dumps(document))
    for arguments in (("run-shards", out, "--rank", 0, "--world-size", 1), ("merge", out)):
        outcome = kfer_convert(*arguments)
        assert outcome.status == 2
        assert "the plan is none of this version" in outcome.err


def test_a_plan_that_does_not_say_whether_to_overwrite_does_not(sample, tmp_path, kfer_convert):
    out = tmp_path / "out"
    planned(sample, out)
    path = tmp_path / "out.incomplete" / "plan.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "overwrite": "no"}))
    ranks.run_shards(out, 0, 1)
    out.mkdir()
    outcome = kfer_convert("merge", out)
    assert outcome.status == 2
    assert "exists already" in outcome.err
