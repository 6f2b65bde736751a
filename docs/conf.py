"""The documentation as a site: `make site` writes it to build/site, where index.html opens from the folder."""

from importlib.metadata import version as version_of

project = "vaeguard"
author = "the vaeguard authors"
version = release = version_of("vaeguard")
html_title = f"vaeguard {release}"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["build"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # a test runs the notebook
nb_ipywidgets_js = {}  # no script from elsewhere

html_theme = "furo"  # no font, script or style from elsewhere
html_theme_options = {"source_repository": ""}
html_copy_source = False
html_show_sourcelink = False

autodoc_typehints = "none"  # the docstrings say types, shapes and ranges
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
