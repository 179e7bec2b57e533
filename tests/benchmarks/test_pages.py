"""docs/performance.md: it says what the files of results say."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from benchmarks import pages
from benchmarks.measure import ROOT, Options, Ratio, machine, save

RATIOS = [
    Ratio(name="tiny-llama, plain", peer="HF Trainer", values=[1.7, 1.5, 1.9], goal=1.6, ours=12340.0, theirs=7000.0),
    Ratio(name="time of a <kpod> step", peer="ours | plain", values=[1.05], at_most=1.02),
    Ratio(name="no target", peer="another", values=[0.5]),
]


@pytest.fixture
def made(tmp_path):
    save("training", RATIOS, machine(Options()) | {"busy": 0.1}, tmp_path)
    return pages.page_and_pictures(tmp_path)


def test_the_page_has_every_target_and_whether_it_is_met(made):
    text = made["performance.md"]
    assert "| tiny-llama, plain | HF Trainer | ≥ 1.6 | 1.70 | met |" in text
    assert "| time of a &lt;kpod&gt; step | ours \\| plain | ≤ 1.02 | 1.05 | **not met** |" in text
    assert text.count("no target") == 1  # in the section's own table alone


def test_the_page_has_medians_with_their_spread_and_the_machine(made):
    text = made["performance.md"]
    assert "| tiny-llama, plain | HF Trainer | 1.70 | 1.50 to 1.90 (3) | 12,340 | 7,000 |" in text
    assert "one thread; the machine was idle when it began" in text and "torch " in text


def test_a_plot_is_a_picture_with_a_bar_for_each_ratio(made):
    root = ElementTree.fromstring(made["pictures/performance-training.svg"])
    bars = [e for e in root.iter("{http://www.w3.org/2000/svg}rect") if e.get("fill") == pages.BLUE]
    widths = [float(bar.get("width", "0")) for bar in bars]
    assert len(widths) == 3 and widths[0] / widths[2] == pytest.approx(1.7 / 0.5, rel=0.01)


def test_the_page_in_the_docs_is_that_of_the_files_of_results():
    for name, text in pages.page_and_pictures().items():
        assert (pages.PAGE.parent / name).read_text(encoding="utf-8") == text, "run `python -m benchmarks --page`"


@pytest.mark.parametrize(
    ("section", "message"),
    [("gpu", "section gpu: torch finds no CUDA device"), ("speed", "no section speed; there is")],
)
def test_what_cannot_be_measured_ends_in_one_line(section, message):
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks", section, "--quick"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"CUDA_VISIBLE_DEVICES": ""},
    )
    assert ran.returncode == 2 and ran.stdout.strip() in ("", section)
    assert len(ran.stderr.splitlines()) == 1 and message in ran.stderr
