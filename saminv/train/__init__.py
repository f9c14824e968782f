"""Training as library functions: resumable loops, averages of weights, discriminators, losses.

What is here: ``loop.py`` (checkpoints, averages, logs), ``adversarial.py`` (discriminator, its losses). How to add
one: a function that takes a model and a stream of batches and uses :class:`Trainer`. May import: everything below
``demo``.
"""

from .adversarial import Discriminator, discriminator_loss, generator_loss, gradient_penalty
from .loop import Trainer, TrainerConfig

__all__ = ["Discriminator", "Trainer", "TrainerConfig", "discriminator_loss", "generator_loss", "gradient_penalty"]
