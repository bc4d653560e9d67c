"""`SGD`: torch.optim.SGD's arguments, state and trajectories, one trip through memory per step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.autograd.profiler as _profiler
import torch.optim.optimizer as _hooks

from ..update import StepReport
from . import handed
from .checks import check_options, check_rule
from .memory import Memory, PageReport

__all__ = ["SGD"]

# What an optimizer is beside torch's own fields, and what pickle and deepcopy keep of it.
_OPTIONS: dict[str, Any] = {
    "max_norm": None, "ema_decay": None, "state_dtype": None, "master_weights": False,
    "n_threads": None, "guard": None, "acceleration": None, "large_pages": True,
    "last_report": None, "_taken": 0, "_stash": None,
}  # fmt: skip
_NOTHING = StepReport(0.0, 1.0, False, 0, 0)


class SGD(torch.optim.SGD):
    r"""torch.optim.SGD with the same arguments and the same bits, as one pass over the parameters.

    With g the gradient of θ, b the momentum buffer, γ ``lr``, μ ``momentum``, τ ``dampening`` and
    λ ``weight_decay``::

        g ← g + λθ ;  b ← μb + (1 − τ)g  (b ← g on a parameter's first step)
        θ ← θ − γ(g + μb)  with nesterov,   θ ← θ − γb  without

    float32 and float64 results equal torch's single-tensor path to the bit on processors with fused
    multiply-add; complex numbers are stepped as pairs of reals and may differ in the last bit.
    bfloat16 and float16 parameters are computed in float32 and rounded once, where torch rounds
    every operation.

    Parameters
    ----------
    params : iterable
        Parameters, named parameters or groups, as for every torch optimizer. Any dense layout and
        any strides.
    lr, momentum, dampening, weight_decay, nesterov, maximize
        As in torch, per group, numbers or one-element tensors where torch takes them.
    foreach, fused : bool, optional
        Accepted, and followed where torch takes the step itself; they change no result here.
    differentiable : bool
        Hands every step to torch.
    decoupled_weight_decay : bool
        θ ← θ(1 − γλ) in place of g ← g + λθ (SGDW), per group.
    max_norm : float, optional
        Clip the joint norm of all gradients, as torch.nn.utils.clip_grad_norm_ does, in the same
        trip. The gradients themselves are left as they are.
    ema_decay : float, optional
        κ in [0, 1] of a moving average e ← κe + (1 − κ)θ of the parameters, in ``state[p]["ema"]``;
        :meth:`swap_ema` puts it in the model.
    state_dtype : torch.dtype, optional
        torch.float32 (also the momentum of 16-bit parameters, the default there) or torch.bfloat16:
        momentum of half the size, rounded stochastically so that small gradients are not lost.
        16-bit parameters without master weights are then rounded stochastically as well.
        float64 and complex parameters keep momentum of their own type.
    master_weights : bool
        Keep a float32 copy of bfloat16 and float16 parameters in ``state[p]["master"]``. The steps
        add up there, and the parameters are its nearest values. Write parameters through
        load_state_dict or before the first step: the copy does not see what is written later.
    n_threads : int, optional
        None is all that this process may use; results do not depend on it.
    guard : nagcore.callbacks.AnomalyGuard, optional
        Asked before each step, with the gradients' norm and the closure's or ``step``'s loss; costs
        one more read of the gradients.
    acceleration : schedule, optional
        One of nagcore.schedules: sets the momentum of every group at every step, and with
        ``nesterov`` the look-ahead to the next step's. Adaptive ones are shown ⟨g, −γb⟩.
    large_pages : bool
        Move tensors of 256 KiB and more into large pages of memory where the system can (Linux from
        6.1 on) and they fill half a page, in a quarter of each step's time at most, gradients once
        they have stayed in one place for eight steps. Addresses and contents stay as they are.
        False leaves all memory as it is.

    Attributes
    ----------
    last_report : StepReport or None
        Norm, clip factor and counts of the last step.
    page_report : PageReport
        Bytes ``moved`` into large pages so far, ``waiting`` for it and ``refused`` by the system.

    Raises
    ------
    ValueError
        A hyper-parameter out of its range or not a number, a gradient whose dtype does not go with
        its parameter's, state of another model. Nothing has been written then.
    RuntimeError
        Sparse gradients; ``fused`` with ``differentiable`` or ``foreach``, as in torch.

    Notes
    -----
    Parameters on other devices, of other dtypes or sharing memory are stepped by torch's own
    implementation, and a warning says so once. Under torch.amp.GradScaler the gradients are not
    unscaled in place; read ``last_report.grad_norm``. See Sutskever et al. (2013), "On the
    importance of initialization and momentum in deep learning".

    Examples
    --------
    >>> import torch
    >>> from nagcore.torch import SGD
    >>> w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    >>> optimizer = SGD([w], lr=0.1, momentum=0.9, nesterov=True, max_norm=1.0)
    >>> for _ in range(200):
    ...     optimizer.zero_grad()
    ...     w.square().sum().backward()
    ...     optimizer.step()
    >>> bool(w.abs().max() < 1e-3), optimizer.last_report.clip_factor
    (True, 1.0)
    """

    _step_supports_amp_scaling = True  # GradScaler sets grad_scale and found_inf
    # Parameters and their own values while the moving averages stand in their place.
    _stash: list[tuple[torch.Tensor, torch.Tensor]] | None
    last_report: StepReport | None

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float | torch.Tensor = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        max_norm: float | None = None,
        ema_decay: float | None = None,
        state_dtype: torch.dtype | None = None,
        master_weights: bool = False,
        n_threads: int | None = None,
        guard: Any = None,
        acceleration: Any = None,
        large_pages: bool = True,
    ) -> None:
        check_rule(lr, momentum, dampening, weight_decay)
        if nesterov and (dampening != 0 or (momentum <= 0 and acceleration is None)):
            raise ValueError(
                "Nesterov momentum requires a momentum and zero dampening; momentum is "
                f"{momentum} and dampening {dampening}. Use momentum=0.9, dampening=0."
            )
        if fused and differentiable:
            raise RuntimeError("`fused` does not support `differentiable`. Leave one of them out.")
        if fused and foreach:
            raise RuntimeError(
                "`fused` and `foreach` cannot be `True` together. Leave one of them out."
            )
        check_options(max_norm, ema_decay, state_dtype, n_threads, guard, acceleration)
        options = (max_norm, ema_decay, state_dtype, bool(master_weights), n_threads, guard)
        self.__dict__.update(_OPTIONS)
        self.__dict__.update(zip(_OPTIONS, (*options, acceleration, bool(large_pages))))
        self._memory = Memory(self)
        if differentiable and self._extras():
            raise ValueError(
                "differentiable=True hands every step to torch, which knows nothing of "
                f"{', '.join(self._extras())}. Leave one of them out."
            )
        defaults = {
            "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
            "nesterov": nesterov, "maximize": maximize, "foreach": foreach,
            "differentiable": differentiable, "fused": fused,
            "decoupled_weight_decay": bool(decoupled_weight_decay),
        }  # fmt: skip
        torch.optim.Optimizer.__init__(self, params, defaults)

    # ----- the step -----------------------------------------------------------------------------

    def step(  # type: ignore[override]
        self, closure: Callable[[], Any] | None = None, *, loss: Any = None
    ) -> Any:
        """Take one step.

        Parameters
        ----------
        closure : callable, optional
            Evaluates the model anew, fills the gradients and returns the loss, which is returned.
        loss : float or one-element tensor, optional
            The loss of these gradients, for ``guard``, where there is no closure.

        Examples
        --------
        >>> import torch
        >>> from nagcore.torch import SGD
        >>> w = torch.nn.Parameter(torch.ones(1))
        >>> def closure():
        ...     w.grad = None
        ...     loss = w.square().sum()
        ...     loss.backward()
        ...     return loss
        >>> SGD([w], lr=0.25).step(closure).item(), w.item()
        (1.0, 0.5)
        """
        if _watched(self):
            given = () if closure is None else (closure,)
            return self._watched_step(*given, **({} if loss is None else {"loss": loss}))
        return self._plain_step(closure, loss=loss)

    # torch wraps the step of every optimizer, unless it is marked as here, for profilers and hooks: 8 µs
    # where a step of a few tensors takes 4, and 28 where a thousand tensors leave the caches to nobody.
    step.hooked = True  # type: ignore[attr-defined]

    def _plain_step(
        self, closure: Callable[[], Any] | None = None, *, loss: Any = None
    ) -> Any:
        value = None
        if closure is not None:
            with torch.enable_grad():
                value = closure()
        if torch.compiler.is_compiling():
            _outside_graphs(self, value if loss is None else loss)
        else:
            self._step(value if loss is None else loss)
        return value

    _watched_step = torch.optim.Optimizer.profile_hook_step(_plain_step)

    def _step(self, loss: Any) -> None:
        if self._stash is not None:
            raise RuntimeError(
                "The model holds its moving average (swap_ema); a step would train that. Call "
                "optimizer.swap_ema() again first, or leave the `with` block."
            )
        own = self.__dict__
        pending = own.pop("_pending", None)  # nagcore's GradScaler leaves the search to the step
        found = own.get("found_inf") if pending is None else None
        scale = own.get("grad_scale")
        if scale is not None:
            scale = float(scale)
        if handed.wanted(self):
            if self._extras():
                raise ValueError(
                    "A group is differentiable or has a learning rate that requires a gradient, so "
                    "torch takes the step, which knows nothing of "
                    f"{', '.join(self._extras())}. Leave one of them out."
                )
            handed.whole_step(self, scale, found)
            return
        memory = self._memory
        momentum, lookahead = self._momenta()
        first = memory.gather(momentum, lookahead)
        try:
            if found is not None and float(found) != 0.0:
                report = _NOTHING._replace(grad_norm=math.nan, found_inf=True)
                if self.guard is not None:
                    self.guard.check(self._taken + 1, loss=_number(loss), found_inf=True)
                self._finish(report, first)
                return
            read_first = pending is not None or (found is None and scale is not None)
            self._move(first, scale, loss, read_first, momentum)
        except BaseException:
            memory.forget(first)
            raise
        finally:
            memory.plan.release()
        if pending is not None and self.last_report is not None and self.last_report.found_inf:
            pending.fill_(1.0)

    def _move(
        self, first: list[int], scale: float | None, loss: Any, read_first: bool, momentum: Any
    ) -> None:
        memory, plan = self._memory, self._memory.plan
        max_norm = self.max_norm
        known: float | None = None
        others = memory.others() if memory.handed_over else []
        if self.guard is not None or (others and (max_norm is not None or read_first)):
            known = handed.joint_norm(plan.norm(scale, self.n_threads), others, scale)
        if self.guard is not None and known is not None:
            verdict = self.guard.check(self._taken + 1, loss=_number(loss), grad_norm=known)
            if verdict.action == "rollback":
                memory.go_back(self.guard.last_good)
            if verdict.action in ("skip", "rollback"):
                bad = not math.isfinite(known)
                self._finish(_NOTHING._replace(grad_norm=known, found_inf=bad), first)
                return
            if verdict.max_norm is not None:
                max_norm = min(verdict.max_norm, max_norm or math.inf)
            if self.guard.action == "rollback":
                memory.keep_for(self.guard, first)
        adaptive = self.acceleration is not None and self.acceleration.adaptive
        # The step's number is the seed: a run resumed from its state draws the same bits.
        seed = self._taken + 1 if self.state_dtype is torch.bfloat16 else 0
        counts = plan.step(
            first, max_norm, self.ema_decay, scale, read_first, known, adaptive, seed,
            self.n_threads,
        )  # fmt: skip
        done = StepReport(*counts[:5])
        if known is None or not done.found_inf:
            if others:
                handed.step(self, others, scale, done.clip_factor, momentum)
            torch.autograd.graph.increment_version(plan.counters)
            if adaptive:
                self.acceleration.observe(counts[5])
        self._finish(done, first, written=done.tensors > 0 or bool(others))

    @property
    def page_report(self) -> PageReport:
        """Bytes of large tensors moved into large pages, waiting for it, and refused.

        Examples
        --------
        >>> import torch
        >>> from nagcore.torch import SGD
        >>> SGD([torch.nn.Parameter(torch.ones(1))]).page_report
        PageReport(moved=0, waiting=0, refused=0)
        """
        return PageReport(*self._memory.plan.pages)

    def _finish(self, report: StepReport, first: list[int], written: bool = False) -> None:
        self.last_report = report
        if written:
            self._taken += 1
        elif first:
            self._memory.forget(first)

    def _momenta(self) -> tuple[float | None, float | None]:
        if self.acceleration is None:
            return None, None
        t = self._taken + 1
        momentum = self.acceleration(t)
        for group in self.param_groups:
            group["momentum"] = momentum
        return momentum, self.acceleration(t + 1)

    # ----- moving average -----------------------------------------------------------------------

    def swap_ema(self) -> Any:
        """Put the moving averages in the model's parameters, or the parameters back; a toggle.

        The value may be used with ``with``, and then the parameters come back at the end of the
        block. Steps are refused in between.

        Examples
        --------
        >>> import torch
        >>> from nagcore.torch import SGD
        >>> w = torch.nn.Parameter(torch.ones(1))
        >>> optimizer = SGD([w], lr=0.5, ema_decay=0.5)
        >>> for _ in range(2):
        ...     w.grad = torch.ones(1)
        ...     optimizer.step()
        >>> with optimizer.swap_ema():
        ...     w.item()
        0.25
        >>> w.item()
        0.0
        """
        if self.ema_decay is None:
            raise ValueError("There is no moving average; construct SGD(..., ema_decay=0.999).")
        with torch.no_grad():
            if self._stash is not None:
                for p, kept in self._stash:
                    p.copy_(kept)
                self._stash = None
            else:
                averaged = [
                    (p, self.state[p]["ema"])
                    for group in self.param_groups
                    for p in group["params"]
                    if "ema" in self.state.get(p, ())
                ]
                self._stash = [(p, p.detach().clone()) for p, _ in averaged]
                for p, average in averaged:
                    p.copy_(average)
        return self._swapped()

    @contextmanager
    def _swapped(self) -> Iterator[SGD]:
        inside = self._stash is not None
        try:
            yield self
        finally:
            if inside and self._stash is not None:
                self.swap_ema()

    # ----- state --------------------------------------------------------------------------------

    def _extras(self) -> list[str]:
        """The options in use that torch.optim.SGD does not have."""
        names = ("max_norm", "ema_decay", "state_dtype", "master_weights", "guard", "acceleration")
        return [name for name in names if getattr(self, name) not in (None, False)]

    def state_dict(self) -> dict[str, Any]:
        """torch.optim.SGD's dictionary, which either class loads.

        Where an option needs it, a third entry ``"nagcore"`` holds the number of steps and the
        state of schedule and guard; torch ignores it.

        Examples
        --------
        >>> import torch
        >>> from nagcore.torch import SGD
        >>> sorted(SGD([torch.nn.Parameter(torch.ones(1))]).state_dict())
        ['param_groups', 'state']
        """
        found = super().state_dict()
        if self._extras():
            more: dict[str, Any] = {"version": 1, "steps": self._taken}
            for name in ("acceleration", "guard"):
                if getattr(self, name) is not None:
                    more[name] = getattr(self, name).state_dict()
            found["nagcore"] = more
        return found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what either class's ``state_dict`` returned; checked whole before anything changes.

        Momentum is cast to what this optimizer keeps, so float32 momentum of 16-bit parameters
        stays float32.

        Raises
        ------
        ValueError
            Another number of groups or parameters, or state of another shape.

        Examples
        --------
        >>> import torch
        >>> from nagcore.torch import SGD
        >>> w = torch.nn.Parameter(torch.ones(3))
        >>> theirs = torch.optim.SGD([w], lr=0.1, momentum=0.9)
        >>> ours = SGD([w], lr=0.5)
        >>> ours.load_state_dict(theirs.state_dict())
        >>> ours.param_groups[0]["lr"]
        0.1
        """
        self._memory.load(state_dict, super().load_state_dict)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), **{name: getattr(self, name) for name in _OPTIONS}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in _OPTIONS.items():
            self.__dict__.setdefault(name, value)
        super().__setstate__(state)
        self.defaults.setdefault("decoupled_weight_decay", False)
        for group in self.param_groups:
            group.setdefault("decoupled_weight_decay", False)
        self._memory = Memory(self)


def _watched(optimizer: SGD) -> bool:
    """Whether a profiler or a hook waits for this step: torch's own wrapper serves both."""
    if type(optimizer).step is not SGD.step:  # a subclass's own, which torch has wrapped
        return False
    return bool(
        optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or _hooks._global_optimizer_pre_hooks
        or _hooks._global_optimizer_post_hooks
        or getattr(_profiler, "_is_profiler_enabled", True)  # a flag of torch ≥ 2.2
        or torch.autograd._profiler_enabled()
    )


def _outside(optimizer: SGD, loss: Any) -> None:
    optimizer._step(loss)


# A compiled step breaks its graph here: what runs is the same C++ call.
_outside_graphs = torch.compiler.disable(_outside)


def _number(loss: Any) -> float | None:
    return None if loss is None else float(loss)
