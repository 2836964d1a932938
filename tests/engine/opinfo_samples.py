"""PyTorch's own samples of its operators, run through the tape: values and gradients, as JSON.

`OpInfo` is the list that PyTorch tests itself with; it comes inside its wheel. To import it changes
the whole process (it forbids to set global flags), so this runs in one of its own. Told a number,
it takes no more than so many samples of every operator.
"""

import json
import math
import sys
import warnings
from dataclasses import asdict, dataclass, field

import torch

from hubel.engine.backprop import backpropagate
from hubel.engine.record import tensors_in
from hubel.engine.tape import Tape
from hubel.errors import ModelError

warnings.simplefilter("ignore")
from torch.testing._internal.common_methods_invocations import op_db  # noqa: E402

# what we do not follow, and say so: complex and sparse numbers are refused in one line
SPARSE = {"sparse.mm.reduce", "sparse.sampled_addmm"}
# several draws of chance in another order than the fused kernel's
RANDOM = {"nn.functional.scaled_dot_product_attention"}


@dataclass
class Count:
    """Samples of one operator."""

    ran: int = 0
    refused: int = 0
    borrowed: list = field(default_factory=list)
    wrong: list = field(default_factory=list)


def name_of(info):
    return f"{info.name}.{info.variant_test_name}" if info.variant_test_name else info.name


def floats(tree):
    return [t for t in tensors_in(tree) if t.is_floating_point()]


def by_autograd(info, sample, leaves):
    """Outputs, what flows into them, and the leaves' gradients; None where there are none."""
    try:
        torch.manual_seed(0)
        outputs = floats(info(sample.input, *sample.args, **sample.kwargs))
        followed = [i for i, t in enumerate(outputs) if t.requires_grad]
        if not followed:
            return None
        flows = [torch.randn_like(outputs[i]) for i in followed]
        total = sum((outputs[i] * d).sum() for i, d in zip(followed, flows, strict=True))
        return outputs, followed, flows, torch.autograd.grad(total, leaves, allow_unused=True)
    except (RuntimeError, ValueError, TypeError, NotImplementedError):
        return None  # a sample that torch itself refuses


def try_sample(info, sample, count):
    leaves = [t for t in floats((sample.input, sample.args, sample.kwargs)) if t.requires_grad]
    known = by_autograd(info, sample, leaves) if leaves else None
    if known is None:
        return
    outputs, followed, flows, theirs = known
    count.ran += 1
    torch.manual_seed(0)
    try:
        with Tape(watch={str(i): t for i, t in enumerate(leaves)}) as tape:
            found = floats(info(sample.input, *sample.args, **sample.kwargs))
            total = sum((found[i] * d).sum() for i, d in zip(followed, flows, strict=True))
        ours = backpropagate(tape, total)
    except ModelError as error:
        if "complex or sparse" not in str(error):
            raise
        count.refused += 1
        return
    count.borrowed += [r.options["call"].name for r in tape.records if r.borrowed]
    for mine, other in zip(found, outputs, strict=True):
        if not close(mine, other.detach()):
            count.wrong.append(f"values, {sample.kwargs}")
    for i, other in enumerate(theirs):
        mine = ours.get(str(i))
        if mine is None and other is None:
            continue
        mine = torch.zeros_like(other) if mine is None else mine
        if not close(mine, torch.zeros_like(mine) if other is None else other):
            count.wrong.append(f"gradient {i}, {sample.args}, {sample.kwargs}")


def close(one, other):
    exact = 1e-5 if one.dtype == torch.float32 else 1e-8  # float32 weights stand in some samples
    return one.shape == other.shape and torch.allclose(one, other, exact, exact, equal_nan=True)


def run(info, most):
    count = Count()
    samples = list(info.sample_inputs("cpu", torch.float64, requires_grad=True))
    for sample in samples[:: max(1, math.ceil(len(samples) / most))]:
        try_sample(info, sample, count)
    return count


def main(most=math.inf):
    counts = {}
    for info in op_db:
        floating = torch.float64 in info.supported_backward_dtypes("cpu")
        if floating and name_of(info) not in SPARSE | RANDOM:
            count = run(info, float(most))
            if count.ran:
                counts[name_of(info)] = asdict(count) | {"borrowed": sorted(set(count.borrowed))}
    print(json.dumps(counts))


if __name__ == "__main__":
    main(*sys.argv[1:])
