"""Full-text indexes: what counts as a word, what a query means, and the engines that find it."""
