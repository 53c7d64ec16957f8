"""Inputs in blocks for the workers of a cluster, and the search for an input that kills its workers."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from cascade.io.source import Source

MAX_BLOCK_SLICES = 256
"""Maximum slices of a block of several inputs. As much is computed again if its worker is lost."""

MAX_TRIES = 3
"""Number of workers that may be lost on one input alone before it is given up."""


@dataclass(frozen=True)
class Block:
    """Inputs that one worker processes.

    Attributes:
        sources: The inputs.
        losses: How many workers were lost while they processed these inputs alone.
        alone: True if its worker may have no other block, so that it is clear what the worker was lost on.
        failed_on: Worker on which these inputs have failed; None at the first try.
    """

    sources: tuple[Source, ...]
    losses: int = 0
    alone: bool = False
    failed_on: object = None

    @property
    def slices(self) -> int:
        """Number of slices."""
        return sum(source.count for source in self.sources)


class BlockQueue:
    """Hands out the inputs of a run. An input, such as a volume, is never split.

    The blocks get smaller towards the end, so that all workers finish at about the same time.
    """

    def __init__(self, sources: Sequence[Source], batch_size: int, workers: int) -> None:
        """Start with all inputs.

        Args:
            sources: The inputs, in the order of processing.
            batch_size: Number of slices that go through the models at once. Blocks of single slices are multiples.
            workers: Number of workers.
        """
        self._sources: Iterator[Source] = iter(sources)
        self._slices = sum(source.count for source in sources)
        self._batch_size, self._workers = batch_size, workers
        self._returned: deque[Block] = deque()
        self._next = next(self._sources, None)

    def __bool__(self) -> bool:
        """Return True if there is a block to hand out."""
        return bool(self._returned) or self._next is not None

    def take(self, worker: object, *, is_idle: bool = True, is_last: bool = False) -> Block | None:
        """Return the next block.

        Args:
            worker: The worker that will process it.
            is_idle: True if the worker has no other block.
            is_last: True if no other worker is ready.

        Returns:
            A block; None if this worker has to wait.
        """
        if self._next is None:
            suitable = (
                block
                for block in self._returned
                if (is_idle or not block.alone) and (is_last or block.failed_on is not worker)
            )
            if block := next(suitable, None):
                self._returned.remove(block)
            return block
        limit = min(MAX_BLOCK_SLICES, self._slices // (4 * self._workers))
        limit = max(self._batch_size, limit // self._batch_size * self._batch_size)
        sources: list[Source] = []
        slices = 0
        while self._next and (not sources or slices + self._next.count <= limit):
            sources.append(self._next)
            slices += self._next.count
            self._next = next(self._sources, None)
        self._slices -= slices
        return Block(tuple(sources))

    def retry(self, block: Block, failed: Sequence[Source], worker: object) -> bool:
        """Let another worker try inputs that have failed: the disk or the network of one machine may be at fault.

        Returns:
            False if these inputs have failed twice.
        """
        if block.failed_on is not None:
            return False
        self._returned.append(Block(tuple(failed), failed_on=worker))
        return True

    def lose(self, blocks: Sequence[Block]) -> Source | None:
        """Take back the blocks of a worker that was lost before it returned their results.

        One of the inputs may have killed the worker. Which block it was in is unknown if there are several, since a
        worker that dies may take the results of the block before with it. So each block is tried without others at its
        worker, and if that worker is lost too, each of its inputs.

        Returns:
            The input, if there is a single one and too many workers were lost on it.
        """
        if len(blocks) > 1:
            self._returned.extend(replace(block, alone=True) for block in blocks)
            return None
        block = blocks[0]
        losses = block.losses + 1 if len(block.sources) == 1 else 0
        if losses == MAX_TRIES:
            return block.sources[0]
        self._returned.extend(Block((source,), losses, True, block.failed_on) for source in block.sources)
        return None
