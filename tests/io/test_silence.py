"""Decoders print no warnings, and the settings of the calling program stay as they are."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import warnings

import pytest

from cascade.io.silence import LIBRARIES, silence_decoders


def warn_from(module):
    warnings.warn_explicit("PatientName: DOE^JANE", UserWarning, f"{module}.py", 1, module=module)


def test_importing_the_readers_changes_neither_warning_filters_nor_loggers():
    code = (
        "import logging, warnings, PIL.Image, h5py, nibabel, numpy, pydicom, tifffile;"
        "before = list(warnings.filters), [list(logging.getLogger(name).handlers) for name in sys.argv[1:]];"
        "import cascade.io.open, cascade.io.nifti, cascade.io.color16, cascade.io.dicom.series;"
        "after = list(warnings.filters), [list(logging.getLogger(name).handlers) for name in sys.argv[1:]];"
        "print(before == after)"
    )
    command = [sys.executable, "-c", f"import sys; {code}", *LIBRARIES]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["True"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("module", ["PIL", "PIL.TiffImagePlugin", "pydicom.misc", "highdicom.seg.sop"])
def test_only_the_libraries_are_silent_and_only_inside_the_block(module):
    with silence_decoders():
        warn_from(module)
        with pytest.raises(UserWarning):
            warn_from("PILlow")
    with pytest.raises(UserWarning):
        warn_from(module)


def test_settings_are_restored_after_an_error():
    def settings():
        return list(warnings.filters), [list(logging.getLogger(name).handlers) for name in LIBRARIES]

    def fail():
        with silence_decoders():
            assert settings() != before
            raise ValueError("damaged")

    before = settings()
    with pytest.raises(ValueError, match="damaged"):
        fail()
    assert settings() == before


@pytest.mark.filterwarnings("error")
def test_overlapping_blocks_of_two_threads_are_silent_until_the_last_one_ends():
    """`warnings.catch_warnings` alone would restore the filters at the end of the first block."""
    before = list(warnings.filters)
    entered, leave = threading.Event(), threading.Event()

    def block():
        with silence_decoders():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=block)
    with silence_decoders():
        thread.start()
        assert entered.wait(10)
        warn_from("pydicom")
    warn_from("pydicom")  # the block of the other thread still runs
    leave.set()
    thread.join()
    assert list(warnings.filters) == before
