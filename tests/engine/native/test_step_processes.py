"""Steps side by side: two models, two threads, forked and spawned processes."""

import concurrent.futures
import multiprocessing
import os
import signal
import threading

import pytest
import torch
from native_nets import (
    compiled,
    lenet,
    loss_in_a_new_process,
    normed,
    off,
    reference,
    seeded,
    small_images,
)

from hubel.engine.native.kernels.update import Update


def test_two_models_side_by_side():
    images, labels = small_images(40)
    nets = [seeded(lenet, 1), seeded(normed, 2)]
    steps = [compiled(net, images) for net in nets]
    exact = [reference(net, images, labels) for net in nets]
    for _ in range(3):
        for step, expected in zip(steps, exact, strict=True):
            step.run(images, labels)
            assert max(off(step.gradients, expected.gradients).values()) < 3e-5


def test_two_python_threads_train_two_models_at_the_same_time():
    images, labels = small_images(40)

    def trained(seed, found):
        model = seeded(lenet, seed)
        step = compiled(model, images, update=Update("pytorch", "l2"), threads=3)
        for _ in range(40):
            step.run(images, labels)
        found[seed] = [p.detach().clone() for p in model.parameters()]

    alone, together = {}, {}
    for seed in (1, 2):
        trained(seed, alone)
    models = {seed: seeded(lenet, seed) for seed in (1, 2)}  # torch's seed is everyone's

    def work(seed):
        model = models[seed]
        step = compiled(model, images, update=Update("pytorch", "l2"), threads=3)
        for _ in range(40):
            step.run(images, labels)
        together[seed] = [p.detach().clone() for p in model.parameters()]

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    for seed in (1, 2):
        assert all(torch.equal(a, b) for a, b in zip(alone[seed], together[seed], strict=True))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_step_compiled_before_a_fork_runs_on_both_sides_of_it():
    model, (images, labels) = seeded(lenet), small_images(60)
    step = compiled(model, images, threads=3)
    expected = step.run(images, labels)
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # a crew that is not there would be waited for for ever
        found = step.run(images, labels)
        os._exit(0 if found.loss == expected.loss else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert step.run(images, labels).loss == expected.loss


def test_a_spawned_process_finds_the_same(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        theirs = pool.submit(loss_in_a_new_process, tmp_path).result(timeout=120)
    assert theirs == loss_in_a_new_process(tmp_path)
    assert len(list(tmp_path.glob("*.o"))) == 1  # the same net, the same code
