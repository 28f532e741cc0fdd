"""Compress a network from Python: train on the digits inside scikit-learn, prune, quantize, pack, measure.

    python examples/compress_digits.py [--epochs 5] [-o FOLDER]

This is `modelpress run` with fewer epochs. Nothing is downloaded; PyTorch is needed (the extra `train`).
"""

import argparse
from pathlib import Path

from modelpress.benchmarks.report.tables import file_rows, markdown_table, table_headings
from modelpress.export.press.reading import read_artifact
from modelpress.toolkit.compression.run import run_recipe
from modelpress.toolkit.progress import Silent
from modelpress.toolkit.recipe import load_recipe


def main() -> None:
    """Carry out the recipe and print the table of files."""
    parser = argparse.ArgumentParser(description="Train, prune, quantize, pack and measure on the digits.")
    parser.add_argument(
        "--epochs", type=int, default=5, help="of the training and of the finetuning [default: 5]"
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("runs/digits"), help="[default: runs/digits]"
    )
    options = parser.parse_args()

    # the defaults are a recipe already; keys are those of a recipe file and of --set
    recipe = load_recipe(
        None,
        {
            "train.epochs": options.epochs,
            "prune.sparsity": 0.6,
            "finetune.epochs": options.epochs,
            "quantize.bits": 4,
            "onnx": ["float", "sparse"],
            "bench.batch": [1],
            "bench.threads": [1],
            "bench.rounds": 1,
        },
    )
    results = run_recipe(recipe, options.output, overwrite=True, progress=Silent())
    print(markdown_table(file_rows(results), table_headings(results)))

    # removed weights are exact zeros, the others codes that the training used
    for name, weight in read_artifact(options.output / "model.press").quantized().items():
        kept = weight.nonzero.mean()
        print(f"{name}: {weight.bits} bits, {kept:.0%} of {weight.codes.size:,} weights kept")
    print(f"\neverything is in {options.output}/; open {options.output}/report.html")


if __name__ == "__main__":
    main()
