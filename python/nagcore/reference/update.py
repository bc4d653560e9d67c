"""The Nesterov update as torch and keras round it, and the rounding tools that takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


def fma(a, b, c):
    """a·b + c rounded once, to the bit, for float32; float64 rounds the product too.

    A float32 product is exact in float64. The sum is not, and rounding it to float64, then to
    float32, would round twice: so the error e of the sum (Knuth's two-sum) pushes it to its odd
    neighbour, whose last bit tells the second rounding what was lost (Boldo & Melquiond 2008).

    >>> a = np.float32(1 + 2.0**-12)
    >>> float(fma(a, a, np.float32(-1))) - 2.0**-11, float(a * a - np.float32(1)) - 2.0**-11
    (5.960464477539063e-08, 0.0)
    """
    if np.result_type(a, b, c) != np.float32:
        return a * b + c
    with np.errstate(all="ignore"):
        p, c = np.asarray(a, np.float64) * b, np.asarray(c, np.float64)
        total = np.asarray(p + c)
        t = total - p
        e = (p - (total - t)) + (c - t)
        even = np.isfinite(total) & (e != 0) & (total.view(np.int64) & 1 == 0)
        odd = np.nextafter(total, np.copysign(np.inf, e))
        return np.where(even, odd, total).astype(np.float32)


def stochastic_neighbours(x, dtype):
    """(toward zero, away from zero, probability of away): what rounding x at random to a 16-bit
    type may give; probability (|x| − |toward|)/(|away| − |toward|) makes the mean x.

    >>> [a.tolist() for a in stochastic_neighbours(np.float32([1 + 2.0**-12]), np.float16)]
    [[1.0], [1.0009765625], [0.25]]
    """
    x = np.asarray(x, np.float64)
    near = x.astype(np.float32).astype(dtype)
    bits = near.view(np.uint16)
    bits = np.where(np.abs(near.astype(np.float64)) > np.abs(x), bits - 1, bits).astype(np.uint16)
    down, up = bits.view(dtype), (bits + np.uint16(1)).view(dtype)
    lo, hi = np.abs(down.astype(np.float64)), np.abs(up.astype(np.float64))
    return down, up, (np.abs(x) - lo) / (hi - lo)


def _rule(theta, g, b, *, lr, momentum=0.9, lookahead=None, dampening=0.0, weight_decay=0.0,
          decoupled=False, nesterov=True, convention="torch", first=False):  # fmt: skip
    """One tensor's update, in θ's type, scalars rounded to it first. Returns θ and the buffer.

    torch: g ← g + λθ; b ← g on a first step, else μb + (1−τ)g; θ ← θ − lr(g + μb), or θ − lr·b.
    keras: v ← μv − lr·g; θ ← θ + (μv − lr·g), or θ + v. Where fma stands, the library fuses.
    μ = 0 leaves the buffer alone: θ ← θ − lr·g.

    >>> one = np.ones(1, np.float32)
    >>> _rule(one, one, 0 * one, lr=0.5, momentum=0.5, first=True)
    (array([0.25], dtype=float32), array([1.], dtype=float32))
    """
    f, mu, wd = theta.dtype.type, momentum, weight_decay
    mu, ahead, torch = f(mu), f(mu if lookahead is None else lookahead), convention == "torch"
    if wd and decoupled:
        multiply = torch or convention == "keras_torch"
        if convention == "keras_jax":
            theta = fma(f(-lr), theta * f(wd), theta)
        else:
            theta = theta * f(1 - lr * wd) if multiply else theta - theta * f(wd) * f(lr)
    elif wd:
        g = fma(f(wd), theta, g) if torch else g + f(wd) * theta
    if momentum == 0 and lookahead is None:  # plain descent, as both libraries have it: no buffer
        return theta - f(lr) * g if convention == "keras" else fma(f(-lr), g, theta), b
    if torch:
        b = g.copy() if first else fma(f(1 - dampening), g, mu * b)
        return fma(f(-lr), fma(ahead, b, g) if nesterov else b, theta), b
    v, lg = np.zeros_like(g) if first else b, f(lr) * g
    if convention == "keras":
        v = mu * v - lg
        return theta + ((ahead * v - lg) if nesterov else v), v
    if convention == "keras_torch":
        v = fma(f(-lr), g, mu * v)
        return (fma(ahead, v, fma(f(-lr), g, theta)) if nesterov else theta + v), v
    v = fma(mu, v, -lg)  # keras_jax
    return theta + (fma(ahead, v, -lg) if nesterov else v), v


class Step(NamedTuple):
    """What :func:`nesterov_step` returns: new lists (master None if none came), and the report.

    >>> nesterov_step([], [], [], lr=0.1)
    Step(params=[], buffers=[], master=None, norm=0.0, clip=1.0, found_inf=False)
    """

    params: list
    buffers: list
    master: list | None
    norm: float
    clip: float
    found_inf: bool


def nesterov_step(params: Sequence, grads: Sequence, buffers: Sequence, *, maximize=False,
                  first_step=False, check_finite=False, grad_scale=None, max_norm=None,
                  master=None, **rule) -> Step:  # fmt: skip
    """One step of a list of tensors: unscale → clip → decay → update. Nothing is written.

    clip = min(1, max_norm/(‖g‖ + 1e−6)) over all tensors, as torch's clip_grad_norm_. float32 and
    float64 compute in their own type; bf16 and fp16 parameters compute in float32 and round once,
    or are ``master`` (float32) rounded. A non-finite gradient changes nothing where check_finite,
    grad_scale or max_norm ask for a first look. ``**rule``: lr, momentum=0.9, lookahead=None,
    dampening=0, weight_decay=0, decoupled=False, nesterov=True and ``convention``: "torch", "keras"
    (eager NumPy or JAX), "keras_torch" (keras on torch), "keras_jax" (keras on JAX under jit).

    >>> a = np.ones(1, np.float32)
    >>> step = nesterov_step([a], [a], [a], lr=0.5, momentum=0.5, max_norm=2.0, first_step=True)
    >>> step.params[0].tolist(), step.buffers[0].tolist(), step.norm, step.clip, step.found_inf
    ([0.25], [1.0], 1.0, 1.0, False)
    """
    first = np.broadcast_to(first_step, len(params))
    wide = [p if p.dtype == np.float64 else p.astype(np.float32) for p in (master or params)]
    grads = [np.asarray(g).astype(t.dtype) for g, t in zip(grads, wide)]
    if grad_scale is not None:
        grads = [g / g.dtype.type(grad_scale) for g in grads]
    norm = float(np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in grads)))
    found = not all(np.isfinite(g).all() for g in grads)
    if found and (check_finite or grad_scale is not None or max_norm is not None):
        return Step(list(params), list(buffers), master, norm, 1.0, True)
    clip = 1.0 if max_norm is None else min(1.0, max_norm / (norm + 1e-6))
    grads = [(-g if maximize else g) * g.dtype.type(clip) for g in grads]
    done = [_rule(*t, first=bool(f), **rule) for *t, f in zip(wide, grads, buffers, first)]
    wide, buffers = [t for t, _ in done], [b for _, b in done]
    rounded = [t.astype(p.dtype) for t, p in zip(wide, params)]
    return Step(rounded, buffers, None if master is None else wide, norm, clip, found)


def ema_update(ema, theta, decay):
    """decay·ema + (1 − decay)·θ, the average that follows the step.

    >>> float(ema_update(np.float32(1), np.float32(3), 0.75))
    1.5
    """
    return ema.dtype.type(decay) * ema + ema.dtype.type(1 - decay) * theta.astype(ema.dtype)

