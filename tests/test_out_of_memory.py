"""What does not fit into the memory is told in a sentence, and no other error is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from experiments import cli


@pytest.mark.parametrize("allocate", [lambda: torch.zeros(10**16), lambda: np.zeros(10**18)], ids=["torch", "numpy"])
def test_a_size_beyond_the_machine(
    allocate: Callable[[], object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "_command", lambda word: lambda words: allocate())
    assert cli.main(["train"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("pbrl: the memory is not enough for another ")
    assert told.count("\n") == 1


def test_a_gpu_says_it_in_other_words() -> None:
    error = RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB")
    assert cli.out_of_memory(error) == "another 2.00 GiB"
    assert cli.out_of_memory(MemoryError()) == "what is asked for"


def test_other_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_command", lambda word: lambda words: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        cli.main(["train"])
