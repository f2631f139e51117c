"""Imported first: says which extra to install where one is missing, before anything fails with less."""

from importlib.util import find_spec

for module, package in {"polars": "polars", "narwhals": "narwhals", "sklearn": "scikit-learn"}.items():
    if find_spec(module) is None:
        raise ImportError(f"steelyard.compare needs {package}, which is not installed: pip install 'steelyard[cli]'")
