"""Sparse optimisation of linear models: objectives, proximal operators, solvers, and a study of them."""
