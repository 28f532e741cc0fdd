"""Passes that spell a graph out more simply: constants computed, operations of nothing left out, weights in place."""
