import json
import sys
from importlib import metadata

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from cifar.cli import main as cli
from cifar.client import ModelNotFound, ServerUnreachable


@pytest.fixture(autouse=True)
def wide_plain_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def folder(tmp_path, images):
    """frog.png, one image of class 6, and two.npy, images of classes 3 and 8."""
    Image.fromarray(images[6]).save(tmp_path / "frog.png")
    np.save(tmp_path / "two.npy", images[[3, 8]])
    return tmp_path


@pytest.fixture
def predict(server):
    def run(*arguments):
        return CliRunner().invoke(cli.app, ["predict", "--url", server.url, *map(str, arguments)])

    return run


@pytest.fixture
def run_main(monkeypatch, capsys):
    """Run the command as the shell does: exit status, standard output, standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["cifar", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return caught.value.code, *capsys.readouterr()

    return run


def row_of(name, output):
    (line,) = [line for line in output.splitlines() if name in line]
    return line


def test_table_shows_label_and_confidence_of_each_image(predict, folder):
    result = predict(folder)
    assert result.exit_code == 0
    assert "frog" in row_of("frog.png", result.stdout)
    assert "75.0% ████████░░" in row_of("two.npy[0]", result.stdout)
    assert "ship" in row_of("two.npy[1]", result.stdout)


def test_line_below_the_table_tells_version_count_and_address(predict, folder, server):
    assert f"3 of 3 predicted by model version 1.0 at {server.url}" in predict(folder).stdout


def test_top_k_shows_further_guesses(predict, folder):
    output = predict(folder, "--top-k", 4).stdout
    assert "deer 25.0%, dog 8.3%, frog 2.8%" in row_of("two.npy[0]", output)
    assert "Further" not in predict(folder).stdout


def test_version_and_top_k_reach_the_server(predict, folder, server):
    predict(folder, "--version", "1.1", "--top-k", 2)
    assert {request.path for request in server.requests} == {"/predictions/cifar/1.1"}
    assert [request.top_k for request in server.requests] == ["2"] * 2


def test_json_is_one_document_and_nothing_else(predict, folder):
    result = predict(folder / "two.npy", "--json", "--top-k", 1)
    assert json.loads(result.stdout) == {
        "model_version": "1.0",
        "predictions": [
            {
                "file": f"{folder}/two.npy[{place}]",
                "label": label,
                "class_index": index,
                "confidence": 0.75,
                "top_k": [{"label": label, "confidence": 0.75}],
            }
            for place, (label, index) in enumerate([("cat", 3), ("ship", 8)])
        ],
    }


def test_name_that_looks_like_markup_is_shown_as_it_is(predict, tmp_path, images):
    Image.fromarray(images[0]).save(tmp_path / "[red]cat[a].png")
    assert "[red]cat[a].png" in predict(tmp_path).stdout


def test_unreadable_files_do_not_stop_the_others(predict, folder):
    (folder / "diary.png").write_text("Dear diary")
    np.save(folder / "first.npy", np.zeros((3, 32, 32), np.uint8))
    result = predict(folder, folder / "missing.png")
    assert result.exit_code == 1
    assert "not an image" in row_of("diary.png", result.stdout)
    assert "3 of 6 predicted" in result.stdout
    document = json.loads(predict(folder, folder / "missing.png", "--json").stdout)
    failed = {entry["file"].rpartition("/")[2] for entry in document["predictions"] if "error" in entry}
    assert failed == {"diary.png", "first.npy", "missing.png"}
    assert [entry["label"] for entry in document["predictions"] if "label" in entry] == ["frog", "cat", "ship"]


def test_rows_of_errors_name_their_file_once(predict, folder):
    (folder / "frog.png").write_text("no frog")
    np.save(folder / "two.npy", np.zeros(3))
    assert predict(folder).stdout.count(str(folder)) == 2


def test_nothing_predicted_names_no_model(predict, tmp_path):
    result = predict(tmp_path / "missing.png")
    assert "None of 1 predicted" in result.stdout
    assert "version" not in result.stdout


def test_rejected_file_does_not_stop_the_others(predict, folder, server):
    server.refuse_when(lambda request: request.content_type == "image/png", "unreadable_picture", "It is broken.")
    result = predict(folder)
    assert result.exit_code == 1
    assert "It is broken. (400 unreadable_picture)" in row_of("frog.png", result.stdout)
    assert "2 of 3 predicted" in result.stdout


def test_rejected_piece_of_an_array_has_one_row_that_names_its_range(predict, tmp_path, server):
    np.save(tmp_path / "many.npy", np.zeros((300, 32, 32, 3), np.uint8))
    server.refuse_when(lambda request: len(request.body) > 256 * 3000, "wrong_length", "Too long.")
    document = json.loads(predict(tmp_path, "--json").stdout)
    name = f"{tmp_path}/many.npy"
    assert document["predictions"][0] == {
        "file": f"{name}[0] to {name}[255]",
        "error": "Too long. (400 wrong_length)",
    }
    assert len(document["predictions"]) == 1 + 44


def test_unknown_version_stops_at_once_and_is_named(predict, folder, server):
    server.answer_json(404, {"code": 404, "type": "ModelVersionNotFoundException", "message": "no"})
    result = predict(folder, "--version", "9.9")
    assert isinstance(result.exception, ModelNotFound)
    assert "9.9" in str(result.exception)
    assert len(server.requests) == 1


def test_server_that_goes_away_leaves_what_it_answered(predict, folder, server):
    server.fail_after(1)
    result = predict(folder)
    assert isinstance(result.exception, ServerUnreachable)
    assert "frog" in row_of("frog.png", result.stdout)


def test_unreachable_server_is_one_message_on_standard_error(run_main, closed_url):
    code, out, err = run_main("predict", "--url", closed_url, "--samples", "drawn", "--json")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert closed_url in err
    assert "make up" in err


def test_hanging_server_is_left_after_the_time_asked_for(run_main, server):
    server.hang()
    code, _, err = run_main("predict", "--url", server.url, "--samples", "drawn", "--timeout-s", 0.1)
    assert (code, "0.1 s" in err) == (1, True)


def test_failing_server_is_one_message_without_a_traceback(run_main, server):
    server.answer(500, b"out of [red]memory")
    code, _, err = run_main("predict", "--url", server.url, "--samples", "drawn")
    assert (code, "out of [red]memory" in err, "Traceback" in err) == (1, True, False)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--top-k", "0"],
        ["--top-k", "11"],
        ["--url", "127.0.0.1:8080"],
        ["--timeout-s", "0"],
        ["--samples", "photographs"],
        ["cat.png", "--samples", "drawn"],
        ["--no-such-option"],
    ],
    ids=" ".join,
)
def test_wrong_option_exits_with_2_before_anything_is_sent(predict, server, arguments):
    assert predict(*arguments).exit_code == 2
    assert server.requests == []


def test_ten_drawings_are_sent_and_called_drawings(predict, server):
    result = predict("--samples", "drawn")
    assert result.exit_code == 0
    assert len(server.requests) == 1
    assert "10 of 10 predicted" in result.stdout
    assert "drawings, not photographs" in result.stdout


def test_note_on_drawings_stays_out_of_the_json(predict):
    result = predict("--samples", "drawn", "--json")
    assert len(json.loads(result.stdout)["predictions"]) == 10
    assert "drawings, not photographs" in result.stderr


@pytest.mark.parametrize(("images", "shown"), [(50, False), (51, True)])
def test_progress_is_shown_on_standard_error_for_more_than_50_images(predict, tmp_path, monkeypatch, images, shown):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich draws bars for terminals only
    monkeypatch.setenv("TERM", "xterm")
    np.save(tmp_path / "many.npy", np.zeros((images, 32, 32, 3), np.uint8))
    result = predict(tmp_path, "--json")
    assert ("Predicting" in result.stderr) is shown
    assert len(json.loads(result.stdout)["predictions"]) == images


def test_predict_is_a_subcommand_beside_which_others_can_stand():
    result = CliRunner().invoke(cli.app, ["--help"])
    assert result.exit_code == 0
    assert "predict" in result.stdout


def test_main_lets_errors_of_the_program_itself_through(monkeypatch):
    monkeypatch.setattr(cli, "app", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_version_is_that_of_the_installed_package(run_main):
    assert run_main("--version") == (0, f"{metadata.version('cifar-torchserve')}\n", "")
