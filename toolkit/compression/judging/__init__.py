"""What a run is judged by where it is one of many."""
