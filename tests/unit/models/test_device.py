"""The line that says where a run computes."""

import torch

from lethe.models.device import Compute


def test_threads_are_counted() -> None:
    before = torch.get_num_threads()
    try:
        for number, said in ((1, "cpu, 1 thread, float32 (as asked)"), (2, "cpu, 2 threads, float32 (as asked)")):
            torch.set_num_threads(number)
            assert str(Compute(torch.device("cpu"), "float32", True, "as asked")) == said
    finally:
        torch.set_num_threads(before)
