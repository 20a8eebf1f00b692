"""How the documentation is built: `make docs`, into docs/_build/html."""

from __future__ import annotations

import sys
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "gaba"
author = "The gaba authors"
copyright = "The gaba authors, MIT licence"
version = release = version_of("gaba")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "myst_nb",
    "sphinx_copybutton",
    "reference",
    "papers",
    "methods",
    "commands",
    "files",
    "names",
    "links",
]
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}
exclude_patterns = ["_build", "_ext", "_static", "**/.ipynb_checkpoints"]
default_role = "code"
nitpicky = True
suppress_warnings = ["mystnb.unknown_mime_type"]

# Docstrings are Google's; types stand in the signatures.
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_custom_sections = [("Source", "notes_style")]
maximum_signature_line_length = 88
python_use_unqualified_type_names = True

# Markdown as any other reader of the repository sees it; notebooks with the output they have.
myst_heading_anchors = 4
myst_enable_extensions = []
nb_execution_mode = "off"
nb_merge_streams = True

html_theme = "furo"
html_title = "gaba"
html_favicon = "_static/favicon.svg"
html_static_path = ["_static"]
html_css_files = ["gaba.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1f5fa8", "color-brand-content": "#1f5fa8"},
    "dark_css_variables": {"color-brand-primary": "#8ab8f0", "color-brand-content": "#8ab8f0"},
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_exclude = ".linenos, .gp, .go"
