"""How a gradient becomes a step: the optimisers of the lectures, with weight decay told apart.

Notation: w a weight, g its gradient, lr the learning rate, mu the momentum. All updates run on
lists of tensors (`torch._foreach_*`), so a step costs a handful of calls whatever the net.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, overload

import torch
from torch import Tensor, nn

from hubel.models.head import body_of
from hubel.training.plan import Decay, Momentum, Optimiser


def _bare(method: Any) -> Any:
    return getattr(method, "__wrapped__", method)


class _Light(torch.optim.Optimizer):
    """PyTorch imports its compiler to keep it out of these methods: 1.3 s before the first step."""

    add_param_group = _bare(torch.optim.Optimizer.add_param_group)
    zero_grad = _bare(torch.optim.Optimizer.zero_grad)
    state_dict = _bare(torch.optim.Optimizer.state_dict)
    load_state_dict = _bare(torch.optim.Optimizer.load_state_dict)


class _Stepper(_Light):
    """Steps group by group over the weights that have a gradient; `_update` says how."""

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        if closure is not None:
            raise ValueError(f"{type(self).__name__} takes no closure")
        for group in self.param_groups:
            weights = [w for w in group["params"] if w.grad is not None]
            if weights:
                gradients = [w.grad for w in weights]
                self._update(weights, gradients, group)
        return None

    def _update(self, weights: list[Tensor], g: list[Tensor], group: dict[str, Any]) -> None:
        raise NotImplementedError


class MomentumSGD(_Stepper):
    """Stochastic gradient descent with the momentum forms that books and libraries use.

    ==========  ==============================================  ==========================
    form        update                                          source
    ==========  ==============================================  ==========================
    velocity    v <- mu v - lr g;            w <- w + v         Krizhevsky 2012, Caffe
    average     m <- mu m + (1 - mu) g;      w <- w - lr m      moving average of gradients
    nesterov    v <- mu v - lr g;            w <- w + mu v - lr g   Sutskever 2013
    pytorch     v <- mu v + g;               w <- w - lr v      torch.optim.SGD
    ==========  ==============================================  ==========================

    `velocity` and `pytorch` take the same path while lr stands still; when lr drops, `velocity`
    keeps the old, larger velocity for a while and `pytorch` scales it down at once. `average`
    takes steps (1 - mu) times as long: give it a learning rate 1 / (1 - mu) times higher.
    """

    def __init__(
        self, params: Iterable[Any], lr: float, momentum: float = 0.9, form: Momentum = "nesterov"
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "form": form})

    def _update(self, weights: list[Tensor], g: list[Tensor], group: dict[str, Any]) -> None:
        lr, mu, form = group["lr"], group["momentum"], group["form"]
        v = [self.velocity(w) for w in weights]
        torch._foreach_mul_(v, mu)
        if form == "average":
            torch._foreach_add_(v, g, alpha=1 - mu)
            torch._foreach_add_(weights, v, alpha=-lr)
        elif form == "pytorch":
            torch._foreach_add_(v, g)
            torch._foreach_add_(weights, v, alpha=-lr)
        elif form == "velocity":
            torch._foreach_add_(v, g, alpha=-lr)
            torch._foreach_add_(weights, v)
        else:
            torch._foreach_add_(v, g, alpha=-lr)
            torch._foreach_add_(weights, v, alpha=mu)
            torch._foreach_add_(weights, g, alpha=-lr)

    def velocity(self, weight: Tensor) -> Tensor:
        """The weight's v, made as zeros where it is not yet."""
        state = self.state[weight]
        if "v" not in state:
            state["v"] = torch.zeros_like(weight)
        return state["v"]  # type: ignore[no-any-return]


class DiagonalLM(_Stepper):
    """Stochastic diagonal Levenberg-Marquardt: every weight steps as far as the loss is flat there.

    w <- w - lr g / (mu + h),  h the weight's curvature (LeCun et al. 1998, appendix C). `measured`
    must be called before the first step, and again whenever h is to be renewed; mu keeps weights
    on which the loss hardly depends from running away. h is part of the optimiser's state.
    """

    def __init__(self, params: Iterable[Any], lr: float, mu: float = 0.02) -> None:
        super().__init__(params, {"lr": lr, "mu": mu})

    def measured(self, curvature: Mapping[nn.Parameter, Tensor]) -> None:
        """Take up h, 0 or more, in each parameter's shape."""
        for weight, h in curvature.items():
            self.state[weight]["h"] = h

    def _update(self, weights: list[Tensor], g: list[Tensor], group: dict[str, Any]) -> None:
        damped = torch._foreach_add([self.state[w]["h"] for w in weights], group["mu"])
        torch._foreach_addcdiv_(weights, g, damped, value=-group["lr"])


def build_optimiser(
    model: nn.Module, plan: Optimiser, body_rate: float = 1.0
) -> torch.optim.Optimizer:
    """The optimiser of `plan` over the model's trainable parameters.

    Two parameter groups: those that decay, and those that do not (every parameter of fewer than
    two axes, which is what biases, norms and scalars are), unless `decay_all`. The group's key
    "decay" holds its strength; `apply_decay` does the decaying, alike for every optimiser. With a
    `body_rate` below 1 (Howard, Ruder 2018: discriminative rates) all but the head's parameters
    form groups of their own, whose key "share" says what part of the rate they take.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    body = body_of(model) if body_rate < 1 else set()
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for p in trainable:
        decay = plan.weight_decay if plan.decay_all or p.ndim > 1 else 0.0
        share = body_rate if id(p) in body else 1.0
        groups.setdefault((share, decay), []).append(p)
    return _optimiser(
        [{"params": ps, "decay": d, "share": s} for (s, d), ps in groups.items()], plan
    )


class _Adagrad(_Light, torch.optim.Adagrad):
    pass


class _RMSprop(_Light, torch.optim.RMSprop):
    pass


class _Adam(_Light, torch.optim.Adam):
    pass


def _optimiser(groups: list[dict[str, Any]], plan: Optimiser) -> torch.optim.Optimizer:
    moments = (plan.momentum, plan.beta2)
    match plan.name:
        case "sgd":
            return MomentumSGD(groups, plan.lr, plan.momentum, plan.momentum_form)
        case "adagrad":
            return _Adagrad(groups, plan.lr, eps=plan.eps)
        case "rmsprop":
            return _RMSprop(groups, plan.lr, alpha=plan.beta2, eps=plan.eps, momentum=plan.momentum)
        case "adam" | "adamw":
            return _Adam(groups, plan.lr, betas=moments, eps=plan.eps, fused=True)
        case "sdlm":
            return DiagonalLM(groups, plan.lr, plan.mu)


def decay_form(plan: Optimiser) -> Decay:
    """AdamW is Adam with decoupled decay, whatever else was said."""
    return "decoupled" if plan.name == "adamw" else plan.decay


@torch.no_grad()
def apply_decay(optimiser: torch.optim.Optimizer, form: Decay) -> None:
    """Weight decay, before the optimiser's own step; gradients must stand.

    l2:        g <- g + decay w        the penalty (decay / 2) |w|^2 as a part of the loss
    decoupled: w <- w (1 - lr decay)   Loshchilov & Hutter 2019: the step never sees it
    """
    for group in optimiser.param_groups:
        decay = group["decay"]
        weights = [w for w in group["params"] if w.grad is not None]
        if not decay or not weights:
            continue
        if form == "l2":
            torch._foreach_add_([w.grad for w in weights], weights, alpha=decay)
        else:
            torch._foreach_mul_(weights, 1 - group["lr"] * decay)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group its share of the learning rate `rate`."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get("share", 1.0)
