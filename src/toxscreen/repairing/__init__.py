"""Step 11 of the flow: what a verdict leads to, a cleaned data set and a repaired model."""
