"""Sphinx: the pages of this folder, a reference from the docstrings, a gallery run as it is built. Nothing is fetched."""

import re
from typing import Any

import stabdeq

project = "stabdeq"
author = "The stabdeq developers"
project_copyright = author
version = release = stabdeq.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx-mathjax-offline",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "gallery", "measured"]  # the gallery is read by its own extension

html_theme = "furo"
html_title = "stabdeq"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_copy_source = False

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
mathjax3_config = {"options": {"enableMenu": False}}  # the menu's extras would be fetched

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 90
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "write_computation_times": False,
    "show_signature": False,
    "capture_repr": ("_repr_html_",),  # what a notebook shows of the last line of a cell
    "remove_config_comments": True,
    "image_srcset": ["2x"],
}

# A star or a bar in a docstring is mathematics, outside of ``code``, indented blocks and doctests.
FORMULA = re.compile(r"(``[^`]+``|^(?: {4}|>>>).*$)|([*|])", re.MULTILINE)
# Annotated[float, FieldInfo(...)]: the limits of a setting, as pydantic prints them.
LIMITS = re.compile(r"Annotated\[([\w~.]+(?:\[[\w~., ]*\])?), FieldInfo\(.*?\]\)\]")


def escape_formulas(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Keep formulas in docstrings from being read as markup."""
    text = FORMULA.sub(lambda found: found[1] or "\\" + found[2], "\n".join(lines))
    lines[:] = text.split("\n")


def shorten(app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None) -> Any:
    """Show plain types, and no signature for a protocol, which nobody calls."""
    if getattr(obj, "_is_protocol", False):
        return "", None
    if not signature:
        return None
    signature = LIMITS.sub(r"\1", LIMITS.sub(r"\1", signature))  # one may stand in another
    return signature.replace("<factory>", "..."), returns


def setup(app: Any) -> None:
    """Register the above."""
    app.connect("autodoc-process-docstring", escape_formulas)
    app.connect("autodoc-process-signature", shorten)
