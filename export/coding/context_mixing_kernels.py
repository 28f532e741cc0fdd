"""The loops of `modelpress.export.coding.context_mixing` in plain Python, for where nothing is compiled.

Every function takes sequences of integers and works with integers alone, within 64 bits, so that all machines
agree on every bit. FORMAT.md, "Mixed contexts", is their specification; `press_mixed.c` is the same in C.
Both directions run the same model: only `code_bit` tells them apart.

What goes through all of them is `coder`, the tuple ``(counters, weights, tables, registers, stream)``:
a triple (slow, fast, visits) for every context; a list of weights for every weight set; the tables end to
end; the state of the arithmetic coder and room for one decision; the bytes. Few arguments make calls cheap.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

N_POSITIONS = 9  # taps from the ninth on share one position
N_MAGNITUDE_PAIRS = 25
N_NODES = 128  # magnitude decisions: 8 of the exponent, 56 of its leading bits, by sign

# First context of each context group; a group of a magnitude decision exists once per node.
ZERO_SPATIAL = 0
ZERO_SIGNS = ZERO_SPATIAL + 20 * N_POSITIONS
ZERO_ENERGY = ZERO_SIGNS + 625
ZERO_PREDICTIONS = ZERO_ENERGY + 400
SIGN_ENERGY = ZERO_PREDICTIONS + 400
SIGN_SPATIAL = SIGN_ENERGY + 320
SIGN_NEIGHBOURS = SIGN_SPATIAL + 32 * N_POSITIONS
SIGN_BALANCE = SIGN_NEIGHBOURS + 125
NODE = SIGN_BALANCE + 320
NODE_PAIR, NODE_ENERGY, NODE_SPATIAL, NODE_PREDICTION, NODE_PRIOR = 0, 25, 793, 825, 866
NODE_SIZE = 867
N_CONTEXTS = NODE + N_NODES * NODE_SIZE

# First weight set of each selector.
ZERO_BY_POSITION = 0
ZERO_BY_PAIR = ZERO_BY_POSITION + N_POSITIONS
SIGN_BY_START = ZERO_BY_PAIR + N_MAGNITUDE_PAIRS
SIGN_BY_ENERGY = SIGN_BY_START + 2
NODE_BY_NODE = SIGN_BY_ENERGY + 10
NODE_BY_POSITION = NODE_BY_NODE + N_NODES
N_WEIGHT_SETS = NODE_BY_POSITION + N_POSITIONS
MAX_INPUTS = 11  # two for each of five contexts, and the constant one

MAX_SLOTS = 64  # previous rows that predict the current one
MAX_LOG = 16383
MAX_LEVEL = 256
SLOW_LIMIT, FAST_LIMIT = 1000, 20

# Fields of `registers`: the arithmetic coder, then the contexts and the inputs of the current decision.
LOW, HIGH, CODE, POSITION, DECODING = 0, 1, 2, 3, 4
CONTEXTS = 5
INPUTS = CONTEXTS + 5
N_REGISTERS = INPUTS + MAX_INPUTS

# Parts of `tables`.
STRETCH = 0
SQUASH = STRETCH + 4096 + 2047  # index of probability 1/2
RATES = SQUASH + 2048
LOG2 = RATES + SLOW_LIMIT + 1

# Fields of `sums`.
MAGNITUDES, ROW_MAGNITUDES, WEIGHTS, SQUARES = 0, 1, 2, 3


def code_bit(bit, probability, registers, stream):
    """Narrow the interval by one binary decision; `probability` of a 1 in units of 2**-16."""
    low, high = registers[LOW], registers[HIGH]
    middle = low + ((high - low) * probability >> 16)
    if registers[DECODING]:
        bit = 1 if registers[CODE] <= middle else 0

    if bit:
        high = middle
    else:
        low = middle + 1

    while (low ^ high) >> 24 == 0:
        position = registers[POSITION]
        if registers[DECODING]:
            byte = stream[position] if position < len(stream) else 0
            registers[CODE] = (registers[CODE] << 8 & 0xFFFFFFFF) | byte
        else:
            stream[position] = high >> 24

        registers[POSITION] = position + 1
        low = low << 8 & 0xFFFFFFFF
        high = (high << 8 & 0xFFFFFFFF) | 255

    registers[LOW], registers[HIGH] = low, high
    return bit


def code_mixed_bit(bit, n_contexts, set_a, set_b, coder):
    """One decision under the contexts in the registers, mixed by two weight sets."""
    counters, weights, tables, registers, stream = coder
    weights_a, weights_b = weights[set_a], weights[set_b]
    n_inputs = 2 * n_contexts + 1

    for k in range(n_contexts):
        counter = counters[registers[CONTEXTS + k]]
        registers[INPUTS + 2 * k] = tables[STRETCH + (counter[0] >> 10)]
        registers[INPUTS + 2 * k + 1] = tables[STRETCH + (counter[1] >> 10)]

    registers[INPUTS + n_inputs - 1] = 256
    dot_a, dot_b = 0, 0
    for k in range(n_inputs):
        dot_a += weights_a[k] * registers[INPUTS + k]
        dot_b += weights_b[k] * registers[INPUTS + k]

    logit_a = min(max(dot_a >> 16, -2047), 2047)
    logit_b = min(max(dot_b >> 16, -2047), 2047)
    bit = code_bit(bit, tables[SQUASH + (logit_a + logit_b >> 1)], registers, stream)
    target = 65535 if bit else 0
    error_a, error_b = target - tables[SQUASH + logit_a], target - tables[SQUASH + logit_b]

    for k in range(n_inputs):
        weights_a[k] += (registers[INPUTS + k] * error_a + 32768) >> 16
        weights_b[k] += (registers[INPUTS + k] * error_b + 32768) >> 16

    target = 4194303 if bit else 0
    for k in range(n_contexts):
        counter = counters[registers[CONTEXTS + k]]
        visits = counter[2]
        counter[0] += (target - counter[0]) * tables[RATES + visits] >> 16
        counter[1] += (target - counter[1]) * tables[RATES + min(visits, FAST_LIMIT)] >> 16
        counter[2] = min(visits + 1, SLOW_LIMIT)

    return bit


def magnitude_class(level):
    """Class 0 to 4 of a magnitude: 0, 1, 2, 3 to 4, more."""
    magnitude = abs(level)
    return magnitude if magnitude < 3 else (3 if magnitude < 5 else 4)


def level_class(level):
    """Class 0 to 4 of a level: below -2, negative, 0, positive, above 2."""
    if level < 0:
        return 0 if level < -2 else 1
    return 2 if level == 0 else (3 if level <= 2 else 4)


def log_class(tables, value, shift, n):
    """Logarithmic class ``0 .. n - 1`` of a value that is not negative."""
    return min(tables[LOG2 + min(value, MAX_LOG)] >> shift, n - 1)


def signed_class(tables, value, prescale, shift, n):
    """Logarithmic class ``1 .. 2n - 1`` of a value and its sign; `n` where it is near zero."""
    k = log_class(tables, abs(value) >> prescale, shift, n)
    return n - k if value < 0 else n + k


def predict_from_rows(first_tap, n_taps, row_weights, correlations, history, sums, predictions, factors):
    """Predict one kernel's residuals from those of up to 64 previous rows.

    Each previous row counts with its inner product with the part of this row that is known: one step of
    ridge regression, with the rows' mean energy in place of their Gram matrix. Units of 1/64 level.
    """
    n_slots = len(correlations)
    known = first_tap + (15 * row_weights >> 5)
    energy = (16 * sums[SQUARES] // (sums[WEIGHTS] + 1)) * known // 16 + 1

    shift = 0
    while energy >> shift >= 1 << 20:
        shift += 1

    energy >>= shift
    for slot in range(n_slots):
        factors[slot] = min(max(correlations[slot] >> shift, -1048576), 1048576)

    for p in range(n_taps):
        first = (first_tap + p) * n_slots
        total = 0
        for slot in range(n_slots):
            total += factors[slot] * history[first + slot]
        predictions[p] = min(max(4 * total // energy, -16384), 16384)


def remember_residual(residual, tap, row, correlations, history, sums):
    """Store a residual of this row and update the row's correlation with previous rows."""
    sums[SQUARES] += residual * residual
    n_slots = len(correlations)
    first = tap * n_slots
    for slot in range(n_slots):
        correlations[slot] += residual * history[first + slot]
    history[first + row % n_slots] = residual


