"""Training as library functions: resumable loops, averages of weights, discriminators, losses, generators on pictures,
invertibility networks, encoders.

What is here: ``loop.py`` (checkpoints, averages, logs, validation), ``adversarial.py`` (discriminator, its losses),
``discriminators.py`` (those in files), ``augment.py``, ``plots.py``. For generators ``pictures.py`` (a folder of
pictures as an array), ``settings.py``, ``generator.py`` and ``score.py``; for invertibility networks ``errors.py``
(measured error maps on disk), ``invertibility.py`` (training on such maps) and ``evaluation.py`` (how good predicted
maps are); for encoders ``encoder_settings.py`` (published presets), ``encoder_data.py``, ``encoder_losses.py`` and
``encoder.py``. How to add one: a function that takes a model and a stream of batches and uses :class:`Trainer`. May
import: everything below ``demo``.
"""

from .adversarial import Discriminator, PathLength, discriminator_loss, generator_loss, gradient_penalty
from .augment import Augmentation, DifferentiableAugmentation
from .discriminators import load_discriminator
from .encoder import train_encoder
from .encoder_data import PredictedRegions
from .encoder_settings import PRESETS as ENCODER_PRESETS
from .encoder_settings import EncoderTraining, encoder_training_for
from .errors import ErrorMaps, save_errors
from .evaluation import describe_evaluation, evaluate_invertibility, psnr_lost
from .generator import train_generator
from .invertibility import InvertibilityTraining, config_for, train_invertibility
from .loop import Trainer, TrainerConfig
from .pictures import Pictures, prepare_pictures
from .plots import plot_evaluation, plot_generator, plot_training
from .score import DemoScore
from .settings import GeneratorTraining, training_for

__all__ = [
    "ENCODER_PRESETS",
    "Augmentation",
    "DemoScore",
    "DifferentiableAugmentation",
    "Discriminator",
    "EncoderTraining",
    "ErrorMaps",
    "GeneratorTraining",
    "InvertibilityTraining",
    "PathLength",
    "Pictures",
    "PredictedRegions",
    "Trainer",
    "TrainerConfig",
    "config_for",
    "describe_evaluation",
    "discriminator_loss",
    "encoder_training_for",
    "evaluate_invertibility",
    "generator_loss",
    "gradient_penalty",
    "load_discriminator",
    "plot_evaluation",
    "plot_generator",
    "plot_training",
    "prepare_pictures",
    "psnr_lost",
    "save_errors",
    "train_encoder",
    "train_generator",
    "train_invertibility",
    "training_for",
]
