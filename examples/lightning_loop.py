"""A network of one's own, trained by Lightning, compressed while it trains.

Needs Lightning besides modelpress (`pip install pytorch-lightning`), and scikit-learn for its table of tumours:

    python examples/lightning_loop.py own.press
"""

import sys

import pytorch_lightning as lightning
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import modelpress

EPOCHS = 12
RECIPE = {
    "prune": {"sparsity": 0.8, "schedule": "cubic", "epochs": 6},
    "quantize": {"bits": 4, "learned": True, "range": "mse", "after": 6, "layers": {}},
    "finetune": {"epochs": EPOCHS},
}


class Classifier(lightning.LightningModule):
    """Trains the network that `compress` gives; its rules act around each step of the optimiser."""

    def __init__(self, squeezed, steps_per_epoch: int) -> None:
        super().__init__()
        self.network = squeezed.network
        self.grids = squeezed.grid_parameters()
        self.rules = squeezed.rules(steps_per_epoch=steps_per_epoch)

    def on_train_batch_start(self, batch, batch_idx: int) -> None:
        """Schedules: what is removed now, and from when on weights are quantized."""
        self.rules.before_step()

    def training_step(self, batch, batch_idx: int) -> torch.Tensor:
        """Any loss."""
        inputs, labels = batch
        return nn.functional.cross_entropy(self.network(inputs), labels)

    def on_train_batch_end(self, outputs, batch, batch_idx: int) -> None:
        """Penalties act after the step, with the rate that it had."""
        self.rules.after_step(self.trainer.optimizers[0].param_groups[0]["lr"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Any optimiser; the learned grids without weight decay."""
        grids = {id(parameter) for parameter in self.grids}
        weights = [parameter for parameter in self.network.parameters() if id(parameter) not in grids]
        groups = [{"params": weights, "weight_decay": 0.01}, {"params": self.grids, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=0.01)


def main(output: str) -> float:
    """Train, write the file, and return the share of held-out rows that are right in ONNX Runtime."""
    lightning.seed_everything(0)
    rows, labels = load_breast_cancer(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(rows, labels, test_size=0.3, random_state=0)
    scaler = StandardScaler().fit(train_x)
    inputs = torch.tensor(scaler.transform(train_x), dtype=torch.float32)
    loader = DataLoader(TensorDataset(inputs, torch.tensor(train_y)), batch_size=32, shuffle=True)

    network = nn.Sequential(nn.Linear(30, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 2))
    squeezed = modelpress.compress(network, inputs[:2], RECIPE)
    print(squeezed.report())

    trainer = lightning.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(Classifier(squeezed, len(loader)), loader)
    print(squeezed.export(output))

    session = modelpress.open_session(output)
    name = session.get_inputs()[0].name
    (logits,) = session.run(None, {name: scaler.transform(test_x).astype("float32")})
    right = float((logits.argmax(1) == test_y).mean())
    print(f"{right:.2%} of {len(test_y)} held-out rows are right in ONNX Runtime")
    return right


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "own.press")
