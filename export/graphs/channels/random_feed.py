"""Made-up inputs for a model, to run it with."""

import numpy as np
import numpy.typing as npt
import onnx

from modelpress.export.graphs.channels.following import open_axes_filled
from modelpress.export.quantized import QuantizedModel

Feed = dict[str, npt.NDArray[np.generic]]


def random_feed(model: QuantizedModel, *, batch: int = 2) -> Feed:
    """Normal numbers for each input of floating-point numbers, else zeros.

    Args:
        model: Its graph declares the inputs.
        batch: In the place of a first axis that is left open.
    """
    random = np.random.default_rng(0)
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.graph.input}
    feed: Feed = {}
    for name, shape in open_axes_filled(model, batch=batch).items():
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(types[name]))
        values = random.standard_normal(shape) if dtype.kind == "f" else np.zeros(shape)
        feed[name] = values.astype(dtype)
    return feed
