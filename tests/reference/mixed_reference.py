"""Encoding 10: mixed contexts. Every name is that of FORMAT.md, "Mixed contexts"."""

import math
from collections import defaultdict

from tests.reference.streams import read_slabs, require

SLAB_ELEMENTS = ROW_ELEMENTS = 1 << 20
MASK = (1 << 32) - 1


# --- Tables


def squash_table():
    g = [1 << 24]
    for _ in range(2047):
        g.append(g[-1] * 16842880 >> 24)
    positive = [(x << 16) // (x + (1 << 24)) for x in g]
    return dict(enumerate(positive)) | {-n: 65536 - p for n, p in enumerate(positive) if n}


SQUASH = squash_table()
STRETCH = [next((t for t in range(-2047, 2048) if SQUASH[t] >= 16 * i + 8), 2047) for i in range(4096)]


def rate(visits):
    return 655360 // (10 * visits + 16)


def lg(x):
    y = min(x, 16383) + 8
    b = y.bit_length() - 1
    return 16 * (b - 4) + (16 * y >> b)


def clamp(v, low, high):
    return min(max(v, low), high)


# --- Decisions


class MixedModel:
    """What is kept from tensor to tensor: counters (slow, fast, visits) and weight sets, all made when first used."""

    def __init__(self):
        self.counters = defaultdict(lambda: [1 << 21, 1 << 21, 0])
        self.weights = {}
        self.linked = defaultdict(lambda: [1 << 21, 0])  # counters of linked contexts (probability, visits)
        self.linked_weights = {}

    def set_of(self, name, n):
        return self.weights.setdefault(name, [8750 if n == 4 else 7000] * (2 * n + 1))


class ArithmeticDecoder:
    def __init__(self, data):
        self.data = data
        self.low, self.high = 0, MASK
        self.shifts = 0
        self.code = int.from_bytes(data[:4].ljust(4, b"\0"), "big")

    def decode(self, p):
        middle = self.low + ((self.high - self.low) * p >> 16)
        bit = int(self.code <= middle)
        if bit:
            self.high = middle
        else:
            self.low = middle + 1
        while self.low >> 24 == self.high >> 24:
            self.low = self.low << 8 & MASK
            self.high = (self.high << 8 | 255) & MASK
            self.code = (self.code << 8 | self.next_byte()) & MASK
        return bit

    def next_byte(self):
        self.shifts += 1
        require(self.shifts <= len(self.data), "mixed contexts: the stream ends too early")
        return self.data[self.shifts + 3] if self.shifts + 3 < len(self.data) else 0

    def finish(self):
        for k in range(5):
            step = 1 << 32 - 8 * k
            v = -(-self.low // step) * step
            if v <= self.high:
                break
        end = v.to_bytes(5, "big")[1 : 1 + k]
        require(self.data[self.shifts :] == end, "mixed contexts: the stream has another end")


def decision(model, decoder, group, contexts, sets):
    """One bit; ``contexts``: an index in each of the group's tables; ``sets``: of A and B."""
    n = len(contexts)
    counters = [model.counters[group, table, index] for table, index in enumerate(contexts)]
    inputs = [STRETCH[x >> 10] for slow, fast, _ in counters for x in (slow, fast)] + [256]
    weights = [model.set_of(name, n) for name in sets]
    t = [clamp(sum(w * x for w, x in zip(row, inputs, strict=True)) >> 16, -2047, 2047) for row in weights]
    bit = decoder.decode(SQUASH[sum(t) >> 1])
    for row, own in zip(weights, t, strict=True):
        error = (65535 if bit else 0) - SQUASH[own]
        row[:] = [w + (x * error + 32768 >> 16) for w, x in zip(row, inputs, strict=True)]
    s = 4194303 if bit else 0
    for counter in counters:
        slow, fast, visits = counter
        counter[0] += (s - slow) * rate(visits) >> 16
        counter[1] += (s - fast) * rate(min(visits, 20)) >> 16
        counter[2] = min(visits + 1, 1000)
    return bit


# --- Classes


def mag(v):
    return (0, 1, 2, 3, 3)[abs(v)] if abs(v) < 5 else 4


def sig(v):
    if v < 0:
        return 0 if v < -2 else 1
    return 2 if v == 0 else 3 if v <= 2 else 4


def log(v, c, s, n):
    return min(lg(abs(v) >> c) >> s, n - 1)


def slog(v, c, s, n):
    return n - log(v, c, s, n) if v < 0 else n + log(v, c, s, n)


# --- Levels


def decode_mixed(stream, grid, model):
    """Levels of a tensor; ``stream`` stands behind the grid."""
    largest = max((abs(v) for own in grid.codes_of_levels() for v in own), default=0)
    return decode_streams(
        stream, grid, lambda data, geometry: StreamOfLevels(model, data, geometry, min(largest, 256))
    )


def decode_streams(stream, grid, stream_of_levels):
    """Slab by slab."""
    shape = grid.shape
    rows, inputs, taps = (
        (1, math.prod(shape), 1) if len(shape) < 2 else (shape[0], shape[1], math.prod(shape[2:]))
    )
    kernel_width = shape[-1] if len(shape) > 2 else 1
    row_elements = inputs * taps
    require(row_elements <= ROW_ELEMENTS, "mixed contexts: a row is too long")
    slab_rows = max(1, SLAB_ELEMENTS // max(row_elements, 1))
    levels = []
    for slab, n in read_slabs(stream, rows * row_elements, slab_rows * max(row_elements, 1)):
        geometry = (n // row_elements, inputs, taps, kernel_width)
        levels += stream_of_levels(slab.rest(), geometry).decode()
    return levels


class StreamOfLevels:
    """One stream; everything here starts anew with it but the model."""

    def __init__(self, model, data, geometry, largest):
        self.model, self.decoder, self.largest = model, ArithmeticDecoder(data), largest
        self.rows, self.inputs, self.taps, self.kernel_width = geometry
        self.kernels = {}  # (row, input): levels of a kernel
        self.residuals = {}  # (row, input): of each tap
        self.correlations = {}  # of the present row with previous ones: c_j
        self.total = self.n = self.squares = self.row_total = 0  # M, N, Σr² and M of the present row
        self.column_totals = [0] * self.inputs  # M of each input
        self.tap_totals = [[0] * self.taps for _ in range(self.inputs)]  # M of each input and tap

    def decode(self):
        for row in range(self.rows):
            self.row_total = 0
            self.correlations = dict.fromkeys(range(max(row - 64, 0), row), 0)
            for column in range(self.inputs):
                self.kernel(row, column)
        self.decoder.finish()
        places = [(row, column) for row in range(self.rows) for column in range(self.inputs)]
        return [level for place in places for level in self.kernels[place]]

    def kernel(self, row, column):
        mean = (64 * self.total + 1024) // (self.n + 16)
        row_mean = (64 * self.row_total + 30 * mean) // (column * self.taps + 30)
        column_mean = (64 * self.column_totals[column] + 80 * mean) // (row * self.taps + 80)
        expected = min(row_mean * column_mean // (mean + 1), 65535)
        predictions = self.predictions_from_rows(column)
        kernel, residuals = [], []
        for p in range(self.taps):
            tap_mean = (64 * self.tap_totals[column][p] + 16 * column_mean) // (row + 16)
            kernel_mean = (64 * sum(map(abs, kernel)) + 8 * expected) // (p + 8)
            energy = self.energy(kernel_mean, tap_mean)
            a = self.spatial(kernel)
            level = self.level(kernel, a, predictions[p], energy)
            require(abs(level) <= self.largest, "mixed contexts: a magnitude is too large")
            kernel.append(level)
            residuals.append(16 * level - (a >> 2))
        self.learn(row, column, kernel, residuals)

    def energy(self, kernel_mean, tap_mean):
        return 10 * lg(kernel_mean) + 6 * lg(tap_mean) >> 4

    def predictions_from_rows(self, column):
        known = column * self.taps + (15 * self.inputs * self.taps >> 5)
        q = 16 * self.squares // (self.n + 1) * known // 16 + 1
        z = 0
        while q >> z >= 1 << 20:
            z += 1
        factors = {j: clamp(c >> z, -(1 << 20), 1 << 20) for j, c in self.correlations.items()}
        sums = [sum(f * self.residuals[j, column][t] for j, f in factors.items()) for t in range(self.taps)]
        return [clamp(4 * total // (q >> z), -16384, 16384) for total in sums]

    def learn(self, row, column, kernel, residuals):
        self.kernels[row, column], self.residuals[row, column] = kernel, residuals
        for j in self.correlations:
            previous = self.residuals[j, column]
            self.correlations[j] += sum(r * s for r, s in zip(residuals, previous, strict=True))
        magnitudes = [abs(level) for level in kernel]
        self.n += self.taps
        self.squares += sum(r * r for r in residuals)
        self.total += sum(magnitudes)
        self.row_total += sum(magnitudes)
        self.column_totals[column] += sum(magnitudes)
        for p, magnitude in enumerate(magnitudes):
            self.tap_totals[column][p] += magnitude

    def neighbours(self, kernel):
        """L, LL, U, UU, UL, UR of the next level."""
        p, kw = len(kernel), self.kernel_width
        x = p % kw
        left = kernel[p - 1] if x > 0 else 0
        left_left = kernel[p - 2] if x > 1 else 0
        up = kernel[p - kw] if p >= kw else 0
        up_up = kernel[p - 2 * kw] if p >= 2 * kw else 0
        up_left = kernel[p - kw - 1] if p >= kw and x > 0 else 0
        up_right = kernel[p - kw + 1] if p >= kw and x + 1 < kw else 0
        return left, left_left, up, up_up, up_left, up_right

    def spatial(self, kernel):
        p, kw = len(kernel), self.kernel_width
        left, left_left, up, up_up, up_left, up_right = self.neighbours(kernel)
        by_left, by_up = (31 if p < kw else 28), (22 if 0 < p % kw < kw - 1 else 27)
        return by_left * left + by_up * up - 9 * up_left + 4 * up_right - left_left - 4 * up_up

    def level(self, kernel, a, u, energy):
        left, _, up, _, up_left, up_right = self.neighbours(kernel)
        p, w = len(kernel), a + u
        pos = min(p, 8)
        pair, signs = 5 * mag(left) + mag(up), 5 * sig(left) + sig(up)
        contexts = (
            9 * log(a, 2, 3, 20) + pos,
            25 * signs + 5 * sig(up_left) + sig(up_right),
            20 * log(w, 2, 2, 20) + min(energy >> 3, 19),
            20 * slog(u, 1, 3, 10) + slog(a, 2, 3, 10),
        )
        if not self.decide("zero", contexts, ("zero A", pos), ("zero B", pair)):
            return 0
        balance = sum(kernel)
        contexts = (
            8 * slog(w, 2, 2, 20) + min(energy >> 4, 7),
            9 * slog(a, 2, 2, 16) + pos,
            5 * signs + sig(balance - left - up),
            20 * (slog(u, 1, 2, 16) >> 1) + slog(4 * balance, 0, 3, 10),
        )
        g = self.decide("sign", contexts, ("sign A", min(p, 1)), ("sign B", min(energy >> 4, 9)))
        o = -w if g else w
        contexts = (
            pair,
            32 * slog(o, 2, 3, 12) + min(energy >> 2, 31),
            slog(a, 2, 2, 16),
            clamp(o >> 5, -20, 20) + 20,
            0,
        )
        magnitude = self.magnitude(g, pos, contexts)
        return -magnitude if g else magnitude

    def magnitude(self, g, pos, contexts):
        def node(d):
            return self.decide(f"magnitude {d}", contexts, ("magnitude A", d), ("magnitude B", pos))

        e = 0
        while e < 8 and node(2 * e + g):
            e += 1
        m = 1
        for j in range(e):
            bit = node(2 * (8 + 7 * (e - 1) + m - 1) + g) if j < 3 else self.decoder.decode(32768)
            m = 2 * m + bit
        return m

    def decide(self, group, contexts, *sets):
        return decision(self.model, self.decoder, group, contexts, sets)
