"""What the linear classifiers share: margins, and the class of the largest."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from nagcore.linear_model._base import SparseInput, check_new_data, linear_scores

__all__ = ["LinearClassifier"]


class LinearClassifier(SparseInput):
    """decision_function and predict from coef_, intercept_ and classes_."""

    coef_: np.ndarray
    intercept_: np.ndarray
    classes_: np.ndarray

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the margins, shape (n,) for two classes, else (n, n_classes)."""
        check_is_fitted(self)
        scores = linear_scores(check_new_data(self, X), self.coef_, self.intercept_)
        return scores[:, 0] if scores.ndim == 2 and scores.shape[1] == 1 else scores

    def predict(self, X: Any) -> np.ndarray:
        """Return the class of the largest margin of each row, shape (n,)."""
        scores = self.decision_function(X)
        index = (scores > 0).astype(np.intp) if scores.ndim == 1 else scores.argmax(axis=1)
        return self.classes_[index]
