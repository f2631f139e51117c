"""Which kernel runs, said by the environment; and processes that are forked from one that has run a kernel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from kernel_cases import KERNELS

import steelyard
from steelyard.ops import cpu

WORDS = ("reference", "baseline", "avx2", "avx512")


def _python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if name != "STEELYARD_CPU"}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        env={**plain, **environment}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------- which kernel runs


def test_implementations_come_worst_first_and_the_last_is_selected() -> None:
    available = cpu.available()
    assert isinstance(available, tuple)
    assert available[0] == "reference"
    assert list(available) == [word for word in WORDS if word in available]
    if "STEELYARD_CPU" not in os.environ:
        assert cpu.selected() == available[-1]


def test_using_one_ends_with_its_block() -> None:
    before = cpu.selected()
    for name in cpu.available():
        with cpu.using(name):
            assert cpu.selected() == name
            with cpu.using("reference"):
                assert cpu.selected() == "reference"
            assert cpu.selected() == name
    with pytest.raises(ZeroDivisionError), cpu.using("reference"):
        raise ZeroDivisionError
    assert cpu.selected() == before
    with pytest.raises(ValueError, match="'sse9'"), cpu.using("sse9"):
        pass
    assert cpu.selected() == before


SAY = """
    import json, torch, steelyard
    from steelyard.ops import cpu
    rows = torch.linspace(-3, 3, 700).reshape(7, 100)
    losses = steelyard.functional.cross_entropy(rows, torch.arange(7), reduction="none")
    steelyard.show_config()
    print(json.dumps([cpu.selected(), str(steelyard.show_config(mode="dicts")), losses.tolist()]))
"""


@pytest.mark.parametrize("name", cpu.available())
def test_the_environment_chooses(name: str) -> None:
    done = _python(SAY, STEELYARD_CPU=name)
    assert done.returncode == 0, done.stderr
    *printed, answer = done.stdout.splitlines()
    selected, told, losses = json.loads(answer)
    assert selected == name
    assert name in told
    assert name in "\n".join(printed)
    with cpu.using(name):
        rows = torch.linspace(-3, 3, 700).reshape(7, 100)
        expected = steelyard.functional.cross_entropy(rows, torch.arange(7), reduction="none")
    assert losses == expected.tolist()


@pytest.mark.parametrize("word", ["sse9", "AVX2 ", *(name for name in WORDS if name not in cpu.available())])
def test_a_word_that_names_nothing_here_is_an_error(word: str) -> None:
    done = _python("import steelyard.functional", STEELYARD_CPU=word)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ValueError: STEELYARD_CPU")
    assert "must be one of" in last
    assert repr(word) in last
    assert all(name in last for name in cpu.available())


def test_the_configuration_is_a_dict_of_plain_values() -> None:
    told = steelyard.show_config(mode="dicts")
    assert isinstance(told, dict)
    json.dumps(told)
    with pytest.raises(ValueError, match="'mode' must be one of"):
        steelyard.show_config(mode="yaml")


# -------------------------------------------------------------------------------------------------------------- forking

# A child has one thread, whatever pool its parent had; one that waits for the others hangs for good.
FORK = """
    import os, sys, time, warnings
    import torch
    from torch.utils.data import DataLoader
    from steelyard import functional
    from steelyard.ops import cpu
    # Python from 3.12 on warns of every fork of a process with threads, which is what is tried here.
    warnings.filterwarnings("ignore", ".*multi-threaded.*fork", DeprecationWarning)
    # And PyTorch warns of more workers than cores.
    warnings.filterwarnings("ignore", ".*worker processes.*", UserWarning)

    torch.set_num_threads(2)
    logits, target = torch.randn(4096, 100), torch.randint(100, (4096,))
    elements = torch.rand(4096, 100)

    def losses():
        found = []
        for loss, answer in ((functional.cross_entropy, target),
                             (functional.binary_cross_entropy_with_logits, elements)):
            leaf = logits.detach().requires_grad_()  # no clone: in a child PyTorch's own copy of so much hangs
            out = loss(leaf, answer)
            out.backward()
            found += [out.detach(), leaf.grad]
        return found

    def equal(found):
        return all(bytes(a.numpy()) == bytes(b.numpy()) for a, b in zip(found, expected, strict=True))

    def in_child(work):
        child = os.fork()
        if child == 0:
            os._exit(0 if work() else 1)
        for _ in range(300):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.1)
        os.kill(child, 9)
        os.waitpid(child, 0)
        return "hung"

    class Losses(torch.utils.data.Dataset):
        def __len__(self):
            return 4
        def __getitem__(self, index):
            return functional.cross_entropy(logits, target, reduction="none")

    def collate(batch):
        return torch.stack([functional.cross_entropy(logits, target), *(one.sum() for one in batch)])

    for kernel in sys.argv[1:]:
        with cpu.using(kernel):
            expected = losses()
            assert in_child(lambda: equal(losses())) == 0, f"{kernel}: a child"
            assert in_child(lambda: in_child(lambda: equal(losses())) == 0) == 0, f"{kernel}: a child's child"
            assert equal(losses()), f"{kernel}: the parent afterwards"
            loader = DataLoader(Losses(), batch_size=2, num_workers=2, collate_fn=collate,
                                multiprocessing_context="fork", timeout=60)
            for batch in loader:
                assert torch.equal(batch[0], expected[0]), f"{kernel}: a worker"
            assert equal(losses()), f"{kernel}: the parent after its workers"
    print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forked_processes_compute_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(FORK), *KERNELS],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "done"
