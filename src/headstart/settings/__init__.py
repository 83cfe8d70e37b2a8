"""Each option declared once, and what the user gave turned into one resolved value."""

from headstart.settings.method_options import AdamWSettings, MethodSettings, Scale
from headstart.settings.schema import PretrainSettings

__all__ = ["AdamWSettings", "MethodSettings", "PretrainSettings", "Scale"]
