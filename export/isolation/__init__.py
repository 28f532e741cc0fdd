"""Work on models from anywhere in a process of its own, which is ended when it takes too long or dies with nobody."""