def code_magnitude(magnitude, negative, position, neighbours, coder):
    """Magnitude from 1 on: exponent in unary, then the bits below its leading one.

    The first three of these bits are modelled, the others are coded as they are.
    """
    exponent = 0
    while exponent < 8:
        more = 1 if magnitude >> (exponent + 1) else 0
        node = 2 * exponent + negative
        if not code_node(more, node, position, neighbours, coder):
            break
        exponent += 1

    value = 1
    for j in range(exponent):
        bit = (magnitude >> (exponent - 1 - j)) & 1
        if j < 3:
            node = 2 * (8 + 7 * (exponent - 1) + value - 1) + negative
            bit = code_node(bit, node, position, neighbours, coder)
        else:
            bit = code_bit(bit, 32768, coder[3], coder[4])
        value = 2 * value + bit

    return value


def code_node(bit, node, position, neighbours, coder):
    """One modelled decision of a magnitude."""
    pair, by_energy, by_spatial, by_prediction = neighbours
    registers = coder[3]
    first = NODE + node * NODE_SIZE
    registers[CONTEXTS] = first + NODE_PAIR + pair
    registers[CONTEXTS + 1] = first + NODE_ENERGY + by_energy
    registers[CONTEXTS + 2] = first + NODE_SPATIAL + by_spatial
    registers[CONTEXTS + 3] = first + NODE_PREDICTION + by_prediction
    registers[CONTEXTS + 4] = first + NODE_PRIOR

    return code_mixed_bit(bit, 5, NODE_BY_NODE + node, NODE_BY_POSITION + position, coder)


