"""The pages: the explorer of the rules, and the live page of runs while they train."""
