from study.config.model import Vocabulary

__all__ = ["Vocabulary"]
