"""Blocks of inputs: every input is handed out, no volume is split, and one that kills workers is found."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from cascade.io.image import ImageSource
from cascade.prediction.blocks import MAX_BLOCK_SLICES, MAX_TRIES, BlockQueue


def images(count):
    return [ImageSource(f"{number:05}.png", Path(f"/scans/{number:05}.png")) for number in range(count)]


def volume(name, slices):
    return ImageSource(name, Path("/scans") / name, count=slices)


def take_all(queue):
    blocks = []
    while queue:
        blocks.append(queue.take("worker"))
    return blocks


@pytest.mark.parametrize(("count", "workers"), [(1, 4), (7, 2), (1000, 2), (5000, 3)])
def test_every_input_is_handed_out_once_in_order(count, workers):
    blocks = take_all(BlockQueue(images(count), 8, workers))
    assert [source.name for block in blocks for source in block.sources] == [source.name for source in images(count)]


def test_blocks_are_whole_batches_and_get_smaller_towards_the_end():
    sizes = [block.slices for block in take_all(BlockQueue(images(5000), 8, 2))]
    assert sizes[0] == MAX_BLOCK_SLICES == 256
    assert sizes == sorted(sizes, reverse=True)
    assert {size % 8 for size in sizes[:-1]} == {0}
    assert sizes[-1] <= 8


def test_a_volume_is_never_split_even_if_it_is_larger_than_a_block():
    sources = [*images(3), volume("head.nii", 4 * MAX_BLOCK_SLICES), *images(3)]
    blocks = take_all(BlockQueue(sources, 8, 2))
    assert [len(block.sources) for block in blocks if block.slices > MAX_BLOCK_SLICES] == [1]
    assert sum(len(block.sources) for block in blocks) == 7


def test_an_input_that_kills_every_worker_is_given_up_and_the_others_are_not():
    queue, given_up, killed = BlockQueue(images(20), 8, 1), [], Counter()
    done = []
    while block := queue.take("worker"):
        if any(source.name == "00003.png" for source in block.sources):
            killed[len(block.sources)] += 1
            if lost := queue.lose([block]):
                given_up.append(lost.name)
        else:
            done += [source.name for source in block.sources]
    assert given_up == ["00003.png"]
    assert sorted([*done, *given_up]) == [source.name for source in images(20)]
    assert killed == {8: 1, 1: MAX_TRIES}


def test_no_block_is_blamed_for_a_lost_worker_that_had_another_one_too():
    """A worker that dies may take the results of the block before with it. That block looks like the killer then."""
    queue = BlockQueue(images(2), 1, 1)
    first, second = queue.take("worker"), queue.take("worker", is_idle=False)
    for _ in range(2 * MAX_TRIES):
        assert queue.lose([first, second]) is None
        first, second = queue.take("another"), queue.take("a third")
        assert (first.sources, second.sources) == ((images(2)[0],), (images(2)[1],))
    assert (first.losses, second.losses) == (0, 0)


def test_a_block_that_a_worker_was_lost_on_is_handed_out_to_idle_workers_only():
    queue = BlockQueue(images(2), 1, 1)
    queue.lose([queue.take("worker"), queue.take("worker")])
    assert queue.take("worker", is_idle=False) is None
    assert queue.take("worker").alone


def test_an_input_that_a_worker_was_lost_on_alone_is_handed_out_to_idle_workers_only():
    queue = BlockQueue(images(1), 1, 2)
    queue.lose([queue.take("worker")])
    assert queue.take("another", is_idle=False) is None
    assert queue.take("another").losses == 1


def test_a_failed_input_is_tried_once_more_by_another_worker():
    queue = BlockQueue(images(1), 8, 2)
    block = queue.take("full disk")
    assert queue.retry(block, block.sources, "full disk")
    assert queue.take("full disk") is None
    again = queue.take("other")
    assert again.sources == block.sources
    assert not queue.retry(again, again.sources, "other")
    assert not queue


def test_the_last_worker_tries_again_itself():
    queue = BlockQueue(images(1), 8, 2)
    block = queue.take("only")
    queue.retry(block, block.sources, "only")
    assert queue.take("only", is_last=True).sources == block.sources
