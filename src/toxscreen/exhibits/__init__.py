"""Between verdict and report: the pictures, words and points that let people see a finding with their own eyes."""
