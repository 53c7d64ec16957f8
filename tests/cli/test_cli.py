"""The command line as a user meets it, on two tiny graphs: what is brighter than 200 is tumor, every tumor glioma."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from cascade.cli import main
from cascade.evaluation.schema import Failures
from cascade.files import sha256_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def scans(tmp_path):
    """Three slices, of which one shows no tumor."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for name, top in (("a.png", 255), ("b.png", 250), ("c.png", 100)):
        pixels = np.tile(np.linspace(0, 100, 64), (48, 1))
        pixels[10:20, 20:30] = top
        Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
    return folder


def run(*arguments):
    """The exit code."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return stopped.value.code


def test_predict_reports_on_stderr_only(scans, models, tmp_path, capsys):
    assert run("predict", scans, "--out", tmp_path / "out", "--models", models) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Predicted 3 slices in" in printed.err
    assert "Not a medical device" in printed.err
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [record["class"] for record in content["slices"]] == ["glioma", "glioma", None]
    assert content["models"]["segmenter"] == sha256_of(models / "segmenter.onnx")
    assert Image.open(tmp_path / "out" / "masks" / "a.png").size == (64, 48)


def test_predict_names_failed_files_and_exits_with_2(scans, models, tmp_path, capsys):
    (scans / "broken[red].png").write_text("not a picture")
    assert run("predict", scans, "--out", tmp_path / "out", "--models", models) == 2
    printed = capsys.readouterr().err
    assert f"failed: {scans / 'broken[red].png'}: cannot be read as an image" in printed
    assert "fix: export the slice again" in printed


def test_predict_prints_at_most_20_failures(scans, models, tmp_path, capsys):
    for number in range(25):
        (scans / f"broken{number}.png").write_text("not a picture")
    assert run("predict", scans, "--out", tmp_path / "out", "--models", models) == 2
    printed = capsys.readouterr().err
    assert printed.count("failed: ") == 20
    assert "and 5 more, see results.csv" in printed


def test_predict_exits_with_1_if_no_input_can_be_predicted(scans, models, tmp_path, capsys):
    assert run("predict", tmp_path / "missing", "--models", models) == 1
    assert "missing: there is no such file or folder\n  fix: check the path" in capsys.readouterr().err
    for path in scans.iterdir():
        path.write_text("not a picture")
    assert run("predict", scans, "--out", tmp_path / "out", "--models", models) == 1


def test_predict_replaces_results_only_with_overwrite(scans, models, tmp_path, capsys):
    arguments = ("predict", scans, "--out", tmp_path / "out", "--models", models)
    assert run(*arguments) == 0
    assert run(*arguments) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert run(*arguments, "--overwrite") == 0


def test_predict_resumes_a_run_and_reports_how_much_was_done_before(scans, models, tmp_path, capsys):
    arguments = ("predict", scans, "--out", tmp_path / "out", "--models", models)
    assert run(*arguments) == 0
    assert run(*arguments, "--resume") == 0
    assert "Kept 3 slices" in capsys.readouterr().err
    assert run(*arguments, "--resume", "--dry-run") == 0
    assert "With --resume" in capsys.readouterr().err
    assert run(*arguments, "--resume", "--overwrite") == 1


def test_a_dry_run_lists_inputs_and_skipped_files_with_reasons_and_writes_nothing(scans, models, tmp_path, capsys):
    (scans / "notes.txt").write_text("no slice")
    (scans / "broken.nii").write_bytes(b"no header")
    arguments = ("--out", tmp_path / "out", "--exclude", "b.*", "--dry-run")
    assert run("predict", scans, *arguments) == 0
    printed = capsys.readouterr().err
    assert "2 slices of 2 inputs" in printed
    assert "--resume" not in printed
    (tmp_path / "file").touch()
    assert run("predict", scans, "--out", tmp_path / "file", "--dry-run") == 1
    assert "it is a file" in capsys.readouterr().err
    for name in ("notes.txt", "b.png", "broken.nii"):
        assert name in printed
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--json", "--quiet"])
def test_a_dry_run_refuses_the_options_that_it_would_ignore(scans, option, capsys):
    assert run("predict", scans, "--dry-run", option) == 1
    assert "--dry-run cannot be combined" in capsys.readouterr().err


def test_a_closed_stdin_is_named(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", None)
    assert run("predict", "-") == 1
    assert "stdin is closed" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="Windows removes no folder that a process is in")
@pytest.mark.parametrize("module", [True, False])
def test_a_current_folder_that_was_removed_is_named(tmp_path, module):
    code = "import os, runpy, sys\nos.rmdir(os.getcwd())\n"
    code += "runpy.run_module('cascade', run_name='__main__')" if module else "from cascade.cli import main\nmain()"
    command = [sys.executable, "-c", code, "info"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "the current folder cannot be opened" in done.stderr


def test_a_list_of_files_is_taken_from_stdin_and_results_can_go_to_stdout(scans, models, tmp_path):
    arguments = ["predict", "-", "--out", tmp_path / "out", "--models", models, "--json", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "cascade", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        input=f"{scans / 'a.png'}\n{scans / 'c.png'}\n",
        text=True,
        timeout=120,
    )
    assert done.stderr == ""
    assert [record["slice"] for record in json.loads(done.stdout)["slices"]] == ["a.png", "c.png"]


def test_info_shows_versions_models_and_backends_as_text_and_json(models, capsys):
    assert run("info", "--models", models) == 0
    assert sha256_of(models / "segmenter.onnx")[:12] in capsys.readouterr().err
    assert run("info", "--models", models, "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["backends"]["onnxruntime"]["runs"] is True
    assert content["models"]["classifier"]["sha256"] == sha256_of(models / "classifier.onnx")
    assert "numpy" in content["machine"]["versions"]


def test_predict_writes_nothing_when_the_models_are_missing(scans, tmp_path, capsys):
    assert run("predict", scans, "--out", tmp_path / "out", "--models", tmp_path) == 1
    assert "models.json" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("paths", [["", "--out", "r"], ["a.png", "--out", ""]])
def test_an_empty_path_is_not_the_current_folder(paths, tmp_path, monkeypatch, capsys):
    """A shell passes one for a variable that is not set."""
    monkeypatch.chdir(tmp_path)
    assert run("predict", *paths) == 1
    assert "is empty" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_quiet_prints_errors_only(scans, models, tmp_path, capsys):
    assert run("predict", scans, "--out", tmp_path / "one", "--models", models, "--quiet") == 0
    assert capsys.readouterr().err == ""
    (scans / "broken.png").write_text("not a picture")
    assert run("predict", scans, "--out", tmp_path / "two", "--models", models, "--quiet") == 2
    assert capsys.readouterr().err.startswith("failed: ")


def python(*arguments):
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_predict_in_its_own_process_loads_nothing_of_training_or_evaluation(scans, models, tmp_path):
    code = (
        "import sys, cascade.cli\n"
        "try: cascade.cli.main(sys.argv[1:])\n"
        "finally: print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = python("-c", code, "predict", scans, "--out", tmp_path / "out", "--models", models)
    assert done.returncode == 0, done.stderr
    heavy = {"torch", "tensorrt", "train", "build_engines", "sklearn", "scipy", "matplotlib"}
    assert heavy.isdisjoint(done.stdout.split())


def test_the_command_line_loads_no_heavy_package():
    done = python("-c", "import sys, cascade.cli; print(*sorted({name.split('.')[0] for name in sys.modules}))")
    assert {"torch", "sklearn", "scipy", "matplotlib", "onnxruntime", "h5py", "PIL"}.isdisjoint(done.stdout.split())


def test_python_m_cascade_is_the_command(scans, models, tmp_path):
    done = python("-m", "cascade", "predict", scans, "--out", tmp_path / "out", "--models", models)
    assert (done.returncode, done.stdout) == (0, "")
    assert python("-m", "cascade", "--version").stdout.startswith("cascade ")


@pytest.mark.skipif(os.name != "posix", reason="signals are sent otherwise on Windows")
@pytest.mark.parametrize("pressed", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_exits_with_130_and_keeps_the_results_so_far(models, tmp_path, pressed):
    pixels = np.tile(np.linspace(0, 255, 64), (64, 1)).astype(np.uint8)
    (tmp_path / "scans").mkdir()
    for number in range(3000):
        Image.fromarray(pixels).save(tmp_path / "scans" / f"{number}.png", compress_level=0)
    with zipfile.ZipFile(tmp_path / "scans" / "z.zip", "w") as archive:
        archive.write(tmp_path / "scans" / "0.png", "patient_jane.png")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    arguments = ["predict", str(tmp_path / "scans"), "--out", str(tmp_path / "out"), "--models", str(models)]
    running = subprocess.Popen(
        [sys.executable, "-m", "cascade", *arguments],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(temporary)},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(pressed, signal.SIG_DFL),  # what a shell runs in the background ignores Ctrl-C
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "out" / "masks").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    running.send_signal(pressed)
    printed = running.communicate(timeout=60)[1]
    assert running.returncode == 130, printed
    assert "Interrupted" in printed
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    assert content["complete"] is False
    written = {path.name for path in (tmp_path / "out" / "masks").iterdir()}
    assert {record["slice"] for record in content["slices"]} == written
    assert len(written) < 3000
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [
        "",
        "predict",
        "info",
        "evaluate",
        "build",
        "benchmark",
        "data inspect",
        "data split",
        "train segmenter",
        "train classifier",
        "train both",
        "train crossval",
        "train export",
    ],
)
def test_every_help_fits_a_screen_and_gives_an_example(command, capsys):
    assert run(*command.split(), "--help") == 0
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) <= 50
    assert "Example: cascade" in printed or "Not a medical device" in printed
    options, _, example = printed.partition("Options")[2], *printed.partition("Example:")[1:]
    for option in re.findall(r"--[a-z-]+", example.partition("╭")[0]):
        assert f"{option} " in options


def test_data_inspect_exits_with_2_if_files_are_broken(tmp_path, write_mat, capsys):
    write_mat(tmp_path / "1.mat")
    assert run("data", "inspect", tmp_path) == 0
    assert "meningioma" in capsys.readouterr().err
    (tmp_path / "2.mat").write_text("not MATLAB")
    assert run("data", "inspect", tmp_path, "--json") == 2
    printed = capsys.readouterr()
    assert "2.mat" in json.dumps(json.loads(printed.out)["broken"])
    assert printed.err == ""


def test_a_split_counts_subjects_not_patient_ids(tmp_path, write_mat, capsys):
    """The table counted 18 instead of nine subjects with two ids each: three per class, one of them in each part."""
    random = np.random.default_rng(0)
    for number in range(18):
        patient = f"MR{number // 2:06}{'B' * (number % 2)}"
        write_mat(
            tmp_path / f"{number}.mat", random.integers(0, 99, (20, 30)), label=number // 2 % 3 + 1, patient=patient
        )
    assert run("data", "split", tmp_path) == 0
    rows = [re.findall(r"[\w.]+", line) for line in capsys.readouterr().err.splitlines()]
    assert [row for row in rows if row[:1] in (["train"], ["validation"], ["test"])] == [
        [part, "2", "2", "2", "6", "3"] for part in ("train", "validation", "test")
    ]


def test_evaluate_needs_either_a_split_or_the_option_for_the_whole_folder(tmp_path, capsys):
    assert run("evaluate", tmp_path) == 1
    assert "--split FILE or --no-split" in capsys.readouterr().err
    assert run("evaluate", tmp_path, "--no-split", "--split", tmp_path / "split.json") == 1
    capsys.readouterr()
    assert run("evaluate", tmp_path, "--no-split", "--subset", "validation") == 1
    assert "--subset" in capsys.readouterr().err


@pytest.mark.parametrize("failed", [0, 2])
def test_evaluate_exits_with_2_if_slices_could_not_be_used(tmp_path, monkeypatch, failed):
    """The exit code was 0, and no failed slice was named."""
    evaluation = SimpleNamespace(failed=Failures(failed, ("broken",) * failed))
    monkeypatch.setattr("cascade.evaluation.evaluate.evaluate", lambda *_, **__: evaluation)
    monkeypatch.setattr("cascade.cli.evaluate_output.evaluation_table", lambda evaluation: "")
    assert run("evaluate", tmp_path, "--no-split") == failed


@pytest.mark.skipif(os.name != "posix", reason="signals are sent otherwise on Windows")
def test_ctrl_c_during_start_up_prints_no_traceback(tmp_path):
    """The user presses Ctrl-C during the imports, which take most of a second."""
    (tmp_path / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    code = "import signal, runpy\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "runpy.run_module('cascade', run_name='__main__')"
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-c", code, "--version"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
