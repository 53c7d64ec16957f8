"""The report as a picture: latency and speed against the batch size, a line a backend."""

import io

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from cascade.benchmarking.report import Report

COLOURS = {"tensorrt": "#009E73", "tensorrt-rtx": "#CC79A7", "openvino": "#D55E00", "onnxruntime": "#0072B2"}
"""Okabe and Ito's, which differ to any colour vision; a backend keeps its own in every picture."""

GREY = "#666666"
DPI = 150


def latency_plot(report: Report) -> bytes:
    """PNG. Both axes are logarithmic: a runtime that gains nothing from batches draws a straight line of slope 1.

    The floor is both graphs' arithmetic for every slice, done at the limit: backends that compute in fewer bits, or
    leave out the classifier where there is no tumor, may lie below.
    """
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    sizes = report.settings.batch_sizes
    for name, backend in report.backends.items():
        times = [item.models_ms for item in backend.batches]
        left.plot(
            sizes, [item.p50 for item in times], color=COLOURS[name], marker="o", label=backend.loaded.description
        )
        left.fill_between(
            sizes,
            [item.p50 for item in times],
            [item.p95 for item in times],
            color=COLOURS[name],
            alpha=0.2,
            linewidth=0,
        )
        for speeds, style, what in (
            ([item.models for item in backend.batches], "-", "models alone"),
            ([item.end_to_end for item in backend.batches], "--", "files to results"),
        ):
            right.plot(
                *(sizes, [item.median for item in speeds]),
                color=COLOURS[name],
                linestyle=style,
                marker="o",
                label=f"{name}, {what}",
            )
    if report.work:
        flops = sum(item.flops for item in report.work.values())
        for device, limit in report.limits.items():
            floor_ms = [1e3 * flops * size / (limit.gflops * 1e9) for size in sizes]
            left.plot(sizes, floor_ms, color=GREY, linestyle=":", label=f"{device} floor: {limit.what.split(',')[0]}")
    left.set(ylabel="ms a batch; line p50, shade to p95", title="latency of both models")
    right.set(ylabel="slices a second, median of the rounds", title="speed")
    for axes in (left, right):
        _logarithmic(axes, sizes)
        axes.legend(fontsize=8, frameon=False)
    figure.suptitle(
        f"{report.machine.cpu}, {report.machine.cpu_threads} threads"
        + "".join(f"; {gpu}" for gpu in report.machine.gpus)
    )
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DPI)
    return picture.getvalue()


def _logarithmic(axes: Axes, sizes: tuple[int, ...]) -> None:
    """Powers of ten would label too few of the values, so the axis labels its own."""
    axes.set(xscale="log", yscale="log", xlabel="slices a batch")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_xticks([], minor=True)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(FuncFormatter(_minor_label))
    axes.tick_params(axis="y", which="both", labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.6, which="both")
    axes.set_axisbelow(True)


def _minor_label(value: float, place: float) -> str:
    """2 and 5 of each power of ten."""
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""
