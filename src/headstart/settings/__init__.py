"""Each option declared once, and what the user gave turned into one resolved value."""

from headstart.settings.schema import AdamWSettings, MethodSettings, PretrainSettings, Scale

__all__ = ["AdamWSettings", "MethodSettings", "PretrainSettings", "Scale"]
