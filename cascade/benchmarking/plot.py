"""Plot latency and throughput against the batch size, one line for each backend."""

import io

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from cascade.benchmarking.report import Report

COLORS = {"tensorrt": "#009E73", "tensorrt-rtx": "#CC79A7", "openvino": "#D55E00", "onnxruntime": "#0072B2"}
"""Colors of the palette of Okabe and Ito, which stay distinct with color vision deficiency."""

DPI = 150


def latency_plot(report: Report) -> bytes:
    """Plot a report as PNG.

    Both axes are logarithmic: a runtime that gains nothing from batches gives a straight line of slope 1. The dotted
    lines are the time that the FLOPs of both graphs take at the roofline. A backend that skips the classifier on slices
    without a tumor may be below its line.
    """
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    sizes = report.settings.batch_sizes
    for name, backend in report.backends.items():
        color, batches = COLORS[name], backend.batches
        p50, p95 = [item.models_ms.p50 for item in batches], [item.models_ms.p95 for item in batches]
        left.plot(sizes, p50, color=color, marker="o", label=backend.loaded.description)
        left.fill_between(sizes, p50, p95, color=color, alpha=0.2, linewidth=0)
        models, end_to_end = [item.models.median for item in batches], [item.end_to_end.median for item in batches]
        right.plot(sizes, models, "-", color=color, marker="o", label=f"{name}, models only")
        right.plot(sizes, end_to_end, "--", color=color, marker="o", label=f"{name}, files to results")
    flops = sum(cost.flops for cost in report.costs.values())
    for name, roofline in report.rooflines.items() if flops else ():
        minimum_ms = [1e3 * flops * size / (roofline.gflops * 1e9) for size in sizes]
        label = f"{name}, roofline in {roofline.what.split()[0]}"
        left.plot(sizes, minimum_ms, color=COLORS[name], linestyle=":", label=label)
    left.set(ylabel="ms per batch; line p50, band to p95", title="Latency of both models")
    right.set(ylabel="slices per second, median of the rounds", title="Throughput")
    for axes in (left, right):
        _use_log_scale(axes, sizes)
        axes.legend(fontsize=8, frameon=False)
    machine = report.machine
    figure.suptitle("; ".join([f"{machine.cpu}, {machine.cpu_threads} threads", *machine.gpus]))
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=DPI)
    return png.getvalue()


def _use_log_scale(axes: Axes, sizes: tuple[int, ...]) -> None:
    """Use logarithmic axes, whose labels include 2 and 5 of each power of ten: powers alone would be too few."""
    axes.set(xscale="log", yscale="log", xlabel="slices per batch")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_xticks([], minor=True)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    axes.tick_params(axis="y", which="both", labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.6, which="both")
    axes.set_axisbelow(True)
