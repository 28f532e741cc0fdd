"""The published experiment: a problem of three equations in five unknowns, and where each method ended on it.

Every method starts at zero and takes 200 steps of size 0.02 on ``||X w - y||^2``. The digits are those printed by
the series; the rows of the proximal gradient, shown there as plots only, come from an independent implementation.
"""

import numpy as np

from modelpress.toolkit.sparse_regression.objectives import LeastSquares

PROBLEM = LeastSquares(
    np.array([[1.0, -2, -1, -1, 1], [2, -1, 2, 0, -2], [-1, 0, 2, 2, 1]]), np.array([7.0, 1, 1])
)
STEP, STEPS, KEPT = 0.02, 200, 2

GRADIENT_DESCENT = (0.74759615, -2.38942308, 0.12259615, -0.03125, 1.56490385)
ITERATIVE_PRUNING = (0.0, -3.0, 0.0, 0.0, 1.0)
SUBGRADIENT = {  # by lambda
    0.2: (3.73490632e-01, -2.67447522, 3.12622639e-02, 3.51021267e-04, 1.25352897),
    0.5: (9.86962942e-03, -2.94696785, -7.87580251e-04, 8.60508674e-04, 9.57922261e-01),
    1.0: (-0.00767726, -2.89320225, 0.00957581, 0.00316848, 0.91767585),
    2.0: (-0.00552779, -2.77999112, -0.04210149, -0.00459144, 0.84427393),
}
PROXIMAL_GRADIENT = {  # by threshold, lambda times the step size
    0.004: (0.37069944, -2.67566717, 0.03266546, 0.0, 1.25273694),
    0.01: (0.0, -2.94999707, 0.0, 0.0, 0.95833361),
    0.02: (0.0, -2.9, 0.0, 0.0, 0.91666667),
    0.04: (0.0, -2.8, 0.0, 0.0, 0.83333333),
}
TRIMMED_L1 = dict.fromkeys((1.0, 2.0, 5.0, 10.0), (0.0, -3.0, 0.0, 0.0, 1.0))  # by lambda
