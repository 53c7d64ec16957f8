"""The GPUs of a simulated driver, by their numbers."""

from __future__ import annotations

import ctypes

import pytest

from cascade.errors import CascadeError
from cascade.runtime.gpu import Gpu, cuda_version, current_gpu, find_gpu, find_gpus, select_gpu

RTX_3090 = Gpu("NVIDIA GeForce RTX 3090", "8.6", 0, 24576)
H100 = Gpu("NVIDIA H100", "9.0", 1, 81920)
NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE


class Driver:
    """The driver of these GPUs. Its first call returns `error`."""

    def __init__(self, *gpus, error=0):
        self.gpus, self.error = gpus, error
        self.contexts = []

    def cuInit(self, flags):
        return self.error if flags == 0 else 1  # CUDA_ERROR_INVALID_VALUE

    def cuDriverGetVersion(self, version):
        version._obj.value = 13020
        return 0

    def cuDeviceGetCount(self, count):
        count._obj.value = len(self.gpus)
        return 0

    def cuDeviceGet(self, device, number):
        device._obj.value = number
        return 0

    def cuDeviceGetName(self, name, length, device):
        name.value = self.gpus[device.value].name.encode()
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):
        digits = self.gpus[device.value].compute_capability.split(".")
        value._obj.value = int(digits[{75: 0, 76: 1}[attribute]])
        return 0

    def cuDeviceTotalMem_v2(self, memory, device):
        memory._obj.value = self.gpus[device.value].memory_mb * 2**20
        return 0

    def cuDevicePrimaryCtxRetain(self, context, device):
        context._obj.value = device.value
        return 0

    def cuCtxPushCurrent_v2(self, context):
        self.contexts.append(context.value)
        return 0

    def cuCtxPopCurrent_v2(self, context):
        self.contexts.pop()
        return 0

    def cuDevicePrimaryCtxRelease_v2(self, device):
        return 0


@pytest.fixture
def use(monkeypatch):
    """use(driver): the driver of this machine."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return lambda driver: monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)


def test_every_gpu_is_described_in_cudas_order(use):
    use(Driver(RTX_3090, H100))
    assert find_gpus() == [RTX_3090, H100]
    assert [find_gpu(), find_gpu(1), find_gpu(2)] == [RTX_3090, H100, None]
    assert cuda_version() == "13.2"


def test_a_driver_without_a_gpu_has_none(use):
    use(Driver(RTX_3090, error=NO_DEVICE))
    assert find_gpu() is None
    assert find_gpus() == []


def test_without_a_driver_there_is_no_gpu(monkeypatch):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert find_gpu() is None
    assert cuda_version() is None
    with pytest.raises(CascadeError, match="no usable NVIDIA GPU") as raised:
        select_gpu()
    assert "onnxruntime" in raised.value.fix
    with pytest.raises(CascadeError, match="no usable NVIDIA GPU") as raised:
        select_gpu(0)  # also of `cascade build`, which has no --backend
    assert raised.value.fix == "omit --device, which chooses a GPU"


def test_a_gpu_is_selected_by_its_number(use):
    use(Driver(RTX_3090, H100))
    assert select_gpu() == select_gpu(0) == RTX_3090
    assert select_gpu(1) == H100


def test_a_number_that_does_not_exist_is_an_error_that_lists_the_gpus(use):
    use(Driver(RTX_3090, H100))
    with pytest.raises(CascadeError, match="--device 2") as raised:
        select_gpu(2)
    assert "0 (NVIDIA GeForce RTX 3090), 1 (NVIDIA H100)" in raised.value.fix


def test_the_error_names_the_variable_that_hides_gpus(use, monkeypatch):
    use(Driver(H100))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    with pytest.raises(CascadeError) as raised:
        select_gpu(1)
    assert "CUDA_VISIBLE_DEVICES=5" in raised.value.fix
    use(Driver(error=NO_DEVICE))
    with pytest.raises(CascadeError, match="CUDA_VISIBLE_DEVICES=5"):
        select_gpu()


def test_a_builder_uses_the_chosen_gpu_and_afterwards_the_first_one_again(use):
    driver = Driver(RTX_3090, H100)
    use(driver)
    with current_gpu(H100):
        assert driver.contexts == [1]
    assert driver.contexts == []


@pytest.mark.parametrize("gpu", [None, RTX_3090], ids=["no GPU", "the first GPU"])
def test_without_a_choice_nothing_is_changed(use, gpu):
    driver = Driver(RTX_3090)
    use(driver)
    with current_gpu(gpu):
        assert driver.contexts == []


def test_a_gpu_that_cannot_be_used_is_an_error(use):
    driver = Driver(RTX_3090, H100)
    driver.cuDevicePrimaryCtxRetain = lambda context, device: 46  # CUDA_ERROR_DEVICE_UNAVAILABLE
    use(driver)
    with pytest.raises(CascadeError, match=r"--device 1.*46"), current_gpu(H100):
        pass
