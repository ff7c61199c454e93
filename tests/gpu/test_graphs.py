"""Compiled models and CUDA graphs: nothing waits, what is seen is right, and what cannot be seen is told of."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import deadrelu

from .conftest import Gpu
from .trainings import Training, close_to

# The compiler's own, where there is a GPU for which it would make code.
pytestmark = pytest.mark.filterwarnings("ignore:.*script_method.*:DeprecationWarning")


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(net: str, device: str, **how: Any) -> Training:
    training = Training(net, device, options={}, lr=1e-3)
    training.model.compile(fullgraph=True, **how)
    return training


def captured(training: Training, gpu: Gpu) -> Any:
    """Return a graph of a whole step."""
    with gpu.capture() as graph:
        training.forward().backward()
        training.optimizer.step()
    return graph


@pytest.mark.parametrize("net", ["mlp", "cnn"])
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_model(gpu: Gpu, net: str, backend: str) -> None:
    """It finds the same, and waits in the first steps alone, when it looks whether the code has its hooks."""
    found, expected = compiled(net, "cuda", backend=backend), compiled(net, "cpu", backend=backend)
    found.run(120, gpu.silent)
    expected.run(120)
    close_to(found, expected, 5e-3)


def test_what_compiled_code_writes_stays_where_it_is(gpu: Gpu) -> None:
    """Or it could not become a CUDA graph: torch would say so, and do without. What hooks of a module hold does."""
    static: list[bool] = []
    training = Training("cnn", "cuda", options={}, lr=1e-3)

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        places = [node for node in graph.graph.nodes if node.op == "placeholder"]

        def run(*inputs: Any) -> Any:
            kept = {id(part) for live in training.monitor._taps.compiled.lives.values() for part in live.parts}
            for node, given in zip(places, inputs, strict=True):
                if id(given) in kept:
                    static.append("_dynamo_static_input_type" in node.meta.get("tensor_dict", {}))
            return graph.forward(*inputs)

        return run

    training.model.compile(backend=backend, fullgraph=True)
    training.run(2)
    assert len(static) >= 3
    assert all(static)


def test_code_without_hooks_is_told_of_and_waited_for_no_more(gpu: Gpu) -> None:
    training = Training("mlp", "cuda")
    training.model = torch.compile(training.model, backend="eager")
    training.run(2)
    monitor = deadrelu.Monitor(training.model, training.optimizer, strict=True)
    with pytest.warns(deadrelu.DeadReluWarning, match="compiled before the monitor"):
        training.run(25)
    for _ in range(4):  # between two captured steps
        with gpu.silent():
            training.step()
    monitor.close()


def test_reduced_overhead(gpu: Gpu) -> None:
    """torch.compile makes CUDA graphs, with our reductions in them."""
    if gpu.device is not None:
        pytest.skip("there is no compiler for the emulated GPU")
    from torch._dynamo.utils import counters

    counters.clear()
    found, expected = compiled("cnn", "cuda", mode="reduce-overhead"), compiled("cnn", "cpu", backend="eager")
    found.run(120, gpu.silent)
    expected.run(120)
    close_to(found, expected, 5e-3)
    assert counters["inductor"]["cudagraph_skips"] == 0


def test_a_whole_step_as_a_graph(gpu: Gpu) -> None:
    """By hand, as torch's notes on CUDA graphs do it: warmed up beside, captured, replayed."""
    if gpu.device is not None:
        pytest.skip("nothing is captured on the emulated GPU")
    training = Training("mlp", "cuda", options={}, lr=1e-3)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        training.run(12)
    torch.cuda.current_stream().wait_stream(side)
    training.optimizer.zero_grad()
    with pytest.warns(deadrelu.DeadReluWarning, match="reduce-overhead"):
        graph = captured(training, gpu)
    for _ in range(60):
        graph.replay()
    torch.cuda.synchronize()
    assert training.monitor.attached
    assert training.monitor.steps == 12
    training.monitor.close()


def test_modules_that_do_not_run_are_told_of(gpu: Gpu) -> None:
    """As after make_graphed_callables, which puts the replay of a graph in the place of `forward`."""
    training = Training("mlp", "cuda", lr=1e-3)
    weights = [p for p in training.model.parameters() if p.ndim == 2]

    def replayed(x: Tensor) -> Tensor:
        return x @ weights[0].T @ weights[1].T @ weights[2].T

    training.model.forward = replayed  # type: ignore[method-assign]
    monitor = deadrelu.Monitor(training.model, training.optimizer, strict=True)
    with pytest.warns(deadrelu.DeadReluWarning, match="no activation was met, not 1 either"):
        training.run(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        training.run(5)
    monitor.close()


def test_a_model_without_activations_is_nothing_to_tell_of(gpu: Gpu) -> None:
    training = Training("mlp", "cuda", lr=1e-3)
    training.model = nn.Sequential(nn.Linear(20, 4)).to("cuda")
    training.optimizer = torch.optim.SGD(training.model.parameters(), lr=1e-3)
    with deadrelu.Monitor(training.model, training.optimizer, strict=True):
        training.run(3)


def test_what_compiled_code_keeps_is_taken_over_together(gpu: Gpu) -> None:
    """One copy for all sites, one to begin anew; the reductions are in the compiled code."""
    if gpu.device is None:
        pytest.skip("launches are counted on the emulated GPU")
    training = Training("cnn", "cuda", options={"snapshot_memory": 0}, lr=1e-3)
    training.model.compile(backend="eager", fullgraph=True)
    training.run(22)
    own = []
    for _ in range(20):
        before = gpu.device.own
        training.step()
        own.append(gpu.device.own - before)
    assert sorted(own)[10] == 2
