"""How Sphinx builds the documentation: `make docs`."""

import steelyard

project = "Steelyard"
author = "The Steelyard founders"
version = release = steelyard.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = "Steelyard"
exclude_patterns = ["generate.py"]
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
napoleon_numpy_docstring = False
myst_heading_anchors = 2
napoleon_custom_sections = [("Source", "notes_style"), ("Warns", "params_style")]
# The pages link to tests and to the changelog, which are read in the repository.
suppress_warnings = ["myst.xref_missing"]
