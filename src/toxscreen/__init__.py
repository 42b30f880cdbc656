"""A tox screen for training data: finds backdoor poison in the data that a classifier was trained on."""
