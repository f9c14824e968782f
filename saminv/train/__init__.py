"""Training as library functions: resumable loops, averages of weights, discriminators, losses, invertibility networks.

What is here: ``loop.py`` (checkpoints, averages, logs, validation), ``adversarial.py`` (discriminator, its losses),
``errors.py`` (measured error maps on disk), ``augment.py``, ``invertibility.py`` (training on such maps),
``evaluation.py`` (how good predicted maps are), ``plots.py``. How to add one: a function that takes a model and a
stream of batches and uses :class:`Trainer`. May import: everything below ``demo``.
"""

from .adversarial import Discriminator, discriminator_loss, generator_loss, gradient_penalty
from .augment import Augmentation
from .errors import ErrorMaps, save_errors
from .evaluation import describe_evaluation, evaluate_invertibility, psnr_lost
from .invertibility import InvertibilityTraining, config_for, train_invertibility
from .loop import Trainer, TrainerConfig
from .plots import plot_evaluation, plot_training

__all__ = [
    "Augmentation",
    "Discriminator",
    "ErrorMaps",
    "InvertibilityTraining",
    "Trainer",
    "TrainerConfig",
    "config_for",
    "describe_evaluation",
    "discriminator_loss",
    "evaluate_invertibility",
    "generator_loss",
    "gradient_penalty",
    "plot_evaluation",
    "plot_training",
    "psnr_lost",
    "save_errors",
    "train_invertibility",
]
