"""Tables and images of an evaluation: what they say, that they appear whole, and that nothing stays behind."""

import csv
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import orjson
import pytest
from matplotlib.figure import Figure
from PIL import Image

from training import evaluation_plots
from training.evaluation_plots import (
    MISTAKES,
    draw_confusion,
    draw_corruptions,
    draw_mistakes,
    draw_reliability,
    write_confusion,
    write_corruptions,
    write_reliability,
)

REPOSITORY = Path(__file__).resolve().parents[2]


def part(confidence, accuracy, images):
    return {"confidence": confidence, "accuracy": accuracy, "images": images}


@pytest.fixture
def evaluation(classes):
    """As it is read back from evaluation.json; a class without images, intervals without images."""
    confusion = 80 * np.eye(10, dtype=int) + 2
    confusion[3] = 0
    content = {
        "accuracy": 0.82,
        "calibration_error": 0.011,
        "calibration_error_before": 0.054,
        "temperature": 1.37,
        "corrupted_accuracy": 0.61,
        "classes": {name: {"precision": 0.8, "recall": None} for name in classes},
        "confusion": confusion.tolist(),
        "reliability": [part(None, None, 0)] * 12 + [part(0.85, 0.9, 10), part(0.9, 0.85, 20), part(0.97, 0.96, 70)],
        "corruptions": {f"kind_{index}": [0.8, 0.7, 0.6, 0.5, index / 20] for index in range(10)},
    }
    return orjson.loads(orjson.dumps(content))


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are written, to be looked into."""
    figures = []
    save = Figure.savefig

    def keep(figure, *arguments, **options):
        figures.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def draw(name, evaluation, path):
    getattr(evaluation_plots, f"draw_{name}")(evaluation, path)


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def pictures(count):
    """The red of an image's first pixel is its index, so a drawn one is known again."""
    images = np.zeros((count, 32, 32, 3), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(count)
    return images


from_json = pytest.mark.parametrize("name", ["confusion", "reliability", "corruptions"])


def test_the_table_of_confusion_has_a_row_for_each_image_in_their_order(tmp_path):
    write_confusion(np.array([0, 9, 0]), np.array([0, 3, 1]), tmp_path / "plots" / "confusion.csv")
    assert (tmp_path / "plots" / "confusion.csv").read_text(encoding="utf-8") == (
        "actual,predicted\nairplane,airplane\ntruck,cat\nairplane,automobile\n"
    )


def test_the_table_of_reliability_has_a_row_for_each_interval_with_images(evaluation, tmp_path):
    write_reliability(evaluation, tmp_path / "reliability.csv")
    assert rows(tmp_path / "reliability.csv") == [
        ["confidence", "accuracy", "images"],
        *(["0.85", "0.9", "10"], ["0.9", "0.85", "20"], ["0.97", "0.96", "70"]),
    ]


def test_the_table_of_corruptions_has_a_row_for_each_strength(evaluation, tmp_path):
    write_corruptions(evaluation, tmp_path / "corruptions.csv")
    header, *lines = rows(tmp_path / "corruptions.csv")
    assert header == ["corruption", "severity", "accuracy"]
    assert len(lines) == 50
    assert lines[:2] == [["kind_0", "1", "0.8"], ["kind_0", "2", "0.7"]]
    assert lines[-1] == ["kind_9", "5", "0.45"]


@from_json
def test_a_image_is_drawn_from_the_content_of_the_file_alone(name, evaluation, tmp_path):
    path = tmp_path / "new" / f"{name}.png"
    draw(name, evaluation, path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert 400 < picture.width < 1200
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 20  # something is on it
    assert path.stat().st_size < 150_000


@from_json
def test_the_same_figures_give_the_same_bytes(name, evaluation, tmp_path):
    for file in ("a.png", "b.png"):
        draw(name, evaluation, tmp_path / file)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_confusion_says_what_share_of_a_true_class_went_where(evaluation, drawn, tmp_path, classes):
    draw_confusion(evaluation, tmp_path / "a.png")
    (axes,) = drawn[0].axes
    said = {text.get_position(): text.get_text() for text in axes.texts}
    assert said[(0, 0)] == "82"
    assert said[(1, 0)] == "2"
    assert not [place for place in said if place[1] == 3]  # the class without images
    assert [label.get_text() for label in axes.get_yticklabels()] == list(classes)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")


def test_reliability_says_the_error_before_and_after_and_draws_gap_and_histogram(evaluation, drawn, tmp_path):
    draw_reliability(evaluation, tmp_path / "a.png")
    upper, lower = drawn[0].axes
    assert upper.get_title() == "Calibration error 5.40% before, 1.10% with temperature 1.37"
    accuracy, gap = ([bar.get_height() for bar in bars] for bars in upper.containers)
    assert accuracy == pytest.approx([0.9, 0.85, 0.96])
    assert gap == pytest.approx([-0.05, 0.05, 0.01])
    assert [bar.get_y() for bar in upper.containers[1]] == pytest.approx([0.9, 0.85, 0.96])
    assert [bar.get_x() for bar in upper.containers[0]] == pytest.approx([12 / 15, 13 / 15, 14 / 15])
    assert [bar.get_height() for bar in lower.containers[0]] == pytest.approx([0.1, 0.2, 0.7])


def test_corruptions_have_a_panel_each_with_the_accuracy_by_strength(evaluation, drawn, tmp_path):
    draw_corruptions(evaluation, tmp_path / "a.png")
    panels = drawn[0].axes
    assert [axes.get_title() for axes in panels] == [f"kind {index}" for index in range(10)]
    for axes, accuracies in zip(panels, evaluation["corruptions"].values(), strict=True):
        own = axes.lines[-1]
        np.testing.assert_array_equal(own.get_xdata(), [1, 2, 3, 4, 5])
        np.testing.assert_array_equal(own.get_ydata(), accuracies)


def test_the_gallery_shows_the_most_confident_mistakes_first_and_nothing_that_is_right(drawn, tmp_path):
    count = 40
    probabilities = np.full((count, 10), 0.01, dtype=np.float32)
    confidences = 0.5 + np.random.default_rng(0).permutation(count) / 100
    probabilities[np.arange(count), 5] = confidences  # dog
    labels = np.where(np.arange(count) < 5, 5, 3)  # the first five are dogs, the rest are cats
    draw_mistakes(pictures(count), labels, probabilities, tmp_path / "a.png")
    shown = [axes for axes in drawn[0].axes if axes.images]
    expected = [index for index in np.argsort(-confidences) if index >= 5][:MISTAKES]
    assert [axes.images[0].get_array()[0, 0, 0] for axes in shown] == expected
    assert shown[0].get_title() == f"cat → dog\n{confidences[expected[0]]:.1%}"
    assert all(axes.images[0].get_interpolation() == "nearest" for axes in shown)
    assert "The 24 most confident of 35 mistakes" in drawn[0].get_suptitle()


@pytest.mark.parametrize("mistakes", [0, 1, 7])
def test_the_gallery_is_written_with_fewer_mistakes_too(mistakes, drawn, tmp_path):
    labels = np.zeros(10, dtype=np.int64)
    probabilities = np.zeros((10, 10), dtype=np.float32)
    probabilities[np.arange(10), (np.arange(10) < mistakes).astype(int)] = 1
    draw_mistakes(pictures(10), labels, probabilities, tmp_path / "a.png")
    assert len([axes for axes in drawn[0].axes if axes.images]) == mistakes
    assert (tmp_path / "a.png").stat().st_size > 1000


@from_json
def test_a_disk_that_fills_up_leaves_the_old_image(name, evaluation, tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def fill(figure, file, **_):
        Path(file).write_bytes(b"\x89PNG half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr(Figure, "savefig", fill)
    with pytest.raises(OSError, match="no space left"):
        draw(name, evaluation, path)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a.png", b"old")]


def test_a_table_that_cannot_be_written_leaves_the_old_one(evaluation, tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"old")
    evaluation["reliability"].append({"images": 1})  # neither confidence nor accuracy
    with pytest.raises(KeyError):
        write_reliability(evaluation, path)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a.csv", b"old")]


def test_drawing_leaves_matplotlibs_settings_as_they_were(evaluation, tmp_path):
    with matplotlib.rc_context({"font.size": 17, "axes.spines.top": True}):
        before = dict(matplotlib.rcParams)
        draw_reliability(evaluation, tmp_path / "a.png")
        assert dict(matplotlib.rcParams) == before


def test_drawing_needs_no_pyplot_and_no_display():
    program = "import sys, training.evaluation_plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True)
