"""Logistic regression whose C and l1_ratio are chosen by cross-validation."""

from __future__ import annotations

import math
import warnings
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.metrics import get_scorer, get_scorer_names
from sklearn.model_selection import check_cv
from sklearn.utils import compute_class_weight
from sklearn.utils._param_validation import Hidden, Interval, StrOptions

from nagcore.linear_model._base import check_data, check_weights, raise_if_interrupted, validate_params
from nagcore.linear_model._folds import HeldOut, fold_weights, takes_predictions
from nagcore.linear_model._labels import checked
from nagcore.linear_model._logistic import LogisticRegression
from nagcore.linear_model._logistic_problem import LogisticProblem, check_solver
from nagcore.linear_model._routing import label_aware, part_of, refuse_params, route, router

__all__ = ["LogisticRegressionCV"]


class _OfMargins(LogisticRegression):
    """A model that is given margins in place of X: scorers ask nothing else of X."""

    def decision_function(self, X: Any) -> np.ndarray:
        return X


class LogisticRegressionCV(LogisticRegression):
    """Logistic regression with C and l1_ratio chosen by cross-validation.

    For each fold and each l1_ratio the path over C is fitted with warm starts. Rows that a fold holds
    out have weight zero, and their margins are computed in blocks: X stays where it is. Only a scorer
    that is not of scikit-learn's make is handed a copy of the rows held out.

    Parameters
    ----------
    Cs : int or sequence of float, default 10
        Inverse strengths of the penalty; an int is that many from 1e-4 to 1e4.
    l1_ratios : sequence of float in [0, 1], optional
        Shares of the l1 penalty; None (deprecated in scikit-learn) is the l2 penalty.
    fit_intercept : bool, default True
    cv : int, splitter or iterable, optional
        By default five stratified folds.
    dual : bool, default False
    penalty : {"l1", "l2", "elasticnet"}, deprecated
    scoring : str or callable, optional
        By default accuracy.
    solver, tol, max_iter, class_weight, n_jobs, verbose, intercept_scaling, random_state
        As in `LogisticRegression`.
    refit : bool, default True
        Whether the best C is fitted to all rows; else the folds' best coefficients are averaged.
    use_legacy_attributes : bool, default True
        Whether attributes have the shapes that they had before scikit-learn 1.10.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    coef_ : ndarray of shape (1, d) or (n_classes, d)
    intercept_ : ndarray of shape (1,) or (n_classes,)
    Cs_ : ndarray of shape (n_cs,)
    l1_ratios_ : ndarray of shape (n_l1_ratios,)
    C_, l1_ratio_ : float, or with legacy attributes ndarray of one for each class
    coefs_paths_ : ndarray of shape (n_folds, n_l1_ratios, n_cs, n_classes or 1, d [+ 1])
        With legacy attributes a dict of (n_folds, n_cs, [n_l1_ratios,] d [+ 1]) for each class.
    scores_ : ndarray of shape (n_folds, n_l1_ratios, n_cs), or a dict likewise
    n_iter_ : ndarray of shape (n_folds, n_l1_ratios, n_cs), or (1, n_folds, n_cs[, n_l1_ratios])
    n_features_in_, feature_names_in_
        As in `LogisticRegression`.

    Source: docs/maths.md, L2 and L3; scikit-learn's LogisticRegressionCV for names and meanings.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = LogisticRegressionCV(Cs=[0.1, 1.0], l1_ratios=(0.0,), scoring="neg_log_loss",
    ...                              use_legacy_attributes=False).fit(X, y)
    >>> model.C_, model.scores_.shape
    (1.0, (5, 1, 2))
    """

    _parameter_constraints: ClassVar[dict] = {
        **{name: rule for name, rule in LogisticRegression._parameter_constraints.items()
           if name not in ("C", "l1_ratio", "warm_start")},
        "penalty": [StrOptions({"l1", "l2", "elasticnet"}), Hidden(StrOptions({"deprecated"}))],
        "Cs": [Interval(Integral, 1, None, closed="left"), "array-like"],
        "l1_ratios": ["array-like", None, Hidden(StrOptions({"warn"}))],
        "cv": ["cv_object"],
        "scoring": [StrOptions(set(get_scorer_names())), callable, None, Hidden(StrOptions({"warn"}))],
        "refit": ["boolean"],
        "use_legacy_attributes": ["boolean", Hidden(StrOptions({"warn"}))],
        "intercept_scaling": [Interval(Real, 0, None, closed="neither")],
    }  # fmt: skip

    def __init__(
        self,
        *,
        Cs: Any = 10,
        l1_ratios: Any = "warn",
        fit_intercept: bool = True,
        cv: Any = None,
        dual: bool = False,
        penalty: str = "deprecated",
        scoring: Any = "warn",
        solver: str = "lbfgs",
        tol: float = 1e-4,
        max_iter: int = 100,
        class_weight: Any = None,
        n_jobs: int | None = None,
        verbose: int = 0,
        refit: bool = True,
        intercept_scaling: float = 1.0,
        random_state: Any = None,
        use_legacy_attributes: Any = "warn",
    ) -> None:
        self.Cs = Cs
        self.l1_ratios = l1_ratios
        self.fit_intercept = fit_intercept
        self.cv = cv
        self.dual = dual
        self.penalty = penalty
        self.scoring = scoring
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter
        self.class_weight = class_weight
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.refit = refit
        self.intercept_scaling = intercept_scaling
        self.random_state = random_state
        self.use_legacy_attributes = use_legacy_attributes

    def fit(self, X: Any, y: Any, sample_weight: Any = None, **params: Any) -> LogisticRegressionCV:
        """Fit to X of shape (n, d) and labels y of shape (n,); return self.

        `params` go to the splitter and the scorer, under scikit-learn's metadata routing.
        """
        refuse_params(params, self, "fit")
        validate_params(self)
        penalty, given_ratios = self._grid_penalty()
        scoring, legacy = self._told_of_changes()
        check_solver(self.solver, penalty, self.dual)
        ratios = self._ratios(penalty, given_ratios)
        X, y = check_data(self, X, y, classes=True)
        self.classes_, codes = checked(y)
        k = len(self.classes_)
        if k < 2:
            raise ValueError("This solver needs samples of at least 2 classes in the data, but the data "
                             f"contains only one class: {self.classes_[0]}.")
        own = check_weights(sample_weight, X)
        split_params, score_params = route(self, "fit", own, params)
        folds = list(check_cv(self.cv, y, classifier=True).split(X, y, **split_params))
        weights = self._class_weighted(own, y, codes)
        problem = LogisticProblem(self, X, codes, k)
        Cs = np.logspace(-4, 4, self.Cs) if isinstance(self.Cs, Integral) else np.asarray(self.Cs, float)
        self.Cs_, self.l1_ratios_ = Cs, np.asarray(given_ratios if given_ratios is not None else [None])
        scorer = None if scoring is None else label_aware(scoring, self.classes_)

        rows = 1 if k == 2 else k
        width = X.shape[1] + bool(self.fit_intercept)
        shape = len(folds), len(ratios), len(Cs)
        paths, scores = np.zeros((*shape, rows, width)), np.zeros(shape)
        n_iter = np.zeros(shape, np.int32)
        for i, (train, test) in enumerate(folds):
            kept = fold_weights(train, len(codes), weights)
            held, y_test, own_test = HeldOut(X, test), y[test], part_of(score_params, len(codes), test)
            for r, ratio in enumerate(ratios):
                start = None
                for c, C in enumerate(Cs):
                    result, coef, intercept = self._solved(problem, C, ratio, kept, start)
                    n_iter[i, r, c] = result.n_iter
                    start = np.column_stack([coef, intercept]) if self.fit_intercept else coef
                    paths[i, r, c] = start
                    scores[i, r, c] = self._score(scorer, held, y_test, own_test)
        self._choose(problem, weights, paths, scores, ratios)
        self._attributes(paths, scores, n_iter, legacy, given_ratios is None)
        return self

    def _grid_penalty(self) -> tuple[str | None, Any]:
        """The penalty's name and the grid of l1_ratios, None for the deprecated default."""
        ratios = self.l1_ratios
        if isinstance(ratios, str):
            ratios = None
            warnings.warn("The default value for l1_ratios will change from None to (0.0,) in version 1.10. "
                          "To avoid this warning, explicitly set a value, e.g. l1_ratios=(0,).",
                          FutureWarning, stacklevel=3)
        if self.penalty != "deprecated":
            warnings.warn("'penalty' was deprecated in version 1.8 and will be removed in 1.10. Use "
                          "l1_ratios=(0,) instead of penalty='l2', l1_ratios=(1,) instead of 'l1', floats "
                          "between them instead of 'elasticnet', and Cs=(np.inf,) instead of None.",
                          FutureWarning, stacklevel=3)
            return self.penalty, ratios
        if self.l1_ratios is None:
            warnings.warn("'l1_ratios=None' was deprecated in version 1.8 and will trigger an error in 1.10. "
                          "Use an array-like with values in [0, 1] instead.", FutureWarning, stacklevel=3)
        if ratios is None or np.all(np.asarray(ratios) == 0):
            return "l2", ratios
        return ("l1" if np.all(np.asarray(ratios) == 1) else "elasticnet"), ratios

    def _told_of_changes(self) -> tuple[Any, bool]:
        """scoring and use_legacy_attributes, with scikit-learn's warnings where they are not given."""
        scoring, legacy = self.scoring, self.use_legacy_attributes
        if isinstance(scoring, str) and scoring == "warn":
            scoring = None
            warnings.warn("The default value of the parameter 'scoring' will change from None, i.e. "
                          "accuracy, to 'neg_log_loss' in version 1.11. To silence this warning, explicitly "
                          "set the scoring parameter.", FutureWarning, stacklevel=3)
        if isinstance(legacy, str):
            legacy = True
            warnings.warn("The fitted attributes of LogisticRegressionCV will be simplified in scikit-learn "
                          "1.10 to remove redundancy. Set `use_legacy_attributes=False` to enable the new "
                          "behavior now, or set it to `True` to silence this warning.",
                          FutureWarning, stacklevel=3)
        return scoring, bool(legacy)

    def _ratios(self, penalty: str | None, given: Any) -> list[float]:
        if penalty == "elasticnet":
            if given is None or len(given) == 0 or any(
                not isinstance(r, Real) or not 0 <= float(r) <= 1 for r in given
            ):  # fmt: skip
                raise ValueError("l1_ratios must be an array-like of numbers between 0 and 1; got "
                                 f"(l1_ratios={given!r})")
            return [float(r) for r in given]
        if given is not None and self.penalty != "deprecated":
            warnings.warn("l1_ratios parameter is only used when penalty is 'elasticnet'. Got "
                          f"(penalty={penalty})", stacklevel=3)
        return [1.0 if penalty == "l1" else 0.0] * (1 if given is None else len(given))

    def _class_weighted(self, weights: Any, y: Any, codes: np.ndarray) -> np.ndarray | None:
        """Class weights come from all rows, not from each fold's."""
        given = self.class_weight
        if given is None:
            return weights
        if isinstance(given, dict):
            if not set(given) <= set(self.classes_):
                raise ValueError("The given class_weight dict must have the class labels as keys; "
                                 f"classes={self.classes_} but key={given.keys()}")
            share = np.array([float(given.get(c, 1.0)) for c in self.classes_])
        else:
            share = compute_class_weight(given, classes=self.classes_, y=y, sample_weight=weights)
        return share[codes] if weights is None else weights * share[codes]

    def _solved(self, problem, C, ratio, weights, start):
        """One fit, which the estimator holds until the next: Ctrl-C leaves it usable."""
        strength = 0.0 if math.isinf(C) else 1 / float(C)
        result, coef, intercept = problem.solve(strength, ratio, weights, start)
        self.coef_, self.intercept_ = coef, intercept
        raise_if_interrupted(result)
        return result, coef, intercept

    def _score(self, scorer: Any, held: HeldOut, y: np.ndarray, params: dict[str, Any]) -> float:
        seen = scorer is None or takes_predictions(scorer)
        model = _OfMargins() if seen else LogisticRegression()
        model.classes_, model.n_features_in_ = self.classes_, held.X.shape[1]
        model.coef_, model.intercept_ = self.coef_, self.intercept_
        if not seen:
            return scorer(model, held.copy(), y, **params)
        margins = held.scores(self.coef_, self.intercept_)
        margins = margins[:, 0] if margins.shape[1] == 1 else margins
        if scorer is None:
            # scikit-learn's accuracy_score looks at labels that are known to be good for longer than a fit.
            return float(np.average(model.predict(margins) == y, weights=params.get("sample_weight")))
        return scorer(model, margins, y, **params)

    def _choose(self, problem, weights, paths, scores, ratios) -> None:
        """C_ and l1_ratio_ as numbers, and the coefficients that belong to them."""
        d = problem.d
        if self.refit:
            # C before l1_ratio, as scikit-learn orders ties.
            total = scores.sum(axis=0).T
            c, r = np.unravel_index(np.argmax(total), total.shape)
            self.C_, self.l1_ratio_ = self.Cs_[c], ratios[r]
            self._solved(problem, self.C_, ratios[r], weights, paths[:, r, c].mean(axis=0))
            return
        best = [np.unravel_index(np.argmax(fold.T), fold.T.shape) for fold in scores]
        w = np.mean([paths[i, r, c] for i, (c, r) in enumerate(best)], axis=0)
        self.coef_, self.intercept_ = w[:, :d].copy(), w[:, d] if self.fit_intercept else np.zeros(len(w))
        self.C_ = np.mean([self.Cs_[c] for c, _ in best])
        self.l1_ratio_ = np.mean([ratios[r] for _, r in best])

    def _attributes(self, paths, scores, n_iter, legacy: bool, alone: bool) -> None:
        """The shapes of scikit-learn before 1.10, or from then on."""
        self.C_, self.l1_ratio_ = float(self.C_), float(self.l1_ratio_)
        if not legacy:
            self.coefs_paths_, self.scores_, self.n_iter_ = paths, scores, n_iter
            return
        rows = paths.shape[3]
        labels = self.classes_[1:] if rows == 1 else self.classes_
        paths, scores = paths.transpose(3, 0, 2, 1, 4), scores.swapaxes(1, 2)
        n_iter = n_iter.swapaxes(1, 2)[None]
        if alone:
            paths, scores, n_iter = paths[:, :, :, 0], scores[:, :, 0], n_iter[..., 0]
        self.coefs_paths_ = dict(zip(labels, paths))
        self.scores_ = {label: scores.copy() for label in labels}
        self.n_iter_ = n_iter
        self.C_, self.l1_ratio_ = np.full(rows, self.C_), np.full(rows, self.l1_ratio_)
        if alone:
            self.l1_ratio_ = np.full(rows, None) if self.refit else np.zeros(rows)

    def _get_scorer(self) -> Any:
        default = self.scoring is None or (isinstance(self.scoring, str) and self.scoring == "warn")
        return get_scorer("accuracy" if default else self.scoring)

    def score(self, X: Any, y: Any, sample_weight: Any = None, **params: Any) -> float:
        """Score by `scoring` on X and y; accuracy by default."""
        refuse_params(params, self, "score")
        _, scorer_params = route(self, "score", sample_weight, params)
        return self._get_scorer()(self, X, y, **scorer_params)

    def get_metadata_routing(self) -> Any:
        """Return scikit-learn's MetadataRouter of this object, its splitter and its scorer."""
        return router(self, self.cv, self._get_scorer(), scores=True)
