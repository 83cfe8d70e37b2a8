"""Every detector that Ultralytics builds from a model YAML; see `headstart.detectors.base` for the contract."""

from headstart.detectors.ultralytics.detector import LayerTrunk, UltralyticsDetector, accepts, check, load
from headstart.detectors.ultralytics.handback import load_into

__all__ = ["LayerTrunk", "UltralyticsDetector", "accepts", "check", "load", "load_into"]
