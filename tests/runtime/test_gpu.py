"""The first GPU, queried from a simulated driver."""

import ctypes

import pytest

from cascade.runtime.gpu import Gpu, find_gpu

NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE


class Driver:
    """The driver of an RTX 3090. Its first call returns `error`."""

    def __init__(self, error):
        self.cuInit = lambda flags: error

    def cuDeviceGet(self, device, number):
        return 0

    def cuDeviceGetName(self, name, length, device):
        name.value = b"NVIDIA GeForce RTX 3090"
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):
        value._obj.value = {75: 8, 76: 6}[attribute]
        return 0


@pytest.mark.parametrize(
    ("error", "gpu"), [(0, Gpu("NVIDIA GeForce RTX 3090", "8.6")), (NO_DEVICE, None)], ids=["a GPU", "no GPU"]
)
def test_the_driver_is_queried(monkeypatch, error, gpu):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver(error))
    assert find_gpu() == gpu


def test_without_a_driver_there_is_no_gpu(monkeypatch):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert find_gpu() is None
