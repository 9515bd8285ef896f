"""Into which stacks models are divided."""

from hypothesis import given
from hypothesis import strategies as st

from lethe.pipeline.batch_training import FEWEST_STACKED, MOST_STACKED, stack_sizes


@given(number=st.integers(FEWEST_STACKED, 200), workers=st.integers(1, 70))
def test_several_workers_have_stacks_of_equal_sizes(number: int, workers: int) -> None:
    sizes = stack_sizes(number, workers)
    assert sum(sizes) == number and max(sizes) <= MOST_STACKED
    if workers == 1:
        assert all(size == MOST_STACKED for size in sizes[:-1])
    else:
        assert min(sizes) >= 2 and max(sizes) - min(sizes) <= 1
        assert len(sizes) % workers == 0 or min(sizes) == 2 or max(sizes) <= 3


def test_two_workers_train_eight_models_as_two_stacks() -> None:
    assert stack_sizes(8, 1) == [8]
    assert stack_sizes(8, 2) == [4, 4]
    assert stack_sizes(40, 2) == [10, 10, 10, 10]
    assert stack_sizes(4, 8) == [2, 2]
