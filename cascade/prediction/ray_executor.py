"""The executor whose workers are Ray actors.

The workers are plain actors instead of `ray.data.Dataset.map_batches`, because Ray Data repeats a block without end if
its worker dies, so that one input that kills its worker would stop the run, and with restarts off it gives up the whole
data set. Two blocks per worker are under way, which bounds the memory of the driver whatever the number of inputs.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from cascade.errors import CascadeError
from cascade.io.source import Source
from cascade.prediction.blocks import MAX_TRIES, Block, BlockQueue
from cascade.prediction.executor import Job
from cascade.prediction.failures import failed_source
from cascade.prediction.journal import JournalLine, journal_line
from cascade.prediction.ray_address import LOOK_SECONDS, HeadWatch
from cascade.prediction.worker import ModelOptions, WorkerInfo, check_driver, check_same

BLOCKS_PER_WORKER = 2
"""The second block waits at the worker, so that it need not wait for the driver."""

MAX_SECONDS_WITHOUT_WORKER = 600.0
"""The run ends if no worker is ready for this long: none could be started in place of those that were lost."""

MAX_STARTS = 3
"""Number of workers that may fail to start in the place of one that was lost. Then the others do without it."""

CONTROL = "control"
"""Group of the calls that a worker answers while it predicts."""

ANSI = re.compile(r"\x1b\[[0-9;]*m")
"""Color of a terminal, which Ray puts into tracebacks."""

EXCEPTION = re.compile(r"[\w.]*(Error|Exception): ")
"""Last line of a traceback."""

SAME_EVERYWHERE = "install the same versions of Python, Ray and cascade-mri[cluster] on all machines"
RESUME = "check the machines of the cluster, and continue with --resume"


@dataclass(eq=False)
class Slot:
    """The place of a worker, which another worker takes if it is lost.

    Attributes:
        actor: Handle of the worker.
        opened: Reference to its `WorkerInfo`; None once the worker is ready.
        info: What the last worker that was ready here had loaded.
        blocks: Reference to the result of each block that it has been given → the block, in the order of processing.
        failures: How many workers in a row could not be started.
    """

    actor: Any
    opened: Any
    info: WorkerInfo | None = None
    blocks: dict[Any, Block] = field(default_factory=dict)
    failures: int = 0


class RayExecutor:
    """The executor that spreads blocks of inputs over the workers of a cluster.

    Attributes:
        losses: How many workers were lost so far.
    """

    is_remote = True

    def __init__(self, actor_class: Any, count: int, models: ModelOptions) -> None:
        """Start the workers, and wait for them.

        Args:
            actor_class: Remote class of the workers.
            count: Number of workers.
            models: What they load.

        Raises:
            CascadeError: A worker cannot start, or driver and workers do not agree.
        """
        self._actor_class, self._models = actor_class, models
        self._paths: tuple[Path | str, ...] = ()
        self._head = HeadWatch(ray.get_runtime_context().gcs_address)
        self.losses = 0
        self._slots = [Slot(*self._start()) for _ in range(count)]
        self._first = first = _get(self._slots[0].opened, self._head)
        check_driver(models, first)
        for slot in self._slots:
            self._put_into_service(slot)
        self.models, self.description = first.models, first.description
        self.uncertain_below, self.volume_rule = first.uncertain_below, first.volume_rule
        self.skipped_backends = first.skipped_backends

    @property
    def workers(self) -> list[WorkerInfo]:
        """What each worker that is ready has loaded."""
        return [slot.info for slot in self._slots if slot.info and slot.opened is None]

    def check_access(self, paths: Sequence[Path | str]) -> None:
        """See `Executor.check_access`."""
        self._paths = tuple(path.absolute() if isinstance(path, Path) else path for path in paths)
        _get([slot.actor.check_access.remote(self._paths) for slot in self._slots], self._head)

    def run(self, sources: Sequence[Source], job: Job) -> None:
        """Spread the sources over the workers, see `Executor.run`.

        The inputs of a worker that is lost are processed by others. An input on which workers are lost again and again
        becomes a row with status "error".
        """
        job = replace(job, folder=replace(job.folder, out=job.folder.out.absolute()))  # workers have other directories
        self._run(BlockQueue(sources, job.batch_size, len(self._slots)), job)
        if self.losses:
            job.folder.files.remove_temporary()

    def close(self) -> None:
        """End the workers. Without a head, they end by themselves."""
        if self._head.is_lost:
            return
        for slot in self._slots:
            ray.kill(slot.actor)

    def _run(self, queue: BlockQueue, job: Job) -> None:
        ready = time.monotonic()
        self._head.wait()
        stopping = False
        while queue or any(slot.blocks for slot in self._slots):
            if job.stop.is_set() and not stopping:
                stopping = True
                for slot in self._slots:
                    slot.actor.stop.options(concurrency_group=CONTROL).remote()
            if stopping and not any(slot.blocks for slot in self._slots):
                break
            if not stopping:
                self._hand_out(queue, job)
            done = self._wait()
            self._head.check()
            for slot in list(self._slots):
                if slot.opened in done:
                    self._welcome(slot)
                self._collect(slot, done, queue, job)
            if any(slot.opened is None for slot in self._slots):
                ready = time.monotonic()
            elif time.monotonic() - ready > MAX_SECONDS_WITHOUT_WORKER:
                raise CascadeError("all workers were lost, and none could be started again", fix=RESUME)

    def _start(self) -> tuple[Any, Any]:
        """Start a worker. Returns its handle and the reference to its `WorkerInfo`."""
        actor = self._actor_class.remote()
        return actor, actor.open.remote(self._models)

    def _hand_out(self, queue: BlockQueue, job: Job) -> None:
        is_last = sum(slot.opened is None for slot in self._slots) == 1  # there may be no room to replace the others
        for depth in range(1, BLOCKS_PER_WORKER + 1):  # one block for each worker before any gets a second one
            for slot in self._slots:
                if (
                    slot.opened is None
                    and len(slot.blocks) < depth
                    and not any(block.alone for block in slot.blocks.values())
                    and (block := queue.take(slot, is_idle=not slot.blocks, is_last=is_last))
                ):
                    job.on_begin(block.sources)
                    reference = slot.actor.predict.remote(block.sources, job.folder, job.batch_size)
                    slot.blocks[reference] = block

    def _wait(self) -> set[Any]:
        """Wait until a worker has finished something, for a second at most. Returns the references that are done."""
        pending = [slot.opened for slot in self._slots if slot.opened]
        pending += [reference for slot in self._slots for reference in slot.blocks]
        if ray.wait(pending, num_returns=1, timeout=1.0)[0]:
            return set(ray.wait(pending, num_returns=len(pending), timeout=0)[0])
        return set()

    def _welcome(self, slot: Slot) -> None:
        """Take a worker that was started in place of another into service, unless it cannot replace it."""
        try:
            self._put_into_service(slot)
        except CascadeError:
            self._head.wait()  # without it, the next calls would not return
            slot.failures += 1
            ray.kill(slot.actor)
            if slot.failures < MAX_STARTS:
                slot.actor, slot.opened = self._start()
                return
            self._slots.remove(slot)
            if not self._slots:
                raise

    def _put_into_service(self, slot: Slot) -> None:
        """Wait until a worker has loaded the models, and check that they and its files are those of the others."""
        slot.info = _get(slot.opened, self._head)
        check_same(self._first, slot.info)
        # Those of this run: when it was started, they may have been those of the run before.
        _get(slot.actor.check_access.remote(self._paths), self._head)
        slot.opened, slot.failures = None, 0

    def _collect(self, slot: Slot, done: set[Any], queue: BlockQueue, job: Job) -> None:
        """Take the results of the blocks that a worker has finished. If it is lost, take its blocks back."""
        while slot.blocks and (reference := next(iter(slot.blocks))) in done:
            block = slot.blocks.pop(reference)
            try:
                lines: list[JournalLine] = ray.get(reference)
            except RayTaskError as error:
                raise _cause(error) from None
            except RayError:
                self._head.wait()  # without it, the next calls would not return
                ray.kill(slot.actor)  # it may be alive on a machine that cannot be reached
                self._lose([block, *slot.blocks.values()], queue, job)
                slot.blocks.clear()
                slot.actor, slot.opened = self._start()
            else:
                self._finish(block, lines, slot, queue, job)

    def _finish(self, block: Block, lines: list[JournalLine], slot: Slot, queue: BlockQueue, job: Job) -> None:
        """Note the inputs that are finished. Those that have failed are processed once more, by another worker."""
        failed = {line.name for line in lines if line.failed}
        again = [source for source in block.sources if source.name in failed]
        if again and not job.stop.is_set() and queue.retry(block, again, slot):
            lines = [line for line in lines if line.name not in failed]
            job.folder.files.remove([name for source in again for name in job.folder.output_files(source)])
        job.on_finished(lines)
        job.on_progress(sum(line.slices for line in lines))

    def _lose(self, blocks: Sequence[Block], queue: BlockQueue, job: Job) -> None:
        """Put the blocks of a lost worker back into the queue, or give an input up."""
        self.losses += 1
        sources = [source for block in blocks for source in block.sources]
        job.folder.files.remove([name for source in sources for name in job.folder.output_files(source)])  # not in rows
        if killer := queue.lose(blocks):
            error = CascadeError(
                f"{killer.files[0]}: {MAX_TRIES} workers were lost while they processed it",
                fix="give the workers more memory, or exclude the input",
            )
            job.on_finished([journal_line(failed_source(job.folder, killer, error))])
            job.on_progress(killer.count)


def _get(references: Any, head: HeadWatch) -> Any:
    """Return the results of workers that start.

    Raises:
        CascadeError: One of them fails, or does not start; or the head is lost.
    """
    for _ in range(round(MAX_SECONDS_WITHOUT_WORKER / LOOK_SECONDS)):
        try:
            return ray.get(references, timeout=LOOK_SECONDS)
        except RayTaskError as error:
            raise _cause(error) from None
        except GetTimeoutError:
            head.check()
        except RayError as error:
            raise CascadeError(f"a worker does not start ({_reason(error)})", fix=SAME_EVERYWHERE) from error
    raise CascadeError(
        f"a worker has not started for {MAX_SECONDS_WITHOUT_WORKER / 60:.0f} minutes: the cluster is busy",
        fix="wait until others have finished, or give the workers fewer CPUs or GPUs",
    )


def _reason(error: RayError) -> str:
    """Return the line of an error of Ray that says most: the exception at the end of a worker's traceback, if any."""
    lines = [line.strip() for line in ANSI.sub("", str(error)).splitlines() if line.strip()]
    exceptions = [line for line in lines if EXCEPTION.match(line)]
    if exceptions:
        return exceptions[-1]
    return lines[0] if lines else type(error).__name__


def _cause(error: RayTaskError) -> Exception:
    """Return the exception that a worker has raised; with the traceback of the worker unless the user can fix it."""
    cause = error.cause
    return cause if isinstance(cause, CascadeError) else error
