"""Step 1 of the flow: the training set and the classifier. The only place that knows formats."""
