import numpy as np
import pytest
import torch

from models.memory import out_of_memory

ENORMOUS = 2**50


def test_python_numpy_and_torch_say_each_in_their_way_that_memory_is_out() -> None:
    with pytest.raises(MemoryError) as of_python:
        bytes(ENORMOUS)
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(ENORMOUS)
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(ENORMOUS)
    for caught in (of_python, of_numpy, of_torch):
        assert out_of_memory(caught.value)
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))


def test_other_errors_are_not_about_memory() -> None:
    with pytest.raises(RuntimeError) as shapes:
        torch.ones(2) @ torch.ones(3)
    for error in (shapes.value, ValueError("DefaultCPUAllocator"), KeyError("memory")):
        assert not out_of_memory(error)
