"""Steps that are replayed in fixed places are the steps that are taken one by one."""

from __future__ import annotations

import logging

import pytest
import torch
from helpers import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from toys import LinearGenerator, halves, plain_problem, same_latents, toy_problem, toy_stylegan2

from saminv import InputError, Regions, Solution
from saminv._arguments import make_recipe
from saminv._types import flatten
from saminv.images import Picture
from saminv.metrics.pixel import MSE
from saminv.optim import LBFGS, Adam, BestSoFar, Escalate, PlateauStop, Relay, solve
from saminv.optim.graph import WARM_UP, Batch, StepGraph, return_to, scan, transplant
from saminv.optim.slots import Slots

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
STEPS = 20


@pytest.fixture(scope="module")
def generator():
    return toy_stylegan2(torch.float64).to(DEVICE)


def problem_of(generator, names=("W+", "F4", "P"), batch=2):
    regions = halves(generator, batch, [name for name in names if name != "P"]).to(DEVICE)
    return toy_problem(generator, names, batch=batch, regions=regions)


def two_and_one(generator):
    """A problem of two images and one of a third one, which may share a batch."""
    whole = problem_of(generator, batch=3)
    return (whole.select(torch.tensor(rows, device=DEVICE)) for rows in ([0, 1], [2]))


SOLVERS = {
    "Adam": Adam(),
    "best so far": BestSoFar(Adam()),
    "plateau": PlateauStop(BestSoFar(Adam(rate=0.2)), patience=4, tolerance=0.2),
    "L-BFGS": LBFGS(memory=4),
    "relay": BestSoFar(Relay(Adam(), LBFGS(memory=3), share=0.4)),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_replayed_steps_are_the_steps(generator, name):
    problem, solver = problem_of(generator), SOLVERS[name]
    losses = []

    def watch(step, state, evaluation):
        losses.append(evaluation.loss.clone())

    one, other = (solve(problem, solver, max_steps=STEPS, graph=graph, callback=watch) for graph in ("off", "on"))
    assert_close(torch.stack(losses[STEPS:]), torch.stack(losses[:STEPS]), 1e-12)
    assert torch.equal(one.status, other.status)
    for key, tensor in flatten(one.latents).items():
        assert_close(flatten(other.latents)[key], tensor, 1e-12, key)


class Counted(StepGraph):
    """Notes when a step is recorded, and when it is launched."""

    def __init__(self, step):
        self.recorded, self.launched = [], 0
        super().__init__(self._launch, self._capture)
        self.inner = step

    def _launch(self, batch):
        self.launched += 1
        return self.inner(batch)

    def _capture(self, function):
        self.recorded.append(self.launched)
        return function


def counted(slots):
    slots._graph = Counted(slots._advance)
    return slots._graph


def test_a_step_is_recorded_once_it_is_warm_and_again_for_other_shapes(generator):
    slots = Slots(BestSoFar(Adam()), 40, graph="on")
    two, one = two_and_one(generator)
    slots.enter(two, "ab")
    graph = counted(slots)
    for _ in range(WARM_UP + 4):
        slots.step()
    assert graph.recorded == [WARM_UP]
    slots.enter(one, "c")
    for _ in range(WARM_UP):
        slots.step()
    assert len(graph.recorded) == 1, "a batch of three has to warm up"
    slots.step()
    assert len(graph.recorded) == 2


def test_an_image_that_takes_the_slot_of_another_one_needs_no_recording(generator):
    slots = Slots(BestSoFar(Adam()), 12, graph="on")
    first, second = two_and_one(generator)
    slots.enter(first, "ab")
    graph = counted(slots)
    kept = first.target.clone(), second.target.clone()
    for _ in range(WARM_UP + 2):
        slots.step()
    slots.state.status[0] = 2
    assert [key for key, _ in slots.leave()] == ["a"]
    slots.enter(second, "c")
    while len(slots) == 2:
        slots.step()
        left = dict(slots.leave())
    assert len(graph.recorded) == 1
    assert torch.equal(first.target, kept[0]) and torch.equal(second.target, kept[1]), "those of the caller stay"
    for _ in range(12):
        slots.step()
    left |= dict(slots.leave())
    expected = solve(second, BestSoFar(Adam()), max_steps=12)
    assert_close(left["c"].image, expected.image, 1e-9)


@settings(max_examples=4, deadline=None)
@given(entries=st.lists(st.integers(0, 20), min_size=2, max_size=3))
def test_pictures_that_come_and_go_are_as_if_alone(entries):
    generator = toy_stylegan2(torch.float64).to(DEVICE)
    recipe = make_recipe(
        ["W+", "F4"], 0.05, generator=generator, metric="mse", encoder="mean", steps=16, segmenter="none",
        invertibility=Regions(halves(generator, 1, ["W+", "F4"]).labels.to(DEVICE), ("W+", "F4")), graph="on",
    )  # fmt: skip
    images = generator.synthesis(generator.mapping(generator.sample_z(len(entries), seed=5))).clamp(-1, 1)
    pictures = [Picture(image[None].float().cpu(), f"p{row}") for row, image in enumerate(images)]
    slots, jobs, found, step = None, {}, {}, 0
    while len(found) < len(pictures):
        for picture, entry in zip(pictures, entries):
            if entry == step:
                job = jobs[picture.name] = recipe.prepare([picture])
                slots = slots or recipe.slots(job.solver, recipe.steps)
                slots.enter(job.problem, [picture.name], job.solver)
        if slots is not None and len(slots):
            slots.step()
            found |= {name: jobs[name].finish(solution) for name, solution in slots.leave()}
        step += 1
    for picture in pictures:
        job = recipe.prepare([picture])
        alone: Solution = job.finish(solve(job.problem, job.solver, max_steps=recipe.steps, graph="off"))
        assert_close(found[picture.name].image, alone.image, 1e-9)


def test_regions_that_change_on_the_way(generator):
    """A look moves segments; the steps after it are those of the new regions."""
    names = ("W+", "F4", "F6")
    regions = Regions.uniform(1, (32, 32), names, "W+", device=DEVICE)
    problem = toy_problem(generator, names, regions=regions)
    segments = (torch.arange(32) // 8).expand(1, 32, 32).to(DEVICE)
    solver = Escalate(BestSoFar(Adam()), MSE(), segments, 1e-4, first_share=0.25, later_share=0.25, patience=1000)
    # Looks fall on multiples of those of a device that has to be waited for.
    found = {graph: solve(problem, solver, max_steps=40, graph=graph) for graph in ("off", "on")}
    assert bool((found["on"].regions.labels > 0).any())
    assert torch.equal(found["on"].regions.labels, found["off"].regions.labels)
    assert_close(found["on"].image, found["off"].image, 1e-9)


class NoLook(TorchDispatchMode):
    """Refuses to tell the host a number, as a device does while a step is recorded."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            raise RuntimeError("operation not permitted when stream is capturing")
        return function(*args, **(kwargs or {}))


@pytest.mark.skipif(DEVICE == "cuda", reason="the device itself refuses")
@pytest.mark.parametrize("name", SOLVERS)
def test_a_recorded_step_does_not_wait_for_a_number(generator, name, monkeypatch):
    """On the CPU, where some functions look because it costs nothing, they are told that it is another device."""
    from saminv.optim import adam, lbfgs, slots, wrappers

    def copied(target, source, which):
        target.copy_(torch.where(which.reshape(-1, *[1] * (target.dim() - 1)), source, target))

    for module in (adam, lbfgs, wrappers):
        monkeypatch.setattr(module, "copy_images", copied, raising=False)
    monkeypatch.setattr(slots, "on_host", lambda device: False)
    problem, solver = problem_of(generator), SOLVERS[name]
    entered = Slots(solver, STEPS, graph="off")
    entered.enter(problem, "ab")
    entered.step()
    with NoLook():
        entered._advance(entered.batch)
    assert (entered.state.step > 1).all(), "the step was taken"


def test_where_a_step_cannot_be_recorded_it_is_said_once(generator, caplog):
    def refuse(function):
        raise RuntimeError("operation not permitted when stream is capturing\nmore lines")

    problem = problem_of(generator)
    slots = Slots(Adam(), STEPS, graph="on")
    slots.enter(problem, "ab")
    slots._graph = StepGraph(slots._advance, refuse)
    with caplog.at_level(logging.WARNING, logger="saminv"):
        for _ in range(STEPS):
            slots.step()
    assert [record.getMessage() for record in caplog.records] == [
        "Going on without a CUDA graph: operation not permitted when stream is capturing"
    ]
    expected = solve(problem, Adam(), max_steps=STEPS, graph="off")
    assert same_latents(expected.latents, slots.state.y)


def test_a_solver_that_may_count_by_itself_is_not_recorded():
    class Own(Adam):
        capturable = False

    slots = Slots(Own(), STEPS, graph="on")
    slots.enter(plain_problem(LinearGenerator()), "a")
    slots.step()
    assert slots._graph is None
    assert not BestSoFar(Own()).capturable and BestSoFar(Adam()).capturable
    assert not Relay(Own(), LBFGS()).capturable and Relay(Adam(), LBFGS()).capturable


def test_what_a_scan_sees(generator):
    slots = Slots(BestSoFar(Adam()), STEPS)
    slots.enter(problem_of(generator), "ab")
    slots.step()
    key, tensors = scan(slots.batch)
    assert len({id(tensor) for tensor in tensors}) == len(tensors)
    there = {id(tensor) for tensor in tensors}
    assert {id(slots.state.y["W+"]["w"]), id(slots.state.problem.target), id(slots.taken)} <= there
    other = transplant(slots.batch, {id(tensor): tensor.clone() for tensor in tensors})
    assert scan(other)[0] == key
    assert not there & {id(tensor) for tensor in scan(other)[1]}
    assert other.state.y is other.state.inner.y, "what was shared is shared"
    assert scan(slots.batch.select(torch.tensor([0], device=DEVICE)))[0] != key


def test_what_lies_in_another_place_is_saved_before_that_is_overwritten():
    a, b, c = (torch.full((2,), float(value)) for value in (1, 2, 3))
    return_to([a, b, c], [b, c.view(2), torch.full((2,), 4.0)])
    assert [float(tensor[0]) for tensor in (a, b, c)] == [2, 3, 4]


def test_batches_of_slots_are_cut_and_joined(generator):
    slots = Slots(Adam(), STEPS)
    slots.enter(problem_of(generator), "ab")
    batch = slots.batch
    again = batch.select(torch.tensor([1], device=DEVICE)).join(batch.select(torch.tensor([0], device=DEVICE)))
    assert isinstance(again, Batch)
    assert torch.equal(again.state.y["W+"]["w"], batch.state.y["W+"]["w"][[1, 0]])


def test_an_unknown_way():
    with pytest.raises(InputError, match="graph must be one of 'auto', 'on', 'off'; got 'yes'"):
        Slots(Adam(), 3, graph="yes")
