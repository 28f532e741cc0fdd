"""Other data and other networks than CIFAR-10 and its ResNets, from files of a user to a checked bundle."""
