"""A logger for ``loggers=my_logger.py``: a line of JSON for everything that happens, for a program that reads along."""

import json
import math
import time

from headstart.run.loggers import Logger


class JsonLines(Logger):
    """Writes ``RUN/loggers/lines.jsonl``."""

    def start(self, settings):
        self.write("start", method=settings.get("options", {}).get("method"))

    def metrics(self, step, values):
        finite = {name: value for name, value in values.items() if math.isfinite(value)}  # JSON knows no NaN
        self.write("metrics", step=step, **finite)

    def event(self, step, kind, message):
        self.write(kind, step=step, message=message)

    def image(self, step, name, path):
        self.write("image", step=step, name=name, path=str(path))

    def finish(self, status):
        self.write("finish", status=status)

    def write(self, what, **values):
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lines.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"what": what, "time": time.time(), **values}) + "\n")
