"""The text of a bundle's model card."""

import jinja2

from modelpress.export.handoff.manifest import Manifest
from modelpress.export.safe_text import for_markdown, markdown_code

_TEMPLATE = "MODEL_CARD.md.j2"
_SHOWN = tuple(
    f"modelpress.{key}" for key in ("arch", "dataset", "prune", "quantize", "parameters", "version")
)


def model_card(manifest: Manifest) -> str:
    """Markdown of a manifest; every figure in it comes from there."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("modelpress.export.handoff", "bundle_files"),
        finalize=for_markdown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["code"] = markdown_code
    return environment.get_template(_TEMPLATE).render(
        m=manifest, c=manifest.compression, what=_what(manifest), shown=_SHOWN, shape=_shape
    )


def _what(manifest: Manifest) -> str:
    """One sentence: what kind of network this is."""
    arch, dataset = manifest.metadata.get("modelpress.arch"), manifest.dataset.get("name")
    contract = manifest.contract
    kind = "A compressed network"
    if contract is not None:
        what = "image classifier" if len(contract.input_shape) == 4 else "classifier"
        made = {
            "classification": f"{what} with {contract.output_shape[-1]} classes",
            "multi-label": f"network that finds {contract.output_shape[-1]} labels",
            "regression": "network that estimates numbers",
            "sequence": f"network that finds one of {contract.output_shape[-1]} classes at every place",
        }
        kind = f"A compressed {made[contract.task]}"
    return kind + (f": {arch}" if arch else "") + (f", made for {dataset}." if dataset else ".")


def _shape(axes: list[int | str]) -> str:
    return "(" + ", ".join(map(str, axes)) + ")"
