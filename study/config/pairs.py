from study.config.loss import AllPairs, Groups, Negatives, Pairs

__all__ = ["AllPairs", "Groups", "Negatives", "Pairs"]