def code_level(level, position, around, spatial, prediction, energy, coder, links):
    """One level: is it zero, its sign, its magnitude.

    Args:
        level: The level where encoding.
        position: Tap, at most 8.
        around: Levels to the left, above, above left and above right, and the sum of the kernel so far.
        spatial: Prediction from `around`, 1/64 level.
        prediction: Prediction of what `spatial` leaves over, 1/64 level.
        energy: Logarithm of the expected magnitude.
        links: Of linked contexts, which code it in their place; None of others.
    """
    left, above, above_left, above_right, balance = around
    tables, registers = coder[2], coder[3]
    total = spatial + prediction
    pair = 5 * magnitude_class(left) + magnitude_class(above)
    signs = 5 * level_class(left) + level_class(above)
    corners = 5 * level_class(above_left) + level_class(above_right)
    contexts = [
        ZERO_SPATIAL + 9 * log_class(tables, abs(spatial) >> 2, 3, 20) + position,
        ZERO_SIGNS + 25 * signs + corners,
        ZERO_ENERGY + 20 * log_class(tables, abs(total) >> 2, 2, 20) + min(energy >> 3, 19),
        ZERO_PREDICTIONS
        + 20 * signed_class(tables, prediction, 1, 3, 10)
        + signed_class(tables, spatial, 2, 3, 10),
    ]
    sets = (ZERO_BY_POSITION + position, ZERO_BY_PAIR + pair)
    if links is not None:
        if links.lowest == links.highest:
            return 0
        contexts.append(N_CONTEXTS + position)
    if not _code(1 if level else 0, contexts, sets, coder, links):
        return 0

    by_balance = signed_class(tables, 4 * balance, 0, 3, 10)
    by_spatial = signed_class(tables, spatial, 2, 2, 16)
    rest = level_class(balance - left - above)
    contexts = [
        SIGN_ENERGY + 8 * signed_class(tables, total, 2, 2, 20) + min(energy >> 4, 7),
        SIGN_SPATIAL + 9 * by_spatial + position,
        SIGN_NEIGHBOURS + 5 * signs + rest,
        SIGN_BALANCE + 20 * (signed_class(tables, prediction, 1, 2, 16) >> 1) + by_balance,
    ]
    if links is not None:
        contexts.append(links.sign_context(left, above, above_left))
    sets = (SIGN_BY_START + min(position, 1), SIGN_BY_ENERGY + min(energy >> 4, 9))
    if links is not None and 0 in (links.lowest, links.highest):
        negative = 1 if links.highest == 0 else 0
    else:
        negative = _code(1 if level < 0 else 0, contexts, sets, coder, links)

    outward = -total if negative else total
    by_energy = 32 * signed_class(tables, outward, 2, 3, 12) + min(energy >> 2, 31)
    by_outward = min(max(outward >> 5, -20), 20) + 20
    neighbours = (pair, by_energy, by_spatial, by_outward)
    if links is None:
        magnitude = code_magnitude(abs(level), negative, position, neighbours, coder)
    else:
        magnitude = links.code_magnitude(
            abs(level), negative, position, neighbours, (tables, registers, coder[4])
        )

    return -magnitude if negative else magnitude


def _code(bit, contexts, sets, coder, links):
    """One decision under some contexts, linked or not."""
    if links is not None:
        return links.code_bit(bit, contexts, sets, (coder[2], coder[3], coder[4]))
    coder[3][CONTEXTS : CONTEXTS + len(contexts)] = contexts
    return code_mixed_bit(bit, len(contexts), sets[0], sets[1], coder)


