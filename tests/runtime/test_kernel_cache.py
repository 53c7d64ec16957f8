"""TensorRT-RTX on a GPU made of NumPy: it compiles its kernels once, not at each start, and captures CUDA graphs."""

from __future__ import annotations

import gc
import json
import re

import pytest
from numpy_gpu import Context, Pycuda, RtxExecution, RuntimeCache, check, reset, slices_of, tensorrt

from cascade.runtime.gpu import Gpu
from cascade.runtime.kernel_cache import kernel_cache
from cascade.runtime.tensorrt_backend import TensorRtBackend
from cascade.runtime.tensorrt_engine import LoadedEngine

A4000 = Gpu("NVIDIA RTX A4000", "8.6")
GRAPHS = ("segmenter", "classifier")
COMPILED_FOR_TWO_SLICES = [b"segmenter 2", b"classifier 2"]


def caches(folder, engine="engine", version="1.7", gpu=A4000):
    """The kernel cache of both graphs; `engine` stands for the hash of their engines."""
    return {name: kernel_cache(folder / f"{name}.tensorrt-rtx.engine", engine, version, gpu) for name in GRAPHS}


def start(kernels=None, batches=(1, 4)):
    """Start the backend in a new process, as far as the simulation goes."""
    reset()
    module = tensorrt(dict.fromkeys(GRAPHS, batches), "tensorrt_rtx")
    return TensorRtBackend(module, Pycuda, {name: name.encode() for name in GRAPHS}, kernels=kernels)


def run(kernels, *batches):
    """Start the backend and run batches. Returns the kernels that were compiled for them."""
    backend = start(kernels)
    for batch in batches:
        check(backend.submit(slices_of(*batch)).result(), batch)
    assert Context.depth == 0
    return list(RtxExecution.compiled)


def test_kernels_are_compiled_at_the_first_start_only(tmp_path):
    assert run(caches(tmp_path), (1, 2), (3, 4)) == COMPILED_FOR_TWO_SLICES
    assert run(caches(tmp_path), (5, 6)) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "classifier.tensorrt-rtx.nvidia-rtx-a4000.kernels",
        "segmenter.tensorrt-rtx.nvidia-rtx-a4000.kernels",
    ]


def test_without_a_cache_kernels_are_compiled_at_each_start():
    """What happened before there was a cache."""
    assert run(None, (1, 2)) == COMPILED_FOR_TWO_SLICES
    assert run(None, (1, 2)) == COMPILED_FOR_TWO_SLICES


def test_kernels_of_a_later_batch_size_are_added_to_the_file(tmp_path):
    run(caches(tmp_path), (1, 2))
    assert run(caches(tmp_path), (1, 2), (3,)) == [b"segmenter 1", b"classifier 1"]
    assert run(caches(tmp_path), (1, 2), (3,)) == []


def test_kernels_of_the_last_batch_are_saved_whatever_its_number(tmp_path):
    """It is smaller than the others, and came to no save, which followed batch 1, 2, 4, 8 and so on."""
    batches = [(1, 2, 3, 4)] * 4 + [(1,)]
    run(caches(tmp_path), *batches)
    assert run(caches(tmp_path), *batches) == []


def test_the_file_is_not_written_again_if_nothing_was_compiled(tmp_path):
    run(caches(tmp_path), (1, 2))
    before = {path: path.stat().st_ino for path in tmp_path.iterdir()}
    run(caches(tmp_path), (1, 2), (3, 4))
    assert {path: path.stat().st_ino for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "other",
    [{"engine": "built again"}, {"version": "1.8"}, {"gpu": Gpu("NVIDIA RTX A4000", "8.9")}],
    ids=["another engine", "another TensorRT-RTX", "another architecture"],
)
def test_kernels_that_belong_to_something_else_are_ignored_and_replaced(tmp_path, other):
    run(caches(tmp_path), (1, 2))
    assert run(caches(tmp_path, **other), (1, 2)) == COMPILED_FOR_TWO_SLICES
    assert run(caches(tmp_path, **other), (1, 2)) == []
    assert len(list(tmp_path.iterdir())) == 2


def test_gpus_of_several_models_share_a_folder(tmp_path):
    rtx = Gpu("NVIDIA GeForce RTX 4090", "8.9")
    run(caches(tmp_path), (1, 2))
    run(caches(tmp_path, gpu=rtx), (1, 2))
    assert run(caches(tmp_path), (1, 2)) == run(caches(tmp_path, gpu=rtx), (1, 2)) == []


def damage(content):
    """Change one byte of the kernels, which TensorRT-RTX itself would not notice."""
    return content.replace(b"segmenter 2", b"segmenter 3")


@pytest.mark.parametrize(
    "change",
    [damage, lambda content: content[:-3], lambda content: b"", lambda content: b"\xff\xfe\n", lambda content: b"[]\n"],
    ids=["changed", "truncated", "empty", "not JSON", "not a header"],
)
def test_a_damaged_file_is_ignored_and_replaced(tmp_path, change):
    run(caches(tmp_path), (1, 2))
    path = caches(tmp_path)["segmenter"].path
    whole = path.read_bytes()
    path.write_bytes(change(whole))
    assert run(caches(tmp_path), (1, 2)) == [b"segmenter 2"]
    assert path.read_bytes() == whole


