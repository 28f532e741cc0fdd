"""The templates of pages that people read in a browser."""

import jinja2

from modelpress.export.safe_text import for_html


def page_template(name: str) -> jinja2.Template:
    """A template of this folder; whatever is put into it is made safe for HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("modelpress.benchmarks", "report"),
        autoescape=True,
        finalize=for_html,
        # a misspelt name in the template is an error, no gap in the page
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)
