import pytest

from modelpress.export.errors import CommandLineError
from modelpress.toolkit.commands.study.channels.channels import study_channels
from modelpress.toolkit.studies.channels.equality import measure_row


@pytest.mark.parametrize("name", ["resnet20-a", "vision-transformer"])
def test_a_row_says_what_is_left_and_how_far_apart_outputs_are(name):
    row = measure_row(name)
    assert row.parameters[1] < 0.65 * row.parameters[0]
    assert row.macs[1] < 0.8 * row.macs[0]
    assert row.varies > 0.1
    assert row.torch_difference <= 1e-5
    assert row.onnx_difference <= 1e-5


def test_a_network_that_is_not_in_the_study_is_refused():
    with pytest.raises(CommandLineError, match=r"no network 'resnet19'; choose among resnet20-a"):
        study_channels("resnet19", None, overwrite=False)
