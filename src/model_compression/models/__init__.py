"""Networks, one family per file, built by name."""

from model_compression.models import lenet, nin, whitening_cnn
from model_compression.models.base import MODELS, Network, create_model
from model_compression.models.preprocessing import Preprocessing

__all__ = ["MODELS", "Network", "Preprocessing", "create_model", "lenet", "nin", "whitening_cnn"]