def test_kernels_that_tensorrt_rtx_itself_rejects_are_replaced(tmp_path, monkeypatch):
    """It also compares what we do not record, such as the driver."""
    run(caches(tmp_path), (1, 2))
    monkeypatch.setattr(RuntimeCache, "environment", b"RTX 1.7 with an older driver")
    assert run(caches(tmp_path), (1, 2)) == COMPILED_FOR_TWO_SLICES
    assert run(caches(tmp_path), (1, 2)) == []


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path):
    """A file where the folder should be, since permissions do not stop root."""
    (tmp_path / "engines").write_text("")
    for _ in range(2):
        assert run(caches(tmp_path / "engines"), (1, 2), (3, 4)) == COMPILED_FOR_TWO_SLICES


def test_writing_says_whether_the_kernels_were_written(tmp_path):
    (tmp_path / "file").write_text("")
    assert caches(tmp_path)["segmenter"].write(b"kernels") is True
    assert caches(tmp_path / "file")["segmenter"].write(b"kernels") is False


def test_tensorrt_compiles_ahead_and_leaves_no_kernels(tmp_path):
    """It gets the files of the kernels too, and has no cache that could be written to them."""
    reset()
    module = tensorrt(dict.fromkeys(GRAPHS, (1, 4)))
    backend = TensorRtBackend(module, Pycuda, {name: name.encode() for name in GRAPHS}, kernels=caches(tmp_path))
    check(backend.submit(slices_of(1, 2)).result(), (1, 2))
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_leaves_the_kernels_of_its_first_batch(tmp_path):
    """Workers of a cluster end with SIGKILL, so that nothing can be written at the end."""
    backend = start(caches(tmp_path))
    backend.submit(slices_of(1, 2)).result()
    assert caches(tmp_path)["segmenter"].read().endswith(b"segmenter 2")


def test_the_header_says_what_the_kernels_belong_to(tmp_path):
    run(caches(tmp_path), (1, 2))
    header = json.loads(caches(tmp_path)["segmenter"].path.read_bytes().partition(b"\n")[0])
    assert re.fullmatch("[0-9a-f]{64}", header.pop("sha256"))
    assert header == {
        "format": 1,
        "engine_sha256": "engine",
        "tensorrt_version": "1.7",
        "gpu": "NVIDIA RTX A4000",
        "compute_capability": "8.6",
    }


def test_an_engine_for_one_batch_size_runs_as_a_cuda_graph_captured_once_per_set_of_buffers(tmp_path):
    """A graph contains addresses. With one context, the two sets of buffers would capture it again for each batch."""
    backend = start(caches(tmp_path), batches=(4, 4))
    for batch in [(1, 2, 3, 4), (5,), (6, 7), (8, 9, 10), (11, 12, 13, 14, 15)]:
        check(backend.submit(slices_of(*batch)).result(), batch)
    assert sorted(RtxExecution.captures) == sorted(2 * GRAPHS)
    assert RtxExecution.compiled == [b"segmenter 4", b"classifier 4"]


def test_an_engine_for_several_batch_sizes_runs_without_cuda_graphs():
    backend = start(batches=(1, 4))
    for batch in [(1, 2, 3, 4), (5,)]:
        check(backend.submit(slices_of(*batch)).result(), batch)
    assert RtxExecution.captures == []


def test_contexts_are_freed_before_the_cache_that_they_use(tmp_path):
    gc.collect()  # what earlier tests left
    reset()
    module = tensorrt({"segmenter": (1, 4)}, "tensorrt_rtx")
    Context.push()
    engine = LoadedEngine(module, module.Runtime(None), "segmenter", b"segmenter", caches(tmp_path)["segmenter"])
    Context.pop()
    del engine
    assert RuntimeCache.freed == ["context", "cache"]


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        ("ICudaEngine", ["create_runtime_config"]),
        ("IRuntimeConfig", ["create_runtime_cache", "set_runtime_cache", "cuda_graph_strategy"]),
        ("IRuntimeCache", ["serialize", "deserialize"]),
        ("CudaGraphStrategy", ["DISABLED", "WHOLE_GRAPH_CAPTURE"]),
    ],
)
def test_tensorrt_rtx_has_everything_that_the_cache_calls(tensorrt, owner, names):
    assert not [name for name in names if not hasattr(getattr(tensorrt, owner), name)]


def test_tensorrt_rtx_takes_the_arguments_that_the_cache_passes(tensorrt):
    """Its functions are compiled, so their documentation is all that shows their arguments."""
    for function, pattern in (
        (tensorrt.ICudaEngine.create_execution_context, r"runtime_config: \S+\.IRuntimeConfig"),
        (tensorrt.IRuntimeConfig.set_runtime_cache, r"cache: \S*IRuntimeCache.* -> bool"),
        (tensorrt.IRuntimeCache.deserialize, r"blob: \S*Buffer\) -> bool"),
        (tensorrt.IRuntimeCache.serialize, r"-> \S+\.IHostMemory"),
    ):
        assert re.search(pattern, function.__doc__)
    assert isinstance(tensorrt.IRuntimeConfig.cuda_graph_strategy, property)
