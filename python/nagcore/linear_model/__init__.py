"""Linear models with scikit-learn's names, parameters and meanings, on nagcore's one-pass solvers.

Each estimator minimises what its namesake minimises and has the same attributes. One deviation:
`tol` keeps scikit-learn's default but means relative suboptimality, (F − min F)/(F₀ − min F) with
F₀ the model without coefficients; docs/solvers.md says how it is proven. float32 stays float32, X
is not copied, and its finiteness is checked by the kernels at no cost.

>>> from sklearn.datasets import load_iris
>>> X, y = load_iris(return_X_y=True)
>>> LogisticRegression().fit(X, y).predict(X[:2])
array([0, 0])
"""

from __future__ import annotations

try:
    import sklearn  # noqa: F401
except ImportError as error:
    raise ImportError(
        "nagcore.linear_model needs scikit-learn, which is not installed. "
        'Use pip install "nagcore[sklearn]".', name="sklearn",
    ) from error

from nagcore.linear_model._glm import PoissonRegressor
from nagcore.linear_model._lasso import ElasticNet, Lasso
from nagcore.linear_model._lasso_cv import ElasticNetCV, LassoCV
from nagcore.linear_model._linear import LinearRegression
from nagcore.linear_model._logistic import LogisticRegression
from nagcore.linear_model._logistic_cv import LogisticRegressionCV
from nagcore.linear_model._ridge import Ridge, RidgeClassifier
from nagcore.linear_model._ridge_cv import RidgeCV

__all__ = [
    "ElasticNet",
    "ElasticNetCV",
    "Lasso",
    "LassoCV",
    "LinearRegression",
    "LogisticRegression",
    "LogisticRegressionCV",
    "PoissonRegressor",
    "Ridge",
    "RidgeCV",
    "RidgeClassifier",
]
