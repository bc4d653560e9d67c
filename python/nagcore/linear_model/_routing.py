"""Where fit's further arguments go: to the splitter of the folds, and to the scorer.

Without metadata routing the splitter gets nothing, and the scorer gets sample_weight, as in scikit-learn.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from sklearn.metrics import get_scorer, make_scorer
from sklearn.utils._metadata_requests import _routing_enabled
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.validation import _num_samples

__all__ = ["label_aware", "part_of", "refuse_params", "route", "router"]


def refuse_params(params: dict[str, Any], owner: Any, method: str) -> None:
    """Raise if `params` are given without metadata routing."""
    if params and not _routing_enabled():
        raise ValueError(
            f"Passing extra keyword arguments to {type(owner).__name__}.{method} is only supported if "
            "enable_metadata_routing=True, which you can set using `sklearn.set_config`. Got extra "
            f"arguments: {set(params)}."
        )


def route(
    owner: Any, method: str, sample_weight: Any, params: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keyword arguments for the splitter's `split` and for the scorer."""
    given = dict(params)
    if sample_weight is not None:
        given["sample_weight"] = sample_weight
    if not _routing_enabled():
        return {}, given
    if "other_params" in inspect.signature(process_routing).parameters:  # scikit-learn 1.3
        routed = process_routing(owner, method, other_params=given)
    else:
        routed = process_routing(owner, method, **given)
    return dict(getattr(routed, "splitter", {}).get("split", {})), dict(
        getattr(routed, "scorer", {}).get("score", {}))


def router(owner: Any, splitter: Any, scorer: Any = None, scores: bool = False) -> MetadataRouter:
    """The owner's own requests, its splitter's in fit, and its scorer's in fit and, if so, in score."""
    made = MetadataRouter(owner=owner).add_self_request(owner)
    made.add(splitter=splitter, method_mapping=MethodMapping().add(caller="fit", callee="split"))
    if scorer is not None:
        mapping = MethodMapping().add(caller="fit", callee="score")
        if scores:
            mapping.add(caller="score", callee="score")
        made.add(scorer=scorer, method_mapping=mapping)
    return made


def part_of(params: dict[str, Any], n: int, rows: np.ndarray) -> dict[str, Any]:
    """The rows of those arguments that hold one entry for each."""
    def pick(value: Any) -> Any:
        if value is None or np.ndim(value) == 0 or _num_samples(value) != n:
            return value
        return np.asarray(value)[rows]

    return {name: pick(value) for name, value in params.items()}


def label_aware(scoring: Any, classes: np.ndarray) -> Any:
    """A scorer that knows all classes, as a fold need not hold each: log loss asks for them."""
    scorer = get_scorer(scoring)
    score = getattr(scorer, "_score_func", None)
    known = inspect.signature(score).parameters if score is not None else {}
    if "labels" not in known or not hasattr(scorer, "_response_method"):
        return scorer
    more = {"pos_label": classes[-1]} if len(classes) <= 2 and "pos_label" in known else {}
    return make_scorer(score, greater_is_better=scorer._sign == 1, labels=classes,
                       response_method=scorer._response_method, **more, **scorer._kwargs)
