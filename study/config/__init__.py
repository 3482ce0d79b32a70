"""What a cell is made of: frozen dataclasses that are checked when built, without jax."""

from study.config.batch_schedule import batch_schedule, branch_from
from study.config.branch import Branch
from study.config.budget import Budget
from study.config.cell import Cell, CellError, from_dict, replace, to_dict
from study.config.data import Blocks, Corruption, Data, Global
from study.config.evals import (
    Eval,
    FewShot,
    MultilingualRetrieval,
    Retrieval,
    ValLoss,
    ZeroShot,
)
from study.config.execution import Execution
from study.config.loss import AllPairs, Groups, Loss, Negatives, Pairs, Sigmoid, Softmax
from study.config.model import CachedImage, MeanPoolText, Model, TextTransformer, ViT
from study.config.optimizer import Adafactor, Adam, Lion, Muon, Optimizer, ParamGroup

__all__ = [
    "Adafactor", "Adam", "AllPairs", "Blocks", "Branch", "Budget", "CachedImage", "Cell",
    "CellError", "Corruption", "Data", "Eval", "Execution", "FewShot", "Global", "Groups", "Lion",
    "Loss", "MeanPoolText", "Model", "MultilingualRetrieval", "Muon", "Negatives", "Optimizer",
    "Pairs", "ParamGroup", "Retrieval", "Sigmoid", "Softmax", "TextTransformer", "ValLoss", "ViT",
    "ZeroShot", "batch_schedule", "branch_from", "from_dict", "replace", "to_dict",
]  # fmt: skip
