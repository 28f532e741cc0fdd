"""Networks of the user's own, trained on data of the user's own by the recipe."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from modelpress.export.errors import InputError
from modelpress.export.press.reading import read_artifact
from modelpress.toolkit.compression.own_loop import compress
from modelpress.toolkit.progress import Silent
from modelpress.toolkit.training.interrupt import Interrupted
from tests.helpers.training import SignalAt, assert_same, weights_of

RECIPE = {
    "prune": {"sparsity": 0.6, "schedule": "cubic", "epochs": 2, "exclude": ()},
    "quantize": {"bits": 4, "after": 2, "learned": True, "range": "mse", "layers": {}},
    "finetune": {"epochs": 5, "lr": 0.05, "distill_weight": 0.3, "average": 0.5},
    "run": {"bf16": False, "device": "cpu"},
}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.1), nn.Linear(24, 3))


def examples():
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(240, 6, generator=generator)
    return inputs, inputs[:, :3].argmax(1)


def loader():
    return DataLoader(TensorDataset(*examples()), batch_size=32, shuffle=True, drop_last=True)


def with_epochs(epochs):
    return {**RECIPE, "finetune": {**RECIPE["finetune"], "epochs": epochs}}


def test_a_loader_and_a_recipe_lead_to_a_file(tmp_path, capsys):
    inputs, labels = examples()
    trained = compress(network(), inputs[:2], with_epochs(12), data=loader())
    told = capsys.readouterr().err
    assert told.count("epoch ") == 12
    assert "60.19% zeros" in told.splitlines()[-1]

    with torch.no_grad():
        right = (trained.network(inputs).argmax(1) == labels).float().mean()
    assert right > 0.8  # 0.33 by chance

    trained.export(tmp_path / "m.press")
    coded = read_artifact(tmp_path / "m.press").quantized()
    assert {tensor.bits for tensor in coded.values()} == {4}
    zeros = sum(t.codes.size - int(np.count_nonzero(t.nonzero)) for t in coded.values())
    assert zeros >= 0.6 * sum(t.codes.size for t in coded.values()) - 1


def test_a_training_that_is_stopped_goes_on_to_the_same_weights(tmp_path):
    def training(progress, unfinished=None):
        torch.manual_seed(5)  # of the dropout, which is the user's network's own
        net = network()
        net[3].p = 0.0
        return compress(
            net, examples()[0][:2], RECIPE, data=loader(), progress=progress, unfinished=unfinished
        )

    whole = training(Silent())
    kept = tmp_path / "unfinished.state"
    with pytest.raises(Interrupted):
        training(SignalAt(17), kept)
    assert kept.is_file()
    resumed = training(Silent(), kept)
    assert_same(weights_of(whole.network), weights_of(resumed.network))
    assert not list(tmp_path.iterdir())


class TwoOutputs(nn.Module):
    """Two named inputs, two outputs, one matrix tied."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(11, 8), nn.Linear(8, 11, bias=False)
        self.head.weight = self.embedding.weight
        self.length = nn.Linear(8, 1)

    def forward(self, tokens, weight):
        hidden = (self.embedding(tokens) * weight[..., None]).mean(1)
        return self.head(hidden), self.length(hidden)


def batches_of_two():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 11, (64, 5), generator=generator)
    weight = torch.rand(64, 5, generator=generator)
    targets = (tokens[:, 0], weight.sum(1, keepdim=True))
    return [
        ({"tokens": tokens[at], "weight": weight[at]}, tuple(t[at] for t in targets))
        for at in torch.arange(64).split(16)
    ]


def both_losses(outputs, targets):
    return F.cross_entropy(outputs[0], targets[0]) + F.mse_loss(outputs[1], targets[1])


def test_several_inputs_and_outputs_take_a_loss_of_ones_own(tmp_path):
    recipe = {**RECIPE, "finetune": {"epochs": 4, "lr": 0.1}}
    batches = batches_of_two()
    said = []

    class Listening(Silent):
        def note(self, text):
            said.append(float(text.split("loss ")[1].split(",")[0]))

    torch.manual_seed(0)
    kept = tmp_path / "kept"
    trained = compress(
        TwoOutputs(),
        batches[0][0],
        recipe,
        data=batches,
        loss=both_losses,
        progress=Listening(),
        unfinished=kept,
    )
    assert said[-1] < said[0]
    trained.export(tmp_path / "m.press")
    assert len(read_artifact(tmp_path / "m.press").quantized()) == 2


def unusable():
    inputs, labels = examples()
    good = [(inputs[:32], labels[:32])]
    yield "a generator", RECIPE, (pair for pair in good), "data is a generator; expected a DataLoader"
    yield "nothing", RECIPE, [], "data has no batches"
    yield "no pair", RECIPE, [inputs[:32]], "a batch of data is a Tensor; expected a pair"
    yield "three", RECIPE, [(inputs, labels, labels)], "a batch of data is a tuple of 3; expected a pair"
    yield "no epochs", with_epochs(0) | {"prune": {"sparsity": 0.5}, "quantize": {}}, good, "epochs is 0"
    teacher = {**RECIPE, "model": {"teacher": "teacher.pt"}}
    yield "a teacher", teacher, good, "model.teacher is for networks of recipes"


@pytest.mark.parametrize(
    ("recipe", "data", "message"), [case[1:] for case in unusable()], ids=[case[0] for case in unusable()]
)
def test_data_that_do_not_suit_are_told(recipe, data, message):
    with pytest.raises(InputError, match=message):
        compress(network(), examples()[0][:2], recipe, data=data, progress=Silent())


def test_several_outputs_without_a_loss_are_told():
    batches = batches_of_two()
    with pytest.raises(InputError, match="the network's output is a tuple"):
        compress(
            TwoOutputs(),
            batches[0][0],
            {**RECIPE, "finetune": {"epochs": 1}, "prune": {"sparsity": 0.1}, "quantize": {}},
            data=batches,
            progress=Silent(),
        )


def test_a_loader_that_ends_early_is_told():
    class Short(list):
        def __iter__(self):
            return iter(list.__getitem__(self, slice(0, 1)))

    inputs, labels = examples()
    pairs = Short([(inputs[:32], labels[:32])] * 3)
    with pytest.raises(InputError, match="data ended after 1 batches; its length says 3"):
        compress(network(), inputs[:2], RECIPE, data=pairs, progress=Silent())
