"""Encoding 20: linked contexts, where they differ from mixed contexts. Every name is that of FORMAT.md."""

from collections import defaultdict

from tests.reference.mixed_reference import (
    SQUASH,
    STRETCH,
    StreamOfLevels,
    clamp,
    decode_streams,
    lg,
    log,
    mag,
    rate,
    sig,
    slog,
)


def decode_linked(stream, grid, model):
    """Levels of a tensor; ``stream`` stands behind the grid."""
    levels = [v for own in grid.codes_of_levels() for v in own]
    bounds = clamp(min(levels, default=0), -256, 0), clamp(max(levels, default=0), 0, 256)
    return decode_streams(stream, grid, lambda data, geometry: LinkedStream(model, data, geometry, bounds))


def short(v):
    return clamp(v, -32768, 32767)


class LinkedStream(StreamOfLevels):
    def __init__(self, model, data, geometry, bounds):
        super().__init__(model, data, geometry, 256)
        self.lowest, self.highest = bounds
        self.own = defaultdict(lambda: [1 << 21, 0])  # counters of this stream alone
        self.tap_weights = defaultdict(lambda: [0] * 8)
        self.links = defaultdict(int)  # (input, earlier input): d

    # --- Predictions

    def kernel(self, row, column):
        self.row, self.column = row, column
        super().kernel(row, column)

    def predictions_from_rows(self, column):
        mean_square = 16 * self.squares // (self.n + 1)
        by_rows = self.predicted(
            {(j, column): c for j, c in self.correlations.items()},
            mean_square * (column * self.taps + self.inputs * self.taps) // 16 + 1,
        )
        if self.inputs > 4096:
            return by_rows
        earlier = range(max(column - 64, 0), column)
        by_inputs = self.predicted(
            {(self.row, j): self.links[column, j] for j in earlier},
            mean_square * ((self.row + 18) * self.taps) // 16 + 1,
        )
        return [u + v for u, v in zip(by_rows, by_inputs, strict=True)]

    def predicted(self, correlations, q):
        z = 0
        while q >> z >= 1 << 12:
            z += 1
        factors = {place: clamp(c >> z, -4095, 4095) for place, c in correlations.items()}
        sums = [sum(f * self.residuals[place][t] for place, f in factors.items()) for t in range(self.taps)]
        return [clamp(4 * total // (q >> z), -16384, 16384) for total in sums]

    def learn(self, row, column, kernel, residuals):
        super().learn(row, column, kernel, residuals)
        for j in range(max(column - 64, 0), column):
            earlier = self.residuals[row, j]
            self.links[column, j] += sum(r * s for r, s in zip(residuals, earlier, strict=True))

    def spatial(self, kernel):
        a = super().spatial(kernel)
        p = len(kernel)
        if p == 0:
            return a
        self.latest = [clamp(16 * kernel[p - 1 - k], -4095, 4095) if k < p else 0 for k in range(8)]
        weights = self.tap_weights[min(p, 24)]
        return clamp(a + (sum(w * x for w, x in zip(weights, self.latest, strict=True)) >> 12), -16383, 16383)

    def level(self, kernel, a, u, energy):
        v = self.linked_level(kernel, a, u, energy)
        if kernel:
            error = clamp((64 * v - a - u) >> 2, -1023, 1023)
            step = clamp(2**21 * error // (4096 + sum(x * x for x in self.latest)), -32767, 32767)
            weights = self.tap_weights[min(len(kernel), 24)]
            weights[:] = [
                short(w + (step * x + 2048 >> 12)) for w, x in zip(weights, self.latest, strict=True)
            ]
        return v

    def energy(self, kernel_mean, tap_mean):
        self.kernel_mean, self.tap_mean = kernel_mean, tap_mean
        return 12 * lg(kernel_mean) + 8 * lg(tap_mean) >> 4

    # --- Decisions

    def linked_level(self, kernel, a, u, energy):
        left, _, up, _, up_left, up_right = self.neighbours(kernel)
        p, w = len(kernel), a + u
        pos = min(p, 8)
        pair, signs = 5 * mag(left) + mag(up), 5 * sig(left) + sig(up)
        if self.lowest == self.highest:
            return 0
        contexts = (
            9 * log(a, 2, 3, 20) + pos,
            25 * signs + 5 * sig(up_left) + sig(up_right),
            20 * log(w, 2, 2, 20) + min(energy >> 3, 19),
            20 * slog(u, 1, 3, 10) + slog(a, 2, 3, 10),
        )
        if not self.decide("zero", contexts, (pos,), ("zero A", pos), ("zero B", pair)):
            return 0
        balance = sum(kernel)
        contexts = (
            8 * slog(w, 2, 2, 20) + min(energy >> 4, 7),
            9 * slog(a, 2, 2, 16) + pos,
            5 * signs + sig(balance - left - up),
            20 * (slog(u, 1, 2, 16) >> 1) + slog(4 * balance, 0, 3, 10),
        )
        own = 27 * (clamp(left, -4, 4) + 4) + 3 * (clamp(up, -4, 4) + 4) + clamp(up_left, -1, 1) + 1
        if self.lowest == 0 or self.highest == 0:
            g = int(self.highest == 0)
        else:
            g = self.decide("sign", contexts, (own,), ("sign A", min(p, 1)), ("sign B", min(energy >> 4, 9)))
        o = -w if g else w
        contexts = (
            pair,
            32 * slog(o, 2, 3, 12) + min(energy >> 2, 31),
            slog(a, 2, 2, 16),
            clamp(o >> 5, -20, 20) + 20,
        )
        own = 12 * (lg(self.kernel_mean) >> 4) + (lg(self.tap_mean) >> 4)
        m = self.linked_magnitude(g, pos, contexts, (("pair", pair), ("means", own), "alone"))
        return -m if g else m

    def linked_magnitude(self, g, pos, contexts, own):
        most = -self.lowest if g else self.highest

        def node(d):
            return self.decide(f"magnitude {d}", contexts, own, ("magnitude A", d), ("magnitude B", pos))

        e = 0
        while 2 << e <= most and node(2 * e + g):
            e += 1
        m = 1
        for j in range(e):
            if 2 * m + 1 << e - 1 - j > most:
                bit = 0
            else:
                bit = node(2 * (8 + 7 * (e - 1) + m - 1) + g) if j < 3 else self.decoder.decode(32768)
            m = 2 * m + bit
        return m

    def decide(self, group, contexts, own, *sets):
        counters = [self.model.linked[group, table, index] for table, index in enumerate(contexts)]
        counters += [self.own[group, index] for index in own]
        x = [STRETCH[p >> 10] for p, _ in counters] + [256]
        x += [0] * (8 - len(x))
        weights = [self.model.linked_weights.setdefault(name, [3500] * 8) for name in sets]
        t = [clamp(sum(w * y for w, y in zip(row, x, strict=True)) >> 14, -2047, 2047) for row in weights]
        bit = self.decoder.decode(SQUASH[sum(t) >> 1])
        for row, own_t in zip(weights, t, strict=True):
            error = ((65535 if bit else 0) - SQUASH[own_t]) >> 1
            row[:] = [short(w + (y * error + 32768 >> 16)) for w, y in zip(row, x, strict=True)]
        for counter in counters:
            p, visits = counter
            counter[0] += ((4194303 if bit else 0) - p) * rate(visits) >> 16
            counter[1] = min(visits + 1, 1000)
        return bit