def predict_linked(row, column, layout, work, links):
    """Predict one kernel's residuals from previous rows and from previous inputs of this row."""
    taps, _, row_weights = layout
    _, _, correlations, history, sums, predictions, _ = work
    n_slots, start = len(correlations), column * taps
    energy = 16 * sums[SQUARES] // (sums[WEIGHTS] + 1)
    by_inputs = links.predict(row, column, energy)
    known = start + row_weights
    for p in range(taps):
        before = history[(start + p) * n_slots : (start + p + 1) * n_slots]
        predictions[p] = by_inputs[p] + prediction_of(correlations, before, energy * known // 16 + 1)


def prediction_of(correlations, residuals, energy):
    """Earlier residuals, each by its correlation with what is known, as linked contexts predict; 1/64 level."""
    shift = max(energy.bit_length() - 12, 0)
    total = 0
    for k in range(len(correlations)):
        total += min(max(correlations[k] >> shift, -4095), 4095) * residuals[k]
    return min(max(4 * total // (energy >> shift), -16384), 16384)


def code_kernel(levels, first, layout, row, column, work, coder, links):
    """One kernel; returns its largest magnitude."""
    taps, kernel_width, row_weights = layout
    column_sums, tap_sums, correlations, history, sums, predictions, factors = work
    tables, registers = coder[2], coder[3]
    start = column * taps
    if links is None:
        predict_from_rows(start, taps, row_weights, correlations, history, sums, predictions, factors)
    else:
        predict_linked(row, column, layout, work, links)
    mean = (64 * sums[MAGNITUDES] + 1024) // (sums[WEIGHTS] + 16)
    row_mean = (64 * sums[ROW_MAGNITUDES] + 30 * mean) // (start + 30)
    column_mean = (64 * column_sums[column] + 80 * mean) // (row * taps + 80)
    expected = min(row_mean * column_mean // (mean + 1), 65535)
    magnitudes, balance, largest = 0, 0, 0

    x, left, left2 = 0, 0, 0
    for p in range(taps):
        here = first + p
        above = levels[here - kernel_width] if p >= kernel_width else 0
        above2 = levels[here - 2 * kernel_width] if p >= 2 * kernel_width else 0
        above_left = levels[here - kernel_width - 1] if p >= kernel_width and x > 0 else 0
        above_right = levels[here - kernel_width + 1] if p >= kernel_width and x + 1 < kernel_width else 0
        spatial = (28 if p >= kernel_width else 31) * left - left2 - 9 * above_left + 4 * above_right
        spatial += (22 if 0 < x < kernel_width - 1 else 27) * above - 4 * above2
        tap_mean = (64 * tap_sums[start + p] + 16 * column_mean) // (row + 16)
        kernel_mean = (64 * magnitudes + 8 * expected) // (p + 8)
        by_kernel, by_tap = tables[LOG2 + min(kernel_mean, MAX_LOG)], tables[LOG2 + min(tap_mean, MAX_LOG)]
        energy = 10 * by_kernel + 6 * by_tap >> 4 if links is None else links.energy(by_kernel, by_tap)
        around = (left, above, above_left, above_right, balance)
        position = min(p, N_POSITIONS - 1)
        if links is not None and p > 0:
            spatial = links.spatial(levels, first, p, spatial)
        level = levels[here] if not registers[DECODING] else 0
        level = code_level(level, position, around, spatial, predictions[p], energy, coder, links)
        levels[here] = level
        if links is not None and p > 0:
            links.learn_tap(p, 64 * level - spatial - predictions[p])
        residual = 16 * level - (spatial >> 2)
        remember_residual(residual, start + p, row, correlations, history, sums)
        if links is not None:
            links.remember(p, column, residual)
        magnitude = abs(level)
        tap_sums[start + p] += magnitude
        magnitudes += magnitude
        balance += level
        largest = max(largest, magnitude)
        x, left2, left = (x + 1, left, level) if x + 1 < kernel_width else (0, 0, 0)

    column_sums[column] += magnitudes
    sums[ROW_MAGNITUDES] += magnitudes
    sums[MAGNITUDES] += magnitudes
    sums[WEIGHTS] += taps

    return largest


def code_kernels(levels, kernels, inputs, layout, limits, work, coder, links):
    """Kernels ``kernels[0] .. kernels[1] - 1`` in file order.

    Returns:
        The number of kernels done: fewer than asked for where a magnitude or the position in the stream
        goes beyond `limits`.
    """
    correlations, sums = work[2], work[4]
    taps = layout[0]
    for kernel in range(kernels[0], kernels[1]):
        row = kernel // inputs
        column = kernel - row * inputs
        if column == 0:
            sums[ROW_MAGNITUDES] = 0
            for slot in range(len(correlations)):
                correlations[slot] = 0
            if links is not None:
                links.begin_row()

        largest = code_kernel(levels, kernel * taps, layout, row, column, work, coder, links)
        if largest > limits[0] or coder[3][POSITION] > limits[1]:
            return kernel - kernels[0]

    return kernels[1] - kernels[0]
