"""Ask the candidate the same questions, compare, and decide."""
