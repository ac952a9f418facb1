"""The package as people meet it in a notebook: its names, and what reports look like there."""

import subprocess
import sys
from importlib.metadata import version

import converters


def test_the_names_are_listed_and_nothing_is_imported_for_it():
    program = "import converters, sys; print(dir(converters)); assert 'pyarrow' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    for name in ("convert", "verify", "inspect", "push", "Report", "__version__"):
        assert f"'{name}'" in done.stdout
    assert all(hasattr(converters, name) for name in dir(converters))
    assert converters.__version__ == version("kfer-convert")


def test_reports_are_short_in_a_notebook(sample, tmp_path):
    report = converters.convert(sample, to="parquet", out=tmp_path / "<out>", configs=["22_emo"])
    inspection = converters.inspect(sample)
    for shown in (report, inspection, report.splits[0], inspection.splits[0]):
        assert len(repr(shown)) < 250
    for shown in (report, inspection):
        html = shown._repr_html_()
        assert "<td>22_emo</td>" in html
        assert len(html) < 5000
    assert repr(report).startswith("<Report ")
    assert "3 splits, verified>" in repr(report)
    assert "&lt;out&gt;" in report._repr_html_()
    assert "<out>" not in report._repr_html_()
